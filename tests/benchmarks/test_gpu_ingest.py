"""What the GPU benchmark takes for granted: operations of the model, and lengths of its samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu_ingest import Shape, matmuls, sample_lengths


def test_the_full_shape_takes_two_operations_for_each_of_llama_2_7bs_decoder_weights() -> None:
    embeddings = 2 * 32_000 * 4096  # input and head; norms are 65 vectors
    assert Shape(1).flops_per_token == 2 * (6_738_415_616 - embeddings - 65 * 4096)


def test_plain_products_take_the_operations_that_they_are_said_to() -> None:
    shape = Shape(128)
    _, flops = matmuls(shape, "cpu", 64)["a layer's products"]
    assert flops == 64 * shape.n_layers * 2 * (4 * 32 * 32 + 3 * 32 * 86)


def test_bundled_lengths_have_the_mean_and_the_median_that_were_measured() -> None:
    lengths = sorted(sample_lengths(4096, None))
    assert sum(lengths) / len(lengths) == pytest.approx(154.3, rel=0.01)
    assert lengths[2048] == 145


def test_lengths_of_a_file_are_those_of_its_records(tmp_path: Path) -> None:
    data = tmp_path / "pool.jsonl"
    records = [{"instruction": "x" * 39, "output": "y" * 39 * n, "input": None} for n in range(4)]
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert sorted(sample_lengths(8, data)) == [59, 59, 69, 69, 79, 79, 89, 89]
