"""Sums over each sample's content tokens, taken from a layer's activations while the forward pass is under way.

Choice of the reduction on CPUs (2 cores, 20 samples, 3,000 tokens, medians in milliseconds, for J = 640 / 11,008 in
float32): ``embedding_bag`` over the content tokens 0.14 / 5.1; sparse matrix 0.29 / 11.6; ``mv`` with ones per sample
0.43 / 6.4; ``sum`` per interval 0.42 / 8.1; dense segment matrix 1.0 / 34; ``index_add_`` 1.7 / 74; ``segment_reduce``
3.1 / 52. In bfloat16 ``embedding_bag`` would round its result, and converting all of the input first costs 74 at
J = 11,008, so there it is ``sum(dtype=float32)`` per interval: 0.46 / 7.5.

On an H200 (104 samples, 16,384 tokens, J = 11,008 in bfloat16) the product of a matrix of ones with the activations,
summed up in float32, takes 0.11 ms, which is the time to read them; converting blocks of samples for ``embedding_bag``
takes 1.07, as much as a fifth of the layer's products.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.layouts import upload

if TYPE_CHECKING:
    import torch

Intervals = Sequence[tuple[int, int]]
_BLOCK_BYTES = 128 << 20
"""Of activations in float32: what the conversion of a block of samples may take."""

_BLOCK_TOKENS = 8192
"""Of neighbouring samples whose sums are one matrix product: no more than that share an infinity."""


@dataclass(frozen=True, eq=False)
class Membership:
    """A block of neighbouring samples.

    Attributes
    ----------
    samples
        Which they are.
    low, high
        Where their tokens are on the flat axis.
    ones
        [samples, high − low] bfloat16, 1 where a token is of a sample's content.
    """

    samples: slice
    low: int
    high: int
    ones: torch.Tensor


@dataclass(frozen=True, eq=False)
class BatchSpans:
    """Content tokens of a batch's samples, as positions on its flattened token axis.

    Attributes
    ----------
    intervals
        Per sample, half-open intervals on the flat axis, ascending.
    tokens
        [K_total] int64, all content tokens, samples one after the other; hence ascending.
    sample_of
        [K_total] int64, the sample of each.
    offsets
        [S] int64, where each sample begins in ``tokens``.
    counts
        [S, 1] float32, K of each sample.
    first, last
        [S] int64, position of t_1 and t_K.
    """

    intervals: tuple[Intervals, ...]
    tokens: torch.Tensor
    sample_of: torch.Tensor
    offsets: torch.Tensor
    counts: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor

    @property
    def n_samples(self) -> int:
        """S."""
        return len(self.intervals)

    @functools.cached_property
    def memberships(self) -> tuple[Membership, ...]:
        """Blocks of neighbouring samples, and which of their tokens are whose; for every layer the same."""
        import torch

        found = []
        for samples, tokens, low, high in _blocks(self.intervals, _BLOCK_TOKENS):
            size = (samples.stop - samples.start, high - low)
            ones = torch.zeros(size, dtype=torch.bfloat16, device=self.tokens.device)
            ones[self.sample_of[tokens] - samples.start, self.tokens[tokens] - low] = 1
            found.append(Membership(samples, low, high, ones))
        return tuple(found)

    def to(self, device: torch.device) -> BatchSpans:
        """Return the same spans on another device."""
        return BatchSpans(
            self.intervals,
            *(
                values.to(device)
                for values in (self.tokens, self.sample_of, self.offsets, self.counts, self.first, self.last)
            ),
        )


def batch_spans(contents: Sequence[Intervals], starts: Sequence[int], device: str) -> BatchSpans:
    """Place content intervals on the flat token axis of a batch.

    Parameters
    ----------
    contents
        Per sample, half-open token intervals within the sample: at least one, ascending, disjoint, none empty.
    starts
        Flat position of each sample's first token.
    device
        Where the activations are.
    """
    placed = tuple(
        tuple((start + low, start + high) for low, high in content)
        for content, start in zip(contents, starts, strict=True)
    )
    counts = np.array([sum(high - low for low, high in content) for content in placed], dtype=np.int64)
    tokens = np.concatenate([np.arange(low, high) for content in placed for low, high in content])

    def on_device(values: NDArray[np.int64]) -> torch.Tensor:
        return upload(np.ascontiguousarray(values, dtype=np.int64), device)

    return BatchSpans(
        intervals=placed,
        tokens=on_device(tokens),
        sample_of=on_device(np.repeat(np.arange(len(placed)), counts)),
        offsets=on_device(np.cumsum(counts) - counts),
        counts=on_device(counts).float()[:, None],
        first=on_device(np.array([content[0][0] for content in placed])),
        last=on_device(np.array([content[-1][1] - 1 for content in placed])),
    )


def sums_are_shared(flat: torch.Tensor, spans: BatchSpans) -> bool:
    """Whether :func:`interval_sums` multiplies a sample's activations with its neighbours' zeros.

    0 · inf is NaN, so that what is not finite in one sample is then not finite in all of its block.
    """
    return spans.n_samples > 1 and flat.dtype.itemsize == 2 and _multiplies_wide(flat.device)


def interval_sums(flat: torch.Tensor, spans: BatchSpans) -> torch.Tensor:
    """Sum each sample's content tokens.

    Parameters
    ----------
    flat
        [tokens, J], of any dtype.
    spans
        The batch's content tokens.

    Returns
    -------
    tensor, [S, J] float32
        Added up in float32.
    """
    import torch
    from torch.nn import functional

    if flat.dtype == torch.float32:
        return functional.embedding_bag(spans.tokens, flat, spans.offsets, mode="sum")
    if sums_are_shared(flat, spans):
        return product_sums(flat, spans)
    if flat.device.type != "cpu":
        return widened_sums(flat, spans, block_bytes=_BLOCK_BYTES)
    sums = torch.zeros((spans.n_samples, flat.shape[-1]), dtype=torch.float32, device=flat.device)
    for row, intervals in zip(sums, spans.intervals, strict=True):
        for low, high in intervals:
            row += flat[low:high].sum(0, dtype=torch.float32)
    return sums


def product_sums(flat: torch.Tensor, spans: BatchSpans) -> torch.Tensor:
    """Sum each sample's content tokens as products with ones; see :func:`interval_sums` and :func:`sums_are_shared`."""
    import torch

    sums = torch.empty((spans.n_samples, flat.shape[-1]), dtype=torch.float32, device=flat.device)
    for block in spans.memberships:
        sums[block.samples] = _wide_product(block.ones.to(flat.dtype), flat[block.low : block.high])
    return sums


