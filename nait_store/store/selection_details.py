"""Everything about one version of a saved selection: how it was made, and what its samples are like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nait_store.errors import NotFoundError
from nait_store.refs import Kind, Reference, parse_reference
from nait_store.storage.labels import LabelKind
from nait_store.store.kept_versions import labels_on
from nait_store.store.selection_listing import SelectionSummary

if TYPE_CHECKING:
    import pyarrow as pa

    from nait_store.schemas.selection import DroppedDuplicates
    from nait_store.selection.saved import SavedSelection
    from nait_store.store.facade import Store

CONTROLS = (
    "combine",
    "in_domain",
    "fuse",
    "fuse_by",
    "budget_tokens",
    "quota",
    "per",
    "min_score",
    "knee",
    "min_profiles",
    "drop_duplicates",
    "diversity",
    "among",
)
"""What may decide besides strategy, top, condition and seed: fields of the record."""

_FIRST_ROWS = 5
_FIRST_CHARACTERS = 200


@dataclass(frozen=True)
class SampleLengths:
    """How long samples are, in content tokens."""

    mean: float
    median: float
    least: int
    most: int


@dataclass(frozen=True)
class FirstSample:
    """One of the first samples of a selection, with the beginning of its texts."""

    rank: int
    sample_id: str
    score: float | None
    text: str


@dataclass(frozen=True)
class SelectionDetails:
    """One version of a saved selection.

    Attributes
    ----------
    summary
        How it was made, by whom and when.
    versions
        Numbers of the versions that there are.
    controls
        What else decided: ``combine``, ``quota`` … → what was asked for.
    dropped
        Duplicates that were passed over, by kind.
    query
        The SQL that gives it again.
    score_range
        Lowest and highest score; None without a profile, or without a sample.
    sources
        File that the samples came from → how many of them, most first. Empty where the set is gone.
    lengths
        Of its samples, and of all samples of the set version; None where the set is gone.
    lengths_of_set
        See ``lengths``.
    first
        The first few samples, best rank first.
    n_purged
        Samples that a purge took out of it.
    gone
        Which of the versions that it was made from are deleted, and what to do.
    """

    summary: SelectionSummary
    versions: tuple[int, ...]
    controls: Mapping[str, Any]
    dropped: tuple[DroppedDuplicates, ...]
    query: str
    score_range: tuple[float, float] | None
    sources: Mapping[str, int]
    lengths: SampleLengths | None
    lengths_of_set: SampleLengths | None
    first: tuple[FirstSample, ...]
    n_purged: int
    gone: tuple[str, ...]


def describe_selection(store: Store, saved: SavedSelection) -> SelectionDetails:
    """Describe a version; what its set would tell is left out where that is gone."""
    record = saved.record
    selection = saved.selection()
    rows = selection.rows
    gone = missing_parents(store, saved)
    there = has_set(gone)
    return SelectionDetails(
        summary=_summary(store, saved),
        versions=tuple(store.selections.log.numbers(record.name)),
        controls={name: value for name in CONTROLS if (value := getattr(record, name))},
        dropped=record.dropped,
        query=record.query,
        score_range=selection.score_range if rows.num_rows else None,
        sources=values_of(store, record.set_ref, rows) if there else {},
        lengths=lengths_of(store, record.set_ref, rows) if there else None,
        lengths_of_set=lengths_of(store, record.set_ref) if there else None,
        first=first_samples(store, record.set_ref, rows, with_text=there),
        n_purged=saved.n_purged,
        gone=tuple(str(error) for error in gone.values()),
    )


def missing_parents(store: Store, saved: SavedSelection) -> dict[Reference, NotFoundError]:
    """Which of the versions that a selection was made from are deleted, and how to bring them back."""
    record = saved.record
    parents = [parse_reference(record.set_ref, Kind.SET)]
    parents += [parse_reference(one.reference, Kind.PROFILE) for one in record.profiles_with_weights]
    found: dict[Reference, NotFoundError] = {}
    for parent in parents:
        try:
            if parent.kind is Kind.SET:
                store.sets.versions.resolve(parent)
            else:
                store.profiles.registry.log.resolve(parent)
        except NotFoundError as error:
            found[parent] = error
    return found


def has_set(missing: Iterable[Reference]) -> bool:
    """Whether the set is not among the missing parents."""
    return all(parent.kind is not Kind.SET for parent in missing)


def lengths_of(store: Store, set_ref: str, rows: pa.Table | None = None) -> SampleLengths | None:
    """How long the samples of a set version are, or those of ``rows`` alone; None for none."""
    query = (
        "SELECT avg(n_content_tokens), median(n_content_tokens), min(n_content_tokens), max(n_content_tokens) "
        f"FROM samples('{set_ref}')"
    )
    if rows is not None:
        query += " JOIN chosen USING (sample_id)"
    row = store.sql(query, tables=None if rows is None else {"chosen": rows.select(["sample_id"])}).fetchone()
    return SampleLengths(*row) if row is not None and row[0] is not None else None


def values_of(store: Store, set_ref: str, rows: pa.Table, column: str = "source_uri") -> dict[str, int]:
    """Value of a column, as text → how many of a selection's samples have it, most first.

    Raises
    ------
    NotFoundError
        The set has no such column.
    """
    from nait_store.query.spelling import identifier

    query = (
        f"SELECT coalesce({identifier(column)}::VARCHAR, '') AS value, count(*) AS n FROM samples('{set_ref}') "
        "JOIN chosen USING (sample_id) GROUP BY value ORDER BY n DESC, value"
    )
    return dict(store.sql(query, tables={"chosen": rows.select(["sample_id"])}).fetchall())


def _summary(store: Store, saved: SavedSelection) -> SelectionSummary:
    record, manifest = saved.record, saved.manifest
    labels = store.selections.log.labels.of(record.name)
    note = store.selections.note(saved.reference)
    return SelectionSummary(
        reference=saved.reference,
        set_ref=record.set_ref,
        profile_ref=record.ranked_by,
        strategy=record.strategy,
        top=record.top,
        where=record.where,
        seed=record.seed,
        n_candidates=record.n_candidates,
        n_selected=record.n_selected,
        message=manifest.message,
        aliases=labels_on(saved.number, labels, LabelKind.ALIAS),
        tags=labels_on(saved.number, labels, LabelKind.TAG),
        note=note.text if note else "",
        created_at=manifest.provenance.created_at,
        author=manifest.provenance.author,
    )


def first_samples(store: Store, set_ref: str, rows: pa.Table, *, with_text: bool = True) -> tuple[FirstSample, ...]:
    """Describe the few first rows of a selection, with the beginnings of their texts where the set is there."""
    from nait_store.schemas.samples import beginning
    from nait_store.selection.ranked_records import RankedRecords

    rows = rows.slice(0, _FIRST_ROWS)
    if not with_text:
        return tuple(FirstSample(row["rank"], row["sample_id"], row["score"], "") for row in rows.to_pylist())
    with RankedRecords(store.location, store.sets.open(set_ref), rows) as records:
        return tuple(
            FirstSample(one.rank, one.sample_id, one.score, beginning(one.record, _FIRST_CHARACTERS)) for one in records
        )
