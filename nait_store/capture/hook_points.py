"""Where in a model the neurons are read: modules found by structure, not by a table of architectures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nait_store.capture.experts import is_fused_experts, require_supported
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError, did_you_mean
from nait_store.schemas.capture import HookPoint

if TYPE_CHECKING:
    from torch import nn

# A module that mixes tokens is told by a word of its class or attribute name; everything else in a decoder layer
# works on one token at a time.
_MIXING_CLASS = re.compile(
    r"attention|attn|mamba|mixer|rwkv|timemix|time_mix|deltanet|delta_net|shortconv|conv|recurrent|hyena|retention|(?-i:SSM)",
    re.IGNORECASE,
)
_MIXING_NAME = re.compile(
    r"(^|_)(attn|attention|mixer|mamba|ssm|rwkv|time_mix|token_mixer|conv|recurrent|temporal_block|retention)($|_|\d)",
    re.IGNORECASE,
)
_QUERY_KEY_VALUE = re.compile(
    r"(^|_)(q|k|v|qkv|query|key|value|kv|qk|gate|g|b|a|f|r|w_q|w_k|w_v|wq|wk|wv)($|_)|indexer|rotary|c_attn", re.I
)
_DOWN_NAME = re.compile(r"down|fc2|fc_2|c_proj|proj_out|4h_to_h|fc_out|lin2|linear_?2|w2|wo|output|out", re.IGNORECASE)
_RESIDUAL_ADVICE = "use --hook residual, which every decoder has"


@dataclass(frozen=True)
class HookSite:
    """One place that is read once per forward pass.

    Attributes
    ----------
    layer
        Zero-based decoder layer.
    path
        Module path within the decoder, e.g. ``layers.3.mlp.down_proj``.
    reads
        The module's ``input``, its ``output``, or (fused ``experts``) what enters each expert's down projection.
    width
        J as far as the module tells; None if only a forward pass can.
    n_experts
        1, or E of a mixture of experts.
    """

    layer: int
    path: str
    reads: Literal["input", "output", "experts"]
    width: int | None
    n_experts: int = 1


@dataclass(frozen=True, eq=False)
class HookPlan:
    """What to run and where to read.

    Attributes
    ----------
    decoder
        The module that runs: everything below the language-model head, text part only.
    sites
        One a captured layer, layers ascending.
    n_model_layers
        Decoder layers of the model, captured or not.
    """

    decoder: nn.Module
    sites: tuple[HookSite, ...]
    n_model_layers: int

    @property
    def layers(self) -> tuple[int, ...]:
        """Captured layers, ascending."""
        return tuple(site.layer for site in self.sites)

    @property
    def moe_layout(self) -> str | None:
        """``expert-flattened:E×I`` where experts are read: the layer's vector is E blocks of I, zero if unrouted."""
        site = self.sites[0]
        if site.reads != "experts" or site.width is None:
            return None
        return f"expert-flattened:{site.n_experts}×{site.width // site.n_experts}"


def resolve_hooks(
    model: Any, hook_point: HookPoint, *, hook_path: str | None = None, layers: Sequence[int] | None = None
) -> HookPlan:
    """Find the modules to read.

    ``mlp``: the input of the Linear or Conv1D whose output is the hidden size and that is not part of token mixing,
    preferring the one whose input is the intermediate size; or of the experts' fused down projections. ``residual``:
    the decoder layer's output. ``attn``: the input of the Linear in token mixing whose output is the hidden size and
    that makes neither queries, keys, values nor gates.

    Parameters
    ----------
    model
        A transformers causal LM, or its base model.
    hook_point
        What a neuron is.
    hook_path
        Module path within a decoder layer that replaces the structural rule: its input is read for ``mlp`` and
        ``attn``, its output for ``residual``.
    layers
        Zero-based layers to read; all by default.

    Returns
    -------
    HookPlan

    Raises
    ------
    NotFoundError
        A layer, or ``hook_path``, does not exist; the message gives the range, or near names.
    IncompatibleError
        The rule finds no module, or several, or experts that cannot be read, or layers of different widths; the
        message lists the candidates.
    InvalidInputError
        A layer is named twice, or none is, or ``hook_path`` is not a Linear where one is needed.
    """
    decoder = find_decoder(model)
    layers_path, modules = find_layers(decoder, model)
    wanted = _check_layers(layers, len(modules))
    sites = tuple(
        _site(model, modules[layer], layer, f"{layers_path}.{layer}", hook_point, hook_path) for layer in wanted
    )
    widths = {site.width for site in sites}
    if len(widths) > 1 or len({(site.reads, site.n_experts) for site in sites}) > 1:
        shown = ", ".join(f"layer {site.layer}: {site.width}" for site in sites[:6])
        raise IncompatibleError(
            f"the layers differ in width at hook point {hook_point.value!r} ({shown}{' …' if len(sites) > 6 else ''})",
            next_step=f"{_RESIDUAL_ADVICE}, or name layers of one width with --layers",
        )
    return HookPlan(decoder, sites, len(modules))


