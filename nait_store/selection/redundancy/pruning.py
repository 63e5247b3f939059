"""The ranking without its duplicates, as far down as a selection reaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.schemas.selection import DroppedDuplicates
from nait_store.selection.redundancy.duplicates import Duplicate, DuplicateKind

_MORE = 1.1
_LEAST_MORE = 2048

DUPLICATES_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("duplicate_of", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)
"""Of the samples that were left out, in rank order."""


class Examiner(Protocol):
    """One rule, which sees the ranking from the best sample on."""

    def examine(self, positions: NDArray[np.int64], sample_ids: pa.ChunkedArray) -> list[Duplicate]:
        """Which of the next samples are duplicates of better-ranked ones that it has not found before."""


def with_new_places(rows: pa.Table) -> pa.Table:
    """Number ``place`` from 1 in the order of the rows."""
    column = rows.schema.get_field_index("place")
    return rows.set_column(column, "place", pa.array(np.arange(1, rows.num_rows + 1)))


class PrunedRanking:
    """A ranking that loses its duplicates, the worse-ranked of two, from the top down.

    Whether a sample is left out depends on better-ranked ones alone. So only those are examined that a selection
    reaches, and no more than that are read.

    Parameters
    ----------
    ranking
        The columns of ``placed``, in the order of ``place``.
    examiners
        The rules; each sees what the one before it left.
    """

    def __init__(self, ranking: pa.Table, examiners: Sequence[Examiner]) -> None:
        self._ranking = ranking
        self._examiners = examiners
        self._is_left = np.ones(ranking.num_rows, bool)
        self._n_examined = 0
        self._found: list[Duplicate] = []

    @property
    def n_left(self) -> int:
        """How many have not been found to be duplicates."""
        return int(np.count_nonzero(self._is_left))

    @property
    def left(self) -> pa.Table:
        """What is left, with new places from 1; beyond what was examined nothing is missing yet."""
        if not self._found:
            return self._ranking
        return with_new_places(self._ranking.filter(pa.array(self._is_left)))

    def settle(self, choose: Callable[[pa.Table], tuple[pa.Table, int]]) -> pa.Table:
        """Choose from what is left, examining until all is examined that has a part in the choice.

        Parameters
        ----------
        choose
            Gives rows of the table that it gets, with their ``place``; and the last place that had a part in it: that
            of the last row, or of one that was too long for a budget.

        Returns
        -------
        pyarrow.Table
            What it chose at last.
        """
        while True:
            chosen, last_place = choose(self.left)
            n_reached = self._position(last_place) + 1
            if n_reached <= self._n_examined:
                return chosen
            self._examine(self._further(n_reached))

    def dropped(self, reached: pa.Table) -> tuple[DroppedDuplicates, ...]:
        """How many were left out that are ranked above the last of these samples, by kind."""
        counts = Counter(one.kind for one in self._above(reached))
        return tuple(
            DroppedDuplicates(kind=kind.value, n_samples=counts[kind]) for kind in DuplicateKind if counts[kind]
        )

    def duplicates(self, reached: pa.Table) -> pa.Table:
        """Those, in :data:`DUPLICATES_SCHEMA`."""
        above = self._above(reached)
        ids = self._ranking.column("sample_id")
        columns = [
            ids.take(pa.array([one.position for one in above], pa.int64())),
            ids.take(pa.array([one.of for one in above], pa.int64())),
            pa.array([one.kind.value for one in above], pa.string()),
            pa.array([one.similarity for one in above], pa.float64()),
        ]
        return pa.Table.from_arrays(columns, schema=DUPLICATES_SCHEMA)

    def _above(self, reached: pa.Table) -> list[Duplicate]:
        last = self._position(int(reached.column("place").to_numpy().max())) if reached.num_rows else -1
        return sorted((one for one in self._found if one.position < last), key=lambda one: one.position)

    def _position(self, place: int) -> int:
        """Where the sample stands in the whole ranking, from 0, that has a place among those left; -1 for none."""
        if not place:
            return -1
        positions: NDArray[np.int64] = np.flatnonzero(self._is_left)
        found: int = positions[place - 1].item()
        return found

    def _further(self, n_reached: int) -> int:
        """How many to examine so that it may be enough: as large a part of the rest will be duplicates."""
        n_dropped = len(self._found)
        share_left = 1 - n_dropped / self._n_examined if self._n_examined else 1.0
        n_more = (n_reached - self._n_examined) / max(share_left, 0.05) * _MORE + _LEAST_MORE
        return min(int(self._ranking.num_rows), self._n_examined + int(n_more))

    def _examine(self, n: int) -> None:
        begin = self._n_examined
        for examiner in self._examiners:
            positions = begin + np.flatnonzero(self._is_left[begin:n])
            found = examiner.examine(positions, self._ranking.column("sample_id").take(pa.array(positions)))
            self._is_left[[one.position for one in found]] = False
            self._found += found
        self._n_examined = n
