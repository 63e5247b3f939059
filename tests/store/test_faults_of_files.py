"""Flipped bits and lost catalogs in a store with one of everything; benchmarks.faults has the full size."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import nait_store
from benchmarks.faults.catalog import CatalogFaults
from benchmarks.faults.everything import build_everything
from benchmarks.faults.flips import flip_bits

N_FLIPS = 40
N_TRUNCATIONS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("everything")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAIT_STORE_CACHE", str(folder / "cache"))
        build_everything(str(folder / "store"), folder)
    return folder


def test_the_store_has_one_of_everything(folder: Path) -> None:
    patterns = (
        "activations/*/versions/*.deleted.json",
        "activations/*/redirects/*.json",
        "activations/*/tombstones/*.parquet",
        "activations/*/ingests/*/rejects.jsonl",
        "activations/*/ingests/*/flushed/*.json",
        "activations/*/jobs/*/heartbeat.json",
        "activations/*/tags/*/*.json",
        "activations/*/aliases/*/2.json",
        "activations/*/notes/*/2.json",
        "profiles/*/versions/2.json",
        "selections/*/payloads/*/selection.parquet",
        "scores/*.json",
        "catalog.duckdb.json",
    )
    assert [pattern for pattern in patterns if not list((folder / "store").glob(pattern))] == []


def test_verify_finds_a_flipped_bit_in_any_file_and_names_it(folder: Path) -> None:
    flips = flip_bits(folder / "store", N_FLIPS, seed=1)
    assert len(flips) == N_FLIPS
    assert [flip for flip in flips if flip.finding is None] == []


def test_whatever_happens_to_the_catalog_the_answers_are_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    root = shutil.copytree(folder / "store", tmp_path / "store")
    other = nait_store.open(str(tmp_path / "other"), create=True)
    shutil.copytree(root / "activations" / "maths", tmp_path / "other" / "activations" / "maths")
    rows = list(CatalogFaults(root, Path(other.url)).rows(N_TRUNCATIONS, seed=1))
    assert {row.fault: row.n_tried - row.n_same for row in rows} == dict.fromkeys((row.fault for row in rows), 0)
    assert sum(row.n_tried for row in rows if row.fault == "truncated") == N_TRUNCATIONS