def find_decoder(model: Any) -> Any:
    """Return the module below the language-model head: ``get_decoder()``, else the base model."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    return decoder if decoder is not None else getattr(model, "base_model", model)


def text_config(model: Any) -> Any:
    """Return the configuration of the text decoder."""
    return model.config.get_text_config(decoder=True)


def find_layers(decoder: Any, model: Any) -> tuple[str, Any]:
    """Return path and ``ModuleList`` of the decoder layers: the largest one with ``num_hidden_layers`` members.

    Raises
    ------
    IncompatibleError
        There is none.
    """
    from torch import nn

    n_layers = text_config(model).num_hidden_layers
    lists = [(name, module) for name, module in decoder.named_modules() if isinstance(module, nn.ModuleList)]
    fitting = [(name, module) for name, module in lists if len(module) == n_layers]
    if not fitting:
        shown = ", ".join(f"{name} ({len(module)})" for name, module in lists[:8]) or "none"
        raise IncompatibleError(
            f"{type(decoder).__name__} has no list of its {n_layers} decoder layers (module lists: {shown})",
            next_step="choose a model whose decoder is a list of layers",
        )
    return max(fitting, key=lambda pair: sum(parameter.numel() for parameter in pair[1].parameters()))


def _check_layers(layers: Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(n_layers))
    unknown = [layer for layer in layers if not 0 <= layer < n_layers]
    if unknown:
        raise NotFoundError(
            f"the model has no layer {unknown[0]}", next_step=f"its layers are 0 to {n_layers - 1}, counted from zero"
        )
    if not layers or len(set(layers)) != len(layers):
        raise InvalidInputError(
            "no layer is named" if not layers else "a layer is named twice",
            next_step=f"name each layer of 0 to {n_layers - 1} once, or leave --layers out for all",
        )
    return tuple(sorted(layers))


def _site(
    model: Any, layer_module: nn.Module, layer: int, path: str, hook_point: HookPoint, hook_path: str | None
) -> HookSite:
    if hook_path is not None:
        return _overridden(layer_module, layer, path, hook_point, hook_path)
    config = text_config(model)
    if hook_point is HookPoint.RESIDUAL:
        return HookSite(layer, path, "output", int(config.hidden_size))
    if hook_point is HookPoint.ATTN:
        name, width = _attention_output(layer_module, layer, int(config.hidden_size))
        return HookSite(layer, f"{path}.{name}", "input", width)
    return _mlp_site(layer_module, layer, path, int(config.hidden_size), _intermediate_size(config))


def _overridden(layer_module: nn.Module, layer: int, path: str, hook_point: HookPoint, hook_path: str) -> HookSite:
    named = dict(layer_module.named_modules())
    if hook_path not in named or not hook_path:
        known = [name for name in named if name]
        raise NotFoundError(
            f"decoder layer {layer} has no module {hook_path!r} (--hook-path)",
            next_step=f"{did_you_mean(hook_path, known)} A hook path is relative to the decoder layer",
        )
    if hook_point is HookPoint.RESIDUAL:
        return HookSite(layer, f"{path}.{hook_path}", "output", None)
    shape = linear_shape(named[hook_path])
    if shape is None:
        linears = [name for name, module in named.items() if linear_shape(module)]
        raise InvalidInputError(
            f"{hook_path!r} in layer {layer} is a {type(named[hook_path]).__name__}, not a Linear whose input could "
            f"be read as {hook_point.value!r}",
            next_step=f"name one of {', '.join(linears)}, or read its output with --hook residual",
        )
    return HookSite(layer, f"{path}.{hook_path}", "input", shape[0])


def _wrapped(module: nn.Module) -> nn.Module | None:
    """Return the module of the model that an adapter's module wraps; None where it wraps none."""
    children = dict(module.named_children())
    return children.get("base_layer", children.get("original_module"))


def _model_modules(layer_module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield path and module of everything in a layer, an adapter's wrapper standing for all that is in it."""
    hidden: list[str] = []
    for name, module in layer_module.named_modules():
        if any(name.startswith(prefix) for prefix in hidden):
            continue
        yield name, module
        if _wrapped(module) is not None:
            hidden.append(f"{name}.")


def linear_shape(module: Any) -> tuple[int, int] | None:
    """Return (input, output) width of a Linear or Conv1D, quantised ones and adapters' wrappers included."""
    base = module
    while (inner := _wrapped(base)) is not None:
        base = inner
    for names in (("in_features", "out_features"), ("infeatures", "outfeatures")):  # the latter: older GPTQ classes
        n_inputs, n_outputs = (getattr(base, name, None) for name in names)
        if isinstance(n_inputs, int) and isinstance(n_outputs, int):
            return n_inputs, n_outputs
    if type(base).__name__ == "Conv1D":  # GPT-2's: weight [in, out]
        return int(base.nx), int(base.nf)
    return None


def _intermediate_size(config: Any) -> int | None:
    for name in ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "d_ff"):
        size = getattr(config, name, None)
        if isinstance(size, int):
            return size
    return None


