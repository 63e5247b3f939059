"""Quantised weights: what transformers is asked for, the quantised model's own numbers, another fingerprint.

bitsandbytes has a CPU backend, so what is loaded in 8 and 4 bits here is the real thing.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

from nait_store.capture.fingerprints import model_fingerprint
from nait_store.capture.hook_points import linear_shape
from nait_store.capture.models import load_model
from nait_store.capture.quantization import plan_quantization
from nait_store.capture.session import CaptureSession
from nait_store.errors import InvalidInputError, MissingExtraError
from nait_store.schemas.capture import Feature
from nait_store.testing.token_samples import by_sample_id, random_samples

SAMPLES = random_samples([9, 4, 12, 7])
CONFIGS = {
    "8bit": BitsAndBytesConfig(load_in_8bit=True),
    "4bit": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "MatMul8bitLt")  # it casts to float16 on the way, as it says
        yield


def means_by_hand(base: Path, quantization: str, adapter: Path | None = None) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = AutoModelForCausalLM.from_pretrained(
            base, quantization_config=CONFIGS[quantization], device_map={"": "cpu"}, dtype=torch.float32
        )
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter).get_base_model()
    model.eval()
    seen: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    means = {}
    for sample in SAMPLES:
        seen.clear()
        with torch.no_grad():
            model(torch.tensor(sample.token_ids[None].astype(np.int64)))
        content = [position for low, high in sample.content for position in range(low, high)]
        layers = [activations.double().reshape(len(sample.token_ids), -1)[content].mean(0) for activations in seen]
        means[sample.sample.sample_id] = torch.stack(layers).numpy()
    return means


@pytest.mark.parametrize(("quantization", "adapted"), [("8bit", False), ("4bit", False), ("4bit", True)])
def test_the_numbers_are_those_of_the_quantised_model(base: Path, lora: Path, quantization: str, adapted: bool) -> None:
    adapter = lora if adapted else None
    with CaptureSession.open(
        str(base), features=[Feature.MEAN], quantization=quantization, adapter=str(lora) if adapted else None
    ) as session:
        found = by_sample_id(session.capture(SAMPLES))
    # 8-bit products round their inputs too, so there a batch of another shape may tip a number over.
    tolerance = 1e-4 if quantization == "4bit" else 2e-2
    for sample_id, expected in means_by_hand(base, quantization, adapter).items():
        difference = np.linalg.norm(found[sample_id][Feature.MEAN] - expected) / np.linalg.norm(expected)
        assert difference <= tolerance


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_what_is_asked_of_transformers(base: Path, quantization: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    real = AutoModelForCausalLM.from_pretrained

    def record(source: str, **options: Any) -> Any:
        asked.update(options)
        return real(source, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", record)
    loaded = load_model(str(base), quantization=quantization, dtype="bfloat16")
    config = asked["quantization_config"]
    assert isinstance(config, BitsAndBytesConfig)
    assert (config.load_in_8bit, config.load_in_4bit) == (quantization == "8bit", quantization == "4bit")
    if quantization == "4bit":
        assert config.bnb_4bit_quant_type == "nf4"
        assert config.bnb_4bit_compute_dtype is torch.bfloat16
    assert asked["device_map"] == {"": "cpu"}
    assert loaded.dtype == "bfloat16"
    plain = load_model(str(base))
    assert loaded.n_parameters == plain.n_parameters


def test_each_quantisation_has_a_fingerprint_of_its_own(base: Path, lora: Path) -> None:
    found = {model_fingerprint(load_model(str(base), quantization=name)) for name in ("8bit", "4bit")}
    found.add(model_fingerprint(load_model(str(base), quantization="4bit", adapter=str(lora))))
    found.add(model_fingerprint(load_model(str(base), adapter=str(lora))))
    assert len(found | {model_fingerprint(base)}) == 5


def test_the_environment_says_how_the_weights_were_loaded(base: Path, lora: Path) -> None:
    with CaptureSession.open(str(base), features=[Feature.MEAN], quantization="4bit", adapter=str(lora)) as session:
        environment = session.environment
    assert environment.quantization == "4bit"
    assert environment.base_fingerprint == model_fingerprint(base)
    assert environment.model_label == f"{base} in 4bit with adapter {lora}"
    assert environment.model_options == f"--model {base} --quantization 4bit --adapter {lora}"


@pytest.fixture(scope="session")
def packed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 4-bit weights."""
    folder = tmp_path_factory.mktemp("packed") / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(
            base, quantization_config=CONFIGS["4bit"], device_map={"": "cpu"}, dtype=torch.float32
        )
        model.save_pretrained(folder)
    for path in base.glob("*token*"):
        shutil.copy(path, folder)
    return folder


def test_a_checkpoint_of_packed_weights_is_captured(base: Path, packed: Path) -> None:
    with CaptureSession.open(str(packed), features=[Feature.MEAN]) as session:
        found = by_sample_id(session.capture(SAMPLES))
        assert session.environment.quantization == "bitsandbytes"
        assert session.environment.base_fingerprint is None
        assert session.environment.model_label == str(packed)
    for sample_id, expected in means_by_hand(base, "4bit").items():
        np.testing.assert_allclose(found[sample_id][Feature.MEAN], expected, rtol=1e-3, atol=1e-4)


def test_the_fingerprint_of_packed_weights_covers_tensors_and_settings(packed: Path, tmp_path: Path) -> None:
    before = model_fingerprint(packed)
    other = Path(shutil.copytree(packed, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    tensors[name][0, 0] ^= 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    settings = Path(shutil.copytree(packed, tmp_path / "settings"))
    config = json.loads((settings / "config.json").read_text())
    config["quantization_config"]["bnb_4bit_quant_type"] = "fp4"
    (settings / "config.json").write_text(json.dumps(config))
    assert len({before, model_fingerprint(other), model_fingerprint(settings)}) == 3


def test_packed_weights_are_not_quantised_again(packed: Path) -> None:
    with pytest.raises(InvalidInputError, match="quantised already"):
        load_model(str(packed), quantization="8bit")


def test_a_method_whose_package_is_missing_says_which(base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "gptq"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingExtraError, match=r"quantised \(gptq\)") as caught:
        load_model(str(folder))
    assert caught.value.next_step


def test_quantisations_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="'3bit' is not a quantisation"):
        plan_quantization("3bit", LlamaConfig(), "model")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"nait-store\[bitsandbytes\]"):
        plan_quantization("4bit", LlamaConfig(), "model")


def test_linear_classes_of_other_quantisers_are_recognised() -> None:
    class Packed(torch.nn.Module):
        """As GPTQ's and AWQ's: no nn.Linear, no weight, widths as attributes."""

    for names in (("in_features", "out_features"), ("infeatures", "outfeatures")):
        module = Packed()
        for name, width in zip(names, (128, 64), strict=True):
            setattr(module, name, width)
        assert linear_shape(module) == (128, 64)
