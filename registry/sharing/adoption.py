"""Taking a published version into a store: checked on arrival, visible only when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ulid import ULID

from nait_store.errors import ConflictError, FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.registry.payload import PROFILE_FILE
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.sharing.arrival import HeldFiles, check_contents, check_listing, check_record
from nait_store.registry.sharing.departure import describe
from nait_store.registry.sharing.shared_registry import Moved, SharedRegistry
from nait_store.schemas.profile import ProfileManifest, ProfileRecord
from nait_store.schemas.record import FileDigest
from nait_store.schemas.sharing import Origin, Publication, ReferencePolicy
from nait_store.schemas.store_record import SOURCELESS_FEATURE
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance
from nait_store.storage.store_features import announce_feature
from nait_store.storage.versions import VersionNumbers


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes
    ----------
    profile
        The version in the store.
    published
        What it is called in the shared registry.
    url
        The registry.
    created
        False where the store had it: nothing was fetched.
    policy
        What came of the in-domain samples.
    moved
        Files that an earlier, interrupted pull had not fetched, and their bytes.
    size_bytes
        Of all files of the version.
    signed_by
        Names of the trusted keys that signed it.
    """

    profile: Profile
    published: str
    url: str
    created: bool
    policy: ReferencePolicy
    moved: Moved
    size_bytes: int
    signed_by: tuple[str, ...] = ()


