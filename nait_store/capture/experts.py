"""Mixtures of experts: read what enters each expert's down projection.

transformers keeps a layer's experts as fused parameters: ``down_proj`` [E, H, I] and ``gate_up_proj`` [E, 2I, H]. No
module call passes the inner vectors, so the module's ``forward`` is replaced, while a tap is open, by one that
computes the same from the same parameters and shows each expert's inner vectors on the way.

The value of neuron i of expert e for a token is the i-th input of e's down projection if the router sends the token
to e, and zero otherwise. The router's weight is **not** in it: it multiplies the down projection's output.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nait_store.errors import IncompatibleError

if TYPE_CHECKING:
    import torch
    from torch import nn

MAX_EXPERT_BYTES_PER_SAMPLE = 8 << 20
"""Largest [L, E·I] float16 array that a sample may take: a dense 70B model takes 4.4 MiB."""

ExpertObserver = Callable[[int, "torch.Tensor", "torch.Tensor"], None]
"""Told (expert, tokens [n] int64 ascending, inner vectors [n, I]) of every expert that has tokens."""

_TOLERANCE = {"float32": 1e-4, "float64": 1e-4}
_LOW_PRECISION_TOLERANCE = 5e-2


def is_fused_experts(module: nn.Module) -> bool:
    """Whether a module holds several experts' down projections as one three-dimensional parameter."""
    return any(parameter.ndim == 3 for _, parameter in module.named_parameters(recurse=False))


def require_supported(module: nn.Module, where: str) -> None:
    """Refuse experts that are not of the kind that :func:`observed_forward` computes.

    Raises
    ------
    IncompatibleError
        A part is missing, or the module's own forward does not follow transformers' common form.
    """
    gated = getattr(module, "has_gate", None)
    needed = ["down_proj", "gate_up_proj" if gated else "up_proj", "num_experts", "is_transposed", "has_bias"]
    missing = [name for name in needed if not hasattr(module, name)]
    if gated is None or missing:
        raise _unsupported(where, module, f"without {', '.join(missing) or 'has_gate'}")
    if getattr(module, "_is_expert_parallel", False):
        raise _unsupported(where, module, "spread over devices")


def require_storable(width: int, n_layers: int) -> None:
    """Refuse expert-flattened vectors that would take more than :data:`MAX_EXPERT_BYTES_PER_SAMPLE` a sample.

    Parameters
    ----------
    width
        E·I.
    n_layers
        Captured layers.
    """
    sample_bytes = width * n_layers * 2
    if sample_bytes > MAX_EXPERT_BYTES_PER_SAMPLE:
        raise IncompatibleError(
            f"the experts' neurons ({width:,} in each of {n_layers} layers) take {sample_bytes / 2**20:.1f} MiB a "
            f"sample and feature, more than the {MAX_EXPERT_BYTES_PER_SAMPLE / 2**20:.0f} MiB allowed",
            next_step="use --hook residual, or fewer layers with --layers",
        )


def observed_forward(
    module: Any,
    observer: ExpertObserver | None,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """Run routed experts one after the other and show their inner vectors.

    Parameters
    ----------
    module
        Fused experts that passed :func:`require_supported`.
    observer
        Told each expert's tokens and inner vectors.
    hidden_states
        [N, H].
    top_k_index, top_k_weights
        [N, k], the router's choice.

    Returns
    -------
    Tensor
        [N, H], what the module's own forward gives.
    """
    import torch
    from torch.nn import functional

    def project(inputs: torch.Tensor, name: str, expert: int) -> torch.Tensor:
        weight = getattr(module, name)[expert]
        bias = getattr(module, f"{name}_bias")[expert] if module.has_bias else None
        return functional.linear(inputs, weight.t() if module.is_transposed else weight, bias)

    output = torch.zeros_like(hidden_states)
    n_choices = top_k_index.shape[-1]
    choices = top_k_index.reshape(-1)
    # A stable sort keeps each expert's tokens ascending, which the reducer relies on.
    order = torch.argsort(choices, stable=True)
    counts = torch.bincount(choices, minlength=module.num_experts).tolist()
    start = 0
    for expert, count in enumerate(counts):
        if not count:
            continue
        chosen = order[start : start + count]
        start += count
        tokens = chosen // n_choices
        inner = project(hidden_states[tokens], "gate_up_proj" if module.has_gate else "up_proj", expert)
        inner = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)
        if observer is not None:
            observer(expert, tokens, inner)
        result = project(inner, "down_proj", expert)
        if getattr(module, "has_post_expert_norm", False):
            result = module.post_expert_norm(result)
        result = result * top_k_weights.reshape(-1)[chosen, None]
        output.index_add_(0, tokens, result.to(output.dtype))
    return output


class ExpertTap:
    """Replaces a fused experts module's forward, until removed, by one that shows its inner vectors."""

    def __init__(self, module: nn.Module, observer: ExpertObserver) -> None:
        self._module = module
        self._before = module.__dict__.get("forward")  # accelerate's, where the model is spread over devices

        def forward(
            module: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
        ) -> torch.Tensor:
            return observed_forward(module, observer, hidden_states, top_k_index, top_k_weights)

        # On the instance: the class, and so every other model of the process, stays as it is.
        module.__dict__["forward"] = types.MethodType(forward, module)

    def remove(self) -> None:
        """Give the module its own forward back."""
        self._module.__dict__.pop("forward", None)
        if self._before is not None:
            self._module.__dict__["forward"] = self._before


def verify_experts(module: Any, where: str, *, seed: int = 0) -> None:
    """Compare :func:`observed_forward` with the module's own forward on random tokens, and refuse if they differ.

    Parameters
    ----------
    module
        Fused experts that passed :func:`require_supported`.
    where
        Where it is, for the message.
    seed
        Of the random tokens.

    Raises
    ------
    IncompatibleError
        The outputs differ, or the module's own forward takes other arguments.
    """
    import torch

    weight = module.down_proj
    hidden = weight.shape[2] if module.is_transposed else weight.shape[1]
    generator = torch.Generator().manual_seed(seed)
    n_tokens = min(2 * module.num_experts, 64)
    hidden_states = torch.randn(n_tokens, hidden, generator=generator).to(weight.device, weight.dtype)
    n_choices = min(2, module.num_experts)
    index = torch.stack([torch.randperm(module.num_experts, generator=generator)[:n_choices] for _ in range(n_tokens)])
    weights = torch.rand(n_tokens, n_choices, generator=generator).to(weight.device, weight.dtype)
    index = index.to(weight.device)
    with torch.inference_mode():
        ours = observed_forward(module, None, hidden_states, index, weights).float()
        try:
            theirs = module(hidden_states, index, weights).float()
        except (TypeError, RuntimeError, ValueError, IndexError) as error:
            raise _unsupported(where, module, f"called otherwise ({type(error).__name__})") from error
    name = str(weight.dtype).removeprefix("torch.")
    difference = float((ours - theirs).norm() / theirs.norm().clamp_min(1e-30))
    if not difference <= _TOLERANCE.get(name, _LOW_PRECISION_TOLERANCE):  # NaN is refused too
        raise _unsupported(where, module, f"computed otherwise (outputs differ by {difference:.1e})")


def _unsupported(where: str, module: nn.Module, why: str) -> IncompatibleError:
    return IncompatibleError(
        f"the experts of {where} ({type(module).__name__}) are {why}: "
        "what enters their down projections cannot be read",
        next_step="use --hook residual, or name a Linear with --hook-path",
    )
