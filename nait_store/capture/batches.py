"""Which samples go through the model together: sorted by length within a window, cut by a token budget."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nait_store.capture.layouts import Layout, padded_tokens
from nait_store.capture.rendering import PreparedSample

WINDOW_SAMPLES = 4096
"""Samples that are sorted together: with a few thousand, neighbours are nearly equal in length."""
FIRST_WINDOW_SAMPLES = 512
"""Size of the first window, which each later one doubles: the model waits for it to be read, not for thousands."""
WINDOW_CHARACTERS = 64 << 20
"""Text that may wait in a window, whatever its samples are: bounds memory."""
CPU_TOKEN_BUDGET = 4096
"""Tokens per CPU second with a 4.2M-parameter Llama and packed batches, for budgets of 512, 1,024 … 8,192: 5,100,
6,000, 5,900, 6,200, 6,100. Flat, so the memory of a larger one is not worth it."""
GPU_TOKEN_BUDGET = 16384
_RESULT_BYTES = 256 << 20


@dataclass(frozen=True)
class BatchLimits:
    """What a batch may hold.

    Attributes
    ----------
    token_budget
        Tokens, padding included; a longer sample goes alone.
    max_samples
        Samples.
    layout
        Decides whether padding counts.
    length_boundaries
        Ascending; samples up to such a length never join longer ones.
    """

    token_budget: int
    max_samples: int
    layout: Layout
    length_boundaries: tuple[int, ...] = ()


def default_token_budget(device: str) -> int:
    """Return the token budget where the user names none."""
    return CPU_TOKEN_BUDGET if device == "cpu" else GPU_TOKEN_BUDGET


def max_samples_for(n_features: int, n_layers: int, width: int) -> int:
    """Return how many samples' float32 results fit into 256 MiB; at least 1."""
    return max(1, _RESULT_BYTES // (n_features * n_layers * width * 4))


def windows(samples: Iterable[PreparedSample]) -> Iterator[list[PreparedSample]]:
    """Collect samples into windows of :data:`WINDOW_SAMPLES`; less at first, and where their text is long."""
    window: list[PreparedSample] = []
    n_characters = 0
    size = min(FIRST_WINDOW_SAMPLES, WINDOW_SAMPLES)
    for sample in samples:
        window.append(sample)
        n_characters += len(sample.sample.record_json)
        if len(window) >= size or n_characters >= WINDOW_CHARACTERS:
            yield window
            window, n_characters = [], 0
            size = min(2 * size, WINDOW_SAMPLES)
    if window:
        yield window


def plan_batches(lengths: Sequence[int], limits: BatchLimits) -> list[list[int]]:
    """Group samples into batches, longest first.

    Longest first, because a budget that is too large for the memory then shows at once.

    Parameters
    ----------
    lengths
        Tokens of each sample, at least 1.
    limits
        What a batch may hold.

    Returns
    -------
    list of list of int
        Indices into ``lengths``; each is in exactly one batch.
    """
    batches: list[list[int]] = []
    batch: list[int] = []
    n_tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and not _fits(lengths[batch[0]], lengths[index], len(batch), n_tokens, limits):
            batches.append(batch)
            batch, n_tokens = [], 0
        batch.append(index)
        n_tokens += lengths[index]
    if batch:
        batches.append(batch)
    return batches


def _fits(longest: int, length: int, n_samples: int, n_tokens: int, limits: BatchLimits) -> bool:
    """Whether a sample may join a batch of so many samples and tokens, whose first one is the longest."""
    boundaries = limits.length_boundaries
    if limits.layout is Layout.SINGLE or n_samples >= limits.max_samples:
        return False
    if bisect.bisect_left(boundaries, longest) != bisect.bisect_left(boundaries, length):
        return False
    n_padded = padded_tokens(limits.layout, n_tokens=n_tokens + length, n_samples=n_samples + 1, longest=longest)
    return n_padded <= limits.token_budget
