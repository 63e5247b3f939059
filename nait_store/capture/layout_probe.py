"""Which layout gives the numbers of batch size 1: tried out at start-up, in float32, never taken on trust.

A layout can be silently wrong: packed batches are for OPT, Falcon, BLOOM, whose code does not take positions or
lengths as we give them. That depends on the model's *code* and configuration, not on its weights, and low precision
would hide it. So a model that is large, not float32, quantised or has long attention windows is stood in for by a
small float32 one of the same decoder class: same configuration, but one layer of every kind, a small vocabulary, few
and narrow feed-forwards, windows of a few tokens (so that short samples cross them), and random weights that are large
enough for any mixing of samples to show. It takes about two attention blocks of memory (a gigabyte for a 70B model)
for a moment. The layout it allows is then confirmed on the model itself, as far as its precision tells.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.attention import FLASH_ATTENTION, PACKED_ATTENTION, can_flash, register_packed_attention
from nait_store.capture.hook_points import HookPlan, HookSite, find_layers, text_config
from nait_store.capture.layouts import ON_ONE_ROW, Layout
from nait_store.capture.positions import WINDOW_KEYS, position_traits
from nait_store.capture.taps import TappedDecoder
from nait_store.errors import IncompatibleError
from nait_store.schemas.capture import Feature

_TOLERANCE = 1e-4
_CONFIRMING_TOLERANCE = {"float32": 1e-3, "float64": 1e-3}
_LOW_PRECISION_TOLERANCE = 0.1
_DIRECT_PARAMETERS = 20_000_000
_DIRECT_WINDOW = 64
_PROBE_WINDOW = 8
_PROBE_VOCABULARY = 128
_FEATURES = (Feature.MEAN, Feature.LAST)
_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def choose_layout(plan: HookPlan, model: Any, *, pad_token_id: int, device: str) -> Layout:
    """Try the layouts, fastest first, and leave the model set up for the one that holds.

    Parameters
    ----------
    plan
        Its decoder is what runs.
    model
        The causal LM whose attention implementation is set.
    pad_token_id
        Any valid token.
    device
        Where it is.

    Returns
    -------
    Layout
        ``single`` if nothing else gives the numbers of batch size 1.

    Raises
    ------
    IncompatibleError
        The decoder does not run at all.
    """
    config = text_config(model)
    traits = position_traits(config)
    dtype = str(model.dtype).removeprefix("torch.")
    n_parameters = sum(parameter.numel() for parameter in plan.decoder.parameters())
    quantized = getattr(model, "hf_quantizer", None) is not None
    direct = (
        (dtype == "float32" and not quantized)
        and n_parameters <= _DIRECT_PARAMETERS
        and max(traits.windows, default=0) <= _DIRECT_WINDOW
    )
    max_positions = getattr(config, "max_position_embeddings", None)
    candidates = _candidates(model, device)
    lengths = _probe_lengths(max(traits.windows, default=_PROBE_WINDOW), max_positions)
    tolerance = _TOLERANCE
    if not direct:
        confirmed = _allowed_by_stand_in(plan.decoder, candidates, max_positions)
        # Without a stand-in nothing shows what packing does to windows; the padded layouts leave them to the model.
        candidates = [layout for layout in candidates if layout not in ON_ONE_ROW] if confirmed is None else confirmed
        lengths = [min(length, max_positions or length) for length in (19, 1, 6)]
        tolerance = _CONFIRMING_TOLERANCE.get("" if quantized else dtype, _LOW_PRECISION_TOLERANCE)
    allowed = _allowed(plan.decoder, model, candidates, lengths, pad_token_id, device, tolerance, first_only=True)
    layout = allowed[0] if allowed else Layout.SINGLE
    if layout in ON_ONE_ROW:
        model.set_attn_implementation(_attention_name(layout))
    return layout


def _allowed_by_stand_in(decoder: Any, candidates: Sequence[Layout], max_positions: int | None) -> list[Layout] | None:
    """Return the layouts that hold for a small copy; None if there can be no such copy.

    Flash-attention runs neither on a CPU nor in float32, so there our own packed attention stands in for it: what is in
    question is whether the model's code takes positions and lengths as we give them, which is the same for both.
    """
    stand_in = small_copy(decoder)
    if stand_in is None:
        return None
    window = max(position_traits(stand_in.config).windows, default=_PROBE_WINDOW)
    lengths = _probe_lengths(window, max_positions)
    stood_for: dict[Layout, Layout] = {
        Layout.PACKED if layout is Layout.FLASH else layout: layout for layout in candidates
    }
    try:
        held = _allowed(stand_in, stand_in, list(stood_for), lengths, 0, "cpu", _TOLERANCE)
        return [stood_for[layout] for layout in held]
    except IncompatibleError:  # the copy does not run, which says nothing about the model
        return None


def small_copy(decoder: Any) -> Any:
    """Build a small float32 decoder of the same class, or None if its configuration cannot be shrunk.

    Parameters
    ----------
    decoder
        A transformers decoder.

    Returns
    -------
    module or None
        On the CPU, in evaluation mode, with reproducible random weights.
    """
    import torch

    for narrow in (True, False):
        config = _small_config(decoder.config, narrow=narrow)
        with contextlib.suppress(Exception), torch.random.fork_rng(devices=[]):  # whatever a model's code may raise
            torch.manual_seed(0)
            stand_in = type(decoder)(config).float().eval().requires_grad_(False)
            _randomise(stand_in)
            find_layers(stand_in, stand_in)
            with torch.inference_mode():
                stand_in(input_ids=torch.zeros((1, 3), dtype=torch.int64), use_cache=False)
            return stand_in
    return None


def _small_config(config: Any, *, narrow: bool) -> Any:
    small = copy.deepcopy(config)
    n_layers = config.num_hidden_layers
    per_layer = {
        name: value
        for name, value in vars(config).items()
        if isinstance(value, list | tuple) and len(value) == n_layers and n_layers > 1
    }
    kinds: dict[str, int] = {}
    for layer in range(n_layers):
        kinds.setdefault(repr([value[layer] for value in per_layer.values()]), layer)
    kept = sorted(kinds.values())
    if len(kept) == 1 and n_layers > 1:
        kept.append(1)
    for name, value in per_layer.items():
        setattr(small, name, [value[layer] for layer in kept])
    small.num_hidden_layers = len(kept)
    small.vocab_size = min(config.vocab_size, _PROBE_VOCABULARY)
    small.pad_token_id = None
    for name in WINDOW_KEYS:
        window = getattr(config, name, None)
        if isinstance(window, int) and window > _PROBE_WINDOW:
            setattr(small, name, _PROBE_WINDOW)
    if narrow:
        for name in ("intermediate_size", "moe_intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"):
            width = getattr(config, name, None)
            if isinstance(width, int) and width > 256:
                setattr(small, name, 256)
        n_choices = getattr(config, "num_experts_per_tok", None)
        for name in _EXPERT_COUNTS:
            if isinstance(getattr(config, name, None), int) and isinstance(n_choices, int):
                setattr(small, name, min(getattr(config, name), 2 * n_choices))
    return small


def _randomise(module: Any) -> None:
    """Give weights that keep signals at the size of one, so that mixing shows, and move norms and biases a little."""
    import torch

    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            noise = torch.empty_like(parameter).normal_(generator=generator)
            if isinstance(part, torch.nn.Embedding):
                parameter.copy_(noise)
            elif parameter.ndim >= 2:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(noise * 0.1)


def _candidates(model: Any, device: str) -> list[Layout]:
    layouts = [Layout.RIGHT, Layout.RIGHT_MASKED]
    if can_flash(model, device):
        layouts.insert(0, Layout.FLASH)
    # On a GPU a kernel of our own per sample and layer is slower than a few per cent of padding.
    elif device == "cpu" and model._can_set_attn_implementation():
        layouts.insert(0, Layout.PACKED)
    return layouts


def _probe_lengths(window: int, max_positions: int | None) -> list[int]:
    """Lengths that include 1 and reach beyond a window, short ones beside long ones."""
    limit = max_positions if isinstance(max_positions, int) else 2 * window + 3
    return [min(length, limit) for length in (window + 7, 1, 5, 2 * window + 3, 3)]


def _allowed(
    decoder: Any,
    model: Any,
    candidates: Sequence[Layout],
    lengths: Sequence[int],
    pad_token_id: int,
    device: str,
    tolerance: float,
    *,
    first_only: bool = False,
) -> list[Layout]:
    """Return the candidates whose residual streams equal batch size 1, sample by sample and layer by layer."""
    path, modules = find_layers(decoder, model)
    hidden = int(text_config(model).hidden_size)
    sites = tuple(HookSite(layer, f"{path}.{layer}", "output", hidden) for layer in range(len(modules)))
    plan = HookPlan(decoder, sites, len(modules))
    vocabulary = int(text_config(model).vocab_size)
    generator = np.random.default_rng(0)
    token_ids: list[NDArray[np.int32]] = [
        generator.integers(0, vocabulary, length, dtype=np.int32) for length in lengths
    ]
    contents = [((0, length),) for length in lengths]
    held = []
    with TappedDecoder(plan, width=hidden, pad_token_id=pad_token_id, device=device) as tapped:
        try:
            alone = [
                tapped.capture(Layout.SINGLE, [ids], [content], _FEATURES)
                for ids, content in zip(token_ids, contents, strict=True)
            ]
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError) as error:
            raise IncompatibleError(
                f"{type(decoder).__name__} does not run on plain token ids: {type(error).__name__}: {error}",
                next_step="choose a causal language model that reads text alone",
            ) from error
        for layout in candidates:
            try:
                with _attention_for(layout, model):
                    together = tapped.capture(layout, token_ids, contents, _FEATURES)
            except Exception:  # whatever a model's code or a kernel raises, this layout is not for it
                continue
            worst = max(
                _difference(together[feature][sample], alone[sample][feature][0])
                for feature in _FEATURES
                for sample in range(len(lengths))
            )
            if worst <= tolerance:
                held.append(layout)
                if first_only:
                    break
    return held


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Largest relative difference in norm over the layers, [L, J] each; infinite where it is not a number."""
    difference = np.linalg.norm(one - other, axis=-1) / np.maximum(np.linalg.norm(other, axis=-1), 1e-30)
    worst = float(difference.max())
    return worst if np.isfinite(worst) else float("inf")


@contextlib.contextmanager
def _attention_for(layout: Layout, model: Any) -> Iterator[None]:
    """Set the attention that a layout needs, for a while."""
    if layout not in ON_ONE_ROW:
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation(_attention_name(layout))
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attention_name(layout: Layout) -> str:
    if layout is Layout.FLASH:
        return FLASH_ATTENTION
    register_packed_attention()
    return PACKED_ATTENTION
