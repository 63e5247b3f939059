"""Several saved selections beside each other: what they share, and what the samples of each are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nait_store.errors import InvalidInputError
from nait_store.store.selection_details import SampleLengths, has_set, lengths_of, missing_parents, values_of

if TYPE_CHECKING:
    import pyarrow as pa

    from nait_store.selection.saved import SavedSelection
    from nait_store.store.facade import Store

_FIRST = 5


@dataclass(frozen=True)
class ComparedSelection:
    """One of the selections.

    Attributes
    ----------
    reference
        Resolved, ``best@1``.
    n_samples
        How many it has.
    mean_score, score_range
        Of its own scores, and their lowest and highest; None where it has none.
    lengths
        Of its samples; None where the set is gone.
    values
        Value of the column compared by → its samples; empty where the set is gone.
    n_only
        Samples that no other one has.
    only_ids
        Ids of the best few of these.
    """

    reference: str
    n_samples: int
    mean_score: float | None
    score_range: tuple[float, float] | None
    lengths: SampleLengths | None
    values: Mapping[str, int]
    n_only: int
    only_ids: tuple[str, ...]


@dataclass(frozen=True)
class SelectionComparison:
    """What selections share.

    Attributes
    ----------
    by
        Column whose values are counted.
    selections
        In the order in which they were named.
    n_common
        Samples that each pair has in common, [k][k]; on the diagonal those of one.
    n_in_all, n_in_any
        Samples of all of them, and of at least one.
    gone
        Why something cannot be told any more.
    rows
        Every sample of any of them: ``sample_id``, ``n_selections``, and under each reference its rank there, or null.
    """

    by: str
    selections: tuple[ComparedSelection, ...]
    n_common: tuple[tuple[int, ...], ...]
    n_in_all: int
    n_in_any: int
    gone: tuple[str, ...]
    rows: pa.Table = field(repr=False, compare=False)

    @property
    def overlaps(self) -> tuple[tuple[float, ...], ...]:
        """Samples of both among those of either, 0 to 1, of each pair; 1 for two empty ones."""
        sizes = [one.n_samples for one in self.selections]
        return tuple(
            tuple(
                common / (sizes[i] + sizes[j] - common) if sizes[i] + sizes[j] else 1.0 for j, common in enumerate(row)
            )
            for i, row in enumerate(self.n_common)
        )


def compare_selections(store: Store, saved: Sequence[SavedSelection], by: str) -> SelectionComparison:
    """Compare opened versions; see :meth:`~nait_store.store.selections.Selections.compare`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = [one.reference for one in saved]
    if len(names) < 2:
        raise InvalidInputError("a comparison needs two selections at least", next_step="name another one")
    if len(set(names)) < len(names):
        raise InvalidInputError(
            f"a selection is named twice: {', '.join(names)}", next_step="name each version once, best@1 best@2"
        )
    tables = [one.rows() for one in saved]
    ids = pa.chunked_array([chunk for table in tables for chunk in table.column("sample_id").chunks], pa.string())
    counts = pc.value_counts(ids)
    every, n_selections = counts.field("values"), counts.field("counts")
    only = every.filter(pc.equal(n_selections, 1))
    columns = {"sample_id": every, "n_selections": n_selections}
    for name, table in zip(names, tables, strict=True):
        places = pc.index_in(every, table.column("sample_id").combine_chunks())
        columns[name] = table.column("rank").combine_chunks().take(places)
    common = tuple(
        tuple(pc.sum(pc.is_in(one.column("sample_id"), other.column("sample_id"))).as_py() or 0 for other in tables)
        for one in tables
    )
    compared: list[ComparedSelection] = []
    gone: dict[str, None] = {}
    for one, table in zip(saved, tables, strict=True):
        missing = missing_parents(store, one)
        gone |= {str(error): None for error in missing.values()}
        there = has_set(missing) and table.num_rows > 0
        alone = table.filter(pc.is_in(table.column("sample_id"), only)).column("sample_id")
        extremes = pc.min_max(table.column("score")).as_py()
        compared.append(
            ComparedSelection(
                reference=one.reference,
                n_samples=table.num_rows,
                mean_score=pc.mean(table.column("score")).as_py(),
                score_range=None if extremes["min"] is None else (extremes["min"], extremes["max"]),
                lengths=lengths_of(store, one.record.set_ref, table) if there else None,
                values=values_of(store, one.record.set_ref, table, by) if there else {},
                n_only=len(alone),
                only_ids=tuple(alone.slice(0, _FIRST).to_pylist()),
            )
        )
    return SelectionComparison(
        by=by,
        selections=tuple(compared),
        n_common=common,
        n_in_all=pc.sum(pc.equal(n_selections, len(names))).as_py() or 0,
        n_in_any=len(every),
        gone=tuple(gone),
        rows=pa.table(columns).sort_by([("n_selections", "descending"), ("sample_id", "ascending")]),
    )
