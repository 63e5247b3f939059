"""A capture session: one model, one definition of a neuron, and samples going through."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.batches import BatchLimits, default_token_budget, max_samples_for, plan_batches, windows
from nait_store.capture.experts import require_storable, verify_experts
from nait_store.capture.fingerprints import adapter_fingerprint, model_fingerprint, tokenizer_fingerprint
from nait_store.capture.hook_points import HookPlan, resolve_hooks, text_config
from nait_store.capture.layout_probe import choose_layout
from nait_store.capture.models import LoadedModel, load_model
from nait_store.capture.placement import DeviceMap, is_offloaded
from nait_store.capture.positions import length_limit, position_traits
from nait_store.capture.rendering import PreparedSample, Renderer
from nait_store.capture.taps import TappedDecoder, measure_width
from nait_store.errors import IncompatibleError, InvalidInputError, NaitStoreError
from nait_store.schemas.capture import (
    CaptureEnvironment,
    CaptureIdentity,
    CaptureSettings,
    Feature,
    HookPoint,
    Span,
    SpanEdges,
)

_FEW_SAMPLES = 8
"""Fewer may well begin or end alike by chance."""


@dataclass(frozen=True)
class CaptureOptions:
    """How to capture.

    Attributes
    ----------
    model_source
        Folder or hub id.
    hook_point, hook_path, layers
        What a neuron is, see :func:`~nait_store.capture.hook_points.resolve_hooks`.
    template, span, span_edges
        What a sample's tokens are, see :class:`~nait_store.capture.rendering.Renderer`.
    max_length_tokens
        Truncation limit; by default 2048, or the model's own limit if that is less.
    adapter, quantization, compute_dtype, device, device_map, max_memory, trust_remote_code
        See :func:`~nait_store.capture.models.load_model`.
    token_budget
        Tokens in a batch; by default what measured best for the kind of device.
    """

    model_source: str
    adapter: str | None = None
    quantization: str | None = None
    hook_point: HookPoint = HookPoint.MLP
    hook_path: str | None = None
    layers: tuple[int, ...] | None = None
    template: str = "auto"
    span: Span = Span.ALL
    span_edges: SpanEdges = SpanEdges.CONTENT
    max_length_tokens: int | None = None
    compute_dtype: str = "auto"
    device: str = "auto"
    device_map: DeviceMap | None = None
    max_memory: Mapping[str, str | int] | None = None
    token_budget: int | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, eq=False)
class CapturedBatch:
    """One batch that went through the model.

    Attributes
    ----------
    samples
        S samples.
    features
        Feature → [S, L, J] float32, as computed: not checked for NaN or infinity.
    n_tokens
        Tokens of the samples, padding not counted.
    """

    samples: list[PreparedSample]
    features: dict[Feature, NDArray[np.float32]]
    n_tokens: int


class CaptureSession:
    """Measures samples. Made by :meth:`open`; a context manager that removes its hooks.

    Attributes
    ----------
    identity, settings, environment
        What is measured, what shifts it a little, and where it runs.
    layers
        Captured layers, ascending.
    n_model_layers
        Decoder layers of the model.
    n_neurons
        J.
    renderer
        Turns samples into tokens.
    warnings
        What the user should know; grows while it runs.
    """

    def __init__(self, loaded: LoadedModel, options: CaptureOptions, features: Sequence[Feature]) -> None:
        if not features:
            raise InvalidInputError("no feature to capture", next_step=f"name at least one of {', '.join(Feature)}")
        if options.token_budget is not None and options.token_budget < 1:
            raise InvalidInputError(
                f"a budget of {options.token_budget} tokens holds no sample", next_step="give --token-budget 1 or more"
            )
        traits = position_traits(text_config(loaded.model))
        max_length = length_limit(options.max_length_tokens, loaded.max_positions, traits)
        self.warnings: list[str] = list(loaded.warnings)
        self.renderer = Renderer(
            loaded.tokenizer,
            template=options.template,
            span=options.span,
            span_edges=options.span_edges,
            max_length_tokens=max_length,
            vocabulary_size=loaded.vocabulary_size,
        )
        plan = resolve_hooks(loaded.model, options.hook_point, hook_path=options.hook_path, layers=options.layers)
        # Without it the decoder warns about samples that end in what is its padding token, as GPT-2's do.
        loaded.model.config.get_text_config(decoder=True).pad_token_id = None
        self.layers = plan.layers
        self.n_model_layers = plan.n_model_layers
        self.n_neurons = _width(plan, loaded.device)
        layout = choose_layout(plan, loaded.model, pad_token_id=loaded.pad_token_id, device=loaded.device)
        budget = options.token_budget or default_token_budget(loaded.device)
        self._features = tuple(dict.fromkeys(features))
        self._limits = BatchLimits(
            token_budget=budget,
            max_samples=max_samples_for(len(self._features), len(self.layers), self.n_neurons),
            layout=layout,
            length_boundaries=traits.length_boundaries,
        )
        self._tapped = TappedDecoder(plan, width=self.n_neurons, pad_token_id=loaded.pad_token_id, device=loaded.device)
        fingerprint = model_fingerprint(loaded)
        base_fingerprint = model_fingerprint(loaded.source)
        self.identity = CaptureIdentity(
            model_fingerprint=fingerprint,
            tokenizer_fingerprint=tokenizer_fingerprint(loaded.tokenizer),
            template=self.renderer.policy,
            span=options.span,
            span_edges=options.span_edges,
            hook_point=options.hook_point,
            hook_path=options.hook_path,
            moe_layout=plan.moe_layout,
        )
        self.settings = CaptureSettings(max_length_tokens=max_length, compute_dtype=loaded.dtype)
        self.environment = CaptureEnvironment(
            model_source=loaded.source,
            model_type=loaded.model_type,
            model_revision=loaded.revision,
            adapter_source=loaded.adapter.source if loaded.adapter else None,
            adapter_fingerprint=adapter_fingerprint(loaded.adapter) if loaded.adapter else None,
            quantization=loaded.quantization.name if loaded.quantization else None,
            base_fingerprint=base_fingerprint if base_fingerprint != fingerprint else None,
            n_parameters=loaded.n_parameters,
            device=loaded.devices or loaded.device,
            batch_layout=layout.value,
            token_budget=budget,
            torch_version=importlib.metadata.version("torch"),
            transformers_version=importlib.metadata.version("transformers"),
        )

    @classmethod
    def open(cls, model_source: str, *, features: Sequence[Feature], **options: Any) -> CaptureSession:
        """Load a model and find out how to capture it.

        Parameters
        ----------
        model_source
            Folder or hub id.
        features
            What to collect.
        **options
            The other fields of :class:`CaptureOptions`; ``layers`` may be any sequence.

        Raises
        ------
        NotFoundError, InvalidInputError, IncompatibleError, MissingExtraError
            The model cannot be loaded or hooked as asked; the message says what can be done.
        """
        if options.get("layers") is not None:
            options["layers"] = tuple(options["layers"])
        return cls.of(CaptureOptions(model_source, **options), features=features)

    @classmethod
    def of(cls, options: CaptureOptions, *, features: Sequence[Feature]) -> CaptureSession:
        """Load a model and find out how to capture it, see :meth:`open`."""
        loaded = load_model(
            options.model_source,
            adapter=options.adapter,
            quantization=options.quantization,
            dtype=options.compute_dtype,
            device=options.device,
            device_map=options.device_map,
            max_memory=options.max_memory,
            trust_remote_code=options.trust_remote_code,
        )
        return cls(loaded, options, features)

    def __enter__(self) -> CaptureSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the hooks from the model."""
        self._tapped.close()

    def capture(self, samples: Iterable[PreparedSample]) -> Iterator[CapturedBatch]:
        """Measure samples, in batches of like length.

        Parameters
        ----------
        samples
            Any number; pulled a few thousand at a time.

        Yields
        ------
        CapturedBatch
            Every sample is in exactly one; they come in another order than they went in.

        Raises
        ------
        NaitStoreError
            One sample alone is too much for the memory.
        IncompatibleError
            A hook did not fire exactly once.
        """
        edges = _EdgeTokens()
        for window in windows(samples):
            edges.look_at(window)
            yield from self._capture_window(window)
        self.warnings += edges.warnings()

    def _capture_window(self, window: Sequence[PreparedSample]) -> Iterator[CapturedBatch]:
        waiting = [[window[index] for index in batch] for batch in self._plan(window)]
        waiting.reverse()
        while waiting:
            batch = waiting.pop()
            features = self._try(batch)
            if features is None:
                rest = [sample for other in [batch, *reversed(waiting)] for sample in other]
                waiting = [[rest[index] for index in planned] for planned in self._plan(rest)]
                waiting.reverse()
                continue
            yield CapturedBatch(batch, features, sum(sample.n_tokens for sample in batch))

    def _plan(self, samples: Sequence[PreparedSample]) -> list[list[int]]:
        return plan_batches([sample.n_tokens for sample in samples], self._limits)

    def _try(self, batch: Sequence[PreparedSample]) -> dict[Feature, NDArray[np.float32]] | None:
        """Run one batch; None, with a smaller budget for what follows, if the memory does not hold it."""
        try:
            return self._tapped.capture(
                self._limits.layout,
                [sample.token_ids for sample in batch],
                [sample.content for sample in batch],
                self._features,
            )
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            message = str(error).partition("\n")[0]
        if len(batch) == 1:
            raise NaitStoreError(
                f"one sample of {batch[0].n_tokens:,} tokens is too much for the memory of "
                f"{self.environment.device}: {message}",
                next_step="lower --max-length, capture fewer --layers, or load the model with --compute-dtype bfloat16",
            )
        _release_memory(self.environment.device)
        n_tokens = sum(sample.n_tokens for sample in batch)
        budget = max(1, min(self._limits.token_budget, n_tokens) // 2)
        self._limits = replace(self._limits, token_budget=budget, max_samples=max(1, len(batch) // 2))
        self.warnings.append(
            f"a batch of {n_tokens:,} tokens did not fit into memory: the token budget is now {budget:,}"
        )
        return None


class _EdgeTokens:
    """Notices when every sample has the same t_1 or the same t_K: then the span is not the samples' own text."""

    def __init__(self) -> None:
        self._n_samples = 0
        self._first: set[int] = set()
        self._last: set[int] = set()

    def look_at(self, samples: Sequence[PreparedSample]) -> None:
        self._n_samples += len(samples)
        # Two are enough to know that they are not all the same.
        for seen, edge in ((self._first, 0), (self._last, -1)):
            if len(seen) < 2:
                for sample in samples:
                    position = sample.content[0][0] if edge == 0 else sample.content[-1][1] - 1
                    seen.add(int(sample.token_ids[position]))

    def warnings(self) -> list[str]:
        if self._n_samples < _FEW_SAMPLES:
            return []
        return [
            f"all {self._n_samples:,} samples have the same {which} content token: {effect}; "
            "look at --span-edges, --span and --template"
            for seen, which, effect in (
                (self._first, "first", "A(t_1) says nothing about a sample"),
                (self._last, "last", "'last' and 'drift' look at the same token everywhere"),
            )
            if len(seen) == 1
        ]


def _width(plan: HookPlan, device: str) -> int:
    site = plan.sites[0]
    if site.reads != "experts":
        return measure_width(plan, device=device)
    width = site.width or 0
    require_storable(width, len(plan.sites))
    for expert_site in plan.sites:
        experts = plan.decoder.get_submodule(expert_site.path)
        if is_offloaded(experts):
            raise IncompatibleError(
                f"the experts of {expert_site.path} are offloaded: what enters their down projections cannot be read",
                next_step="use --hook residual, or raise --max-memory",
            )
        verify_experts(experts, expert_site.path)
    return width


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
    )


def _release_memory(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()
