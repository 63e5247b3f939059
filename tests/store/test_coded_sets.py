"""Stores with bfloat16 and int8 sets: SQL, ingest, purge, repair and verification see what the numbers stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.faults import write_steps
from nait_store.testing.stores import build_set

CODED = (StoredDtype.BFLOAT16, StoredDtype.INT8)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nait_store.Store:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return nait_store.open(str(tmp_path / "store"), create=True)


def _values(store: nait_store.Store) -> np.ndarray:
    return np.concatenate([segment.read(Feature.MEAN) for segment in store.sets.open("pool").segments])


def _file(store: nait_store.Store, name: str) -> Path:
    [path] = Path(store.url).glob(f"activations/pool/segments/*/data.zarr/{name}")
    return path


def _destroy(path: Path) -> None:
    path.write_bytes(b"\xaa" * path.stat().st_size)


@pytest.mark.parametrize("dtype", CODED)
def test_functions_over_activations_show_values(store: nait_store.Store, dtype: StoredDtype) -> None:
    build_set(store.location, "pool", 10, 3, 16, dtype=dtype, chunk_rows=4)
    store.sets.delete_samples("pool", ids=["s000002"])
    values = np.delete(_values(store), 2, axis=0)
    rows = store.sql("SELECT activation FROM neuron('pool', 1, 5) ORDER BY row_id").fetchall()
    assert [row[0] for row in rows] == values[:, 1, 5].tolist()
    layers = store.sql("SELECT activation FROM activation('pool', 2) ORDER BY row_id").fetchall()
    assert [row[0] for row in layers] == values[:, 2].tolist()
    [best] = store.sql("SELECT layer, neuron, activation FROM top_neurons('pool', 's000005', 1)").fetchall()
    layer, neuron = np.unravel_index(np.abs(values[4]).argmax(), values[4].shape)
    assert best == (layer, neuron, values[4, layer, neuron])


@pytest.mark.parametrize("dtype", CODED)
def test_an_ingest_goes_on_with_the_dtype_of_its_set(
    store: nait_store.Store, tmp_path: Path, dtype: StoredDtype
) -> None:
    def add(name: str, ids: range, **options: Any) -> None:
        path = tmp_path / f"{name}.jsonl"
        path.write_text(
            "".join(json.dumps({"id": f"r{i}", "instruction": f"do {i}", "output": "x"}) + "\n" for i in ids)
        )
        store.ingest(str(path), set="pool", model="fake", capture=FakeCapture(), id_field="id", **options)

    add("a", range(8), dtype=dtype.value)
    add("b", range(8, 12))
    assert {array.dtype for s in store.sets.open("pool").segments for array in s.record.arrays} == {dtype}
    assert store.verify().ok


def test_the_stores_record_is_written_before_anything_else_of_an_ingest(
    store: nait_store.Store, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "r1", "instruction": "do", "output": "x"}\n')
    with write_steps(store.url) as steps:
        store.ingest(str(path), set="pool", model="fake", capture=FakeCapture(), id_field="id", dtype="int8")
    touched = [step.path for step in steps]
    first = next(i for i, name in enumerate(touched) if "/activations" in name)
    replaced = [i for i, step in enumerate(steps) if step.what == "replace" and step.path.endswith("store.json")]
    assert len(replaced) == 1
    assert replaced[0] < first


@pytest.mark.parametrize("dtype", CODED)
def test_a_purge_leaves_the_others_as_they_were(store: nait_store.Store, dtype: StoredDtype) -> None:
    build_set(store.location, "pool", 10, dtype=dtype, chunk_rows=4)
    before = _values(store)
    store.purge("pool", ids=["s000003"])
    after = _values(store)
    assert not after[3].any()
    np.testing.assert_array_equal(np.delete(after, 3, axis=0), np.delete(before, 3, axis=0))
    assert store.verify().ok


@pytest.mark.parametrize("dtype", CODED)
def test_lost_norms_are_made_again_bit_by_bit(store: nait_store.Store, dtype: StoredDtype) -> None:
    build_set(store.location, "pool", 2000, 2, 8, dtype=dtype)  # too large to look for a single wrong bit
    path = _file(store, "mean_norms/c/0/0")
    before = path.read_bytes()
    _destroy(path)
    report = store.repair()
    assert (report.ok, report.n_dropped) == (True, 0)
    assert path.read_bytes() == before


def test_lost_scales_are_computed_from_the_norms(store: nait_store.Store) -> None:
    build_set(store.location, "pool", 2000, 2, 8, dtype=StoredDtype.INT8, chunk_rows=700)
    before = _values(store)
    _destroy(_file(store, "mean_scales/c/0/0"))
    assert not store.verify().ok
    report = store.repair()
    assert (report.ok, report.n_dropped) == (True, 0)
    np.testing.assert_allclose(_values(store), before, rtol=1e-6)
    assert store.sets.open("pool").n_samples == 2000


def test_without_norms_and_scales_the_rows_are_lost_and_told(store: nait_store.Store) -> None:
    build_set(store.location, "pool", 2000, 2, 8, dtype=StoredDtype.INT8)
    build_set(store.location, "pool", 3, 2, 8, first=5000)
    for path in Path(store.url).glob("activations/pool/segments/*/data.zarr/mean_scales/c/0/0"):
        _destroy(path)
        _destroy(path.parents[3] / "mean_norms/c/0/0")
    report = store.repair()
    assert report.n_dropped == 2000
    assert store.sets.open("pool").sample_ids() == ["s005000", "s005001", "s005002"]
    assert store.verify().ok


def test_damaged_scales_are_named(store: nait_store.Store) -> None:
    build_set(store.location, "pool", 10, dtype=StoredDtype.INT8)
    _destroy(_file(store, "mean_scales/c/0/0"))
    [finding] = store.verify().errors
    assert "scales of mean, all layers and rows" in str(finding)
