"""Whether a version shows a sample id twice: found for every version of a set, looking at repeated ids alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.sample_keys import SegmentKeys
from nait_store.activations.tombstones import Tombstones
from nait_store.schemas.activation_set import ROW_BITS

Codes = NDArray[np.int64]
"""Rows as ordinal · 2^40 + row index, ascending."""


@dataclass(frozen=True)
class VisibleRows:
    """What a version shows.

    Attributes
    ----------
    ordinals
        Of its segments.
    hidden
        Rows that it leaves out.
    n_repeated
        Rows that show an id again.
    """

    ordinals: frozenset[int]
    hidden: Codes
    n_repeated: int

    def leads_to(self, ordinals: frozenset[int], hidden: Codes) -> bool:
        """Whether no id is repeated here, and another version only adds segments and leaves out more."""
        return not self.n_repeated and self.ordinals <= ordinals and bool(np.isin(self.hidden, hidden).all())


class RepeatedIds:
    """The rows of a set whose sample ids other rows have as well.

    Parameters
    ----------
    keys
        Segment ordinal → keys of all its rows.
    blank
        Rows that no version shows.
    """

    def __init__(self, keys: Mapping[int, SegmentKeys], blank: Tombstones) -> None:
        ids = [np.empty(0, "S16"), *(segment.ids for segment in keys.values())]
        rows = [np.empty(0, np.int64)]
        rows += [(ordinal << ROW_BITS) | segment.rows.astype(np.int64) for ordinal, segment in keys.items()]
        all_rows, all_ids = np.concatenate(rows), np.concatenate(ids)
        shown = ~np.isin(all_rows, row_codes(blank))
        all_rows, all_ids = all_rows[shown], all_ids[shown]
        order = np.argsort(all_ids, kind="stable")
        all_rows, all_ids = all_rows[order], all_ids[order]
        same = all_ids[1:] == all_ids[:-1]
        repeated = np.zeros(len(all_ids), dtype=bool)
        repeated[1:] |= same
        repeated[:-1] |= same
        first = np.concatenate([np.ones(min(1, len(all_ids)), bool), ~same])
        self._rows: Codes = all_rows[repeated]
        # Number of each row's group of equal ids, counted over the repeated ones.
        self._groups = np.cumsum(first[repeated]) - 1

    def visible(self, ordinals: Collection[int], hidden: Tombstones, earlier: VisibleRows | None) -> VisibleRows:
        """Count the repetitions in a version.

        Parameters
        ----------
        ordinals
            Of its segments.
        hidden
            Rows that it leaves out.
        earlier
            Another version's; where this one only adds segments to it, the ids of those alone are looked at.
        """
        codes = row_codes(hidden)
        present = frozenset(ordinals)
        among = np.ones(len(self._rows), dtype=bool)
        # A row that was left out and is not any more may repeat an id of any segment.
        if earlier is not None and earlier.leads_to(present, codes):
            added = _among(self._rows, present - earlier.ordinals)
            among = np.isin(self._groups, np.unique(self._groups[added]))
        rows, groups = self._rows[among], self._groups[among]
        seen = _among(rows, present) & ~np.isin(rows, codes)
        counts = np.bincount(groups[seen]) if seen.any() else np.zeros(1, np.int64)
        return VisibleRows(present, codes, int(np.maximum(counts - 1, 0).sum()))


def row_codes(tombstones: Tombstones) -> Codes:
    """Rows of all segments in one ascending array."""
    parts = [np.empty(0, np.int64)]
    parts += [(ordinal << ROW_BITS) | rows.astype(np.int64) for ordinal, rows in sorted(tombstones.items())]
    return np.concatenate(parts)


def _among(rows: Codes, ordinals: Collection[int]) -> NDArray[np.bool_]:
    return np.isin(rows >> ROW_BITS, np.fromiter(ordinals, np.int64, len(ordinals)))
