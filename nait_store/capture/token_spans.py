"""Which tokens of many samples are the samples' own, found for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

Intervals = tuple[tuple[int, int], ...]


def tokens_within(
    offsets: NDArray[np.int64], ranges: NDArray[np.int64], first_tokens: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Tell which tokens overlap at least one character of the ranges.

    Parameters
    ----------
    offsets
        [T, 2] half-open character range of each token. An empty one covers what lies between the token before it
        and its end: tokenizers that trim offsets leave white-space tokens with none.
    ranges
        [R, 2] half-open, ascending, disjoint, none empty.
    first_tokens
        Tokens that have no token before them, besides the first.

    Returns
    -------
    ndarray
        [T] bool.
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    if not len(ranges) or not len(offsets):
        return np.zeros(len(offsets), dtype=np.bool_)
    before = np.empty_like(ends)
    before[0], before[1:] = starts[0], ends[:-1]
    if first_tokens is not None:
        before[first_tokens] = starts[first_tokens]
    starts = np.where(starts == ends, np.minimum(starts, before), starts)
    candidate = np.searchsorted(ranges[:, 1], starts, side="right")  # the first range that ends after the token starts
    range_starts = ranges[np.minimum(candidate, len(ranges) - 1), 0]
    within: NDArray[np.bool_] = (candidate < len(ranges)) & (range_starts < ends) & (starts < ends)
    return within


def content_intervals(
    token_ids: Sequence[Sequence[int]],
    offsets: Sequence[Sequence[tuple[int, int]]],
    ranges: Sequence[Sequence[tuple[int, int]]],
    *,
    special_ids: frozenset[int],
    max_length_tokens: int,
) -> list[Intervals]:
    """Find the token intervals that lie in each sample's character ranges.

    Parameters
    ----------
    token_ids
        Of each sample, before truncation.
    offsets
        Character range of each token in its sample's text.
    ranges
        Each sample's own text: half-open, ascending, disjoint, none empty.
    special_ids
        Tokens that never count.
    max_length_tokens
        Tokens from this position on do not count.

    Returns
    -------
    list
        Half-open token intervals of each sample: ascending, disjoint, maximal; empty where no token counts.
    """
    lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
    firsts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    n_tokens = int(firsts[-1])
    if not n_tokens:
        return [()] * len(token_ids)
    flat_ids = np.fromiter(chain.from_iterable(token_ids), dtype=np.int64, count=n_tokens)
    flat_offsets = np.fromiter(
        chain.from_iterable(chain.from_iterable(offsets)), dtype=np.int64, count=2 * n_tokens
    ).reshape(-1, 2)

    # Lay the texts end to end, so that one search serves all samples.
    reach = np.zeros(len(token_ids), dtype=np.int64)
    some = lengths > 0
    reach[some] = np.maximum.reduceat(flat_offsets[:, 1], firsts[:-1][some])
    reach = np.maximum(reach, [max((end for _, end in own), default=0) for own in ranges])
    bases = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(reach + 1)[:-1]])
    flat_offsets += np.repeat(bases, lengths)[:, None]
    n_ranges = [len(own) for own in ranges]
    flat_ranges = np.fromiter(
        chain.from_iterable(chain.from_iterable(ranges)), dtype=np.int64, count=2 * sum(n_ranges)
    ).reshape(-1, 2) + np.repeat(bases, n_ranges).reshape(-1, 1)

    first_tokens = firsts[:-1][some]
    own_tokens = tokens_within(flat_offsets, flat_ranges, first_tokens)
    own_tokens &= ~np.isin(flat_ids, list(special_ids))
    own_tokens &= np.arange(n_tokens) - np.repeat(firsts[:-1], lengths) < max_length_tokens

    goes_on = np.empty(n_tokens, dtype=np.bool_)  # whether the token before is an own token of the same sample
    goes_on[0], goes_on[1:] = False, own_tokens[:-1]
    goes_on[first_tokens] = False
    stops = np.ones(n_tokens, dtype=np.bool_)
    stops[:-1] = ~(own_tokens[1:] & goes_on[1:])
    starts = np.flatnonzero(own_tokens & ~goes_on)
    ends = np.flatnonzero(own_tokens & stops) + 1
    owner = np.searchsorted(firsts, starts, side="right") - 1
    begin = np.searchsorted(owner, np.arange(len(token_ids) + 1)).tolist()
    pairs = list(zip((starts - firsts[owner]).tolist(), (ends - firsts[owner]).tolist(), strict=True))
    return [tuple(pairs[first:last]) for first, last in pairwise(begin)]
