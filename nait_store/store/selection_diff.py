"""In what two saved selections differ: their samples, how these score, and how long they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nait_store.store.selection_details import CONTROLS, has_set, lengths_of, missing_parents

if TYPE_CHECKING:
    import pyarrow as pa

    from nait_store.selection.saved import SavedSelection
    from nait_store.store.facade import Store

_FIRST = 5
_OPTIONS = (
    "combine",
    "in_domain",
    "fuse",
    "fuse_by",
    "budget_tokens",
    "quota",
    "per",
    "min_score",
    "knee",
    "drop_duplicates",
    "diversity",
    "among",
)


@dataclass(frozen=True)
class SelectionPart:
    """Samples that two selections have in common, or that only one of them has.

    Attributes
    ----------
    n_samples
        How many.
    mean_score_first, mean_score_second
        Mean of their scores in the first selection and in the second; None where that has none of them, or no scores.
    mean_tokens
        Mean of their content tokens; None where there are none, or where the set is gone.
    """

    n_samples: int
    mean_score_first: float | None
    mean_score_second: float | None
    mean_tokens: float | None


@dataclass(frozen=True)
class SelectionDiff:
    """In what two versions differ.

    Attributes
    ----------
    first, second
        The versions, resolved.
    both, only_first, only_second
        Samples of both, and of one alone.
    first_ids, second_ids
        Ids of the best few that only the first has, and only the second.
    n_moved
        Samples of both whose rank differs.
    largest_score_difference
        Of the samples of both; None where one of the two has no scores.
    settings
        What differs of set, profile, strategy …: name → value of the first and of the second.
    gone
        Why something cannot be told any more.
    rows
        Every sample that only one of them has: ``only_in`` (the reference), ``rank``, ``sample_id``, ``score``.
    """

    first: str
    second: str
    both: SelectionPart
    only_first: SelectionPart
    only_second: SelectionPart
    first_ids: tuple[str, ...]
    second_ids: tuple[str, ...]
    n_moved: int
    largest_score_difference: float | None
    settings: Mapping[str, tuple[Any, Any]]
    gone: tuple[str, ...]
    rows: pa.Table = field(repr=False, compare=False)

    @property
    def overlap(self) -> float:
        """Samples of both among those of either, 0 to 1; 1 for two empty ones."""
        n_either = self.both.n_samples + self.only_first.n_samples + self.only_second.n_samples
        return self.both.n_samples / n_either if n_either else 1.0


def diff_selections(store: Store, first: SavedSelection, second: SavedSelection) -> SelectionDiff:
    """Compare two opened versions; see :meth:`~nait_store.store.selections.Selections.diff`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    before, after = first.rows(), second.rows()
    in_second = pc.is_in(before.column("sample_id"), after.column("sample_id"))
    in_first = pc.is_in(after.column("sample_id"), before.column("sample_id"))
    only_first, only_second = before.filter(pc.invert(in_second)), after.filter(pc.invert(in_first))
    order = [("sample_id", "ascending")]
    common, common_after = before.filter(in_second).sort_by(order), after.filter(in_first).sort_by(order)
    differences = pc.abs(pc.subtract(common.column("score"), common_after.column("score")))
    gone = {saved.reference: missing_parents(store, saved) for saved in (first, second)}

    def part(rows: pa.Table, scores: tuple[pa.Table | None, pa.Table | None], owner: SavedSelection) -> SelectionPart:
        there = rows.num_rows and has_set(gone[owner.reference])
        lengths = lengths_of(store, owner.record.set_ref, rows) if there else None
        means = [None if one is None else pc.mean(one.column("score")).as_py() for one in scores]
        return SelectionPart(rows.num_rows, means[0], means[1], lengths.mean if lengths else None)

    return SelectionDiff(
        first=first.reference,
        second=second.reference,
        both=part(common, (common, common_after), first),
        only_first=part(only_first, (only_first, None), first),
        only_second=part(only_second, (None, only_second), second),
        first_ids=tuple(only_first.column("sample_id").slice(0, _FIRST).to_pylist()),
        second_ids=tuple(only_second.column("sample_id").slice(0, _FIRST).to_pylist()),
        n_moved=pc.sum(pc.not_equal(common.column("rank"), common_after.column("rank"))).as_py() or 0,
        largest_score_difference=pc.max(differences).as_py(),
        settings={
            name: (value, other)
            for (name, value), (_, other) in zip(_settings(first), _settings(second), strict=True)
            if value != other
        },
        gone=tuple(dict.fromkeys(str(error) for errors in gone.values() for error in errors.values())),
        rows=pa.concat_tables(
            rows.add_column(0, "only_in", pa.array([saved.reference] * rows.num_rows, pa.string()))
            for rows, saved in ((only_first, first), (only_second, second))
        ),
    )


def _settings(saved: SavedSelection) -> Iterator[tuple[str, Any]]:
    record = saved.record
    yield "set", record.set_ref
    yield "profile", record.ranked_by
    yield "candidates", record.n_candidates
    yield "strategy", record.strategy
    yield "top", record.top
    yield "where", record.where
    yield "seed", record.seed
    for name in CONTROLS:
        yield name.replace("_", " "), getattr(record, name) or None
    for name in sorted(record.parameters):
        yield name, record.parameters[name]
