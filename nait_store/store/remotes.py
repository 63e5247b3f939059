"""Sharing profiles between stores: the registries that a store knows, pushing to them and pulling from them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from nait_store.errors import AlreadyExistsError, InvalidInputError, NotFoundError, ReadOnlyError, did_you_mean
from nait_store.refs import Kind, check_name, parse_reference
from nait_store.schemas.sharing import Publication, PushRecord, ReferencePolicy, RemoteRecord
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance

if TYPE_CHECKING:
    from nait_store.registry.profiles import Profile
    from nait_store.registry.sharing.adoption import Pulled
    from nait_store.registry.sharing.departure import Pushed
    from nait_store.registry.sharing.shared_registry import WritableRegistry
    from nait_store.store.bundles import BundleReport
    from nait_store.store.facade import Store
    from nait_store.store.synchronisation import SyncReport

ReferenceChoice = Literal["full", "hashes", "none"]
Direction = Literal["both", "push", "pull"]


@dataclass(frozen=True)
class Remote:
    """A shared registry that the store has a name for.

    Attributes
    ----------
    name, url
        The name, and where it is.
    added_by, added_at
        Who named it, and when.
    """

    name: str
    url: str
    added_by: str
    added_at: datetime


@dataclass(frozen=True)
class PublishedProfile:
    """A version in a shared registry.

    Attributes
    ----------
    reference
        ``math@3``, there.
    published_by, published_at
        Who published it, and when.
    policy
        What can be had of its in-domain samples.
    size_bytes
        Of all its files.
    message
        As given to ``profile build``.
    here
        The version of this store that is the same; empty where there is none.
    """

    reference: str
    published_by: str
    published_at: datetime
    policy: ReferencePolicy
    size_bytes: int
    message: str
    here: str


class Remotes:
    """Shared registries, and what goes to and fro.

    A registry is named by its URL, by the name that :meth:`add` gave it, or not at all where the store knows just one.

    Parameters
    ----------
    store
        The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, name: str, url: str) -> Remote:
        """Give a shared registry a name; it need not exist yet.

        Parameters
        ----------
        name
            The name.
        url
            Folder or fsspec URL, without credentials.

        Raises
        ------
        AlreadyExistsError
            Another registry has this name.
        InvalidInputError
            No valid name or URL, or credentials in it.
        """
        check_name(name, "remote")
        location = self._location(url)
        record = RemoteRecord(name=name, url=location.url, provenance=current_provenance())
        try:
            self._store.location.create_bytes(layout.remote_record(name), record.to_json_bytes())
        except AlreadyExistsError as error:
            known = self._read(name)
            if known is None or known.url != location.url:
                raise AlreadyExistsError(
                    f"there is a remote {name!r} already: {known.url if known else 'it has just been removed'}",
                    next_step=f"choose another name, or 'nait-store remote remove {name}' first",
                ) from error
            return known
        return _remote(record)

    def remove(self, name: str) -> Remote:
        """Forget the name of a registry; what is in the registry stays. NotFoundError for an unknown name."""
        known = self._known(check_name(name, "remote"))
        self._store.location.delete(layout.remote_record(name))
        return known

    def list(self) -> list[Remote]:
        """Registries that have a name, by name."""
        names = (name.removesuffix(".json") for name in self._store.location.names(layout.REMOTES))
        return [remote for name in names if (remote := self._read(name)) is not None]

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
        here = self._references_by_record()
        return [_published(publication, here) for name in shared.names() for publication in shared.publications(name)]

    def push(
        self,
        reference: str,
        remote: str | None = None,
        *,
        as_name: str | None = None,
        reference_samples: ReferenceChoice | None = None,
        anew: bool = False,
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
        from nait_store.registry.sharing.shared_registry import WritableRegistry

        policy = None if reference_samples is None else _policy(reference_samples)
        profile = self._store.profiles.open(reference)
        if as_name is not None:
            check_name(as_name, Kind.PROFILE)
        return self._push(profile, WritableRegistry(self._locate(remote)), policy, as_name=as_name, anew=anew)

    def pull(self, reference: str, remote: str | None = None, *, as_name: str | None = None) -> Pulled:
        """Take a profile version from a shared registry; it is checked before it can be seen.

        Parameters
        ----------
        reference
            ``math`` for the latest version there, or ``math@3``. It keeps its name and number.
        remote
            Name or URL of the registry.
        as_name
            Take it as the next version of this name instead.

        Raises
        ------
        NotFoundError
            No such registry, profile or version.
        ConflictError
            The store has another profile of this name and number.
        CorruptChunkError, FormatError
            What came is not what it says, or not what a profile may be: nothing of it stays.
        """
        from nait_store.registry.sharing.adoption import Adoption
        from nait_store.registry.sharing.shared_registry import SharedRegistry

        parsed = parse_reference(reference, Kind.PROFILE)
        if as_name is not None:
            check_name(as_name, Kind.PROFILE)
        shared = SharedRegistry(self._locate(remote))
        shared.check()
        adoption = Adoption(self._store.location, shared, shared.open(parsed))
        return adoption.pull() if as_name is None else adoption.pull_as(as_name)

    def sync(
        self,
        remote: str | None = None,
        names: Sequence[str] = (),
        *,
        direction: Direction = "both",
        dry_run: bool = False,
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
        from nait_store.registry.sharing.shared_registry import WritableRegistry
        from nait_store.store.synchronisation import Synchronisation

        if direction not in ("both", "push", "pull"):
            raise InvalidInputError(f"{direction!r} is no direction", next_step="choose both, push or pull")
        shared = WritableRegistry(self._locate(remote))
        shared.check()
        run = Synchronisation(
            self._store.location,
            self._store.profiles.registry,
            shared,
            lambda profile: self._push(profile, shared, None),
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
    ) -> BundleReport:
        """Write profile versions into one .zip file, for mail or a machine without a network.

        Parameters
        ----------
        references
            ``math@3``, or several.
        out
            Path or fsspec URL of the file.
        reference_samples
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
        return export_bundle(self._store, chosen, out, policy=policy, overwrite=overwrite)

    def import_bundle(self, file: str, *, as_name: str | None = None) -> Sequence[Pulled]:
        """Take every version of a bundle; all of them are checked before any is taken.

        Parameters
        ----------
        file
            Path or fsspec URL.
        as_name
            Take the one version that it holds as the next one of this name.

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

        return import_bundle(self._store, file, as_name=as_name)

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

    def _locate(self, remote: str | None) -> Location:
        if remote is None:
            known = self.list()
            if len(known) != 1:
                raise InvalidInputError(
                    "which registry?" if known else "no registry was named, and the store knows none",
                    next_step=f"name one of {', '.join(each.name for each in known)}"
                    if known
                    else "give its URL, or name one with 'nait-store remote add NAME URL'",
                )
            return self._location(known[0].url)
        if "/" in remote or remote.startswith("."):
            return self._location(remote)
        return self._location(self._known(check_name(remote, "remote")).url)

    def _location(self, url: str) -> Location:
        location = Location(url)
        if location.url == self._store.location.url:
            raise InvalidInputError(
                f"{location.url} is this store itself", next_step="name another folder or prefix for the registry"
            )
        return location

    def _known(self, name: str) -> Remote:
        known = self._read(name)
        if known is None:
            names = [remote.name for remote in self.list()]
            raise NotFoundError(
                f"there is no remote {name!r}",
                next_step=f"{did_you_mean(name, names)} (a folder is written ./{name})",
            )
        return known

    def _read(self, name: str) -> Remote | None:
        path = layout.remote_record(name)
        location = self._store.location
        try:
            return _remote(RemoteRecord.from_json_bytes(location.read_bytes(path), location.url_of(path)))
        except NotFoundError:
            return None

    def _references_by_record(self) -> Mapping[str, Sequence[str]]:
        registry = self._store.profiles.registry
        found: dict[str, list[str]] = {}
        for name in registry.names():
            for manifest in registry.manifests(name):
                found.setdefault(manifest.record_sha256, []).append(f"{name}@{manifest.number}")
        return found


def _remote(record: RemoteRecord) -> Remote:
    return Remote(record.name, record.url, record.provenance.author, record.provenance.created_at)


def _published(publication: Publication, here: Mapping[str, Sequence[str]]) -> PublishedProfile:
    same = here.get(publication.record_sha256, ())
    return PublishedProfile(
        reference=publication.spelled,
        published_by=publication.provenance.author,
        published_at=publication.provenance.created_at,
        policy=publication.reference.policy,
        size_bytes=publication.size_bytes,
        message=publication.message,
        here=publication.spelled if publication.spelled in same else next(iter(same), ""),
    )


def _policy(text: str) -> ReferencePolicy:
    try:
        return ReferencePolicy(text)
    except ValueError as error:
        raise InvalidInputError(
            f"{text!r} is no policy for reference samples", next_step="choose full, hashes or none"
        ) from error
