"""A forward pass goes no further than what is read; the first one runs whole, to see that every hook fires once."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nait_store.capture.hook_points import resolve_hooks
from nait_store.capture.layouts import Layout
from nait_store.capture.reducers import SpanReducer
from nait_store.capture.session import CaptureSession
from nait_store.capture.taps import TappedDecoder
from nait_store.errors import IncompatibleError
from nait_store.schemas.capture import MEASURED_FEATURES, Feature, HookPoint
from nait_store.testing.tiny_models import ARCHITECTURES, HIDDEN_SIZE, INTERMEDIATE_SIZE, N_LAYERS, tiny_model
from nait_store.testing.token_samples import by_sample_id, random_samples

MEAN = (Feature.MEAN,)
SAMPLE = random_samples([5])[0]


class _Passes:
    """Counts which modules of a tiny Llama ran, pass by pass."""

    def __init__(self, **choices: Any) -> None:
        self.model = tiny_model("llama")
        self._ran: Counter[str] = Counter()
        plan = resolve_hooks(self.model, choices.pop("hook_point", HookPoint.MLP), **choices)
        width = plan.sites[0].width
        assert width is not None
        for name, module in plan.decoder.named_modules():
            module.register_forward_hook(lambda *_, name=name: self._ran.update([name]))
        self.tapped = TappedDecoder(plan, width=width, pad_token_id=0, device="cpu")

    def run(self) -> set[str]:
        self._ran.clear()
        self.features = self.tapped.capture(Layout.SINGLE, [SAMPLE.token_ids], [SAMPLE.content], MEAN)
        assert set(self._ran.values()) == {1}
        return set(self._ran)


@pytest.mark.parametrize(
    ("choices", "last", "not_run"),
    [
        ({}, "layers.2.mlp.up_proj", "layers.2.mlp.down_proj"),
        ({"layers": [1, 0]}, "layers.1.mlp.up_proj", "layers.2.input_layernorm"),
        ({"layers": [0], "hook_point": HookPoint.ATTN}, "layers.0.self_attn.v_proj", "layers.0.self_attn.o_proj"),
        ({"hook_point": HookPoint.RESIDUAL}, "layers.2", "norm"),
    ],
)
def test_passes_end_where_nothing_more_is_read(choices: dict[str, Any], last: str, not_run: str) -> None:
    passes = _Passes(**choices)
    assert {last, not_run, "norm", ""} <= passes.run()
    whole = passes.features[Feature.MEAN]
    for _ in range(2):
        ran = passes.run()
        assert last in ran
        assert not {not_run, "norm", ""} & ran
        np.testing.assert_array_equal(passes.features[Feature.MEAN], whole)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_few_layers_give_the_numbers_of_all(architecture: str, model_folder: Callable[[str], str]) -> None:
    samples = random_samples((3, 17, 5, 40))
    kept = {}
    for layers in (None, (0,), (0, 1)):
        with CaptureSession.open(
            model_folder(architecture), features=MEASURED_FEATURES, layers=layers, token_budget=48
        ) as session:
            kept[layers] = by_sample_id(session.capture(samples))
    for layers in ((0,), (0, 1)):
        for sample_id, features in kept[layers].items():
            for feature, values in features.items():
                np.testing.assert_array_equal(values, kept[None][sample_id][feature][: len(layers)])


def test_after_close_the_model_runs_whole_again() -> None:
    passes = _Passes(layers=[0])
    passes.run(), passes.run()
    passes.tapped.close()
    with torch.inference_mode():
        output = passes.model(input_ids=torch.zeros((1, 4), dtype=torch.int64)).logits
        expected = tiny_model("llama")(input_ids=torch.zeros((1, 4), dtype=torch.int64)).logits
    torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_a_hook_that_fires_twice_is_found_before_passes_are_cut() -> None:
    """A last layer that runs twice would be cut off after the first time."""
    model = tiny_model("llama")
    last = model.model.layers[N_LAYERS - 1]
    own = last.forward

    def forward(hidden: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
        return own(own(hidden, *arguments, **keywords), *arguments, **keywords)

    last.forward = forward
    plan = resolve_hooks(model, HookPoint.MLP)
    with TappedDecoder(plan, width=INTERMEDIATE_SIZE, pad_token_id=0, device="cpu") as tapped:
        for _ in range(2):
            with pytest.raises(IncompatibleError, match="down_proj: 2 times"):
                tapped.capture(Layout.SINGLE, [SAMPLE.token_ids], [SAMPLE.content], MEAN)


def test_experts_are_all_seen_before_a_pass_ends(model_folder: Callable[[str], str]) -> None:
    samples = random_samples([30] * 4)
    with CaptureSession.open(model_folder("mixtral"), features=MEAN) as session:
        first, *others = (by_sample_id(session.capture(samples)) for _ in range(3))
    for other in others:
        for sample_id, features in other.items():
            np.testing.assert_array_equal(features[Feature.MEAN], first[sample_id][Feature.MEAN])


def test_the_end_of_a_pass_keeps_no_activations_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an exception, and the frames of one hold every tensor of the pass until they go."""
    seen: list[weakref.ref[torch.Tensor]] = []
    add = SpanReducer.add

    def noting(reducer: SpanReducer, slot: int, activations: torch.Tensor) -> None:
        seen.append(weakref.ref(activations))
        add(reducer, slot, activations)

    monkeypatch.setattr(SpanReducer, "add", noting)
    passes = _Passes(hook_point=HookPoint.RESIDUAL)
    assert passes.tapped is not None
    passes.run()
    seen.clear()
    gc.disable()
    try:
        passes.run()
        assert [reference() for reference in seen] == [None] * N_LAYERS
    finally:
        gc.enable()
    assert passes.features[Feature.MEAN].shape == (1, N_LAYERS, HIDDEN_SIZE)
