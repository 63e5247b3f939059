"""Models with PEFT adapters: the numbers of the adapted model, a fingerprint of its own, refusals in plain words."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nait_store.capture.adapters import find_adapter
from nait_store.capture.fingerprints import adapter_fingerprint, model_fingerprint
from nait_store.capture.models import load_model
from nait_store.capture.session import CaptureSession
from nait_store.errors import IncompatibleError, InvalidInputError, MissingExtraError, NaitStoreError, NotFoundError
from nait_store.schemas.capture import Feature, HookPoint
from nait_store.testing.tiny_adapters import edit_adapter_config, save_tiny_adapter
from nait_store.testing.tiny_models import save_tiny_model
from nait_store.testing.tiny_tokenizers import CHATML_TEMPLATE, tiny_tokenizer
from nait_store.testing.token_samples import by_sample_id, random_samples

SAMPLES = random_samples([9, 4, 12, 7])
INPUT_OF = {HookPoint.MLP: "mlp.down_proj", HookPoint.ATTN: "self_attn.o_proj"}


def means_by_hand(base: Path, adapter: Path, hook_point: HookPoint) -> dict[str, np.ndarray]:
    """Mean over the content tokens, from the PEFT model itself, sample by sample, in float64."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    seen: list[torch.Tensor] = []
    for layer in model.base_model.model.model.layers:
        if hook_point is HookPoint.RESIDUAL:
            layer.register_forward_hook(
                lambda _module, _inputs, output: seen.append(output[0] if isinstance(output, tuple) else output)
            )
        else:
            layer.get_submodule(INPUT_OF[hook_point]).register_forward_pre_hook(
                lambda _module, inputs: seen.append(inputs[0])
            )
    means = {}
    for sample in SAMPLES:
        seen.clear()
        with torch.no_grad():
            model(torch.tensor(sample.token_ids[None].astype(np.int64)))
        content = [position for low, high in sample.content for position in range(low, high)]
        layers = [activations.double().reshape(len(sample.token_ids), -1)[content].mean(0) for activations in seen]
        means[sample.sample.sample_id] = torch.stack(layers).numpy()
    return means


def captured(model: Path, **options: Any) -> dict[str, np.ndarray]:
    with CaptureSession.open(str(model), features=[Feature.MEAN], device="cpu", **options) as session:
        found = by_sample_id(session.capture(SAMPLES))
    return {sample_id: features[Feature.MEAN] for sample_id, features in found.items()}


