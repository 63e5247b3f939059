"""Duplicates by activations: samples whose vectors in the last stored layer have nearly the same direction.

Every sample is compared with every better-ranked one that stays, by their sketches; pairs that may be near enough are
compared by their vectors. A sketch makes the square of a distance twice as large less than once in 10⁸ times, so that
what comes out is what comparing all vectors would give.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.selection.redundancy.duplicates import Duplicate, DuplicateKind
from nait_store.selection.redundancy.vectors import SampleVectors

_STRETCHED = 2.0
_ROUNDING = 1e-5
_SAME = 1e-9
"""What float64 leaves of a difference that is none."""

_ROWS_AT_ONCE = 512
_KEPT_AT_ONCE = 1 << 14


class VectorDuplicates:
    """Finds the samples whose direction a better-ranked sample nearly has.

    Parameters
    ----------
    vectors
        Of the samples.
    threshold
        Cosine from which on they are duplicates.
    """

    def __init__(self, vectors: SampleVectors, threshold: float) -> None:
        self._vectors = vectors
        self._threshold = threshold
        # Of unit vectors the squared distance is 2 − 2 cos.
        self._farthest = 2 * (1 - threshold) * (1.0 if vectors.is_exact else _STRETCHED) + _ROUNDING
        self._kept: list[_Kept] = []

    def examine(self, positions: NDArray[np.int64], sample_ids: pa.ChunkedArray) -> list[Duplicate]:
        """Look at the next samples in rank order; those that are found are no longer there for later ones.

        Parameters
        ----------
        positions
            [m] ascending, above all earlier ones.
        sample_ids
            Theirs.
        """
        row_ids = self._vectors.row_ids(sample_ids)
        sketches = self._vectors.sketches(row_ids)
        found: list[Duplicate] = []
        for start in range(0, len(positions), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            found += self._examine(_Kept(_points(sketches[rows]), positions[rows], row_ids[rows]))
        return found

    def _examine(self, new: _Kept) -> Iterator[Duplicate]:
        of: dict[int, tuple[int, float]] = {}  # row of the new → position of what it is a duplicate of
        units: dict[int, NDArray[np.float64]] = {}
        for kept in self._kept:
            for i, row in kept.near(new, self._farthest):
                if row not in of:
                    self._compare(kept, i, new, row, units, of)
        for i, row in new.near(new, self._farthest):
            if i < row and i not in of and row not in of:
                self._compare(new, i, new, row, units, of)
        stays = np.ones(len(new.positions), bool)
        stays[list(of)] = False
        self._keep(new.where(stays))
        for row in sorted(of):
            position, similarity = of[row]
            yield Duplicate(int(new.positions[row]), position, DuplicateKind.COSINE, similarity)

    def _compare(
        self,
        kept: _Kept,
        i: int,
        new: _Kept,
        row: int,
        units: dict[int, NDArray[np.float64]],
        of: dict[int, tuple[int, float]],
    ) -> None:
        if row not in units:
            units[row] = self._vectors.unit(int(new.row_ids[row]))
        cosine = float(self._vectors.unit(int(kept.row_ids[i])) @ units[row])
        if cosine >= self._threshold - _SAME:
            of[row] = int(kept.positions[i]), min(cosine, 1.0)

    def _keep(self, new: _Kept) -> None:
        """Few large blocks are multiplied faster than many small ones."""
        if self._kept and len(self._kept[-1].positions) + len(new.positions) <= _KEPT_AT_ONCE:
            self._kept[-1] = self._kept[-1].followed_by(new)
        else:
            self._kept.append(new)


class _Kept:
    """Some samples in rank order.

    Parameters
    ----------
    points
        [k, d + 2] float32: sketches, −½ of their squared lengths, and ones; see :func:`_points`.
    positions
        [k] In the ranking.
    row_ids
        [k] In the set.
    """

    def __init__(self, points: NDArray[np.float32], positions: NDArray[np.int64], row_ids: NDArray[np.int64]) -> None:
        self._points = points
        self.positions = positions
        self.row_ids = row_ids

    def near(self, new: _Kept, farthest: float) -> Iterator[tuple[int, int]]:
        """Rows of this and of the new that are not farther apart (squared), by those of the new and then by these."""
        # a·b − ½|a|² − ½|b|², which is −½ of the distance's square, in one product.
        turned = np.concatenate([new._points[:, :-2], new._points[:, :-3:-1]], axis=1)
        rows, others = np.nonzero(turned @ self._points.T >= np.float32(-farthest / 2))
        return zip(others.tolist(), rows.tolist(), strict=True)

    def where(self, mask: NDArray[np.bool_]) -> _Kept:
        """Some of them."""
        return _Kept(self._points[mask], self.positions[mask], self.row_ids[mask])

    def followed_by(self, other: _Kept) -> _Kept:
        """These and others."""
        return _Kept(
            np.concatenate([self._points, other._points]),
            np.concatenate([self.positions, other.positions]),
            np.concatenate([self.row_ids, other.row_ids]),
        )


def _points(sketches: NDArray[np.float32]) -> NDArray[np.float32]:
    halves = np.einsum("ij,ij->i", sketches, sketches) / -2
    return np.column_stack([sketches, halves, np.ones_like(halves)])
