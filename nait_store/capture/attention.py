"""Attention over a packed batch: several samples one after the other, each seeing only itself.

Registered with transformers' ``AttentionInterface``. The lengths travel as ``cu_seq_lens_q``, the keyword that
flash-attention's variable-length kernels use; where a model's code drops it, we stop, and the probe of
:mod:`nait_store.capture.layouts` takes another layout.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKED_ATTENTION = "nait_store_packed"
FLASH_ATTENTION = "flash_attention_2"
_FLASH_DTYPES = ("bfloat16", "float16")

_UNSUPPORTED = ("position_bias", "block_mask", "indices", "cache")


class PackedAttentionError(Exception):
    """A model cannot run packed batches; only the layout probe sees it."""


def register_packed_attention() -> None:
    """Make :func:`packed_attention` known to transformers; repeated calls do nothing."""
    from transformers import AttentionInterface

    if PACKED_ATTENTION not in AttentionInterface():
        AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def can_flash(model: Any, device: str) -> bool:
    """Whether flash-attention's kernels may be tried: package, device, dtype and the model's code allow them.

    Parameters
    ----------
    model
        ``transformers`` causal LM.
    device
        Where it runs.
    """
    from transformers.utils import is_flash_attn_2_available

    return (
        device.startswith("cuda")
        and str(model.dtype).removeprefix("torch.") in _FLASH_DTYPES
        and bool(getattr(model, "_supports_flash_attn", False))
        and model._can_set_attn_implementation()
        and is_flash_attn_2_available()
    )


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each sample of a packed batch.

    Parameters
    ----------
    module
        The attention module, asked for ``is_causal`` where the call does not say.
    query
        [1, heads, N, d], samples one after the other.
    key, value
        [1, key heads, N, d]; the key heads divide the heads.
    attention_mask
        Must be None: samples are kept apart by slicing.
    scaling
        Factor on the products; 1/√d by default.
    is_causal, sliding_window
        A token sees itself and those before it, at most ``sliding_window`` in all.
    softcap
        c: products x become c·tanh(x/c).
    s_aux
        [heads] attention sinks: logits that take part in the softmax and carry no value.
    cu_seq_lens_q
        [S + 1] int, where the samples begin and the last one ends.

    Returns
    -------
    tuple
        [1, N, heads, d] and None.

    Raises
    ------
    PackedAttentionError
        The lengths did not arrive, or the model asks for something else.
    """
    import torch
    from torch.nn import functional

    if cu_seq_lens_q is None or attention_mask is not None or query.shape[0] != 1:
        raise PackedAttentionError("the lengths of the packed samples do not reach the attention")
    if any(others.get(name) is not None for name in _UNSUPPORTED):
        raise PackedAttentionError("this attention is more than a causal window")
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if not causal:
        raise PackedAttentionError("this attention is not causal")
    n_groups = query.shape[1] // key.shape[1]
    output = torch.empty((1, query.shape[2], query.shape[1], value.shape[-1]), dtype=query.dtype, device=query.device)
    bounds = cu_seq_lens_q.tolist()
    lengths = [high - low for low, high in itertools.pairwise(bounds)]
    low = 0
    # Sorted batches are full of samples of one length: those go through one call, as a batch without padding.
    for length, run in itertools.groupby(lengths):
        n_samples = len(list(run))
        high = low + n_samples * length
        samples = slice(low, high), n_samples
        queries, keys, values = _batch(query, *samples), _batch(key, *samples), _batch(value, *samples)
        mask = None
        if sliding_window is not None and length > sliding_window:
            mask = _window(length, sliding_window, query.device)
        if softcap is not None or s_aux is not None:
            result = _explicit(queries, keys, values, scaling, mask, softcap, s_aux)
        else:
            result = functional.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=mask,
                scale=scaling,
                is_causal=mask is None,
                enable_gqa=n_groups > 1,
            )
        output[0, low:high] = result.transpose(1, 2).flatten(0, 1)
        low = high
    return output, None


def _batch(states: torch.Tensor, tokens: slice, n_samples: int) -> torch.Tensor:
    """View a run of equally long samples of [1, heads, N, d] as [samples, heads, T, d]."""
    run = states[0, :, tokens]
    return run.view(run.shape[0], n_samples, -1, run.shape[-1]).transpose(0, 1)


def _window(length: int, sliding_window: int, device: torch.device) -> torch.Tensor:
    """Return [T, T] bool: whether token i sees token j."""
    import torch

    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < sliding_window)


def _explicit(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    mask: torch.Tensor | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attend with capped logits and sinks, which the fused kernels do not have; softmax in float32."""
    import torch

    n_groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(n_groups, dim=1), value.repeat_interleave(n_groups, dim=1)
    logits = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    length = query.shape[2]
    seen = _window(length, length, query.device) if mask is None else mask
    logits = logits.masked_fill(~seen, float("-inf")).float()
    if sinks is not None:
        logits = torch.cat([logits, sinks.float().reshape(1, -1, 1, 1).expand(len(logits), -1, length, 1)], dim=-1)
    weights = torch.softmax(logits, dim=-1)[..., :length]
    return weights.to(value.dtype) @ value
