"""The layout is tried out, and what is silently wrong is not taken."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nait_store.capture import attention, layout_probe
from nait_store.capture.hook_points import resolve_hooks
from nait_store.capture.layout_probe import choose_layout, small_copy
from nait_store.capture.layouts import Layout, lay_out
from nait_store.capture.positions import PositionTraits, length_limit, position_traits
from nait_store.capture.session import CaptureSession
from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.schemas.capture import Feature, HookPoint
from nait_store.testing.tiny_models import tiny_model
from nait_store.testing.token_samples import by_sample_id, random_samples

_GPT_OSS: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 7,
    "max_position_embeddings": 96,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "pad_token_id": 2,
}
_LONGROPE: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "longrope",
        "short_factor": [1.0] * 4,
        "long_factor": [5.0] * 4,
        "rope_theta": 10000.0,
    },
    "original_max_position_embeddings": 48,
}


def chosen(model: Any) -> Layout:
    return choose_layout(resolve_hooks(model, HookPoint.RESIDUAL), model, pad_token_id=3, device="cpu")


def stood_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_probe, "_DIRECT_PARAMETERS", 0)


@pytest.mark.parametrize("by", ["itself", "a stand-in"])
@pytest.mark.parametrize(
    ("architecture", "layout"),
    [("llama", "packed"), ("gemma2", "packed"), ("falcon", "right"), ("bloom", "right"), ("mixtral", "packed")],
)
def test_a_model_and_its_stand_in_agree_on_the_layout(
    architecture: str, layout: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "a stand-in":
        stood_in(monkeypatch)
    assert chosen(tiny_model(architecture)) == layout


def test_falcon_with_alibi_is_not_packed() -> None:
    assert chosen(tiny_model("falcon", alibi=True)) in (Layout.RIGHT, Layout.RIGHT_MASKED)


def test_attention_sinks_are_packed_only_with_the_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt_oss", **_GPT_OSS)
    assert chosen(model) is Layout.PACKED

    real = attention.packed_attention

    def without_sinks(*arguments: Any, s_aux: torch.Tensor | None = None, **others: Any) -> Any:
        return real(*arguments, **others)

    monkeypatch.setattr(layout_probe, "register_packed_attention", lambda: _register(without_sinks))
    try:
        assert chosen(tiny_model("gpt_oss", **_GPT_OSS)) is not Layout.PACKED
    finally:
        _register(real)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt2"])
def test_packing_that_lets_samples_see_each_other_is_caught(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(*arguments: Any, cu_seq_lens_q: torch.Tensor, **others: Any) -> Any:
        return attention.packed_attention(*arguments, cu_seq_lens_q=cu_seq_lens_q[[0, -1]], **others)

    monkeypatch.setattr(layout_probe, "register_packed_attention", lambda: _register(leaky))
    try:
        assert chosen(tiny_model(architecture)) is Layout.RIGHT
    finally:
        _register(attention.packed_attention)


@pytest.mark.parametrize("by", ["itself", "a stand-in"])
def test_packing_that_forgets_the_sliding_window_is_caught(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlimited(*arguments: Any, sliding_window: int | None = None, **others: Any) -> Any:
        return attention.packed_attention(*arguments, **others)

    if by == "a stand-in":
        stood_in(monkeypatch)
    monkeypatch.setattr(layout_probe, "register_packed_attention", lambda: _register(unlimited))
    try:
        assert chosen(tiny_model("mistral", sliding_window=64 if by == "a stand-in" else 7)) is Layout.RIGHT
    finally:
        _register(attention.packed_attention)


def test_a_model_that_looks_ahead_runs_singly() -> None:
    model = tiny_model("llama")
    model.model.layers[0].mlp.register_forward_hook(lambda _module, _inputs, output: output + output.mean((0, 1)))
    assert chosen(model) is Layout.SINGLE


def test_a_decoder_that_does_not_run_is_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp = torch.nn.Linear(3, 3)
    with pytest.raises(IncompatibleError, match="does not run on plain token ids"):
        chosen(model)


def test_the_stand_in_has_one_layer_of_every_kind_and_short_windows() -> None:
    model = tiny_model("gemma3_text", sliding_window=64)
    stand_in = small_copy(model.model)
    assert stand_in.config.layer_types == ["sliding_attention", "full_attention"]
    assert stand_in.config.sliding_window == 8
    assert stand_in.config.hidden_size == model.config.hidden_size
    assert model.config.num_hidden_layers == 3  # the original is untouched


def test_without_a_stand_in_a_model_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    stood_in(monkeypatch)
    monkeypatch.setattr(layout_probe, "small_copy", lambda _decoder: None)
    assert chosen(tiny_model("mistral")) is Layout.RIGHT


def test_the_probe_leaves_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stood_in(monkeypatch)
    model = tiny_model("llama")
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    chosen(model)
    assert torch.equal(torch.rand(1), expected)


def test_packed_inputs_restart_positions_and_name_bounds() -> None:
    inputs = lay_out(Layout.PACKED, [np.array([5, 6], np.int32), np.array([7], np.int32)], pad_token_id=0, device="cpu")
    assert inputs.starts == (0, 2)
    assert inputs.arguments["input_ids"].tolist() == [[5, 6, 7]]
    assert inputs.arguments["position_ids"].tolist() == [[0, 1, 0]]
    assert inputs.arguments["cu_seq_lens_q"].tolist() == [0, 2, 3]


def test_longrope_and_dynamic_rope_are_told_from_the_configuration() -> None:
    assert position_traits(tiny_model("phi3", **_LONGROPE).config).length_boundaries == (48,)
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    traits = position_traits(tiny_model("llama", rope_parameters=dynamic).config)
    assert traits.dynamic
    assert not position_traits(tiny_model("llama").config).dynamic
    with pytest.raises(InvalidInputError, match="RoPE changes") as caught:
        length_limit(97, 96, traits)
    assert "--max-length 96" in str(caught.value)


def test_longrope_numbers_do_not_depend_on_who_else_is_in_the_batch(saved: Callable[..., str]) -> None:
    folder = saved("phi3", **_LONGROPE)
    samples = random_samples([20, 90, 48, 49, 30])
    captured = []
    for token_budget in (1, 1000):
        with CaptureSession.open(folder, features=[Feature.LAST], token_budget=token_budget) as session:
            captured.append(by_sample_id(session.capture(samples)))
    for sample_id, features in captured[0].items():
        np.testing.assert_allclose(captured[1][sample_id][Feature.LAST], features[Feature.LAST], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("asked", "positions", "limit"), [(None, 96, 96), (None, None, 2048), (50, 96, 50)])
def test_the_length_limit_is_the_users_or_the_models(asked: int | None, positions: int | None, limit: int) -> None:
    assert length_limit(asked, positions, PositionTraits((), (), False)) == limit


def _register(function: Any) -> None:
    from transformers import AttentionInterface

    logging.getLogger("transformers").setLevel(logging.ERROR)
    AttentionInterface.register(attention.PACKED_ATTENTION, function)
