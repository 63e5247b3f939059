"""Publishing a profile version in a shared registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nait_store.errors import AlreadyExistsError, ConflictError, NotFoundError
from nait_store.registry.profiles import Profile
from nait_store.registry.sharing.packing import pack, read_payload
from nait_store.registry.sharing.shared_registry import Moved, WritableRegistry
from nait_store.registry.sharing.signatures import SigningKey
from nait_store.schemas.sharing import Publication, ReferencePolicy
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location

ReferenceMaker = Callable[[], tuple[ReferencePolicy, bytes | None]]
"""Gives what travels of the in-domain samples; called only when something is published."""


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes
    ----------
    reference
        The version in the store.
    published
        What it is called in the shared registry.
    url
        The registry.
    created
        False where it had been published before: nothing was written.
    policy
        What travelled of the in-domain samples.
    moved
        Files that were not there yet, and their bytes.
    size_bytes
        Of all files of the version.
    notes
        What the user should know.
    """

    reference: str
    published: str
    url: str
    created: bool
    policy: ReferencePolicy
    moved: Moved
    size_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Departure:
    """A profile version on its way to a shared registry.

    Attributes
    ----------
    location
        Root of the store that has it.
    profile
        The version.
    registry
        Where it goes.
    reference
        What travels of its in-domain samples.
    policy
        The policy that was asked for; None where any will do.
    key
        Signs what is published.
    remember
        Told of what is about to be published, before anything is sent, and of what turns out to be there.
    """

    location: Location
    profile: Profile
    registry: WritableRegistry
    reference: ReferenceMaker
    policy: ReferencePolicy | None = None
    key: SigningKey | None = None
    remember: Callable[[Publication], None] = lambda _: None

    def push(self, *, anew: bool = False) -> Pushed:
        """Publish it under its own name and number.

        Parameters
        ----------
        anew
            Write all files again where it has been published: the registry may have lost some.

        Raises
        ------
        ConflictError
            The registry has another profile of this name and number, or this one with other reference samples.
        CorruptChunkError, FormatError
            The store's own files are damaged: nothing was published.
        """
        self.registry.prepare()
        name, number = self.profile.name, self.profile.number
        existing = self.registry.find(name, number)
        if existing is None:
            try:
                return self._publish(name, number)
            except AlreadyExistsError:  # somebody was quicker
                existing = self.registry.find(name, number)
                if existing is None:
                    raise
        return self._meet(existing, anew=anew)

    def push_as(self, name: str) -> Pushed:
        """Publish it under the next number of a name, unless that name has it already; errors as for :meth:`push`."""
        self.registry.prepare()
        while True:
            for existing in self.registry.publications(name):
                if self._is_same(existing) and self.policy in (None, existing.reference.policy):
                    return self._pushed(existing, Moved(), created=False)
            try:
                return self._publish(name, max(self.registry.numbers(name), default=0) + 1)
            except AlreadyExistsError:
                continue  # somebody took the number: perhaps with this very profile

    def _publish(self, name: str, number: int) -> Pushed:
        packed = pack(self.location, self.profile, name, number, *self.reference(), key=self.key)
        self.remember(packed.publication)
        moved = self.registry.publish(packed.publication, packed.contents)
        return self._pushed(packed.publication, moved, created=True)

    def _meet(self, existing: Publication, *, anew: bool) -> Pushed:
        if not self._is_same(existing):
            raise ConflictError(
                f"{existing.spelled} in {self.registry.url} is another profile than {self.profile.reference} here: "
                f"{describe(existing)}{self._difference(existing)}",
                next_step=f"publish yours under the next number with --as {existing.name}, or under another name with "
                f"--as NAME; get theirs with 'nait-store pull {existing.spelled} --as NAME'",
            )
        if self.policy not in (None, existing.reference.policy):
            raise ConflictError(
                f"{existing.spelled} in {self.registry.url} was published with --reference "
                f"{existing.reference.policy.value}, and what is published never changes",
                next_step=f"publish it once more, under the next number, with --as {existing.name}",
            )
        self.remember(existing)
        moved = Moved()
        if anew:
            moved = self.registry.write_files(existing, self._contents_of(existing), anew=True)
        return self._pushed(existing, moved, created=False)

    def _contents_of(self, existing: Publication) -> dict[str, bytes]:
        contents = read_payload(self.location, self.profile)
        file = existing.reference.file
        if file is not None:
            _, data = self.reference()
            if data is None or sha256_bytes(data) != file.sha256:
                raise NotFoundError(
                    f"the reference samples that {existing.spelled} was published with are not in this store any more",
                    next_step="push it anew from the store that published it",
                )
            contents[file.path] = data
        return contents

    def _is_same(self, publication: Publication) -> bool:
        return publication.record_sha256 == self.profile.manifest.record_sha256

    def _difference(self, existing: Publication) -> str:
        if existing.directions_sha256 == self.profile.record.directions_sha256:
            return "; its directions are the same"
        if existing.recipe_sha256 == self.profile.record.recipe_sha256:
            return "; it is of the same recipe on the same inputs"
        return ""

    def _pushed(self, publication: Publication, moved: Moved, *, created: bool) -> Pushed:
        return Pushed(
            reference=self.profile.reference,
            published=publication.spelled,
            url=self.registry.url,
            created=created,
            policy=publication.reference.policy,
            moved=moved,
            size_bytes=publication.size_bytes,
        )


def describe(publication: Publication) -> str:
    """Who published it and when."""
    by = publication.provenance
    return f"published by {by.author} on {by.created_at:%Y-%m-%d}"
