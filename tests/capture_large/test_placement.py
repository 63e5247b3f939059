"""Models spread by accelerate: the numbers of the model in one place, inputs and reductions where they belong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nait_store.capture.experts import ExpertTap
from nait_store.capture.host_copies import HostCopies
from nait_store.capture.models import load_model
from nait_store.capture.placement import execution_device, plan_placement
from nait_store.capture.reducers import SpanReducer
from nait_store.capture.session import CaptureSession
from nait_store.capture.span_sums import batch_spans
from nait_store.errors import IncompatibleError, InvalidInputError, MissingExtraError
from nait_store.schemas.capture import Feature, HookPoint
from nait_store.testing.tiny_models import save_tiny_model, tiny_model
from nait_store.testing.token_samples import by_sample_id, random_samples

FEATURES = (Feature.MEAN, Feature.DRIFT)
SAMPLES = random_samples([9, 4, 12, 7])
MIXED = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps below are about CPU and disk."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def captured(model: Path, **options: Any) -> dict[str, dict[Feature, np.ndarray]]:
    with CaptureSession.open(str(model), features=FEATURES, **options) as session:
        return by_sample_id(session.capture(SAMPLES))


@pytest.mark.parametrize("hook_point", HookPoint)
@pytest.mark.parametrize(
    "options",
    [{"device_map": MIXED}, {"device_map": "auto", "max_memory": {"cpu": "150KB"}}],
    ids=["cpu and disk", "auto, little memory"],
)
def test_an_offloaded_model_gives_the_same_numbers(base: Path, hook_point: HookPoint, options: dict[str, Any]) -> None:
    several = {"hook_point": hook_point, "token_budget": 12}  # batches: those after the first end at the last site
    expected = captured(base, **several)
    found = captured(base, **several, **options)
    assert found.keys() == expected.keys()
    for sample_id, features in expected.items():
        for feature in FEATURES:
            np.testing.assert_array_equal(found[sample_id][feature], features[feature])


@pytest.mark.parametrize("hook_point", HookPoint)
def test_weights_go_back_to_where_they_rest_when_a_pass_ends_early(base: Path, hook_point: HookPoint) -> None:
    with CaptureSession.open(
        str(base), features=FEATURES, hook_point=hook_point, layers=(0, 1), token_budget=12, device_map={"": "disk"}
    ) as session:
        assert sum(len(batch.samples) for batch in session.capture(SAMPLES)) == len(SAMPLES)
        decoder = session._tapped._plan.decoder
        assert {parameter.device.type for parameter in decoder.parameters()} == {"meta"}


def test_identity_is_the_same_and_the_places_are_recorded(base: Path) -> None:
    with CaptureSession.open(str(base), features=FEATURES) as whole:
        pass
    with CaptureSession.open(str(base), features=FEATURES, device_map=MIXED) as spread:
        pass
    assert spread.identity == whole.identity
    assert spread.settings == whole.settings
    assert (whole.environment.device, spread.environment.device) == ("cpu", "cpu, disk")
    assert spread.environment.n_parameters == whole.environment.n_parameters


def test_offloaded_float16_is_computed_in_float32_on_a_cpu(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    tiny_model("llama").half().save_pretrained(folder)
    save_tiny_model(tmp_path / "full")  # for its tokenizer
    for path in (tmp_path / "full").glob("*token*"):
        path.rename(folder / path.name)
    loaded = load_model(str(folder), device_map=MIXED)
    assert loaded.dtype == "float32"
    whole = captured(folder)
    for sample_id, features in captured(folder, device_map=MIXED).items():
        np.testing.assert_allclose(features[Feature.MEAN], whole[sample_id][Feature.MEAN], rtol=1e-5, atol=1e-6)


def test_a_map_may_come_from_a_file(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps(MIXED))
    assert load_model(str(base), device_map=str(path)).devices == "cpu, disk"


def test_inputs_go_where_the_embedding_runs_not_where_it_rests(base: Path) -> None:
    model = load_model(str(base), device_map={"": "disk"}).model
    embedding = model.get_input_embeddings()
    assert embedding.weight.device.type == "meta"
    assert execution_device(embedding) == "cpu"


def test_layers_on_several_devices_are_gathered() -> None:
    """``meta`` stands for a second device up to the point where numbers would be needed."""
    spans = batch_spans([[(0, 3)], [(1, 2)]], [0, 3], "cpu")
    reducer = SpanReducer((Feature.MEAN,), spans, n_layers=2, width=4)
    reducer.add(0, torch.ones(1, 5, 4))
    reducer.add(1, torch.ones(1, 5, 4, device="meta"))
    assert reducer._results.keys() == {torch.device("cpu"), torch.device("meta")}
    second = reducer._results.pop(torch.device("meta"))
    assert second[Feature.MEAN].device.type == "meta"
    reducer._results[torch.device("meta")] = {Feature.MEAN: torch.full((2, 2, 4), 7.0)}
    gathered = reducer.finish(HostCopies()).wait()[Feature.MEAN]
    np.testing.assert_array_equal(gathered, np.stack([np.full((2, 4), 1.0), np.full((2, 4), 7.0)], axis=1))


def test_an_expert_tap_gives_accelerates_forward_back() -> None:
    experts = tiny_model("mixtral").model.layers[0].mlp.experts
    experts.__dict__["forward"] = accelerates = object()
    ExpertTap(experts, lambda *_: None).remove()
    assert experts.__dict__["forward"] is accelerates


def test_offloaded_experts_are_refused_for_their_inner_vectors(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", "mixtral")
    with pytest.raises(IncompatibleError, match="are offloaded"):
        CaptureSession.open(str(model), features=FEATURES, device_map={"": "disk"})
    found = captured(model, device_map={"": "disk"}, hook_point=HookPoint.RESIDUAL)
    assert len(found) == len(SAMPLES)


def test_an_adapter_over_offloaded_weights_is_refused(base: Path, lora: Path) -> None:
    with pytest.raises(IncompatibleError, match="partly offloaded"):
        load_model(str(base), adapter=str(lora), device_map=MIXED)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device_map": "autp"}, "neither a kind of device map nor a file"),
        ({"device_map": "auto", "device": "cpu"}, "spread by a device map and lie on cpu"),
        ({"max_memory": {"cpu": "1GB"}}, "there is none"),
        ({"device_map": {"": "nowhere"}}, "cannot be loaded"),
        ({"device_map": "auto", "max_memory": {"cpu": "plenty"}}, "cannot be loaded"),
    ],
)
def test_what_does_not_place_a_model_is_refused(base: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        load_model(str(base), **options)
    assert caught.value.next_step


@pytest.mark.parametrize(("text", "says"), [("{", "not valid JSON"), ("[1]", "not a JSON object")])
def test_a_damaged_map_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=says):
        plan_placement(str(path), None, "auto")


def test_without_accelerate_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"nait-store\[accelerate\]"):
        plan_placement("auto", None, "auto")


def test_a_fork_that_ends_leaves_the_offload_folder_to_its_parent() -> None:
    program = """
import os, sys
from pathlib import Path
from nait_store.capture.placement import plan_placement

folder = plan_placement("auto", None, "auto").loading_options()["offload_folder"]
if os.fork() == 0:
    sys.exit(0)
os.wait()
print(folder, Path(folder).is_dir())
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    folder, was_there = ran.stdout.split()
    assert was_there == "True"
    assert not Path(folder).exists()
