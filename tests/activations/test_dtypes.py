"""bfloat16 and int8: how values are rounded, what other readers see, what is said in store.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

import nait_store
from nait_store.activations.compaction import compact
from nait_store.activations.reader import SegmentReader
from nait_store.activations.stored_values import decode, encode
from nait_store.activations.versions import ActivationSets
from nait_store.errors import CorruptChunkError, ReadOnlyError, UnsupportedVersionError
from nait_store.schemas import store_record
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.record import document_bytes
from nait_store.storage.location import Location
from nait_store.testing.sample_digests import sample_digests
from nait_store.testing.stores import build_segment, build_set, fake_row

CODED = (StoredDtype.BFLOAT16, StoredDtype.INT8)


def _folder(location: Location, segment_id: str) -> str:
    return f"activations/pool/segments/{segment_id}/data.zarr"


def test_every_float32_is_rounded_to_bfloat16_as_torch_rounds_it() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32)
    ties = (rng.integers(0, 2**16, 20_000, dtype=np.uint32) << 16) | 0x8000
    values = np.concatenate([bits, ties]).view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3.39e38)].reshape(1, -1)
    stored, scales = encode(values, StoredDtype.BFLOAT16)
    assert scales is None
    np.testing.assert_array_equal(decode(stored), torch.from_numpy(values).bfloat16().float().numpy())


def test_a_code_is_within_half_a_unit_of_its_value_and_the_largest_is_127() -> None:
    rng = np.random.default_rng(1)
    values = (rng.standard_normal((50, 300)) * 10.0 ** rng.integers(-20, 20, (50, 1))).astype(np.float32)
    codes, scales = encode(values, StoredDtype.INT8)
    assert scales is not None
    error = np.abs(codes * scales[:, None].astype(np.float64) - values)
    assert (error <= 0.5001 * scales[:, None]).all()
    assert (np.abs(codes.astype(int)).max(axis=1) == 127).all()


def test_a_row_of_zeros_has_scale_zero() -> None:
    codes, scales = encode(np.zeros((2, 5), np.float32), StoredDtype.INT8)
    assert scales is not None
    assert not codes.any()
    assert not scales.any()


def test_the_smallest_numbers_are_stored_without_overflow() -> None:
    values = np.array([[1e-45, -3e-45, 5e-45], [1e-38, -1e-39, 0]], np.float32)
    codes, scales = encode(values, StoredDtype.INT8)
    assert scales is not None
    assert (np.abs(codes.astype(int)) <= 127).all()
    np.testing.assert_allclose(decode(codes, scales), values, atol=1e-40)


def test_zarr_alone_reads_bfloat16_by_a_shift(location: Location) -> None:
    array = np.random.default_rng(2).standard_normal((9, 2, 16)).astype(np.float32)
    rows = [fake_row(f"s{i}", i) for i in range(9)]
    record = build_segment(location, "pool", rows, {Feature.MEAN: array}, dtype=StoredDtype.BFLOAT16, chunk_rows=4)
    folder = _folder(location, record.segment_id)
    group = zarr.open_group(location.local_path(folder) or zarr.storage.FsspecStore.from_url(location.url_of(folder)))
    mean = group["mean"]
    assert isinstance(mean, zarr.Array)
    assert (mean.dtype, mean.attrs["stored_as"]) == (np.uint16, "bfloat16")
    values = (np.asarray(mean[...]).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(values, torch.from_numpy(array).bfloat16().float().numpy())


def test_zarr_alone_reads_int8_as_a_product(location: Location) -> None:
    array = np.random.default_rng(3).standard_normal((9, 2, 16)).astype(np.float32)
    rows = [fake_row(f"s{i}", i) for i in range(9)]
    record = build_segment(location, "pool", rows, {Feature.MEAN: array}, dtype=StoredDtype.INT8, chunk_rows=4)
    folder = _folder(location, record.segment_id)
    group = zarr.open_group(location.local_path(folder) or zarr.storage.FsspecStore.from_url(location.url_of(folder)))
    assert sorted(group.array_keys()) == ["mean", "mean_norms", "mean_scales"]
    mean, scales = group["mean"], group["mean_scales"]
    assert isinstance(mean, zarr.Array)
    assert isinstance(scales, zarr.Array)
    assert (mean.dtype, mean.attrs["stored_as"]) == (np.int8, "int8")
    assert scales.metadata.dimension_names == ("sample", "layer")
    values = np.asarray(mean[...]) * np.asarray(scales[...])[:, :, None]
    np.testing.assert_allclose(values, array, atol=float(np.abs(array).max()) / 254 * 1.001)
    np.testing.assert_array_equal(values, SegmentReader(location, record).read(Feature.MEAN))


@pytest.mark.parametrize("dtype", CODED)
def test_an_array_of_another_type_than_the_record_says_is_refused(tmp_path: Path, dtype: StoredDtype) -> None:
    location = Location(str(tmp_path))
    segment = build_set(location, "pool", 5, dtype=dtype).segments[0]
    path = tmp_path / _folder(location, segment.segment_id) / "mean" / "zarr.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | {"data_type": "float16", "fill_value": 0.0}))
    with pytest.raises(CorruptChunkError):
        SegmentReader(location, segment.record, segment.ref).read(Feature.MEAN)


@pytest.mark.parametrize("dtype", CODED)
def test_an_array_that_was_compressed_by_hand_is_read(tmp_path: Path, dtype: StoredDtype) -> None:
    location = Location(str(tmp_path))
    segment = build_set(location, "pool", 9, dtype=dtype, chunk_rows=4).segments[0]
    expected = segment.read(Feature.MEAN)
    group = zarr.open_group(str(tmp_path / _folder(location, segment.segment_id)), mode="a")
    raw = np.asarray(group["mean"][...])  # type: ignore[index]
    group.create_array("mean", data=raw, chunks=(4, 1, 8), compressors=zarr.codecs.ZstdCodec(), overwrite=True)
    record = segment.record.model_copy(
        update={"files": tuple(f for f in segment.record.files if "/mean/" not in f.path)}
    )
    np.testing.assert_array_equal(SegmentReader(location, record).read(Feature.MEAN), expected)


@pytest.mark.parametrize("dtype", CODED)
def test_compaction_copies_numbers_norms_and_scales(tmp_path: Path, dtype: StoredDtype) -> None:
    location = Location(str(tmp_path))
    sets = ActivationSets(location)
    for k in range(3):
        before = build_set(location, "pool", 7, seed=k, first=7 * k, dtype=dtype, chunk_rows=3)
    compact(sets, "pool")
    after = sets.open("pool")
    assert len(after.refs) == 1
    assert sample_digests(after) == sample_digests(before)
    values = after.segments[0].read(Feature.MEAN)
    assert after.segments[0].record.arrays[0].max_abs == np.abs(values).max()


def test_compaction_keeps_segments_of_different_dtypes_apart(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    sets = ActivationSets(location)
    for k, dtype in enumerate([*StoredDtype, *StoredDtype]):
        before = build_set(location, "pool", 4, seed=k, first=4 * k, dtype=dtype)
    compact(sets, "pool")
    after = sets.open("pool")
    assert sorted(s.record.arrays[0].dtype.value for s in after.segments) == sorted(d.value for d in StoredDtype)
    assert sample_digests(after).items() == sample_digests(before).items()


@pytest.mark.parametrize("dtype", StoredDtype)
def test_only_bfloat16_and_int8_are_announced_in_the_stores_record(tmp_path: Path, dtype: StoredDtype) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    before = (tmp_path / "store" / "store.json").read_bytes()
    build_set(store.location, "pool", 5, dtype=dtype)
    record = nait_store.open(str(tmp_path / "store")).record
    expected = ("dtypes",) if dtype in CODED else ()
    assert (record.reader_features, record.writer_features) == (expected, expected)
    assert record.store_id == store.record.store_id
    assert ((tmp_path / "store" / "store.json").read_bytes() == before) == (dtype not in CODED)
    assert nait_store.open(str(tmp_path / "store")).verify().ok


def test_announcing_keeps_what_later_releases_wrote(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    path = tmp_path / "store" / "store.json"
    later = json.loads(path.read_bytes()) | {"colour": "green", "writer_features": ["dtypes"]}
    path.write_bytes(document_bytes(later))
    build_set(store.location, "pool", 5, dtype=StoredDtype.INT8)
    found = json.loads(path.read_bytes())
    assert found["colour"] == "green"
    assert (found["reader_features"], found["writer_features"]) == (["dtypes"], ["dtypes"])


def test_the_record_is_written_before_anything_of_the_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)

    def fail(self: Location, path: str, data: bytes) -> None:
        raise ReadOnlyError("no")

    monkeypatch.setattr(Location, "write_bytes", fail)
    with pytest.raises(ReadOnlyError):
        build_set(store.location, "pool", 5, dtype=StoredDtype.INT8)
    assert not (tmp_path / "store" / "activations" / "pool" / "segments").exists()


def test_a_release_without_these_dtypes_refuses_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    build_set(store.location, "pool", 5, dtype=StoredDtype.INT8)
    monkeypatch.setattr(store_record, "KNOWN_READER_FEATURES", frozenset())
    with pytest.raises(UnsupportedVersionError, match="unknown reader features dtypes"):
        nait_store.open(str(tmp_path / "store"))


@pytest.mark.parametrize("dtype", CODED)
def test_scores_selections_and_profiles_are_those_of_the_values(tmp_path: Path, dtype: StoredDtype) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    version = build_set(store.location, "pool", 40, 2, 24, dtype=dtype, mean=np.float32(0.5), chunk_rows=16)
    store.profiles.build("math", source="pool", method="mean", metric="cosine")
    values = np.concatenate([s.read(Feature.MEAN) for s in version.segments]).astype(np.float64)
    directions = values.mean(axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(store.profiles.open("math").directions(), directions, atol=1e-6)
    expected = np.einsum("nlj,lj->nl", values, directions) / np.linalg.norm(values, axis=2)
    rows = store.sql("SELECT sample_id, score FROM alignment('pool', 'math') ORDER BY sample_id").fetchall()
    np.testing.assert_allclose([score for _, score in rows], expected.sum(axis=1), atol=1e-5)
    assert store.sql("SELECT DISTINCT dtype FROM segments").fetchall() == [(dtype.value,)]
