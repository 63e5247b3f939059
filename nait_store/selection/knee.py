"""The knee of a score curve: how many samples lie before the scores have fallen to their level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import InvalidInputError

_BENT = 0.1
"""A curve that keeps nearer to the straight line than this has no knee to speak of."""


@dataclass(frozen=True)
class Knee:
    """Where a curve of falling scores is farthest from the straight line between its ends.

    Attributes
    ----------
    n_before
        Samples up to there.
    n_candidates
        All of them.
    score
        The lowest of those up to there.
    deviation
        Distance from the line, 0 to 1, in shares of the range of the scores.
    fallen
        Which share of its range the score has lost by there.
    """

    n_before: int
    n_candidates: int
    score: float
    deviation: float
    fallen: float

    @property
    def is_clear(self) -> bool:
        """Whether the curve is bent at all."""
        return self.deviation >= _BENT

    @property
    def in_words(self) -> str:
        """Why this many."""
        share = self.n_before / self.n_candidates
        text = (
            f"the knee of the score curve is after {self.n_before:,} of {self.n_candidates:,} candidates "
            f"({100 * share:.3g} %), at a score of {self.score:.4g}: over these the score falls by "
            f"{100 * self.fallen:.3g} % of its range, over all others by the rest; it lies {self.deviation:.2f} of "
            "that range away from a straight line"
        )
        return text if self.is_clear else f"{text}, which is hardly a knee: a --top of your own is as good"


def find_knee(scores: NDArray[np.float64]) -> Knee:
    """Find the knee of a score curve.

    Both axes run from 0 to 1; the straight line joins the best score to the worst. The knee is where the curve is
    farthest below it, before which the scores fall fast; or farthest above it, after which they do, where that is more
    than twice as far. (The curve of a bell-shaped distribution has both, and the upper one at nearly all samples.)

    Parameters
    ----------
    scores
        [n] in any order.

    Raises
    ------
    InvalidInputError
        Fewer than three scores, or all equal.
    """
    n = len(scores)
    y = np.sort(scores)[::-1]
    if n < 3 or y[0] == y[-1]:
        raise InvalidInputError(
            f"the scores of {n:,} candidates have no knee" + (": they are all equal" if n >= 3 else ""),
            next_step="say how many with --top",
        )
    height = (y - y[-1]) / (y[0] - y[-1])
    deviations = height - np.linspace(1.0, 0.0, n)
    below, above = int(np.argmin(deviations)), int(np.argmax(deviations))
    n_before, deviation = below, -float(deviations[below])
    if deviations[above] > 2 * deviation:
        n_before, deviation = above + 1, float(deviations[above])
    n_before = max(n_before, 1)
    # Where the score has got to by the first sample after the knee.
    fallen = 1.0 - float(height[below] if n_before == below else height[n_before - 1])
    return Knee(n_before, n, float(y[n_before - 1]), max(deviation, 0.0), fallen)
