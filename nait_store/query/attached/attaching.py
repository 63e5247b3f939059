"""From a store to a DuckDB file: choose versions, see which scores are stored, write the views."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.catalog.build import Catalog
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.query.attached.chosen import Chosen, chosen_profiles, chosen_sets
from nait_store.query.attached.database import ALIGNMENT_COMMENTS, SAMPLE_COMMENTS, AttachedDatabase, View
from nait_store.query.attached.views import ALIGNMENT, SAMPLES, VersionViews, alignment_name, macros, union_all
from nait_store.registry.compatibility import require_compatible
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.scoring.completion import ensure_scores
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid


@dataclass(frozen=True)
class AttachedView:
    """A view of samples or scores.

    Attributes
    ----------
    schema, name
        ``samples`` or ``alignment``, and its name there.
    set_ref, profile_ref
        Versions that it shows; None for samples.
    n_rows
        Samples that it shows.
    """

    schema: str
    name: str
    set_ref: str
    profile_ref: str | None
    n_rows: int


@dataclass(frozen=True)
class MissingScores:
    """Scores of a set that are not stored, and so not attached.

    Attributes
    ----------
    set_ref, profile_refs
        The set version, and the profile versions.
    command
        What computes and keeps them.
    """

    set_ref: str
    profile_refs: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Attachment:
    """What an attached file shows.

    Attributes
    ----------
    snapshot_id
        ULID of the file.
    views
        Of samples, then of scores.
    missing
        Pairs that were left out.
    n_computed
        Scores of segments that were computed for it.
    warnings
        Profiles that fit a set with reservations; documents that could not be read.
    """

    snapshot_id: str
    views: tuple[AttachedView, ...]
    missing: tuple[MissingScores, ...]
    n_computed: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Pair:
    set: Chosen[SetVersion]
    profile: Chosen[Profile]
    target: ScoringTarget

    @property
    def name(self) -> str:
        return alignment_name(self.set.label, self.profile.label)


def attach(
    path: Path,
    location: Location,
    store_id: str,
    sets: ActivationSets,
    registry: ProfileRegistry,
    catalog: Catalog,
    *,
    asked_sets: Sequence[str] = (),
    asked_profiles: Sequence[str] = (),
    compute: bool = False,
    progress: ProgressListener = ignore_progress,
) -> Attachment:
    """Write a DuckDB file with views over a store's samples and stored scores.

    Parameters
    ----------
    path
        Of the file, which must not exist.
    location, store_id, sets, registry, catalog
        The store.
    asked_sets, asked_profiles
        References and patterns; see :func:`~nait_store.query.attached.chosen.chosen_sets`.
    compute
        Whether to compute and keep scores that are missing.
    progress
        Told about scans.

    Raises
    ------
    NotFoundError
        An unknown set, profile or version, a pattern that fits none, or a store without sets.
    IncompatibleError
        A profile that was named fits none of the sets.
    InvalidInputError
        Two pairs whose views would have one name; a store in memory.
    ReadOnlyError
        Scores are to be computed in a store that cannot be written.
    """
    if location.protocol == "memory":
        raise InvalidInputError(
            f"{location.url} lives in this process, where no other program can read it",
            next_step="attach a store in a folder or a bucket",
        )
    chosen = chosen_sets(sets, asked_sets)
    if not chosen:
        raise NotFoundError(f"there is no set in {location.url}", next_step="fill one with 'nait-store ingest'")
    profiles = chosen_profiles(registry, asked_profiles)
    pairs, warnings = _fitting(chosen, profiles)
    _refuse_equal_names(pairs)
    n_computed = _compute(location, pairs, progress) if compute else 0
    stored, others = _divided(location, pairs)
    missing = tuple(_missing(location, others))

    snapshot_id = new_ulid()
    about = current_provenance()
    with AttachedDatabase(path, location) as database:
        problems = database.begin(
            catalog,
            snapshot_id=snapshot_id,
            store_url=location.url,
            store_id=store_id,
            at=about.created_at,
            writer=about.writer,
        )
        views = tuple(_create_views(database, location, chosen, stored))
        for statement in macros(chosen, profiles, snapshot_id):
            database.run(statement)
        database.add_rows(
            "attached_views", [(view.schema, view.name, view.set_ref, view.profile_ref, view.n_rows) for view in views]
        )
        database.add_rows(
            "missing_scores", [(one.set_ref, profile, one.command) for one in missing for profile in one.profile_refs]
        )
    return Attachment(snapshot_id, views, missing, n_computed, tuple(dict.fromkeys([*warnings, *problems])))


def _fitting(sets: Sequence[Chosen[SetVersion]], profiles: Sequence[Chosen[Profile]]) -> tuple[list[_Pair], list[str]]:
    """Pairs of a set and a profile that means something on it, and what to know about them."""
    pairs: list[_Pair] = []
    warnings: list[str] = []
    for profile in profiles:
        refusal: IncompatibleError | None = None
        fits = []
        for one in sets:
            try:
                warnings += require_compatible(profile.version, one.version)
            except IncompatibleError as error:
                refusal = error
                continue
            fits.append(one)
        if fits:
            target = profile.version.target()
            pairs += [_Pair(one, profile, target) for one in fits]
        elif profile.is_named and refusal is not None:
            raise refusal
    return pairs, warnings


def _refuse_equal_names(pairs: Sequence[_Pair]) -> None:
    known: dict[str, _Pair] = {}
    for pair in pairs:
        other = known.setdefault(pair.name, pair)
        if other is not pair:
            raise InvalidInputError(
                f"the scores of {pair.set.label} under {pair.profile.label} and those of {other.set.label} under "
                f"{other.profile.label} would both be called {ALIGNMENT}.{pair.name}",
                next_step="name the sets and profiles of one of them with --set and --profile",
            )


def _compute(location: Location, pairs: Sequence[_Pair], progress: ProgressListener) -> int:
    by_set: dict[str, tuple[SetVersion, list[ScoringTarget]]] = {}
    for pair in pairs:
        version = pair.set.version
        by_set.setdefault(version.reference, (version, []))[1].append(pair.target)
    return sum(ensure_scores(location, version, targets, progress).n_computed for version, targets in by_set.values())


def _divided(location: Location, pairs: Sequence[_Pair]) -> tuple[list[_Pair], list[_Pair]]:
    """The pairs of which every segment has its scores, and the others."""
    needed = [(segment, pair.target) for pair in pairs for segment in pair.set.version.segments]
    there = iter(ScoreSidecars(location).existing(needed))
    stored: list[_Pair] = []
    others: list[_Pair] = []
    for pair in pairs:
        found = [next(there) for _ in pair.set.version.segments]
        (stored if all(found) else others).append(pair)
    return stored, others


def _missing(location: Location, pairs: Sequence[_Pair]) -> Iterator[MissingScores]:
    by_set: dict[str, dict[str, None]] = {}
    for pair in pairs:
        by_set.setdefault(pair.set.version.reference, {})[pair.profile.version.reference] = None
    for set_ref, profiles in by_set.items():
        command = ["nait-store", "--store", location.url, "score", set_ref, *profiles]
        yield MissingScores(set_ref, tuple(profiles), shlex.join(command))


def _create_views(
    database: AttachedDatabase, location: Location, sets: Sequence[Chosen[SetVersion]], stored: Sequence[_Pair]
) -> Iterator[AttachedView]:
    makers = {one.version.reference: VersionViews(location, one.version) for one in sets}
    for one in sets:
        version, maker = one.version, makers[one.version.reference]
        comments = {column.name: f"Field {column.user_field} of the records" for column in maker.relation.user_columns}
        database.create(
            View(
                SAMPLES,
                one.label,
                maker.samples(),
                f"Samples of {version.reference}",
                {name: comments.get(name) or SAMPLE_COMMENTS[name] for name in maker.relation.columns},
            )
        )
        yield AttachedView(SAMPLES, one.label, version.reference, None, version.n_samples)
    everything: dict[str, dict[str, ScoringTarget]] = {}
    for pair in stored:
        set_ref, profile_ref = pair.set.version.reference, pair.profile.version.reference
        everything.setdefault(set_ref, {})[profile_ref] = pair.target
        query = makers[set_ref].alignment({profile_ref: pair.target})
        database.create(
            View(ALIGNMENT, pair.name, query, f"Scores of {set_ref} under {profile_ref}", ALIGNMENT_COMMENTS)
        )
        yield AttachedView(ALIGNMENT, pair.name, set_ref, profile_ref, pair.set.version.n_samples)
    if everything:
        query = union_all([makers[set_ref].alignment(targets) for set_ref, targets in everything.items()])
        comment = "Scores of every pair in the schema alignment; a pair that is not there has no rows"
        database.create(View("main", ALIGNMENT, query, comment, ALIGNMENT_COMMENTS))
