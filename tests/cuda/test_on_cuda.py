"""A CUDA device gives what the CPU gives; the whole file is skipped where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import nait_store
from nait_store.capture.replicas import ReplicatedSession
from nait_store.capture.session import CaptureSession
from nait_store.schemas.capture import MEASURED_FEATURES, Feature
from nait_store.testing.tiny_models import save_tiny_model
from nait_store.testing.token_samples import by_sample_id, random_samples, sample_of_tokens

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

LENGTHS = [30, 25, 20, 20, 10, 10, 7, 5, 3, 2, 1, 1]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model"), "llama"))


def captured(model: str, device: str, **options: object) -> dict[str, dict[Feature, np.ndarray]]:
    with CaptureSession.open(model, features=MEASURED_FEATURES, device=device, **options) as session:
        return by_sample_id(session.capture(random_samples(LENGTHS)))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gemma2", "qwen3_moe"])
def test_features_equal_those_of_the_cpu(architecture: str, tmp_path: Path) -> None:
    model = str(save_tiny_model(tmp_path, architecture))
    there, here = captured(model, "cuda", token_budget=40), captured(model, "cpu", token_budget=40)
    assert there.keys() == here.keys()
    for sample_id, features in here.items():
        for feature, values in features.items():
            np.testing.assert_allclose(there[sample_id][feature], values, rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_the_batch(llama: str) -> None:
    together, alone = captured(llama, "cuda", token_budget=4096), captured(llama, "cuda", token_budget=1)
    for sample_id, features in together.items():
        for feature, values in features.items():
            np.testing.assert_allclose(alone[sample_id][feature], values, rtol=1e-4, atol=1e-5)


def test_a_bfloat16_models_means_are_summed_in_float32(llama: str) -> None:
    half = captured(llama, "cuda", compute_dtype="bfloat16")
    full = captured(llama, "cpu")
    for sample_id, features in full.items():
        scale = np.abs(features[Feature.MEAN]).max()
        assert np.abs(half[sample_id][Feature.MEAN] - features[Feature.MEAN]).max() < 0.03 * scale


def test_a_bfloat16_model_gives_what_it_gives_on_the_cpu(llama: str) -> None:
    there, here = captured(llama, "cuda", compute_dtype="bfloat16"), captured(llama, "cpu", compute_dtype="bfloat16")
    for sample_id, features in here.items():
        scale = np.abs(features[Feature.MEAN]).max()
        assert np.abs(there[sample_id][Feature.MEAN] - features[Feature.MEAN]).max() < 0.03 * scale


def test_an_infinity_in_one_sample_leaves_its_neighbours_as_they_are(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path, "llama")
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][7] = float("inf")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    tokens = [[1, 2, 3], [4, 5, 6, 8], [11, 7, 12]]
    with CaptureSession.open(str(model), features=[Feature.MEAN], device="cuda", compute_dtype="bfloat16") as session:
        found = by_sample_id(session.capture([sample_of_tokens(f"s{i}", ids) for i, ids in enumerate(tokens)]))
    assert [np.isfinite(found[f"s{i}"][Feature.MEAN]).all() for i in range(3)] == [True, True, False]


def test_all_devices_give_the_numbers_of_one(llama: str) -> None:
    with ReplicatedSession.open(llama, features=MEASURED_FEATURES, devices="all", token_budget=40) as session:
        assert session.usage.devices[0].device == "cuda:0"
        found = by_sample_id(session.capture(random_samples(LENGTHS)))
    for sample_id, features in captured(llama, "cuda:0", token_budget=40).items():
        for feature, values in features.items():
            np.testing.assert_allclose(found[sample_id][feature], values, rtol=1e-5, atol=1e-6)


def test_a_batch_that_the_device_does_not_hold_is_halved(tmp_path: Path) -> None:
    model = str(save_tiny_model(tmp_path, "llama", intermediate_size=1 << 14, max_position_embeddings=512))
    samples = random_samples([500] * 64)
    with CaptureSession.open(model, features=[Feature.MEAN], device="cuda", token_budget=64 * 500) as session:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (512 << 20)) / total)
        try:
            found = by_sample_id(session.capture(samples))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert len(found) == 64
        assert session.usage.token_budget < 64 * 500


def test_the_token_budget_is_found_by_trial(llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path))
    with CaptureSession.open(llama, features=[Feature.MEAN], device="cuda", token_budget="auto") as session:
        assert session.usage.token_budget >= 1024
        assert len(by_sample_id(session.capture(random_samples(LENGTHS)))) == len(LENGTHS)


def test_an_ingest_scores_what_a_scan_on_either_device_scores(llama: str, tmp_path: Path) -> None:
    def records(name: str, n: int, word: str) -> str:
        path = tmp_path / f"{name}.jsonl"
        lines = (json.dumps({"instruction": f"{word} {i}", "output": f"{word} " * (i % 9 + 1)}) for i in range(n))
        path.write_text("\n".join(lines))
        return str(path)

    store = nait_store.open(str(tmp_path / "store"), create=True)
    store.ingest(records("in-domain", 24, "sum"), set="maths", model=llama, device="cuda")
    store.profiles.build("math", source="maths")
    store.ingest(records("pool", 60, "tale"), set="pool", model=llama, device="cuda")
    work, _ = store.score("pool", "math")
    assert work.n_computed == 0  # they were scored while they were captured
    at_ingest = scores(store)
    for device in ("cuda", "cpu"):
        shutil.rmtree(tmp_path / "store" / "scores")
        work, _ = store.score("pool", "math", device=device)
        assert work.n_computed > 0
        np.testing.assert_allclose(scores(store), at_ingest, rtol=1e-5, atol=1e-5)


def scores(store: nait_store.Store) -> np.ndarray:
    found = store.sql("SELECT score FROM alignment('pool', 'math') ORDER BY sample_id").arrow()
    return np.asarray(found.column("score"))
