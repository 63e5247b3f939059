"""Purging: samples taken out of everything in a store, for good (docs/concepts.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from nait_store.activations.tombstones import read_tombstones
from nait_store.errors import FormatError, InvalidInputError, NotFoundError, did_you_mean
from nait_store.refs import Kind, parse_reference
from nait_store.schemas.activation_set import ROW_BITS
from nait_store.storage import layout
from nait_store.storage.provenance import now
from nait_store.store.exclusive import exclusive_job
from nait_store.store.purge.purged_set import SetPurge, Tally
from nait_store.store.purge.quotations import find_quotations

if TYPE_CHECKING:
    from nait_store.activations.versions import ActivationSets
    from nait_store.registry.profiles import Profile
    from nait_store.schemas.activation_set import SetManifest
    from nait_store.schemas.profile import ProfilePart, SampleSource
    from nait_store.storage.location import Location
    from nait_store.store.facade import Store

_ABANDONED = timedelta(hours=1)


@dataclass(frozen=True)
class PurgeReport:
    """What a purge did, or under ``dry_run`` would do.

    Attributes
    ----------
    dry_run
        Whether nothing was changed.
    sets
        Names of the sets that were searched, every version of them.
    n_asked, n_found
        Distinct sample ids that were to go, and those that were there.
    not_found
        The others: they never were there, or are gone already.
    n_rows
        Rows of segments that were blanked.
    versions
        The versions that record it; a set whose latest version held none of the samples gets none.
    rewritten
        Segments, payloads of selections and lists of rejects that others, without the samples, stand for now; paths
        below the store's root.
    deleted
        What else was deleted: leftovers that may have held them, and their scores.
    n_cached_files
        Files deleted from this machine's cache of remote stores.
    sources
        Files that the samples were read from: they must be cleaned too.
    remains
        What could not be reached, and what to do about it, in words.
    """

    dry_run: bool
    sets: tuple[str, ...]
    n_asked: int
    n_found: int
    not_found: tuple[str, ...]
    n_rows: int
    versions: tuple[str, ...]
    rewritten: tuple[str, ...]
    deleted: tuple[str, ...]
    n_cached_files: int
    sources: tuple[str, ...]
    remains: tuple[str, ...]


def purge(
    store: Store,
    set: str | None = None,  # noqa: A002  (the option's name on the command line and in Python)
    *,
    ids: Iterable[str] | None = None,
    where: str | None = None,
    everywhere: bool = False,
    reason: str = "",
    dry_run: bool = False,
) -> PurgeReport:
    """Take samples out of every version of a set, or of all sets; see :meth:`nait_store.store.facade.Store.purge`."""
    sets = store.sets.versions
    wanted = _wanted(store, set, ids, where)
    if everywhere:
        if where is not None and set is None:
            raise InvalidInputError(
                "a condition is asked of one set", next_step="name the set that --where is about, or give --ids"
            )
        names = sets.log.all_names()
    else:
        if set is None:
            raise InvalidInputError("which set?", next_step="name a set, or say --everywhere")
        names = [parse_reference(set, Kind.SET).name]
        if names[0] not in sets.log.all_names():
            raise NotFoundError(
                f"there is no set {names[0]!r} in {store.url}", next_step=did_you_mean(names[0], sets.log.all_names())
            )
    tally = Tally()
    if dry_run:
        for name in names:
            SetPurge(store, name, wanted, tally).look()
        _look_at_selections(store.location, names, wanted, tally)
    else:
        store.location.require_writable()
        with contextlib.ExitStack() as jobs:
            held = {name: jobs.enter_context(exclusive_job(store.location, name)) for name in names}
            for name, job_id in held.items():
                SetPurge(store, name, wanted, tally).run(job_id, reason)
            _take_out_of_selections(store.location, names, wanted, tally)
            store.catalog.discard()
        store.refresh()
    return PurgeReport(
        dry_run=dry_run,
        sets=tuple(names),
        n_asked=len(wanted),
        n_found=len(tally.found),
        not_found=tuple(sorted(wanted - tally.found)),
        n_rows=tally.n_rows,
        versions=tuple(tally.versions),
        rewritten=tuple(tally.rewritten),
        deleted=tuple(tally.deleted),
        n_cached_files=tally.n_cached_files,
        sources=tuple(sorted(tally.sources)),
        remains=tuple(_remains(store, names, wanted, tally, dry_run=dry_run)),
    )


def _wanted(store: Store, reference: str | None, ids: Iterable[str] | None, where: str | None) -> frozenset[str]:
    if (ids is None) == (where is None):
        raise InvalidInputError("say which samples", next_step="give either their ids or a condition")
    if ids is not None:
        found = frozenset(ids)
        if "" in found or not found:
            raise InvalidInputError("an empty sample id, or none at all", next_step="give at least one sample id")
        return found
    assert where is not None
    if reference is None:
        return frozenset()
    from nait_store.query.rows import matching_rows

    version = store.sets.open(reference)
    rows = matching_rows(store.session, version, where)
    sample_ids: list[str] = []
    for ordinal, indices in rows.items():
        segment, _ = version.segment_of(ordinal << ROW_BITS)
        sample_ids += segment.samples(["sample_id"]).column(0).take(indices).to_pylist()
    return frozenset(sample_ids)


def _look_at_selections(location: Location, names: Sequence[str], wanted: frozenset[str], tally: Tally) -> None:
    from nait_store.selection.payloads import find_samples

    for named in find_samples(location, names, wanted):
        tally.rewritten.append(layout.payload_folder(Kind.SELECTION, named.manifest.name, named.payload))


def _take_out_of_selections(location: Location, names: Sequence[str], wanted: frozenset[str], tally: Tally) -> None:
    from nait_store.selection.payloads import delete_replaced_payloads, find_samples, take_out

    tally.deleted += delete_replaced_payloads(location)
    while found := find_samples(location, names, wanted):
        for named in found:
            tally.rewritten.append(take_out(location, named, wanted))
    for file in list(location.leftovers(layout.kind_folder(Kind.SELECTION))):
        if file.modified_at is not None and now() - file.modified_at > _ABANDONED:
            location.delete(file.path)
            tally.deleted.append(file.path)


def _remains(store: Store, names: Sequence[str], wanted: frozenset[str], tally: Tally, *, dry_run: bool) -> list[str]:
    remains = []
    profiles = _profiles_built_from(store, names)
    if dry_run:
        profiles = profiles if tally.n_rows else []
    if profiles:
        remains.append(
            f"profiles built when purged samples were in their set, whose directions they may have moved: "
            f"{', '.join(profiles)}; build them again from the latest version, and delete the old ones"
        )
    copies = _pushed_copies(store, names)
    if copies and (tally.n_rows or not dry_run):
        remains.append(
            f"copies of profiles in registries, which a purge does not reach: {', '.join(copies)}; delete them there, "
            "and tell those who pulled them"
        )
    quoted = find_quotations(store.location, wanted)
    if quoted:
        remains.append(f"conditions, queries or messages that quote a sample id and cannot change: {', '.join(quoted)}")
    if not store.location.is_local:
        remains.append(
            "copies of files in the caches of other machines that read this store: delete ~/.cache/nait-store there"
        )
    return remains


def _profiles_built_from(store: Store, names: Sequence[str]) -> list[str]:
    """Profiles whose source or background held samples that have been purged since."""
    held = _Held(store, names)
    return [
        f"profile:{name}@{number}"
        for name in store.profiles.names()
        for number in store.profiles.registry.numbers(name)
        if held.purged(store.profiles.registry.version(name, number))
    ]


def _pushed_copies(store: Store, names: Sequence[str]) -> list[str]:
    """Where such profiles were pushed to, those that are deleted by now included."""
    registry = store.profiles.registry
    held = _Held(store, names)
    found = []
    for name in registry.log.all_names():
        for number in registry.log.listing(name).documents:
            with contextlib.suppress(NotFoundError, FormatError):  # gc took the version's data
                pushes = store.remotes.pushed_to(name, number)
                if pushes and held.purged(registry.version(name, number)):
                    found += [f"{push.published} of {push.url} (--reference {push.policy.value})" for push in pushes]
    return found


class _Held:
    """Knows which profiles were made when samples were there that have been purged since."""

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self._sets = store.sets.versions
        self._profiles = store.profiles.registry
        self._names = names
        self._known: dict[tuple[str, int], bool] = {}
        self._parts: dict[str, bool] = {}

    def purged(self, profile: Profile) -> bool:
        """Whether the profile's source or background held such samples, or those of a profile that is part of it."""
        if profile.manifest.origin is not None:  # its sets and parts are those of another store
            return False
        with contextlib.suppress(NotFoundError):  # the set version was collected
            if self._of(profile.record.source) or self._of(profile.record.background):
                return True
        return any(self._part(part) for part in profile.record.parts or ())

    def _part(self, part: ProfilePart) -> bool:
        if part.reference not in self._parts:
            self._parts[part.reference] = False  # so that forged records, each part of the other, come to an end
            with contextlib.suppress(NotFoundError, FormatError):  # gc took it
                self._parts[part.reference] = self.purged(self._profiles.version(part.name, part.version))
        return self._parts[part.reference]

    def _of(self, source: SampleSource | None) -> bool:
        if source is None or source.set_name not in self._names:
            return False
        key = (source.set_name, source.version)
        if key not in self._known:
            self._known[key] = _has_purged(self._sets, self._sets.log.read(*key))
        return self._known[key]


def _has_purged(sets: ActivationSets, manifest: SetManifest) -> bool:
    """Whether rows that were visible in a version when it was committed have been purged since."""
    refs = manifest.segments
    if manifest.base is not None:
        refs = sets.log.read(manifest.set_name, manifest.base).segments + refs
    hidden = read_tombstones(sets.location, manifest.set_name, manifest.tombstones)
    redirects = sets.redirects(manifest.set_name)
    return any(redirects.purged_rows(ref.segment_id) - set(hidden.get(ref.ordinal, ())) for ref in refs)
