"""The whole story on S3: everything that works on a disk works on ``s3://``, and what was fetched is fetched once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.errors import CorruptChunkError
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.object_store import ObjectStore
from nait_store.testing.stores import build_set

N_SAMPLES = 40


@pytest.fixture
def url(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    return object_store.new_url()


@pytest.fixture
def store(url: str) -> nait_store.Store:
    """A store with the set pool, in two segments, and the profile math@1 of its own first samples."""
    made = nait_store.open(url, create=True)
    build_set(made.location, "pool", N_SAMPLES, n_segments=2, chunk_rows=8)
    made.profiles.build("math", source="pool", where="sample_id < 's000010'")
    return made


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each file was read from the store, from here on."""
    counted: Counter[str] = Counter()
    read, open_read = Location.read_bytes, Location.open_read

    def count_read(self: Location, path: str) -> bytes:
        counted[self.url_of(path)] += 1
        return read(self, path)

    def count_open(self: Location, path: str) -> Any:
        counted[self.url_of(path)] += 1
        return open_read(self, path)

    monkeypatch.setattr(Location, "read_bytes", count_read)
    monkeypatch.setattr(Location, "open_read", count_open)
    return counted


def test_an_ingest_into_s3_is_resumed_by_the_next(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pool.jsonl"
    source.write_text("".join(json.dumps({"instruction": f"do {i}", "output": "done"}) + "\n" for i in range(30)))
    store = nait_store.open(url, create=True)
    report = store.ingest(str(source), set="pool", model="fake", capture=FakeCapture(), limit=20)
    assert (report.set_ref, report.n_added) == ("pool@1", 20)
    again = store.ingest(str(source), set="pool", model="fake", capture=FakeCapture())
    assert (again.set_ref, again.n_added, again.n_known) == ("pool@2", 10, 20)
    assert store.verify().ok


def test_scores_on_s3_are_those_of_the_stored_arrays(store: nait_store.Store) -> None:
    found = dict(store.sql("SELECT sample_id, score FROM alignment('pool', 'math')").fetchall())
    profile = store.profiles.open("math")
    directions = profile.directions().astype(np.float64)
    for segment in store.sets.open("pool").segments:
        A = segment.read(Feature.MEAN).astype(np.float64)
        expected = (np.einsum("nlj,lj->nl", A, directions) / np.linalg.norm(A, axis=2)).sum(axis=1)
        ids = segment.samples(["sample_id"]).column(0).to_pylist()
        np.testing.assert_allclose([found[i] for i in ids], expected, rtol=1e-5)


def test_neurons_on_s3_are_those_of_the_stored_arrays(store: nait_store.Store) -> None:
    arrays = np.concatenate([segment.read(Feature.MEAN) for segment in store.sets.open("pool").segments])
    found = store.sql("SELECT activation FROM neuron('pool', 1, 5) ORDER BY row_id").fetchall()
    assert [value for (value,) in found] == arrays[:, 1, 5].tolist()
    found = store.sql("SELECT activation FROM activation('pool', 0) ORDER BY row_id").fetchall()
    assert [value for (value,) in found] == arrays[:, 0].tolist()


def forget_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Begin with an empty cache: building the profile read the first chunks."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(folder / "another-cache"))


def test_one_sample_is_read_from_s3_without_its_chunks(
    store: nait_store.Store, reads: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_cache(monkeypatch, tmp_path)
    found = nait_store.open(store.url).sql("FROM top_neurons('pool', 's000003', 16)").fetchall()
    assert [path for path in reads if "/mean/c/" in path] == []
    array = nait_store.open(store.url).sets.open("pool").segments[0].read(Feature.MEAN)[3]
    every = [(int(i), int(j), float(array[i, j])) for i, j in np.ndindex(array.shape)]
    assert [row[1:] for row in found] == sorted(every, key=lambda row: -abs(row[2]))
    # Now the chunks are in the cache, and taken from there.
    store.location.delete(next(path for path, _ in store.location.walk() if path.endswith("/mean/c/0/0/0")))
    assert nait_store.open(store.url).sql("FROM top_neurons('pool', 's000003', 16)").fetchall() == found


@pytest.mark.parametrize("n_bytes", [None, 50])
def test_a_damaged_chunk_on_s3_is_named_by_whoever_reads_a_row(
    store: nait_store.Store, n_bytes: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_cache(monkeypatch, tmp_path)
    path = next(path for path, _ in store.location.walk() if path.endswith("/mean/c/0/1/0"))
    data = store.location.read_bytes(path)
    store.location.delete(path)
    if n_bytes is not None:
        store.location.write_bytes(path, data[:n_bytes])
    message = "is missing" if n_bytes is None else "ends before byte 64 of 128"
    with pytest.raises(CorruptChunkError, match=f"mean/c/0/1/0 {message}"):
        nait_store.open(store.url).sql("FROM top_neurons('pool', 's000003')")


def test_a_selection_is_saved_on_s3_and_exported_from_it(store: nait_store.Store, tmp_path: Path) -> None:
    selection = store.select("pool", profile="math", top=5)
    assert store.selections.save("best", selection).reference == "best@1"
    store.export(store.selections.open("best").selection(), str(tmp_path / "top.jsonl"))
    assert len((tmp_path / "top.jsonl").read_text().splitlines()) == 5


def test_every_byte_on_s3_is_verified(store: nait_store.Store) -> None:
    store.score("pool", "math")
    assert store.verify().ok
    (chunk,) = [path for path, _ in store.location.walk() if path.endswith("mean/c/1/0/0")][:1]
    damaged = bytearray(store.location.read_bytes(chunk))
    damaged[3] ^= 1
    store.location.write_bytes(chunk, bytes(damaged))
    assert [finding.path for finding in store.verify().errors] == [chunk]


def test_what_a_scan_fetched_is_fetched_once(store: nait_store.Store, url: str, reads: Counter[str]) -> None:
    store.score("pool", "math")
    chunks = {path: n for path, n in reads.items() if "/c/" in path}
    assert chunks
    assert set(chunks.values()) == {1}
    reads.clear()
    store.profiles.build("other", source="pool", where="sample_id > 's000020'")
    nait_store.open(url).score("pool", "other")
    fetched = [path for path in reads if "/activations/" in path]
    assert [path for path in fetched if "/c/" in path or path.endswith("samples.parquet")] == []


def test_a_set_larger_than_half_the_cache_is_scanned_past_it(
    store: nait_store.Store, reads: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bytes = sum(segment.record.size_bytes for segment in store.sets.open("pool").segments)
    monkeypatch.setenv("NAIT_STORE_CACHE_SIZE", str(n_bytes))
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "small"))
    fresh = nait_store.open(store.url)
    fresh.score("pool", "math")
    kept = {path.name for path in (tmp_path / "small" / "objects").rglob("*") if path.is_file()}
    listed = {f.sha256: f.path for s in fresh.sets.open("pool").segments for f in s.record.files}
    assert [listed[name] for name in kept if "/mean/c/" in listed.get(name, "")] == []


def test_scores_are_fetched_once(store: nait_store.Store, url: str, reads: Counter[str]) -> None:
    store.score("pool", "math")
    query = "SELECT score FROM alignment('pool', 'math') ORDER BY score DESC"
    first = nait_store.open(url).sql(query).fetchall()
    reads.clear()
    assert nait_store.open(url).sql(query).fetchall() == first
    assert [path for path in reads if path.endswith(".parquet")] == []


def test_the_catalog_of_a_store_on_s3_lies_in_the_users_cache(store: nait_store.Store, tmp_path: Path) -> None:
    assert store.sql("SELECT reference FROM profiles").fetchall() == [("math@1",)]
    assert list((tmp_path / "cache" / "catalogs").glob("*.duckdb"))
    assert [path for path, _ in store.location.walk() if "catalog" in path] == []


def test_a_store_on_s3_is_read_without_a_cache(
    store: nait_store.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = store.sql("SELECT * FROM alignment('pool', 'math') JOIN samples('pool') USING (sample_id)").arrow()
    monkeypatch.setenv("NAIT_STORE_CACHE_SIZE", "0")
    fresh = nait_store.open(store.url)
    found = fresh.sql("SELECT * FROM alignment('pool', 'math') JOIN samples('pool') USING (sample_id)").arrow()
    assert found.sort_by("sample_id").equals(expected.sort_by("sample_id"))
