"""Statistics of orderings: the area under the ROC curve, and Spearman's correlation."""

from __future__ import annotations

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
    if len(first) < 3:
        return None
    x, y = (ranks - ranks.mean() for ranks in (_ranks(first), _ranks(second)))
    lengths = float(np.sqrt((x @ x) * (y @ y)))
    return None if lengths == 0.0 else float(np.clip(x @ y / lengths, -1.0, 1.0))


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse.reshape(-1)]
    return ranks