class Adoption:
    """A published version on its way into a store.

    Parameters
    ----------
    location
        The store's root.
    source
        Where it comes from.
    publication
        What was published, as its document says.
    signed_by
        Names of the trusted keys that signed it.
    """

    def __init__(
        self, location: Location, source: SharedRegistry, publication: Publication, signed_by: Sequence[str] = ()
    ) -> None:
        self._location = location
        self._source = source
        self._publication = publication
        self._signed_by = tuple(signed_by)
        self._mark = hashlib.sha256(publication.to_json_bytes()).digest()[:6]
        self._registry = ProfileRegistry(location)
        self._log = self._registry.log

    def pull(self) -> Pulled:
        """Take it under its own name and number.

        Raises
        ------
        ConflictError
            The store has another profile of this name and number, or had it and deleted it.
        CorruptChunkError, FormatError
            It is not what it says, or not what a profile may be. Nothing of it stays.
        """
        name, number = self._publication.name, self._publication.number

        def commit(payload: str, record: ProfileRecord) -> ProfileManifest | None:
            manifest = self._manifest(name, number, payload, record, self._log.listing(name))
            try:
                self._log.commit(name, number, manifest)
            except ConflictError:  # somebody was quicker
                return None
            return manifest

        return self._take(name, lambda: self._existing(name, number), commit)

    def pull_as(self, name: str) -> Pulled:
        """Take it under the next number of a name, unless that name has it already; errors as for :meth:`pull`."""

        def commit(payload: str, record: ProfileRecord) -> ProfileManifest | None:
            def propose(numbers: VersionNumbers) -> ProfileManifest | None:
                if self._same_in(name) is not None:
                    return None
                return self._manifest(name, numbers.last + 1, payload, record, numbers)

            return self._log.commit_next(name, propose)

        return self._take(name, lambda: self._same_in(name), commit)

    def _take(
        self,
        name: str,
        existing: Callable[[], Profile | None],
        commit: Callable[[str, ProfileRecord], ProfileManifest | None],
    ) -> Pulled:
        """Fetch into a payload and commit it, unless the version exists, now or by the time that it is fetched."""
        found = existing()
        if found is not None:
            return self._pulled(found, Moved(), created=False)
        payload = self._new_payload()
        folder = layout.payload_folder(Kind.PROFILE, name, payload)
        moved, record = self._fetch(name, folder)
        manifest = commit(payload, record)
        if manifest is not None:
            return self._pulled(Profile(self._location, manifest, record), moved, created=True)
        self._location.delete(folder)
        found = existing()
        if found is None:
            raise ConflictError(
                f"{name} is changing under us: somebody took a version of it back",
                next_step="run the same command again",
            )
        return self._pulled(found, moved, created=False)

    def _existing(self, name: str, number: int) -> Profile | None:
        """The version, where the store has it; ConflictError where it has something else under this number."""
        listing = self._log.listing(name)
        spelled, url = self._publication.spelled, self._source.url
        otherwise = f"take it under the next number with --as {name}, or under another name with --as NAME"
        if number in listing.collected:
            raise ConflictError(f"{spelled} was deleted here, and collected by gc", next_step=otherwise)
        if number not in listing.documents:
            return None
        manifest = self._log.read(name, number)
        if manifest.record_sha256 != self._publication.record_sha256:
            raise ConflictError(
                f"{spelled} in {url} ({describe(self._publication)}) is another profile than {spelled} here, "
                f"which {manifest.provenance.author} made on {manifest.provenance.created_at:%Y-%m-%d}",
                next_step=otherwise,
            )
        if number in listing.deleted:
            raise ConflictError(
                f"{spelled} is here, but was deleted",
                next_step=f"bring it back with 'nait-store profile undelete {spelled}'",
            )
        return self._registry.version(name, number)

    def _same_in(self, name: str) -> Profile | None:
        for manifest in reversed(self._registry.manifests(name)):
            if manifest.record_sha256 == self._publication.record_sha256:
                return self._registry.version(name, manifest.number)
        return None

    def _new_payload(self) -> str:
        """A fresh ULID, half of whose random part says of which publication it is."""
        return str(ULID.from_bytes(ULID().bytes[:6] + self._mark + os.urandom(4)))

    def _earlier_attempts(self, name: str) -> list[str]:
        """Folders in which interrupted pulls of this publication left what they had fetched, newest first."""
        folders = []
        for payload in self._location.names(layout.payload_folder(Kind.PROFILE, name)):
            if _ulid_bytes(payload)[6:12] == self._mark:
                folders.append(layout.payload_folder(Kind.PROFILE, name, payload))
        return folders[::-1]

    def _fetch(self, name: str, folder: str) -> tuple[Moved, ProfileRecord]:
        """Fetch and check every file; what is refused is removed again, and what is interrupted is left for the next.

        Nobody else writes to the folder, so that whoever gives up takes nothing from others.
        """
        where = f"{self._publication.spelled} in {self._source.url}"
        file = check_listing(self._publication, where)
        data = self._source.read(file)
        record = check_record(data, self._publication, f"{where}: {PROFILE_FILE}")
        contents = {PROFILE_FILE: data}
        n_files, n_bytes = 1, len(data)
        earlier = self._earlier_attempts(name)
        try:
            for other in self._publication.objects:
                if other.path in contents:
                    continue
                kept = self._kept(earlier, other)
                if kept is None:
                    n_files, n_bytes = n_files + 1, n_bytes + other.size_bytes
                contents[other.path] = self._source.read(other) if kept is None else kept
                self._location.write_bytes(f"{folder}/{other.path}", contents[other.path])
            check_contents(self._publication, record, HeldFiles(where, contents))
            if record.source is None:
                announce_feature(self._location, SOURCELESS_FEATURE)
            self._location.write_bytes(f"{folder}/{PROFILE_FILE}", data)
        except FormatError:
            self._location.delete(folder)
            raise
        return Moved(n_files, n_bytes), record

    def _kept(self, folders: Sequence[str], file: FileDigest) -> bytes | None:
        """Bytes of a file that an earlier attempt fetched; None where it has to be fetched."""
        for folder in folders:
            path = f"{folder}/{file.path}"
            with contextlib.suppress(NotFoundError):
                if self._location.size_bytes(path) == file.size_bytes:
                    data = self._location.read_bytes(path)
                    if sha256_bytes(data) == file.sha256:
                        return data
        return None

    def _manifest(
        self, name: str, number: int, payload: str, record: ProfileRecord, numbers: VersionNumbers
    ) -> ProfileManifest:
        publication = self._publication
        used = {*numbers.documents, *numbers.deleted, *numbers.collected}
        return ProfileManifest(
            name=name,
            number=number,
            payload=payload,
            record_sha256=publication.record_sha256,
            recipe_sha256=record.recipe_sha256,
            message=publication.message,
            origin=Origin(
                url=self._source.url,
                name=publication.name,
                number=publication.number,
                published_by=publication.provenance.author,
                published_at=publication.provenance.created_at,
                reference=publication.reference,
                signed_by=self._signed_by,
                follows=max((other for other in used if other < number), default=0),
            ),
            provenance=current_provenance(),
        )

    def _pulled(self, profile: Profile, moved: Moved, *, created: bool) -> Pulled:
        return Pulled(
            profile=profile,
            published=self._publication.spelled,
            url=self._source.url,
            created=created,
            policy=self._publication.reference.policy,
            moved=moved,
            size_bytes=self._publication.size_bytes,
            signed_by=self._signed_by,
        )


def _ulid_bytes(text: str) -> bytes:
    """The 16 bytes of a ULID; none of another name."""
    try:
        return ULID.from_str(text).bytes
    except ValueError:
        return b""
