"""Sharing profiles between stores: the registries that a store knows, pushing to them and pulling from them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from nait_store.errors import AlreadyExistsError, InvalidInputError, ReadOnlyError
from nait_store.refs import Kind, check_name, parse_reference
from nait_store.schemas.sharing import Publication, PushRecord, ReferencePolicy
from nait_store.storage import layout
from nait_store.storage.provenance import current_provenance
from nait_store.store.published_profiles import PublishedProfile, list_published
from nait_store.store.remote_names import RemoteNames

if TYPE_CHECKING:
    from nait_store.registry.profiles import Profile
    from nait_store.registry.sharing.adoption import Adoption, Pulled
    from nait_store.registry.sharing.departure import Pushed
    from nait_store.registry.sharing.shared_registry import SharedRegistry, WritableRegistry
    from nait_store.registry.sharing.signatures import SigningKey
    from nait_store.store.bundles import BundleReport
    from nait_store.store.synchronisation import SyncReport

ReferenceChoice = Literal["full", "hashes", "none"]
Direction = Literal["both", "push", "pull"]


class Remotes(RemoteNames):
    """Shared registries, and what goes to and fro.

    A registry is named by its URL, by the name that :meth:`add` gave it, or not at all where the store knows just one.

    Parameters
    ----------
    store
        The store.
    """

    def show(self, remote: str | None = None) -> Sequence[PublishedProfile]:
        """List every version in a registry.

        Parameters
        ----------
        remote
            Name or URL.

        Raises
        ------
        NotFoundError
            No such registry.
        FormatError
            A document in it is not what it should be.
        """
        from nait_store.registry.sharing.shared_registry import SharedRegistry

        shared = SharedRegistry(self._locate(remote))
        shared.check()
        return list_published(self._store, shared)

    def push(
        self,
        reference: str,
        remote: str | None = None,
        *,
        as_name: str | None = None,
        reference_samples: ReferenceChoice | None = None,
        anew: bool = False,
        sign: str | None = None,
    ) -> Pushed:
        """Publish a profile version in a shared registry; only what is missing there is sent.

        Parameters
        ----------
        reference
            ``math`` for the latest version, ``math@3``, ``math@prod``. It keeps its name and number.
        remote
            Name or URL of the registry; the first push to an empty place makes one there.
        as_name
            Publish it under the next number of this name instead.
        reference_samples
            What travels of the in-domain samples: ``full`` records, ``hashes``, or ``none``. By default hashes, if
            the set that the profile was built from still has the samples.
        anew
            Send all files again: the registry may have lost or damaged some.
        sign
            Path of a private Ed25519 key, OpenSSH or PEM, to sign what is published with.

        Raises
        ------
        NotFoundError
            Unknown profile or remote; samples that are not here any more.
        ConflictError
            The registry has another profile of this name and number.
        CorruptChunkError, FormatError
            The store's own files are damaged: nothing was published.
        ReadOnlyError, StorageError
            The registry cannot be written.
        """
        from nait_store.registry.sharing.hub_registry import registry_at

        policy = None if reference_samples is None else _policy(reference_samples)
        profile = self._store.profiles.open(reference)
        if as_name is not None:
            check_name(as_name, Kind.PROFILE)
        key = _key(sign)
        registry = registry_at(self._locate(remote))
        return self._push(profile, registry, policy, key=key, as_name=as_name, anew=anew)

    def pull(
        self,
        reference: str,
        remote: str | None = None,
        *,
        as_name: str | None = None,
        require_signed: bool = False,
    ) -> Pulled:
        """Take a profile version from a shared registry; it is checked before it can be seen.

        Parameters
        ----------
        reference
            ``math`` for the latest version there, or ``math@3``. It keeps its name and number.
        remote
            Name or URL of the registry.
        as_name
            Take it as the next version of this name instead.
        require_signed
            Whether a key that the store trusts must have signed it; a remote that was added so requires it anyway.

        Raises
        ------
        NotFoundError
            No such registry, profile or version.
        UntrustedError
            A signature is required, and there is none.
        ConflictError
            The store has another profile of this name and number.
        CorruptChunkError, FormatError
            What came is not what it says, or not what a profile may be: nothing of it stays.
        """
        from nait_store.registry.sharing.shared_registry import SharedRegistry

        parsed = parse_reference(reference, Kind.PROFILE)
        if as_name is not None:
            check_name(as_name, Kind.PROFILE)
        location = self._locate(remote)
        shared = SharedRegistry(location)
        shared.check()
        adoption = self.adoption(shared, shared.open(parsed), require_signed or self._requires_signed(location))
        return adoption.pull() if as_name is None else adoption.pull_as(as_name)

    def sync(
        self,
        remote: str | None = None,
        names: Sequence[str] = (),
        *,
        direction: Direction = "both",
        dry_run: bool = False,
        sign: str | None = None,
        require_signed: bool = False,
    ) -> SyncReport:
        """Push what a registry misses and pull what the store misses.

        Parameters
        ----------
        remote
            Name or URL of the registry.
        names
            Profiles; by default all that the registry has. A profile that was never pushed is not, unless it is named.
        direction
            ``push`` or ``pull`` for one way only.
        dry_run
            Whether to look only.
        sign, require_signed
            As for :meth:`push` and :meth:`pull`.

        Returns
        -------
        SyncReport
            Conflicts and what was refused are listed in it, and do not keep the rest back.

        Raises
        ------
        NotFoundError
            No such registry, or a name that neither side has.
        FormatError
            The registry's list of versions is damaged.
        ReadOnlyError, StorageError
            One of the two cannot be written.
        """
        from nait_store.registry.sharing.hub_registry import registry_at
        from nait_store.store.synchronisation import Synchronisation

        if direction not in ("both", "push", "pull"):
            raise InvalidInputError(f"{direction!r} is no direction", next_step="choose both, push or pull")
        key = _key(sign)
        location = self._locate(remote)
        required = require_signed or self._requires_signed(location)
        shared = registry_at(location)
        shared.check()
        run = Synchronisation(
            self._store.profiles.registry,
            shared,
            push=lambda profile: self._push(profile, shared, None, key=key),
            adopt=lambda publication: self.adoption(shared, publication, required),
            dry_run=dry_run,
        )
        return run.run(names, pushes=direction != "pull", pulls=direction != "push")

    def export_bundle(
        self,
        references: str | Sequence[str],
        out: str,
        *,
        reference_samples: ReferenceChoice | None = None,
        overwrite: bool = False,
        sign: str | None = None,
    ) -> BundleReport:
        """Write profile versions into one .zip file, for mail or a machine without a network.

        Parameters
        ----------
        references
            ``math@3``, or several.
        out
            Path or fsspec URL of the file.
        reference_samples, sign
            As for :meth:`push`.
        overwrite
            Whether an existing file may be replaced.

        Raises
        ------
        AlreadyExistsError
            The file exists and ``overwrite`` is off.
        NotFoundError
            Unknown profile; samples that are not here any more.
        CorruptChunkError, FormatError
            The store's own files are damaged: nothing was written.
        """
        from nait_store.store.bundles import export_bundle

        policy = None if reference_samples is None else _policy(reference_samples)
        chosen = (references,) if isinstance(references, str) else references
        if not chosen:
            raise InvalidInputError("a bundle of no profiles", next_step="name at least one version, e.g. math@1")
        return export_bundle(self._store, chosen, out, policy=policy, overwrite=overwrite, key=_key(sign))

    def import_bundle(self, file: str, *, as_name: str | None = None, require_signed: bool = False) -> Sequence[Pulled]:
        """Take every version of a bundle; all of them are checked before any is taken.

        Parameters
        ----------
        file
            Path or fsspec URL.
        as_name
            Take the one version that it holds as the next one of this name.
        require_signed
            Whether a key that the store trusts must have signed each version.

        Raises
        ------
        NotFoundError
            No such file.
        ConflictError
            The store has another profile of one of these names and numbers.
        CorruptChunkError, FormatError
            It is no bundle, or what it holds is not what a profile may be: nothing of it was taken.
        """
        from nait_store.store.bundles import import_bundle

        return import_bundle(self._store, file, as_name=as_name, require_signed=require_signed)

    def adoption(self, shared: SharedRegistry, publication: Publication, required: bool) -> Adoption:
        """A published version on its way here; UntrustedError where a trusted signature is required and missing."""
        from nait_store.registry.sharing.adoption import Adoption

        signed_by = self._store.trust.vouch(publication, required=required)
        return Adoption(self._store.location, shared, publication, signed_by)

    def pushed_to(self, name: str, number: int) -> Sequence[PushRecord]:
        """Where a version was pushed to, or was about to be, by this store."""
        folder = layout.pushes_folder(name)
        location = self._store.location
        paths = [f"{folder}/{file}" for file in location.names(folder)]
        found = [PushRecord.from_json_bytes(location.read_bytes(path), location.url_of(path)) for path in paths]
        return [record for record in found if record.number == number]

    def _push(
        self,
        profile: Profile,
        registry: WritableRegistry,
        policy: ReferencePolicy | None,
        *,
        key: SigningKey | None,
        as_name: str | None = None,
        anew: bool = False,
    ) -> Pushed:
        from nait_store.registry.sharing.departure import Departure
        from nait_store.store.shared_reference import TravellingReference

        travelling = TravellingReference(self._store, profile, policy)
        departure = Departure(
            self._store.location,
            profile,
            registry,
            travelling.make,
            policy,
            key,
            remember=lambda publication: self.remember(profile, registry.url, publication),
        )
        pushed = departure.push(anew=anew) if as_name is None else departure.push_as(as_name)
        return dataclasses.replace(pushed, notes=tuple(travelling.notes))

    def remember(self, profile: Profile, url: str, publication: Publication) -> None:
        """Note where a version goes, so that a purge can name the places that hold copies."""
        key = hashlib.sha256(f"{profile.number}\n{url}\n{publication.spelled}".encode()).hexdigest()[:32]
        record = PushRecord(
            number=profile.number,
            url=url,
            published=publication.spelled,
            policy=publication.reference.policy,
            provenance=current_provenance(),
        )
        with contextlib.suppress(AlreadyExistsError, ReadOnlyError):  # a store that is only read can be pushed from
            path = f"{layout.pushes_folder(profile.name)}/{key}.json"
            self._store.location.create_bytes(path, record.to_json_bytes())


def _key(path: str | None) -> SigningKey | None:
    from nait_store.registry.sharing.signatures import SigningKey

    return None if path is None else SigningKey(path)


def _policy(text: str) -> ReferencePolicy:
    try:
        return ReferencePolicy(text)
    except ValueError as error:
        raise InvalidInputError(
            f"{text!r} is no policy for reference samples", next_step="choose full, hashes or none"
        ) from error
