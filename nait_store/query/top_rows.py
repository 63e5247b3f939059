"""The best rows of an alignment and their samples, so that a natural statement joins those and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.query.alignment_table import SCHEMA, Pair
from nait_store.query.sample_relation import SampleRelation
from nait_store.query.spelling import identifier
from nait_store.query.statement import Statement, walk
from nait_store.query.stored_scores import StoredScores
from nait_store.query.top_k import TopK
from nait_store.schemas.activation_set import ROW_BITS

_LARGEST_TOP = 200_000
"""Above this many rows, looking samples up by row saves nothing over the join as written."""
_MOST_TIES = 10_000
_FEW_ROWS = 64


@dataclass(frozen=True)
class BestRows:
    """Rows that hold at least the best n of an alignment: those, and whatever ties with the last of them.

    Attributes
    ----------
    row_ids
        [m] int64, ascending.
    scores
        [m] float64.
    """

    row_ids: NDArray[np.int64]
    scores: NDArray[np.float64]

    @property
    def by_ordinal(self) -> dict[int, NDArray[np.int64]]:
        """Segment ordinal → row indices."""
        ordinals, rows = self.row_ids >> ROW_BITS, self.row_ids & ((1 << ROW_BITS) - 1)
        return {int(ordinal): rows[ordinals == ordinal] for ordinal in np.unique(ordinals)}

    def alignment(self, pair: Pair, sample_ids: pa.ChunkedArray) -> pa.Table:
        """Rows as ``alignment`` gives them; ``sample_ids`` in the same order."""
        n = len(self.row_ids)
        constants = [pa.repeat(pa.scalar(text), n) for text in (pair.version.reference, pair.profile)]
        return pa.table([*constants, pa.array(self.row_ids), sample_ids, pa.array(self.scores)], schema=SCHEMA)


def find_best(scores: StoredScores, pair: Pair, top: TopK, n_rows: int) -> BestRows | None:
    """Find the rows that an order beginning with the score puts first.

    Parameters
    ----------
    scores
        Where scores come from.
    pair
        Set version and profile.
    top
        The recognised select; only the first key of its order is looked at.
    n_rows
        How many rows are wanted.

    Returns
    -------
    BestRows or None
        None where finding them first saves nothing: another first key, nearly all rows, very many ties.
    """
    first = top.order[0]
    if first.column != "score" or not 0 < n_rows < min(pair.version.n_samples, _LARGEST_TOP):
        return None
    candidates = _Candidates(n_rows, descending=first.descending)
    for segment in pair.version.segments:
        values: NDArray[np.float64] = scores.scores(segment, pair.target).to_numpy()
        if np.isnan(values.min(initial=np.inf)):  # which DuckDB puts above everything, and NumPy nowhere
            return None
        candidates.add(segment.ordinal << ROW_BITS, values, pair.version.visible_rows(segment))
    found = candidates.best()
    return found if len(found.row_ids) <= 4 * n_rows + _MOST_TIES else None


class _Candidates:
    """Rows that may be among the best n: those that are no worse than the n-th best of the rows seen so far.

    Most rows cost one comparison, and no copy.
    """

    def __init__(self, n_rows: int, *, descending: bool) -> None:
        self._n_rows = n_rows
        self._sign = 1.0 if descending else -1.0
        self._no_worse = np.greater_equal if descending else np.less_equal
        self._last: float | None = None
        self._parts: list[BestRows] = []
        self._n_kept = 0
        """Rows left by the last look for the n-th best."""
        self._n_waiting = 0
        """Rows added since then."""

    def add(self, first_row_id: int, scores: NDArray[np.float64], visible: NDArray[np.bool_] | None) -> None:
        """Look at the rows of a segment, of which ``visible`` is a mask; no score is NaN."""
        kept = visible
        if self._last is not None:
            kept = self._no_worse(scores, self._last)
            if visible is not None:
                kept &= visible
        rows = np.arange(len(scores)) if kept is None else np.flatnonzero(kept)
        self._parts.append(BestRows(rows + first_row_id, scores[rows]))
        self._n_waiting += len(rows)
        # As many as are kept already: where all scores are equal, nothing is ever dropped.
        if self._n_waiting >= max(self._n_rows, self._n_kept):
            self._narrow()

    def best(self) -> BestRows:
        """What is left at the end."""
        self._narrow()
        return self._parts[0]

    def _narrow(self) -> None:
        merged = BestRows(
            np.concatenate([part.row_ids for part in self._parts]),
            np.concatenate([part.scores for part in self._parts]),
        )
        if len(merged.scores) > self._n_rows:
            at = len(merged.scores) - self._n_rows
            self._last = float(self._sign * np.partition(self._sign * merged.scores, at)[at])
            kept = self._no_worse(merged.scores, self._last)
            merged = BestRows(merged.row_ids[kept], merged.scores[kept])
        self._parts, self._n_kept, self._n_waiting = [merged], len(merged.row_ids), 0


def read_samples(
    relation: SampleRelation,
    rows: BestRows,
    columns: Sequence[str],
    fetch: Callable[[str, Mapping[str, pa.Table]], pa.Table],
) -> pa.Table:
    """Read some columns of the samples of these rows, in the order of ``rows.row_ids``.

    Parameters
    ----------
    relation
        The set version's samples.
    rows
        Which.
    columns
        Of ``relation.columns``; must hold ``row_id``.
    fetch
        Runs SQL that reads these tables besides.
    """
    listed = ", ".join(map(identifier, columns))
    if len(rows.row_ids) <= _FEW_ROWS:
        return fetch(f"SELECT {listed} FROM (\n{relation.sql(rows.by_ordinal)}\n) ORDER BY row_id", {})
    # Many rows are spread over all row groups: one scan with a hash of the rows beats looking them up.
    wanted = {"wanted rows": pa.table({"row_id": rows.row_ids})}
    query = f'SELECT {listed} FROM (\n{relation.sql()}\n) WHERE row_id IN (FROM "wanted rows") ORDER BY row_id'
    return fetch(query, wanted)


def columns_in_use(statement: Statement, top: TopK, columns: Sequence[str]) -> list[str]:
    """Which columns of the samples a statement may look at; too many rather than too few.

    Parameters
    ----------
    statement
        The whole statement.
    top
        The select whose samples are meant.
    columns
        All there are.
    """
    mentioned = {"sample_id", "row_id"}
    for node in walk(statement.root):
        kind = node.get("class")
        if kind == "STAR":
            return list(columns)
        if kind == "COLUMN_REF":
            mentioned.update(name.lower() for name in node["column_names"])
    if top.samples.relation_name.lower() in mentioned and _mentions_whole_rows(statement, top):
        return list(columns)
    return [name for name in columns if name.lower() in mentioned]


def _mentions_whole_rows(statement: Statement, top: TopK) -> bool:
    """Whether the samples' name stands where a column could: ``SELECT s FROM samples(…) s`` is a struct of all."""
    name = top.samples.relation_name.lower()
    return any(
        node.get("class") == "COLUMN_REF" and node["column_names"][-1].lower() == name for node in walk(statement.root)
    )
