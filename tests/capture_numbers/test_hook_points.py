"""What cannot be hooked is refused, with what to do instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch

from nait_store.capture.experts import MAX_EXPERT_BYTES_PER_SAMPLE, require_storable, verify_experts
from nait_store.capture.hook_points import resolve_hooks
from nait_store.capture.layouts import Layout
from nait_store.capture.session import CaptureSession
from nait_store.capture.taps import TappedDecoder
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.schemas.capture import Feature, HookPoint
from nait_store.testing.tiny_models import HIDDEN_SIZE, INTERMEDIATE_SIZE, tiny_model
from nait_store.testing.token_samples import random_samples

MEAN = (Feature.MEAN,)


@pytest.mark.parametrize(("layers", "named"), [([3], "3"), ([-1], "-1"), ([0, 99], "99")])
def test_an_unknown_layer_is_not_found_and_the_range_is_named(layers: Sequence[int], named: str) -> None:
    with pytest.raises(NotFoundError, match=f"no layer {named}") as caught:
        resolve_hooks(tiny_model("llama"), HookPoint.MLP, layers=layers)
    assert "0 to 2" in str(caught.value)


@pytest.mark.parametrize("layers", [[], [1, 1]])
def test_no_layer_or_a_layer_twice_is_invalid(layers: Sequence[int]) -> None:
    with pytest.raises(InvalidInputError, match="layer"):
        resolve_hooks(tiny_model("llama"), HookPoint.MLP, layers=layers)


def test_intermediate_size_equal_to_hidden_size_is_resolved_by_name() -> None:
    plan = resolve_hooks(tiny_model("llama", intermediate_size=HIDDEN_SIZE), HookPoint.MLP)
    assert {site.path.rpartition(".")[2] for site in plan.sites} == {"down_proj"}


def test_a_hook_path_replaces_the_rule() -> None:
    plan = resolve_hooks(tiny_model("llama"), HookPoint.MLP, hook_path="mlp.gate_proj")
    assert [site.path for site in plan.sites] == [f"layers.{layer}.mlp.gate_proj" for layer in range(3)]
    assert {site.width for site in plan.sites} == {HIDDEN_SIZE}


def test_a_misspelt_hook_path_gets_near_names() -> None:
    with pytest.raises(NotFoundError, match=r"mlp\.down_porj") as caught:
        resolve_hooks(tiny_model("llama"), HookPoint.MLP, hook_path="mlp.down_porj")
    assert "'mlp.down_proj'" in str(caught.value)


def test_a_hook_path_to_something_without_a_width_lists_what_has_one() -> None:
    with pytest.raises(InvalidInputError, match="not a Linear") as caught:
        resolve_hooks(tiny_model("llama"), HookPoint.MLP, hook_path="mlp.act_fn")
    assert "mlp.down_proj" in str(caught.value)


def test_the_output_of_any_module_can_be_read_as_residual(model_folder: Callable[[str], str]) -> None:
    with CaptureSession.open(
        model_folder("llama"), features=MEAN, hook_point=HookPoint.RESIDUAL, hook_path="mlp.act_fn"
    ) as session:
        assert session.n_neurons == INTERMEDIATE_SIZE
        assert session.identity.hook_path == "mlp.act_fn"


def test_a_layer_without_a_down_projection_lists_candidates_and_hook_path() -> None:
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.mlp = torch.nn.Sequential(torch.nn.Linear(HIDDEN_SIZE, 7), torch.nn.Linear(7, 9))
    with pytest.raises(IncompatibleError, match="no module fits") as caught:
        resolve_hooks(model, HookPoint.MLP)
    assert "--hook-path" in str(caught.value)
    assert "mlp.0" in str(caught.value)


def test_two_down_projections_are_ambiguous_and_listed() -> None:
    model = tiny_model("llama")
    model.model.layers[1].second = torch.nn.Linear(INTERMEDIATE_SIZE, HIDDEN_SIZE)
    with pytest.raises(IncompatibleError, match=r"layer 1 .*2 modules fit \(mlp\.down_proj, second\)"):
        resolve_hooks(model, HookPoint.MLP)


def test_layers_of_different_widths_are_refused_with_the_way_out() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp.down_proj = torch.nn.Linear(INTERMEDIATE_SIZE + 1, HIDDEN_SIZE)
    with pytest.raises(IncompatibleError, match="differ in width") as caught:
        resolve_hooks(model, HookPoint.MLP)
    assert "--hook residual" in str(caught.value)
    assert resolve_hooks(model, HookPoint.MLP, layers=[0, 2]).layers == (0, 2)


def test_a_model_without_a_list_of_layers_is_refused() -> None:
    model = tiny_model("llama")
    model.config.num_hidden_layers = 17
    with pytest.raises(IncompatibleError, match="no list of its 17 decoder layers"):
        resolve_hooks(model, HookPoint.RESIDUAL)


@pytest.mark.parametrize("times", [0, 2])
def test_a_hook_that_does_not_fire_once_is_an_error(times: int) -> None:
    model = tiny_model("llama")
    mlp = model.model.layers[1].mlp

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        inner = mlp.act_fn(mlp.gate_proj(hidden)) * mlp.up_proj(hidden)
        output = inner @ mlp.down_proj.weight.t()
        for _ in range(times):
            output = mlp.down_proj(inner)
        return output

    mlp.forward = forward
    plan = resolve_hooks(model, HookPoint.MLP)
    sample = random_samples([5])[0]
    with TappedDecoder(plan, width=INTERMEDIATE_SIZE, pad_token_id=0, device="cpu") as tapped:
        run = partial(tapped.capture, Layout.SINGLE, [sample.token_ids], [sample.content], MEAN)
        with pytest.raises(IncompatibleError, match=rf"layers\.1\.mlp\.down_proj: {times} times"):
            run()


def test_closing_a_session_removes_its_hooks() -> None:
    model = tiny_model("mixtral")
    for hook_point in HookPoint:
        plan = resolve_hooks(model, hook_point)
        width = plan.sites[0].width or 0
        TappedDecoder(plan, width=width, pad_token_id=0, device="cpu").close()
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in module.__dict__


def test_experts_are_recorded_as_expert_flattened(model_folder: Callable[[str], str]) -> None:
    with CaptureSession.open(model_folder("mixtral"), features=MEAN) as session:
        assert session.identity.moe_layout == f"expert-flattened:4×{INTERMEDIATE_SIZE}"
        assert session.n_neurons == 4 * INTERMEDIATE_SIZE
    with CaptureSession.open(model_folder("mixtral"), features=MEAN, hook_point=HookPoint.ATTN) as session:
        assert session.identity.moe_layout is None


def test_shared_experts_are_refused_with_the_way_out() -> None:
    model = tiny_model(
        "qwen2_moe",
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=24,
        intermediate_size=48,
    )
    with pytest.raises(IncompatibleError, match="shared_expert") as caught:
        resolve_hooks(model, HookPoint.MLP)
    assert "--hook residual" in str(caught.value)
    assert resolve_hooks(model, HookPoint.RESIDUAL).layers == (0, 1)


def test_dense_layers_among_experts_are_refused() -> None:
    model = tiny_model("qwen3_moe", mlp_only_layers=[1])
    with pytest.raises(IncompatibleError, match="differ in width"):
        resolve_hooks(model, HookPoint.MLP)


def test_too_many_expert_neurons_are_refused_with_the_limit() -> None:
    require_storable(MAX_EXPERT_BYTES_PER_SAMPLE // 2 // 4, 4)
    with pytest.raises(IncompatibleError, match="8 MiB") as caught:
        require_storable(MAX_EXPERT_BYTES_PER_SAMPLE // 2 // 4 + 1, 4)
    assert "--hook residual" in str(caught.value)


def test_experts_of_another_kind_are_refused() -> None:
    model = tiny_model("mixtral")
    experts = model.model.layers[0].mlp.experts
    del experts.gate_up_proj
    with pytest.raises(IncompatibleError, match="without gate_up_proj"):
        resolve_hooks(model, HookPoint.MLP)


def test_experts_that_compute_something_else_are_refused() -> None:
    experts: Any = tiny_model("mixtral").model.layers[0].mlp.experts
    verify_experts(experts, "layer 0")
    own = type(experts).forward
    experts.forward = lambda hidden, index, weights: own(experts, hidden * 1.01, index, weights)
    with pytest.raises(IncompatibleError, match="computed otherwise"):
        verify_experts(experts, "layer 0")
