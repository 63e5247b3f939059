"""Orders in which every beginning covers much: farthest-first traversal, and greedy facility location.

Both decide ties for the better-ranked. Distances are those of sketches; for the vectors of narrow sets these are the
vectors themselves.
"""

from __future__ import annotations

import heapq
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import InvalidInputError

_CENTERS_AT_ONCE = 256
_LEAST_LEADERS, _MOST_LEADERS = 1024, 16384
_SAME = np.float32(1e-6)
"""Squared distance that rounding makes of none."""

_DECIMALS = 9
_BLOCK_ROWS = 4096
"""Of which all similarities are in memory at once: 64 MB."""


class Diversity(StrEnum):
    """How samples are spread.

    ``k-center``: the best, then always the one that is farthest from all before, so that none that is passed over is
    far from a chosen one. ``facility-location``: always the one that brings all samples nearest to their nearest chosen
    one, so that the chosen stand for the many before the odd.
    """

    K_CENTER = "k-center"
    FACILITY_LOCATION = "facility-location"


def parse_diversity(text: str | None) -> Diversity | None:
    """Return the member of this name; None for ``none``.

    Raises
    ------
    InvalidInputError
        Another word.
    """
    if text is None or text == "none":
        return None
    try:
        return Diversity(text)
    except ValueError as error:
        raise InvalidInputError(
            f"{text!r} is no kind of diversity", next_step=f"use one of {', '.join(Diversity)}, none"
        ) from error


def spread(points: NDArray[np.float32], n: int, how: Diversity) -> NDArray[np.int64]:
    """Order some points so that each beginning is diverse.

    Parameters
    ----------
    points
        [m, d] Sketches of unit vectors, best-ranked first.
    n
        How many to take, m at most.
    how
        By what rule.

    Returns
    -------
    ndarray
        [n] Rows.
    """
    return _farthest_first(points, n) if how is Diversity.K_CENTER else _facility_location(points, n)


def _farthest_first(points: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """Exact: distances of most points are only brought up to date once for many new centers, in one product.

    Until then they are too large, if anything. Those of the leaders, the farthest, are kept up to date; a leader that
    is farther than any other point could be is the farthest of all.
    """
    squares = np.einsum("ij,ij->i", points, points)
    nearest = np.full(len(points), np.inf, np.float32)  # squared distance to the nearest center, or more
    chosen = [0] if n else []
    n_applied, n_leaders = 0, _LEAST_LEADERS
    while len(chosen) < n:
        _bring_nearer(nearest, points, squares, np.array(chosen[n_applied:]))
        nearest[chosen[n_applied:]] = -np.inf
        n_applied = len(chosen)
        by_distance = np.argsort(-nearest, kind="stable")
        if nearest[by_distance[0]] <= _SAME:
            # What is left is where centers are already.
            rest = np.flatnonzero(nearest > -np.inf)
            chosen += rest[: n - len(chosen)].tolist()
            break
        leaders = np.sort(by_distance[:n_leaders])
        bound = nearest[by_distance[n_leaders]] if n_leaders < len(points) else -np.inf
        far, mine, my_squares = nearest[leaders], points[leaders], squares[leaders]
        while len(chosen) < n and len(chosen) - n_applied < _CENTERS_AT_ONCE:
            best = int(np.argmax(far))
            # Right after all were brought up to date the first of the farthest is known, whatever the bound.
            if len(chosen) > n_applied and far[best] <= max(bound, _SAME):
                n_leaders = min(_MOST_LEADERS, 2 * n_leaders)
                break
            row = int(leaders[best])
            chosen.append(row)
            np.minimum(far, my_squares + squares[row] - 2 * (mine @ points[row]), out=far)
            far[best] = -np.inf
    return np.array(chosen, np.int64)


def _bring_nearer(
    nearest: NDArray[np.float32], points: NDArray[np.float32], squares: NDArray[np.float32], centers: NDArray[np.int64]
) -> None:
    """Lower distances to what they are to some more centers."""
    for start in range(0, len(points), _MOST_LEADERS):
        rows = slice(start, start + _MOST_LEADERS)
        products = points[rows] @ points[centers].T
        distances = squares[rows] + (squares[centers] - 2 * products).min(axis=1)
        np.minimum(nearest[rows], distances, out=nearest[rows])


def _facility_location(points: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """Of more points than a block holds, blocks of every so-manyth one are ordered, which take turns."""
    m = len(points)
    n_blocks = -(-m // _BLOCK_ROWS)
    orders = []
    for block in range(n_blocks):
        rows = np.arange(block, m, n_blocks)
        n_mine = min(len(rows), -(-n // n_blocks))
        orders.append(rows[_best_facilities(points[rows], n_mine)])
    by_turn = np.full((max(map(len, orders), default=0), n_blocks), -1)
    for block, order in enumerate(orders):
        by_turn[: len(order), block] = order
    sequence = by_turn.ravel()
    found: NDArray[np.int64] = sequence[sequence >= 0][:n].astype(np.int64)
    return found


def _best_facilities(points: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """[n] Greedy, and lazy: gains never grow, so that one that is up to date and above all others' last is the best."""
    squares = np.einsum("ij,ij->i", points, points)
    # 1 − d²/4, which of unit vectors is (1 + cos) / 2; in place, for this is what takes the memory.
    similarities = points @ points.T  # [m, m], symmetric
    similarities *= 2
    similarities -= squares
    similarities -= squares[:, None]
    similarities /= 4
    similarities += 1
    np.clip(similarities, 0, 1, out=similarities)
    np.fill_diagonal(similarities, 1)
    covered = np.zeros(len(points), np.float32)
    waiting = [(-_gain(row, covered), number) for number, row in enumerate(similarities)]
    heapq.heapify(waiting)
    up_to_date = np.zeros(len(points), np.int64)
    chosen: list[int] = []
    while len(chosen) < n:
        _, number = heapq.heappop(waiting)
        row = similarities[number]
        if up_to_date[number] == len(chosen):
            chosen.append(number)
            np.maximum(covered, row, out=covered)
        else:
            up_to_date[number] = len(chosen)
            heapq.heappush(waiting, (-_gain(row, covered), number))
    return np.array(chosen, np.int64)


def _gain(similarities: NDArray[np.float32], covered: NDArray[np.float32]) -> float:
    """How much nearer all come. Rounded: neighbours of each other gain the same, and add it up in another order."""
    more = np.subtract(similarities, covered, dtype=np.float64)
    return round(float(more[more > 0].sum()), _DECIMALS)
