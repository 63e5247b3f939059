"""Reduce a layer's activations to a few vectors per sample while the forward pass is under way.

Only [S, L, J] results are kept, never a [tokens, J] tensor. Accumulation is in float32 whatever the model computes in.

Choice of the reduction (2 cores, 20 samples, 3,000 tokens, medians in milliseconds, for J = 640 / 11,008 in float32):
``embedding_bag`` over the content tokens 0.14 / 5.1; sparse matrix 0.29 / 11.6; ``mv`` with ones per sample 0.43 /
6.4; ``sum`` per interval 0.42 / 8.1; dense segment matrix 1.0 / 34; ``index_add_`` 1.7 / 74; ``segment_reduce`` 3.1 /
52. In bfloat16 ``embedding_bag`` would round its result, and converting all of the input first costs 74 at J = 11,008,
so there it is ``sum(dtype=float32)`` per interval: 0.46 / 7.5. On a GPU that is three small kernels for every sample
and layer; there blocks of samples are converted and go through ``embedding_bag``: a handful of kernels a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.host_copies import HostCopies, HostCopy
from nait_store.capture.layouts import upload
from nait_store.schemas.capture import Feature

if TYPE_CHECKING:
    import torch

Intervals = Sequence[tuple[int, int]]
_BLOCK_BYTES = 128 << 20
"""Of activations in float32: what the conversion of a block of samples may take."""


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


class SpanReducer:
    """Collects the features of one batch, layer by layer, as the forward pass reaches them.

    ``mean`` = (1/K) Σ_k A_l(t_k), ``drift`` = A_l(t_K) − A_l(t_1) (Eq. 2), ``last`` = A_l(t_K), with t_1 … t_K the
    content tokens.

    Parameters
    ----------
    features
        What to collect.
    spans
        The batch's content tokens.
    n_layers
        Captured layers, L.
    width
        J.
    """

    def __init__(self, features: Sequence[Feature], spans: BatchSpans, n_layers: int, width: int) -> None:
        self._features = tuple(features)
        self._shape = (spans.n_samples, n_layers, width)
        self._spans = {spans.tokens.device: spans}
        self._results: dict[torch.device, dict[Feature, torch.Tensor]] = {}
        self._results_on(spans.tokens.device)
        self._slots: dict[torch.device, list[int]] = {}

    def _results_on(self, device: torch.device) -> dict[Feature, torch.Tensor]:
        """Return the results of the layers that are reduced on a device, [S, L, J] each."""
        import torch

        if device not in self._results:
            # Expert by expert only what is routed is written, so the rest must be zero from the start; dense layers
            # overwrite everything, and zeroing is a fraction of a percent.
            self._results[device] = {
                feature: torch.zeros(self._shape, dtype=torch.float32, device=device) for feature in self._features
            }
        return self._results[device]

    def _at(self, slot: int, device: torch.device) -> tuple[dict[Feature, torch.Tensor], BatchSpans]:
        """Return the results to write to and the spans to read by, where a layer's activations are.

        A model that is spread over devices gives its layers' activations on several.
        """
        if device not in self._spans:
            self._spans[device] = next(iter(self._spans.values())).to(device)
        slots = self._slots.setdefault(device, [])
        if slot not in slots:
            slots.append(slot)
        return self._results_on(device), self._spans[device]

    def add(self, slot: int, activations: torch.Tensor) -> None:
        """Reduce one layer's activations.

        Parameters
        ----------
        slot
            Position of the layer among the captured ones.
        activations
            [B, T, J] or [tokens, J].
        """
        flat = activations.reshape(-1, activations.shape[-1])
        results, spans = self._at(slot, flat.device)
        for feature, result in results.items():
            if feature is Feature.MEAN:
                result[:, slot] = _interval_sums(flat, spans).div_(spans.counts)
            elif feature is Feature.LAST:
                result[:, slot] = flat[spans.last]
            else:
                result[:, slot] = flat[spans.last].float() - flat[spans.first].float()

    def add_expert(self, slot: int, expert: int, tokens: torch.Tensor, activations: torch.Tensor) -> None:
        """Reduce the activations of one expert, which sees some of the tokens.

        Parameters
        ----------
        slot
            Position of the layer among the captured ones.
        expert
            e; its neurons are the block [e·I, (e + 1)·I) of the layer's vector.
        tokens
            [n] int64, ascending: flat positions of the tokens that were routed to it.
        activations
            [n, I], unweighted inputs of its down projection.
        """
        import torch
        from torch.nn import functional

        results, spans = self._at(slot, activations.device)
        width = activations.shape[-1]
        block = slice(expert * width, (expert + 1) * width)
        for feature, result in results.items():
            target = result[:, slot, block]
            if feature is Feature.MEAN:
                # Both lists ascend: look the routed tokens up among the content tokens.
                place = torch.searchsorted(spans.tokens, tokens).clamp_max_(len(spans.tokens) - 1)
                rows = torch.nonzero(spans.tokens[place] == tokens).squeeze(1)
                if not len(rows):
                    continue
                samples = spans.sample_of[place[rows]]
                offsets = torch.searchsorted(
                    samples, torch.arange(spans.n_samples, device=samples.device, dtype=samples.dtype)
                )
                sums = functional.embedding_bag(rows, activations.float(), offsets, mode="sum")
                target.copy_(sums.div_(spans.counts))
                continue
            _add_rows(target, spans.last, tokens, activations, 1.0)
            if feature is Feature.DRIFT:
                _add_rows(target, spans.first, tokens, activations, -1.0)

    def finish(self, copies: HostCopies) -> PendingFeatures:
        """Send the features to the host; nothing can be added afterwards."""
        return PendingFeatures(
            tuple(
                ({feature: copies.start(result) for feature, result in results.items()}, tuple(self._slots.get(at, ())))
                for at, results in self._results.items()
            )
        )


@dataclass(frozen=True, eq=False)
class PendingFeatures:
    """Features on their way to the host.

    Attributes
    ----------
    parts
        Of each device that layers were reduced on: its results, [S, L, J] each, and which of the L are its own.
    """

    parts: tuple[tuple[dict[Feature, HostCopy], tuple[int, ...]], ...]

    def wait(self) -> dict[Feature, NDArray[np.float32]]:
        """Return the features, [S, L, J] each, as soon as they are there."""
        (first, _), *others = self.parts
        gathered = {feature: copy.wait() for feature, copy in first.items()}
        for copies, slots in others:
            for feature, copy in copies.items():
                gathered[feature][:, slots] = copy.wait()[:, slots]
        return gathered


def _interval_sums(flat: torch.Tensor, spans: BatchSpans) -> torch.Tensor:
    """Sum each sample's content tokens of [tokens, J]; returns [S, J] float32."""
    import torch
    from torch.nn import functional

    if flat.dtype == torch.float32:
        return functional.embedding_bag(spans.tokens, flat, spans.offsets, mode="sum")
    if flat.device.type != "cpu":
        return widened_sums(flat, spans, block_bytes=_BLOCK_BYTES)
    sums = torch.zeros((spans.n_samples, flat.shape[-1]), dtype=torch.float32, device=flat.device)
    for row, intervals in zip(sums, spans.intervals, strict=True):
        for low, high in intervals:
            row += flat[low:high].sum(0, dtype=torch.float32)
    return sums


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


def _add_rows(
    target: torch.Tensor, wanted: torch.Tensor, tokens: torch.Tensor, activations: torch.Tensor, factor: float
) -> None:
    """Add to ``target[s]`` the activation of token ``wanted[s]``, if that token is among ``tokens`` (ascending)."""
    import torch

    place = torch.searchsorted(tokens, wanted).clamp_max_(len(tokens) - 1)
    samples = torch.nonzero(tokens[place] == wanted).squeeze(1)
    if len(samples):
        target[samples] += factor * activations[place[samples]].float()
