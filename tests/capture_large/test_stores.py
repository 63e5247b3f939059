"""Sets of adapted, spread and quantised models in a store: what they are called, and what is refused on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nait_store
from nait_store.errors import IncompatibleError
from nait_store.schemas.capture import Feature


@pytest.fixture
def pool(tmp_path: Path) -> str:
    path = tmp_path / "pool.jsonl"
    records = [{"instruction": f"say {i}", "output": "blue sky " * (i % 5 + 1)} for i in range(24)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_a_profile_of_the_base_model_is_refused_naming_the_adapter(
    base: Path, lora: Path, pool: str, tmp_path: Path
) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    store.ingest(pool, set="plain", model=str(base))
    store.ingest(pool, set="adapted", model=str(base), adapter=str(lora))
    store.profiles.build("math", source="plain")
    with pytest.raises(IncompatibleError) as caught:
        store.score("adapted", "math")
    assert f"{base} with adapter {lora}" in caught.value.what
    assert f"--model {base} --adapter {lora}" in str(caught.value.next_step)
    assert store.sets.open("adapted").segments[0].record.environment.adapter_source == str(lora)


def test_a_set_takes_no_samples_of_the_same_model_without_its_adapter(
    base: Path, lora: Path, pool: str, tmp_path: Path
) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    store.ingest(pool, set="adapted", model=str(lora), limit=4)
    with pytest.raises(IncompatibleError, match="captured differently"):
        store.ingest(pool, set="adapted", model=str(base))


def test_a_repair_captures_again_with_the_adapter_that_the_set_was_captured_with(
    base: Path, lora: Path, pool: str, tmp_path: Path
) -> None:
    url = str(tmp_path / "store")
    store = nait_store.open(url, create=True)
    store.ingest(pool, set="adapted", model=str(base), adapter=str(lora), quantization="4bit", limit=4)
    (segment,) = store.sets.open("adapted").segments
    before = np.array(segment.read(Feature.MEAN))  # not the mapped file, which is damaged below
    (chunk,) = (tmp_path / "store").glob("activations/adapted/segments/*/data.zarr/mean/c/0/0/0")
    data = bytearray(chunk.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    chunk.write_bytes(bytes(data))
    report = nait_store.open(url).repair(sources=[pool], model=str(base), rejects=str(tmp_path / "rejects"))
    assert report.n_recaptured == 4
    again = nait_store.open(url).sets.open("adapted").segments[-1]
    assert again.record.environment.model_options == f"--model {base} --quantization 4bit --adapter {lora}"
    ids = again.samples(["sample_id"]).column(0).to_pylist()
    order = [ids.index(sample_id) for sample_id in segment.samples(["sample_id"]).column(0).to_pylist()]
    np.testing.assert_allclose(again.read(Feature.MEAN)[order], before, rtol=1e-2, atol=1e-3)