def _mixing_depth(layer_module: nn.Module, name: str) -> int | None:
    """Position, in the dotted name, of the first ancestor that mixes tokens; None if none does."""
    parts = name.split(".")
    module = layer_module
    for depth, part in enumerate(parts[:-1]):
        module = module.get_submodule(part)
        if _MIXING_NAME.search(part) or _MIXING_CLASS.search(type(module).__name__):
            return depth
    return None


def _mlp_site(layer_module: nn.Module, layer: int, path: str, hidden: int, intermediate: int | None) -> HookSite:
    experts = [
        (name, module)
        for name, module in _model_modules(layer_module)
        if name and is_fused_experts(module) and _mixing_depth(layer_module, name + ".x") is None
    ]
    candidates: list[tuple[str, int]] = []
    for name, module in _model_modules(layer_module):
        inner = _wrapped(module)
        if inner is not None and is_fused_experts(inner):
            raise IncompatibleError(
                f"the adapter changes the routed experts of layer {layer} ({name}): what enters their down projections "
                "cannot be read",
                next_step=_RESIDUAL_ADVICE,
            )
        shape = linear_shape(module) if name else None
        inside_experts = any(name.startswith(f"{expert}.") for expert, _ in experts)
        if shape and shape[1] == hidden and not inside_experts and _mixing_depth(layer_module, name) is None:
            candidates.append((name, shape[0]))
    if experts:
        return _experts_site(experts, candidates, layer, path)
    chosen = [candidate for candidate in candidates if candidate[1] == intermediate] or [
        candidate for candidate in candidates if candidate[1] != hidden
    ]
    chosen = chosen or candidates
    if len(chosen) > 1:  # intermediate size = hidden size, say: only then do names decide
        parents = {name.rpartition(".")[0] for name, _ in chosen}
        named = [candidate for candidate in chosen if _DOWN_NAME.search(candidate[0].rpartition(".")[2])]
        chosen = named if len(parents) == 1 and len(named) == 1 else chosen
    if len(chosen) != 1:
        raise _unresolved("mlp", layer_module, layer, [name for name, _ in chosen])
    return HookSite(layer, f"{path}.{chosen[0][0]}", "input", chosen[0][1])


def _experts_site(
    experts: list[tuple[str, nn.Module]], dense: list[tuple[str, int]], layer: int, path: str
) -> HookSite:
    name, module = experts[0]
    if dense or len(experts) > 1:
        others = ", ".join([other for other, _ in dense] + [other for other, _ in experts[1:]])
        raise IncompatibleError(
            f"layer {layer} adds up routed experts ({name}) and other feed-forward modules ({others}): "
            "no one vector enters 'the' down projection",
            next_step=f"{_RESIDUAL_ADVICE}, or name one Linear with --hook-path",
        )
    require_supported(module, f"layer {layer}, {name}")
    n_experts, width = expert_shape(module)
    return HookSite(layer, f"{path}.{name}", "experts", n_experts * width, n_experts)


def expert_shape(module: Any) -> tuple[int, int]:
    """Return (E, I) of a fused experts module, from its down projection [E, H, I] or [E, I, H]."""
    shape = module.down_proj.shape
    return int(shape[0]), int(shape[1] if getattr(module, "is_transposed", False) else shape[2])


def _attention_output(layer_module: nn.Module, layer: int, hidden: int) -> tuple[str, int]:
    candidates = []
    for name, module in _model_modules(layer_module):
        shape = linear_shape(module) if name else None
        if shape and shape[1] == hidden and _mixing_depth(layer_module, name) is not None:
            candidates.append((name, shape[0]))
    chosen = [(name, width) for name, width in candidates if not _QUERY_KEY_VALUE.search(name.rpartition(".")[2])]
    if len(chosen) != 1:
        raise _unresolved("attn", layer_module, layer, [name for name, _ in chosen or candidates])
    return chosen[0]


def _unresolved(hook_point: str, layer_module: nn.Module, layer: int, candidates: Sequence[str]) -> IncompatibleError:
    found = "no module fits" if not candidates else f"{len(candidates)} modules fit ({', '.join(candidates)})"
    linears = [name for name, module in _model_modules(layer_module) if linear_shape(module)]
    listed = ", ".join(linears[:12]) + (" …" if len(linears) > 12 else "") or "none"
    return IncompatibleError(
        f"hook point {hook_point!r} cannot be resolved in layer {layer} ({type(layer_module).__name__}): {found}",
        next_step=f"name the module whose input to read with --hook-path (linear modules of the layer: {listed}), or "
        f"{_RESIDUAL_ADVICE}",
    )
