"""Sums over content tokens: what is exact, and what an infinity in one sample does to the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from nait_store.capture import span_sums
from nait_store.capture.session import CaptureSession
from nait_store.capture.span_sums import Intervals, batch_spans, product_sums, widened_sums
from nait_store.schemas.capture import Feature
from nait_store.testing.tiny_models import save_tiny_model
from nait_store.testing.token_samples import by_sample_id, sample_of_tokens

CONTENTS: list[Intervals] = [[(0, 3)], [(1, 2), (3, 5)], [(2, 6)], [(0, 1)], [(1, 4)]]
STARTS = [0, 3, 8, 15, 16]


def activations(dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((20, 6))).to(dtype)


def assert_exact(summed: torch.Tensor, flat: torch.Tensor) -> None:
    values = flat.double().numpy()
    assert summed.dtype == torch.float32
    for sample, (content, start) in enumerate(zip(CONTENTS, STARTS, strict=True)):
        expected = sum(values[start + low : start + high].sum(0) for low, high in content)
        np.testing.assert_allclose(summed[sample].numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("block_bytes", [1, 4 * 6 * 7, 1 << 20])  # a sample each, a few, all of them
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_by_blocks_are_those_of_a_float64_loop(block_bytes: int, dtype: torch.dtype) -> None:
    flat = activations(dtype)
    assert_exact(widened_sums(flat, batch_spans(CONTENTS, STARTS, "cpu"), block_bytes=block_bytes), flat)


@pytest.mark.parametrize("block_tokens", [1, 8, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_by_products_are_those_of_a_float64_loop(
    block_tokens: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_sums_on_cpus(monkeypatch)
    monkeypatch.setattr(span_sums, "_BLOCK_TOKENS", block_tokens)
    flat = activations(dtype)
    assert_exact(product_sums(flat, batch_spans(CONTENTS, STARTS, "cpu")), flat)


def captured(model: Path, batches: list[list[int]]) -> dict[str, NDArray[np.float32]]:
    samples = [sample_of_tokens(f"s{i}", tokens) for i, tokens in enumerate(batches)]
    with CaptureSession.open(str(model), features=[Feature.MEAN], compute_dtype="bfloat16") as session:
        return {name: features[Feature.MEAN] for name, features in by_sample_id(session.capture(samples)).items()}


def test_an_infinity_in_one_sample_leaves_its_neighbours_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_tiny_model(tmp_path, "llama")
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][7] = float("inf")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    sound, broken = [[1, 2, 3], [4, 5, 6, 8], [9, 10]], [11, 7, 12]
    expected = captured(model, [*sound, broken])
    share_sums_on_cpus(monkeypatch)
    found = captured(model, [*sound, broken])
    for name in ("s0", "s1", "s2"):
        assert np.isfinite(found[name]).all()
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-2, atol=1e-2)
    assert not np.isfinite(found["s3"]).all()


def share_sums_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sum as on CUDA."""

    def product(ones: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        return ones.float() @ flat.float()

    always: Callable[[torch.device], bool] = lambda _device: True  # noqa: E731
    monkeypatch.setattr(span_sums, "_multiplies_wide", always)
    monkeypatch.setattr(span_sums, "_wide_product", product)
