"""Reduce a layer's activations to a few vectors per sample while the forward pass is under way.

Only [S, L, J] results are kept, never a [tokens, J] tensor. Accumulation is in float32 whatever the model computes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.host_copies import HostCopies, HostCopy
from nait_store.capture.span_sums import BatchSpans, interval_sums, sums_are_shared
from nait_store.schemas.capture import Feature

if TYPE_CHECKING:
    import torch


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
        self._shared = False

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
                self._shared = self._shared or sums_are_shared(flat, spans)
                result[:, slot] = interval_sums(flat, spans).div_(spans.counts)
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
        parts = tuple(
            ({feature: copies.start(result) for feature, result in results.items()}, tuple(self._slots.get(at, ())))
            for at, results in self._results.items()
        )
        shared = [results[Feature.MEAN] for results in self._results.values() if self._shared]
        return PendingFeatures(parts, tuple(copies.start(means.isfinite().all().float()) for means in shared))


@dataclass(frozen=True, eq=False)
class PendingFeatures:
    """Features on their way to the host.

    Attributes
    ----------
    parts
        Of each device that layers were reduced on: its results, [S, L, J] each, and which of the L are its own.
    finite
        Of each where samples share sums, see :func:`~nait_store.capture.span_sums.sums_are_shared`: whether all of
        them are finite, as 1 or 0.
    """

    parts: tuple[tuple[dict[Feature, HostCopy], tuple[int, ...]], ...]
    finite: tuple[HostCopy, ...] = ()

    @property
    def infected(self) -> bool:
        """Whether a sample's infinity may have reached its neighbours; known once :meth:`wait` has returned."""
        return any(not flag.wait() for flag in self.finite)

    def wait(self) -> dict[Feature, NDArray[np.float32]]:
        """Return the features, [S, L, J] each, as soon as they are there."""
        (first, _), *others = self.parts
        gathered = {feature: copy.wait() for feature, copy in first.items()}
        for copies, slots in others:
            for feature, copy in copies.items():
                gathered[feature][:, slots] = copy.wait()[:, slots]
        return gathered


def _add_rows(
    target: torch.Tensor, wanted: torch.Tensor, tokens: torch.Tensor, activations: torch.Tensor, factor: float
) -> None:
    """Add to ``target[s]`` the activation of token ``wanted[s]``, if that token is among ``tokens`` (ascending)."""
    import torch

    place = torch.searchsorted(tokens, wanted).clamp_max_(len(tokens) - 1)
    samples = torch.nonzero(tokens[place] == wanted).squeeze(1)
    if len(samples):
        target[samples] += factor * activations[place[samples]].float()