def _wide_product(ones: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices of 16 bits; the result is float32, and so is the sum on its way."""
    import torch

    mm: Any = torch.mm
    product: torch.Tensor = mm(ones, flat, out_dtype=torch.float32)
    return product


@functools.cache
def _multiplies_wide(device: torch.device) -> bool:
    """Whether torch multiplies 16-bit matrices into float32 there: since 2.8, on CUDA."""
    import torch

    one = torch.ones((1, 1), dtype=torch.bfloat16, device=device)
    try:
        _wide_product(one, one)
    except (NotImplementedError, RuntimeError, TypeError):
        return False
    return True


def widened_sums(flat: torch.Tensor, spans: BatchSpans, *, block_bytes: int) -> torch.Tensor:
    """Sum each sample's content tokens in float32, by blocks of neighbouring samples.

    Parameters
    ----------
    flat
        [tokens, J], of any dtype.
    spans
        The batch's content tokens.
    block_bytes
        What a block may take in float32; a sample that takes more goes alone.

    Returns
    -------
    tensor, [S, J] float32
    """
    import torch
    from torch.nn import functional

    block_tokens = max(1, block_bytes // (4 * flat.shape[-1]))
    sums = torch.empty((spans.n_samples, flat.shape[-1]), dtype=torch.float32, device=flat.device)
    for samples, tokens, low, high in _blocks(spans.intervals, block_tokens):
        inside = spans.tokens[tokens] - low
        offsets = spans.offsets[samples] - tokens.start
        sums[samples] = functional.embedding_bag(inside, flat[low:high].float(), offsets, mode="sum")
    return sums


def _blocks(intervals: Sequence[Intervals], block_tokens: int) -> Iterator[tuple[slice, slice, int, int]]:
    """Yield neighbouring samples: which they are, which of the content tokens theirs are, and from where to where."""
    first = first_token = n_content = 0
    low = high = intervals[0][0][0]
    for sample, content in enumerate(intervals):
        if sample > first and content[-1][1] - low > block_tokens:
            yield slice(first, sample), slice(first_token, n_content), low, high
            first, first_token, low = sample, n_content, content[0][0]
        n_content += sum(end - begin for begin, end in content)
        high = content[-1][1]
    yield slice(first, len(intervals)), slice(first_token, n_content), low, high
