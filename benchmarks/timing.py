"""Interleaved rounds, medians, and ratios taken round by round with an interval."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ROUNDS = 9
LEAST_ROUNDS = 5
SLOW_ROUNDS = 3
SECONDS = "NAIT_BENCH_SECONDS"
"""Environment variable: seconds after which :func:`interleave` begins no further round, once :data:`LEAST_ROUNDS` are
done; run_all sets it, so that one slow table does not take an hour."""


@dataclass(frozen=True)
class Timing:
    """One case's wall times, one a round, in seconds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> str:
        """Fastest and slowest round, in milliseconds."""
        return f"{min(self.seconds) * 1e3:,.1f}–{max(self.seconds) * 1e3:,.1f}"


@dataclass(frozen=True)
class Ratio:
    """Pair-by-pair ratio of two interleaved cases.

    ``low`` and ``high`` bound its median: order statistics of the pairs' ratios with at least 95 % coverage, or all
    of them where there are too few pairs (fewer than 6) for that.
    """

    median: float
    low: float
    high: float
    n_pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f}× ({self.low:.2f}–{self.high:.2f})"


def interleave(
    cases: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    *,
    warmups: int = 1,
    before: Callable[[str], object] | None = None,
    slow_seconds: float = math.inf,
) -> dict[str, Timing]:
    """Time the cases in turn, A B A B …, so that whatever else the machine does hits them alike.

    Parameters
    ----------
    cases
        Name → what to time. Every second round runs them in reverse order.
    rounds
        How often each is timed.
    warmups
        Untimed runs of each beforehand (compilation, page cache).
    before
        Called with the case's name before each run, untimed: to remove what the last run cached.
    slow_seconds
        A case whose warm-up takes longer than this is timed in the first :data:`SLOW_ROUNDS` rounds only.

    Returns
    -------
    dict of str to Timing
        In the order given; the i-th time of each belongs to the i-th round.
    """
    order = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    slow: set[str] = set()
    budget_seconds = float(os.environ.get(SECONDS, "inf"))
    began = time.perf_counter()
    for number in range(-warmups, rounds):
        if number >= LEAST_ROUNDS and time.perf_counter() - began > budget_seconds:
            break
        for name in order if number % 2 == 0 else reversed(order):
            if name in slow and number >= SLOW_ROUNDS:
                continue
            if before is not None:
                before(name)
            gc.collect()
            started = time.perf_counter()
            cases[name]()
            elapsed = time.perf_counter() - started
            if number >= 0:
                seconds[name].append(elapsed)
            elif elapsed > slow_seconds:
                slow.add(name)
    return {name: Timing(name, tuple(values)) for name, values in seconds.items()}


def ratio(numerator: Timing, denominator: Timing) -> Ratio:
    """Ratio of two cases of one :func:`interleave`, round by round: ``ratio(reference, ours)`` is the speed-up.

    Over the rounds that both were timed in.
    """
    n_rounds = min(len(numerator.seconds), len(denominator.seconds))
    return ratio_of(numerator.seconds[:n_rounds], denominator.seconds[:n_rounds])


def ratio_of(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """As :func:`ratio`, of any paired measurements."""
    values = sorted(a / b for a, b in zip(numerator, denominator, strict=True))
    n = len(values)
    rank = 0  # the largest rank whose interval still covers the median with 95 % probability (binomial)
    while rank + 1 < n / 2 and 2 * sum(math.comb(n, i) for i in range(rank + 2)) / 2**n <= 0.05:
        rank += 1
    return Ratio(statistics.median(values), values[rank], values[n - 1 - rank], n)
