"""Statistics of orderings: the area under the ROC curve, and Spearman's correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def area_under_curve(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float:
    """Probability that a positive [n] scores higher than a negative [m]; equal scores count half.

    Raises
    ------
    ValueError
        One of the two is empty.
    """
    if not len(positives) or not len(negatives):
        raise ValueError("an area under the curve needs scores on both sides")
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left") + np.searchsorted(ordered, positives, side="right")
    return float(below.mean() / (2 * len(ordered)))


def rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Spearman's correlation of two arrays [n]; None where one of them is constant, or there are fewer than 3."""
    return rank_correlations([first, second])[0][1]


def rank_correlations(columns: Sequence[NDArray[Any]]) -> list[list[float | None]]:
    """Spearman's correlation of every two of P arrays [n], [P][P]; None as of :func:`rank_correlation`."""
    if columns and len(columns[0]) < 3:
        return [[None] * len(columns) for _ in columns]
    centred = [ranks - ranks.mean() for ranks in map(_ranks, columns)]

    def correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
        lengths = float(np.sqrt((x @ x) * (y @ y)))
        return None if lengths == 0.0 else float(np.clip(x @ y / lengths, -1.0, 1.0))

    return [[correlation(x, y) for y in centred] for x in centred]


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse.reshape(-1)]
    return ranks
