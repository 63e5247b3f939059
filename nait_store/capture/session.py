"""A capture session: one model, one definition of a neuron, and samples going through."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nait_store.capture.batch_runner import BatchRunner, CapturedBatch
from nait_store.capture.batches import BatchLimits, default_token_budget, max_samples_for, windows
from nait_store.capture.edge_tokens import EdgeTokens
from nait_store.capture.experts import require_storable, verify_experts
from nait_store.capture.fingerprints import adapter_fingerprint, model_fingerprint, tokenizer_fingerprint
from nait_store.capture.hook_points import HookPlan, resolve_hooks, text_config
from nait_store.capture.layout_probe import choose_layout
from nait_store.capture.layouts import Layout
from nait_store.capture.memory import device_name, forget_peak, peak_memory_bytes
from nait_store.capture.models import LoadedModel, load_model
from nait_store.capture.placement import DeviceMap, is_offloaded
from nait_store.capture.positions import length_limit, position_traits
from nait_store.capture.rendering import PreparedSample, Renderer, UnpreparedSample
from nait_store.capture.taps import TappedDecoder, measure_width
from nait_store.capture.token_budgets import AUTO, TRIAL_SAMPLE_TOKENS, BudgetMemory, find_token_budget
from nait_store.capture.usage import CaptureUsage
from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.schemas.capture import (
    MEASURED_FEATURES,
    CaptureEnvironment,
    CaptureIdentity,
    CaptureSettings,
    Feature,
    HookPoint,
    Span,
    SpanEdges,
)


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
    longest_tokens
        Truncation limit that gives way to the model's own, where that is less, instead of being refused.
    adapter, quantization, compute_dtype, device, device_map, max_memory, trust_remote_code
        See :func:`~nait_store.capture.models.load_model`.
    token_budget
        Tokens in a batch; ``"auto"`` tries them out and remembers what it found, see
        :mod:`nait_store.capture.token_budgets`; by default what measured best for the kind of device.
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
    longest_tokens: int | None = None
    compute_dtype: str = "auto"
    device: str = "auto"
    device_map: DeviceMap | None = None
    max_memory: Mapping[str, str | int] | None = None
    token_budget: int | str | None = None
    trust_remote_code: bool = False


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
    device
        Where the model takes its inputs.
    renderer
        Turns samples into tokens.
    runner
        Plans batches and runs them.
    warnings
        What the user should know; grows while it runs.
    """

    def __init__(self, loaded: LoadedModel, options: CaptureOptions, features: Sequence[Feature]) -> None:
        if not features or not {*features} <= {*MEASURED_FEATURES}:
            raise InvalidInputError(
                f"a model does not give {', '.join(features) or 'no feature'}",
                next_step=f"name at least one of {', '.join(MEASURED_FEATURES)}",
            )
        _check_budget(options.token_budget)
        forget_peak(loaded.device)
        traits = position_traits(text_config(loaded.model))
        wanted_length = options.max_length_tokens
        if wanted_length is None and options.longest_tokens is not None:
            wanted_length = min(options.longest_tokens, loaded.max_positions or options.longest_tokens)
        max_length = length_limit(wanted_length, loaded.max_positions, traits)
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
        wanted = tuple(dict.fromkeys(features))
        limits = BatchLimits(
            token_budget=_fixed_budget(options.token_budget) or default_token_budget(loaded.device),
            max_samples=max_samples_for(len(wanted), len(self.layers), self.n_neurons),
            layout=layout,
            length_boundaries=traits.length_boundaries,
        )
        self.device = loaded.device
        self._tapped = TappedDecoder(plan, width=self.n_neurons, pad_token_id=loaded.pad_token_id, device=loaded.device)
        self.runner = BatchRunner(self._tapped, wanted, limits, device=loaded.device, shrunk=self._note_shrinking)
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
        self._budget: BudgetMemory | None = None
        if options.token_budget == AUTO and layout is not Layout.SINGLE:
            self._budget = BudgetMemory(
                {
                    "model_fingerprint": fingerprint,
                    "device": f"{device_name(loaded.device)}, {loaded.devices}",
                    "compute_dtype": loaded.dtype,
                    "hook": [options.hook_point.value, options.hook_path, list(self.layers)],
                    "features": [feature.value for feature in wanted],
                    "layout": layout.value,
                }
            )
            self._find_budget(self._budget, vocabulary_size=loaded.vocabulary_size or 1, sample_tokens=max_length)
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
            token_budget=self.runner.limits.token_budget,
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

    @property
    def unfit(self) -> Sequence[UnpreparedSample]:
        """Samples that do not fit into memory even alone, with the reason; grows while it runs."""
        return self.runner.unfit

    @property
    def usage(self) -> CaptureUsage:
        """How the model is run, and what it took so far."""
        return CaptureUsage(
            device=self.environment.device,
            layout=self.runner.limits.layout.value,
            token_budget=self.runner.limits.token_budget,
            peak_memory_bytes=peak_memory_bytes(self.device),
        )

    def _find_budget(self, memory: BudgetMemory, *, vocabulary_size: int, sample_tokens: int) -> None:
        """Take the token budget that is remembered, or try budgets out and remember what is found."""
        limits = self.runner.limits
        budget = memory.recall()
        if budget is None:
            length = min(TRIAL_SAMPLE_TOKENS, sample_tokens)
            found = find_token_budget(
                lambda n_tokens: self.runner.try_out(
                    n_tokens, vocabulary_size=vocabulary_size, sample_tokens=sample_tokens
                ),
                device=self.device,
                largest=limits.max_samples * length,
            )
            budget = found.token_budget
            memory.keep(budget)
        self.runner.limits = replace(limits, token_budget=budget)

    def _note_shrinking(self, token_budget: int, why: str) -> None:
        self.warnings.append(why)
        if self._budget is not None:
            self._budget.keep(token_budget)

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
            Many samples in a row are too much for the memory even alone; single ones go into :attr:`unfit`.
        IncompatibleError
            A hook did not fire exactly once.
        """
        edges = EdgeTokens()
        yield from self.runner.run(edges.looking_at(windows(samples)))
        self.warnings += edges.warnings()


def _check_budget(token_budget: int | str | None) -> None:
    if isinstance(token_budget, str) and token_budget != AUTO:
        raise InvalidInputError(
            f"{token_budget!r} is not a number of tokens", next_step="give --token-budget a number, or 'auto'"
        )
    if isinstance(token_budget, int) and token_budget < 1:
        raise InvalidInputError(
            f"a budget of {token_budget} tokens holds no sample", next_step="give --token-budget 1 or more"
        )


def _fixed_budget(token_budget: int | str | None) -> int | None:
    return token_budget if isinstance(token_budget, int) else None


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
