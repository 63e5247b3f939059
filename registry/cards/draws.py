"""Which of the in-domain samples are drawn, halved and held out to measure a card.

Drawn by hashes of sample ids: the same samples give the same card, in whatever order and in however many segments they
are stored, and with every release of NumPy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.registry.cards.subset_directions import SubsetDirections
from nait_store.schemas.quality_card import LearningPoint

DRAWS = 8
FOLDS = 5
FEWEST_SAMPLES = 4
"""Fewer cannot be halved into something that has a direction."""

SMALLEST_DRAW = 16
"""The paper tries no fewer."""


@dataclass(frozen=True)
class DrawPlan:
    """Which samples each direction is made of.

    Attributes
    ----------
    orders
        A random order of the rows per draw, [DRAWS, M]; empty where there are too few samples.
    sizes
        Of the draws, ascending.
    subsets
        Of every draw and size the first so many rows and, where they have none in common, the last so many; then what
        is left of each fold.
    pairs
        Size → indices into ``subsets`` of the first ones and, index by index, the last ones.
    folds
        Rows held out, one array a fold; their complements are the last of ``subsets``.
    """

    orders: NDArray[np.int64]
    sizes: tuple[int, ...]
    subsets: tuple[NDArray[np.int64], ...]
    pairs: dict[int, tuple[list[int], list[int]]]
    folds: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, ids: Sequence[str]) -> DrawPlan:
        """Plan the draws of samples with these ids."""
        n_samples = len(ids)
        if n_samples < FEWEST_SAMPLES:
            return cls(np.empty((0, n_samples), dtype=np.int64), (), (), {}, ())
        orders = np.stack([_order(ids, draw) for draw in range(DRAWS)])
        sizes = {n_samples // 2}
        size = SMALLEST_DRAW
        while size < n_samples:
            sizes.add(size)
            size *= 2
        subsets: list[NDArray[np.int64]] = []
        pairs: dict[int, tuple[list[int], list[int]]] = {}
        for size in sorted(sizes):
            first, last = pairs[size] = ([], [])
            for order in orders:
                first.append(len(subsets))
                subsets.append(order[:size])
                if 2 * size <= n_samples:
                    last.append(len(subsets))
                    subsets.append(order[-size:])
        folds = tuple(orders[0][fold::FOLDS] for fold in range(min(FOLDS, n_samples)))
        subsets += [np.setdiff1d(orders[0], held_out) for held_out in folds]
        return cls(orders, tuple(sorted(sizes)), tuple(subsets), pairs, folds)

    @property
    def halves(self) -> tuple[list[int], list[int]]:
        """Indices into ``subsets`` of the first and of the second half of every draw."""
        return self.pairs[self.orders.shape[1] // 2]

    @property
    def without_folds(self) -> list[int]:
        """Indices into ``subsets`` of what is left of each fold."""
        return list(range(len(self.subsets) - len(self.folds), len(self.subsets)))

    def curve(self, directions: SubsetDirections, drawn: NDArray[np.float64]) -> list[tuple[float, float | None]]:
        """One layer's cosines, to the profile and between draws, per size; means over the draws."""
        found = []
        for size in self.sizes:
            first, last = self.pairs[size]
            between = float(directions.cosines(drawn[first], drawn[last]).mean()) if last else None
            found.append((float(directions.cosines_to_start(drawn[[*first, *last]]).mean()), between))
        return found

    def points(self, curves: Sequence[Sequence[tuple[float, float | None]]]) -> tuple[LearningPoint, ...]:
        """The curve over all layers."""
        return tuple(
            LearningPoint(
                n_samples=size,
                profile_cosine=float(np.mean([curve[i][0] for curve in curves])),
                draws_cosine=float(np.mean([curve[i][1] for curve in curves])) if self.pairs[size][1] else None,
            )
            for i, size in enumerate(self.sizes)
        )


def _order(ids: Sequence[str], draw: int) -> NDArray[np.int64]:
    """Rows in an order that only their ids and the draw decide."""
    hashes = [hashlib.sha256(f"card {draw}:{sample_id}".encode()).digest() for sample_id in ids]
    return np.array(sorted(range(len(ids)), key=hashes.__getitem__), dtype=np.int64)