def require_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for sample_id, values in expected.items():
        np.testing.assert_allclose(found[sample_id], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hook_point", HookPoint)
def test_the_numbers_are_those_of_the_adapted_model(base: Path, lora: Path, hook_point: HookPoint) -> None:
    found = captured(base, adapter=str(lora), hook_point=hook_point)
    require_equal(found, means_by_hand(base, lora, hook_point))
    plain = captured(base, hook_point=hook_point)
    assert all(np.abs(plain[sample_id] - values).max() > 1e-2 for sample_id, values in found.items())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LoraConfig", {"use_dora": True}),
        ("LoraConfig", {"use_rslora": True, "modules_to_save": ["lm_head", "embed_tokens"]}),
        ("LoraConfig", {"target_modules": ["q_proj"], "modules_to_save": ["down_proj"]}),
        ("IA3Config", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    ],
)
def test_other_adapters_of_layers_are_read_alike(
    base: Path, tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    adapter = save_tiny_adapter(tmp_path / "adapter", base, kind=kind, **options)
    require_equal(captured(base, adapter=str(adapter)), means_by_hand(base, adapter, HookPoint.MLP))


def test_an_adapter_over_gpt2_with_its_conv1d_is_read(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "gpt2", "gpt2")
    adapter = save_tiny_adapter(tmp_path / "adapter", model, target_modules=["c_proj", "c_attn"], fan_in_fan_out=True)
    with CaptureSession.open(str(model), features=[Feature.MEAN], adapter=str(adapter)) as session:
        assert session.n_neurons == 48


def test_an_adapters_folder_stands_for_the_adapter_over_its_base(base: Path, lora: Path) -> None:
    require_equal(captured(lora), captured(base, adapter=str(lora)))
    loaded = load_model(str(lora))
    assert loaded.source == str(base)
    assert loaded.warnings == ()


def test_a_base_that_is_named_relative_to_the_adapter_is_found(base: Path, lora: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    adapter = Path(shutil.copytree(lora, tmp_path / "adapter"))
    edit_adapter_config(adapter, base_model_name_or_path="../base")
    assert Path(load_model(str(adapter)).source).resolve() == tmp_path / "base"


def test_the_fingerprint_covers_base_and_adapter(base: Path, lora: Path, tmp_path: Path) -> None:
    other = save_tiny_adapter(tmp_path / "other", base, seed=2)
    scaled = Path(shutil.copytree(lora, tmp_path / "scaled"))
    edit_adapter_config(scaled, lora_alpha=99)
    found = [model_fingerprint(load_model(str(base), adapter=str(adapter))) for adapter in (lora, other, scaled)]
    assert len({model_fingerprint(base), *found}) == 4


def test_where_and_how_an_adapter_was_saved_changes_nothing(lora: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(lora, tmp_path / "moved"))
    before = adapter_fingerprint(find_adapter(str(lora)))
    config = find_adapter(str(lora)).config
    edit_adapter_config(
        moved,
        base_model_name_or_path="elsewhere",
        peft_version="0.1",
        target_modules=list(reversed(config["target_modules"])),
        an_option_of_tomorrow=False,
    )
    assert adapter_fingerprint(find_adapter(str(moved))) == before


def test_the_environment_names_adapter_and_base(base: Path, lora: Path) -> None:
    with CaptureSession.open(str(base), features=[Feature.MEAN], adapter=str(lora)) as session:
        environment, identity = session.environment, session.identity
    assert (environment.model_source, environment.adapter_source) == (str(base), str(lora))
    assert environment.base_fingerprint == model_fingerprint(base) != identity.model_fingerprint
    assert environment.adapter_fingerprint == adapter_fingerprint(find_adapter(str(lora)))
    assert environment.model_label == f"{base} with adapter {lora}"


def test_the_adapters_own_tokenizer_is_used(base: Path, lora: Path, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(lora, tmp_path / "adapter"))
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHATML_TEMPLATE
    tokenizer.save_pretrained(adapter)
    assert load_model(str(base)).tokenizer.chat_template is None
    assert load_model(str(base), adapter=str(adapter)).tokenizer.chat_template == CHATML_TEMPLATE


def test_another_base_than_the_adapter_names_is_warned_about(base: Path, lora: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base, tmp_path / "renamed"))
    (warning,) = load_model(str(other), adapter=str(lora)).warnings
    assert str(base) in warning
    assert "renamed" in warning


def refusal(kind: type[NaitStoreError], model: Path | str, adapter: Path | str | None = None) -> str:
    with pytest.raises(kind) as caught:
        load_model(str(model), adapter=None if adapter is None else str(adapter))
    assert caught.value.next_step
    return str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "shape", "says"),
    [
        ("gpt2", {}, "no modules of the names"),
        ("llama", {"hidden_size": 32, "intermediate_size": 48}, "other shapes"),
        ("llama", {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 5}, "it lacks"),
        ("llama", {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}, "too many"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    lora: Path, tmp_path: Path, architecture: str, shape: dict[str, Any], says: str
) -> None:
    model = save_tiny_model(tmp_path / "model", architecture, **shape)
    message = refusal(InvalidInputError, model, lora)
    assert "does not fit" in message
    assert says in message


def test_an_adapter_that_works_on_the_whole_model_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = save_tiny_adapter(tmp_path / "prefix", base, kind="PromptTuningConfig", num_virtual_tokens=3)
    assert "PROMPT_TUNING" in refusal(IncompatibleError, base, adapter)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"base_model_name_or_path": None}, InvalidInputError, "does not say of which base model"),
        ({"base_model_name_or_path": "/nowhere/at-all"}, NotFoundError, "/nowhere/at-all, which is not there"),
        ({"base_model_name_or_path": "../adapter"}, InvalidInputError, "an adapter too"),
    ],
)
def test_an_adapter_without_its_base_asks_for_it(
    lora: Path, tmp_path: Path, changes: dict[str, Any], kind: type[NaitStoreError], says: str
) -> None:
    adapter = Path(shutil.copytree(lora, tmp_path / "adapter"))
    edit_adapter_config(adapter, **changes)
    message = refusal(kind, adapter)
    assert says in message
    assert "--model BASE --adapter" in message


def test_what_is_no_adapter_is_refused(base: Path, lora: Path, tmp_path: Path) -> None:
    assert "a whole model, not an adapter" in refusal(InvalidInputError, base, base)
    assert "there is no adapter folder" in refusal(NotFoundError, base, tmp_path / "missing")
    assert "an adapter itself" in refusal(InvalidInputError, lora, lora)
    damaged = Path(shutil.copytree(lora, tmp_path / "damaged"))
    (damaged / "adapter_model.safetensors").unlink()
    assert "no weights" in refusal(InvalidInputError, base, damaged)
    (damaged / "adapter_config.json").write_text("{")
    assert "not valid JSON" in refusal(InvalidInputError, base, damaged)


def test_damaged_adapter_weights_are_refused(base: Path, lora: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(lora, tmp_path / "damaged"))
    (damaged / "adapter_model.safetensors").write_bytes(b"\x08" + b"\x00" * 20)
    assert "damaged" in refusal(InvalidInputError, base, damaged)


def test_without_peft_the_extra_is_named(base: Path, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    assert "nait-store[peft]" in refusal(MissingExtraError, base, lora)


def test_adapted_experts_are_refused_for_their_inner_vectors(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", "mixtral")
    adapter = save_tiny_adapter(
        tmp_path / "adapter", model, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"]
    )
    with pytest.raises(IncompatibleError, match="changes the routed experts"):
        CaptureSession.open(str(model), features=[Feature.MEAN], adapter=str(adapter))


def test_an_adapter_in_the_hubs_local_cache_is_found(
    base: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--owner--lora"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(lora, repository / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_model("owner/lora").source == str(base)
    by_name = load_model(str(base), adapter="owner/lora")
    assert model_fingerprint(by_name) == model_fingerprint(load_model(str(base), adapter=str(lora)))
    assert "neither a folder here nor on the hub" in refusal(NotFoundError, base, "owner/other")
