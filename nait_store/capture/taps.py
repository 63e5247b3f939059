"""Hooks that reduce as they fire, and the forward pass they hang on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.experts import ExpertTap
from nait_store.capture.hook_points import HookPlan, HookSite
from nait_store.capture.host_copies import HostCopies
from nait_store.capture.layouts import Layout, lay_out
from nait_store.capture.reducers import PendingFeatures, SpanReducer
from nait_store.capture.span_sums import Intervals, batch_spans
from nait_store.errors import IncompatibleError
from nait_store.schemas.capture import Feature

if TYPE_CHECKING:
    import torch


class _NothingFollows(Exception):  # noqa: N818 - it is how a pass ends
    """Ends a forward pass where all that is to be read has been read."""


class TappedDecoder:
    """A decoder with hooks on its sites; a context manager that removes them.

    The first pass runs to the decoder's end and shows that every hook fires once. Those that follow it end at the last
    site: nobody reads what comes after it, be it the last down projection or, with few ``layers``, most of the model.

    Parameters
    ----------
    plan
        What to run and where to read.
    width
        J.
    pad_token_id
        Any valid token.
    device
        Where the decoder is.
    copies
        Brings the results to the host.
    """

    def __init__(
        self, plan: HookPlan, *, width: int, pad_token_id: int, device: str, copies: HostCopies | None = None
    ) -> None:
        self._plan = plan
        self._width = width
        self._pad_token_id = pad_token_id
        self._device = device
        self._copies = copies or HostCopies()
        self._reducer: SpanReducer | None = None
        self._fired = [0] * len(plan.sites)
        self._ran_whole = False
        self._taps = contextlib.ExitStack()
        for slot, site in enumerate(plan.sites):
            self._taps.callback(_attach(plan.decoder, site, self._observer(slot, site)).remove)
        self._taps.callback(_attach_after(plan.decoder, plan.sites[-1], self._end_pass).remove)

    def __enter__(self) -> TappedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove every hook."""
        self._taps.close()

    def capture(
        self,
        layout: Layout,
        token_ids: Sequence[NDArray[np.int32]],
        contents: Sequence[Intervals],
        features: Sequence[Feature],
    ) -> dict[Feature, NDArray[np.float32]]:
        """Run one batch and wait for its features, [S, L, J] float32 each; see :meth:`launch`."""
        return self.launch(layout, token_ids, contents, features).wait()

    @property
    def overlaps(self) -> bool:
        """Whether the device computes on while the host does something else."""
        return self._copies.overlap(self._device)

    def launch(
        self,
        layout: Layout,
        token_ids: Sequence[NDArray[np.int32]],
        contents: Sequence[Intervals],
        features: Sequence[Feature],
    ) -> PendingFeatures:
        """Have one batch run and reduced; where the device allows, return before it is.

        Parameters
        ----------
        layout
            How the samples share the pass.
        token_ids
            Per sample, [T] int32.
        contents
            Per sample, half-open content intervals.
        features
            What to collect.

        Returns
        -------
        PendingFeatures
            What :meth:`~nait_store.capture.reducers.PendingFeatures.wait` gives is of that shape and dtype.

        Raises
        ------
        IncompatibleError
            A hook fired twice or not at all, or saw another shape than expected.
        """
        import torch

        inputs = lay_out(layout, token_ids, pad_token_id=self._pad_token_id, device=self._device)
        spans = batch_spans(contents, inputs.starts, self._device)
        self._reducer = SpanReducer(features, spans, len(self._plan.sites), self._width)
        self._fired = [0] * len(self._plan.sites)
        try:
            with torch.inference_mode():
                with contextlib.suppress(_NothingFollows):
                    self._plan.decoder(**inputs.arguments, use_cache=False)
                self._check_fired()
                self._ran_whole = True
                return self._reducer.finish(self._copies)
        finally:
            self._reducer = None

    def _observer(self, slot: int, site: HookSite) -> Any:
        if site.reads == "experts":

            def observe_expert(expert: int, tokens: torch.Tensor, activations: torch.Tensor) -> None:
                if self._reducer is not None:
                    self._fired[slot] = 1  # once an expert: how often says nothing
                    self._reducer.add_expert(slot, expert, tokens, activations)

            return observe_expert

        def observe(activations: torch.Tensor) -> None:
            if self._reducer is not None:
                self._fired[slot] += 1
                if activations.shape[-1] != self._width:
                    raise IncompatibleError(
                        f"layer {site.layer} gives {activations.shape[-1]} neurons at {site.path}, not {self._width}",
                        next_step="use --hook residual, or another module with --hook-path",
                    )
                self._reducer.add(slot, activations)

        return observe

    def _end_pass(self, *_: object) -> None:
        if self._reducer is not None and self._ran_whole and all(self._fired):
            raise _NothingFollows

    def _check_fired(self) -> None:
        wrong = [
            f"{site.path}: {fired} times"
            for site, fired in zip(self._plan.sites, self._fired, strict=True)
            if fired != 1
        ]
        if wrong:
            raise IncompatibleError(
                f"a hook must fire once in a forward pass, but {', '.join(wrong[:4])}{' …' if len(wrong) > 4 else ''}",
                next_step="use --hook residual, or another module with --hook-path",
            )


def _attach(decoder: Any, site: HookSite, observe: Any) -> Any:
    """Hang an observer on a site; returns what has ``remove()``."""
    module = decoder.get_submodule(site.path)
    if site.reads == "experts":
        return ExpertTap(module, observe)
    if site.reads == "input":

        def before(_module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            observe(arguments[0] if arguments else next(iter(keywords.values())))

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_module: Any, _arguments: tuple[Any, ...], output: Any) -> None:
        observe(output[0] if isinstance(output, tuple) else output)

    return module.register_forward_hook(after)


def _attach_after(decoder: Any, site: HookSite, call: Any) -> Any:
    """Have something called when a site has been read, by the hook that was attached before; returns its handle."""
    module = decoder.get_submodule(site.path)
    return module.register_forward_pre_hook(call) if site.reads == "input" else module.register_forward_hook(call)


def measure_width(plan: HookPlan, *, device: str) -> int:
    """Run two tokens to learn J where the modules do not tell it.

    Raises
    ------
    IncompatibleError
        The layers differ, or a hook did not see a tensor once.
    """
    import torch

    widths: list[list[int]] = [[] for _ in plan.sites]

    def recorder(slot: int) -> Any:
        def observe(activations: Any) -> None:
            widths[slot].append(int(activations.shape[-1]) if isinstance(activations, torch.Tensor) else -1)

        return observe

    with contextlib.ExitStack() as taps, torch.inference_mode():
        for slot, site in enumerate(plan.sites):
            taps.callback(_attach(plan.decoder, site, recorder(slot)).remove)
        plan.decoder(input_ids=torch.zeros((1, 2), dtype=torch.int64, device=device), use_cache=False)
    distinct = {tuple(seen) for seen in widths}
    if len(distinct) != 1 or len(widths[0]) != 1 or widths[0][0] < 1:
        raise IncompatibleError(
            f"{plan.sites[0].path} and its like do not give one vector of one width in each layer (widths seen: "
            f"{sorted(distinct)[:4]})",
            next_step="name another module with --hook-path, or use --hook residual",
        )
    return widths[0][0]
