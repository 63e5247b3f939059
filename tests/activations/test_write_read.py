from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.activations.writer import SegmentWriter
from nait_store.errors import InvalidInputError
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.samples import SampleRow
from nait_store.storage.location import Location
from nait_store.testing.stores import ENVIRONMENT, SETTINGS, build_segment, fake_identity, fake_row


def _rounded(values: NDArray[np.float32], dtype: StoredDtype) -> NDArray[np.floating]:
    """What a dtype makes of values [..., J]."""
    if dtype is StoredDtype.BFLOAT16:
        return torch.from_numpy(values).bfloat16().float().numpy()
    if dtype is StoredDtype.INT8:
        scales = np.abs(values).max(axis=-1, keepdims=True) / np.float32(127)
        codes = np.rint(values / np.where(scales > 0, scales, 1))
        return codes * scales
    return values.astype({StoredDtype.FLOAT16: np.float16, StoredDtype.FLOAT32: np.float32}[dtype])


_ON_DISK = {
    StoredDtype.FLOAT16: np.float16,
    StoredDtype.BFLOAT16: np.uint16,
    StoredDtype.INT8: np.int8,
    StoredDtype.FLOAT32: np.float32,
}


def _writer(
    location: Location, *, n_neurons: int = 8, layers: tuple[int, ...] = (0, 1), **options: object
) -> SegmentWriter:
    defaults: dict[str, object] = {"features": [Feature.MEAN], "dtype": StoredDtype.FLOAT16}
    return SegmentWriter(
        location,
        "pool",
        identity=fake_identity(),
        layers=layers,
        n_neurons=n_neurons,
        settings=SETTINGS,
        environment=ENVIRONMENT,
        **(defaults | options),  # type: ignore[arg-type]
    )


def _rows(n: int, first: int = 0) -> list[SampleRow]:
    return [fake_row(f"s{i}", i) for i in range(first, first + n)]


def _activations(rng: np.random.Generator, n: int, n_layers: int, n_neurons: int) -> NDArray[np.float32]:
    return (rng.standard_normal((n, n_layers, n_neurons)) * 10.0 ** rng.integers(-6, 4)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(1, 23),
    layers=st.sets(st.integers(0, 6), min_size=1, max_size=4),
    n_neurons=st.integers(1, 9),
    features=st.sets(st.sampled_from(Feature), min_size=1),
    dtype=st.sampled_from(StoredDtype),
    chunk_rows=st.integers(1, 30),
    append_rows=st.integers(1, 30),
    in_memory=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read_back_rounded_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    n_rows: int,
    layers: set[int],
    n_neurons: int,
    features: set[Feature],
    dtype: StoredDtype,
    chunk_rows: int,
    append_rows: int,
    in_memory: bool,
    seed: int,
) -> None:
    location = Location(f"memory://{uuid.uuid4().hex}" if in_memory else str(tmp_path_factory.mktemp("s")))
    rng = np.random.default_rng(seed)
    given_arrays = {f: _activations(rng, n_rows, len(layers), n_neurons) for f in sorted(features)}
    writer = _writer(
        location,
        n_neurons=n_neurons,
        layers=tuple(sorted(layers)),
        features=sorted(features),
        dtype=dtype,
        chunk_rows=chunk_rows,
    )
    rows = _rows(n_rows)
    for start in range(0, n_rows, append_rows):
        part = slice(start, start + append_rows)
        assert writer.append(rows[part], {f: a[part] for f, a in given_arrays.items()}) == []
        assert writer.n_rows == min(n_rows, start + append_rows)
    record = writer.close()
    assert record is not None

    reader = SegmentReader(location, record, verify=True)
    assert (reader.n_rows, reader.layers, set(reader.features)) == (n_rows, tuple(sorted(layers)), features)
    for feature, array in given_arrays.items():
        stored = _rounded(array, dtype)
        np.testing.assert_array_equal(reader.read(feature), stored)
        assert reader.read(feature).dtype == stored.dtype
        low, high = sorted(rng.integers(0, n_rows + 1, 2).tolist())
        some = sorted(layers)[::2]
        np.testing.assert_array_equal(reader.read(feature, slice(low, high), some), stored[low:high, ::2])
        for block, span in enumerate(reader.blocks(feature)):
            for position, layer in enumerate(sorted(layers)):
                chunk = reader.chunk(feature, layer, block)
                assert chunk.dtype == _ON_DISK[dtype]
                scales = reader.scales(feature, [layer])
                assert (scales is not None) == (dtype is StoredDtype.INT8)
                if dtype is StoredDtype.INT8:
                    np.testing.assert_array_equal(chunk * scales[span], stored[span, position])
                elif dtype is not StoredDtype.BFLOAT16:
                    np.testing.assert_array_equal(chunk, stored[span, position])
                values = reader.values(feature, layer, block)
                np.testing.assert_array_equal(values, stored[span, position].astype(np.float32))
                assert values.dtype == np.float32
                picked = np.arange(0, span.stop - span.start, 2)
                np.testing.assert_array_equal(reader.values(feature, layer, block, picked), values[::2])
                assert not chunk.flags.writeable
                assert chunk.flags.c_contiguous
        row = int(rng.integers(n_rows))
        for position, layer in enumerate(sorted(layers)):
            np.testing.assert_array_equal(reader.row(feature, layer, row), stored[row, position])
        expected = np.sqrt((stored.astype(np.float64) ** 2).sum(axis=2))
        np.testing.assert_allclose(reader.norms(feature), expected, rtol=1e-6)
        np.testing.assert_allclose(reader.norms(feature, some), expected[:, ::2], rtol=1e-6)
        peak = next(a.max_abs for a in record.arrays if a.feature == feature)
        assert peak == float(np.abs(stored).max())
    samples = reader.samples()
    assert samples.column("sample_id").to_pylist() == [row.sample_id for row in rows]
    assert samples.column("row_index").to_pylist() == list(range(n_rows))
    assert samples.column("record").to_pylist() == [row.record for row in rows]
    assert samples.column("user.instruction").to_pylist() == [row.fields["instruction"] for row in rows]


def test_zarr_itself_reads_the_same_numbers_names_and_attributes(location: Location) -> None:
    rng = np.random.default_rng(1)
    arrays = {f: _activations(rng, 21, 3, 16) for f in (Feature.MEAN, Feature.DRIFT)}
    record = build_segment(location, "pool", _rows(21), arrays, layers=(1, 4, 6), chunk_rows=8)
    folder = f"activations/pool/segments/{record.segment_id}/data.zarr"
    store = location.local_path(folder) or zarr.storage.FsspecStore.from_url(location.url_of(folder))
    group = zarr.open_group(store, mode="r")
    assert sorted(group.array_keys()) == ["drift", "drift_norms", "mean", "mean_norms"]
    for feature, array in arrays.items():
        np.testing.assert_array_equal(group[feature.value][...], array.astype(np.float16))
        assert group[feature.value].metadata.dimension_names == ("sample", "layer", "neuron")
        assert group[f"{feature.value}_norms"].metadata.dimension_names == ("sample", "layer")
        assert group[feature.value].attrs["layers"] == [1, 4, 6]
        assert group[feature.value].chunks == (8, 1, 16)
    assert group.attrs["capture_id"] == fake_identity().capture_id


def test_every_file_but_the_record_is_listed_with_size_and_digest(location: Location) -> None:
    array = np.ones((9, 2, 8), np.float32)
    record = build_segment(location, "pool", _rows(9), {Feature.MEAN: array}, chunk_rows=4)
    folder = f"activations/pool/segments/{record.segment_id}"
    on_disk = {path: location.read_bytes(f"{folder}/{path}") for path, _ in location.sub(folder).walk()}
    record_bytes = on_disk.pop("segment.json")
    assert SegmentRecord.from_json_bytes(record_bytes, "") == record
    assert {f.path: (f.size_bytes, f.sha256) for f in record.files} == {
        path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in on_disk.items()
    }
    assert record.size_bytes == sum(map(len, on_disk.values()))


def test_the_last_chunk_is_padded_with_zeros(tmp_path: Path) -> None:
    array = np.full((6, 1, 8), 3, np.float32)
    record = build_segment(Location(str(tmp_path)), "pool", _rows(6), {Feature.MEAN: array}, chunk_rows=4)
    chunk = tmp_path / f"activations/pool/segments/{record.segment_id}/data.zarr/mean/c/1/0/0"
    values = np.frombuffer(chunk.read_bytes(), "<f2").reshape(4, 8)
    assert (values[:2] == 3).all()
    assert (values[2:] == 0).all()


def test_a_segment_smaller_than_a_chunk_is_one_chunk_of_its_size(location: Location) -> None:
    writer = _writer(location)
    writer.append(_rows(5), {Feature.MEAN: np.ones((5, 2, 8), np.float32)})
    record = writer.close()
    assert record is not None
    assert [a.chunk_rows for a in record.arrays] == [5]
    assert {f.size_bytes for f in record.files if "/mean/c/" in f.path} == {5 * 8 * 2}


@pytest.mark.parametrize(
    ("value", "dtype", "reason"),
    [
        (np.nan, StoredDtype.FLOAT16, "NaN in feature 'mean'"),
        (np.inf, StoredDtype.FLOAT16, "infinity in feature 'mean'"),
        (-np.inf, StoredDtype.FLOAT32, "infinity in feature 'mean'"),
        (70_000, StoredDtype.FLOAT16, "beyond the range of float16"),
        (-65_520, StoredDtype.FLOAT16, "beyond the range of float16; --dtype bfloat16 holds it"),
        (3.397e38, StoredDtype.BFLOAT16, "beyond the range of bfloat16; --dtype float32 holds it"),
        (-3.4e38, StoredDtype.INT8, "beyond the range of int8; --dtype float32 holds it"),
    ],
)
def test_a_sample_that_cannot_be_stored_is_rejected_and_the_others_are_kept(
    location: Location, value: float, dtype: StoredDtype, reason: str
) -> None:
    array = np.random.default_rng(0).standard_normal((7, 2, 8)).astype(np.float32)
    array[3, 1, 5] = value
    writer = _writer(location, dtype=dtype, chunk_rows=4)
    rejected = writer.append(_rows(7), {Feature.MEAN: array})
    assert [(r.sample_id, r.source_index) for r in rejected] == [("s3", 3)]
    assert reason in rejected[0].reason
    record = writer.close()
    assert record is not None
    reader = SegmentReader(location, record, verify=True)
    kept = [0, 1, 2, 4, 5, 6]
    assert reader.samples(["sample_id"]).column(0).to_pylist() == [f"s{i}" for i in kept]
    np.testing.assert_array_equal(reader.read(Feature.MEAN), _rounded(array[kept], dtype))


@pytest.mark.parametrize("value", [65_504, 65_519, -65_519])
def test_the_largest_float16_is_not_an_overflow(location: Location, value: float) -> None:
    writer = _writer(location)
    assert writer.append(_rows(1), {Feature.MEAN: np.full((1, 2, 8), value, np.float32)}) == []
    record = writer.close()
    assert record is not None
    assert np.isfinite(SegmentReader(location, record).read(Feature.MEAN)).all()


def test_a_writer_that_got_nothing_leaves_nothing(location: Location) -> None:
    writer = _writer(location)
    assert writer.append([], {Feature.MEAN: np.empty((0, 2, 8), np.float32)}) == []
    assert len(writer.append(_rows(1), {Feature.MEAN: np.full((1, 2, 8), np.nan, np.float32)})) == 1
    assert writer.close() is None
    assert list(location.walk()) == []


def test_a_discarded_segment_leaves_nothing(location: Location) -> None:
    writer = _writer(location, chunk_rows=2)
    writer.append(_rows(5), {Feature.MEAN: np.ones((5, 2, 8), np.float32)})
    assert list(location.walk()) != []
    writer.discard()
    assert list(location.walk()) == []


def test_nothing_says_that_a_segment_is_whole_before_it_is_closed(location: Location) -> None:
    writer = _writer(location, chunk_rows=2)
    writer.append(_rows(5), {Feature.MEAN: np.ones((5, 2, 8), np.float32)})
    assert not any(path.endswith("segment.json") for path, _ in location.walk())
    writer.close()
    assert any(path.endswith("segment.json") for path, _ in location.walk())


@pytest.mark.parametrize("shape", [(3, 2, 8), (2, 1, 8), (2, 2, 7), (2, 16)])
def test_arrays_of_another_shape_are_refused(location: Location, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="has shape"):
        _writer(location).append(_rows(2), {Feature.MEAN: np.ones(shape, np.float32)})


def test_a_missing_feature_is_refused(location: Location) -> None:
    writer = _writer(location, features=[Feature.MEAN, Feature.LAST])
    with pytest.raises(InvalidInputError, match="'last'"):
        writer.append(_rows(1), {Feature.MEAN: np.ones((1, 2, 8), np.float32)})


def test_user_fields_of_mixed_types_become_json_text(location: Location) -> None:
    values: list[object] = [1, "two", None, [3], {"four": 4}, True]
    rows = [fake_row(f"s{i}", i, {"x": value, "bad\0name": 1, " ": 2}) for i, value in enumerate(values)]
    record = build_segment(location, "pool", rows, {Feature.MEAN: np.ones((6, 2, 8), np.float32)})
    assert record.user_fields == {"x": "json"}
    column = SegmentReader(location, record).samples(["user.x"]).column(0).to_pylist()
    assert column == ["1", '"two"', None, "[3]", '{"four": 4}', "true"]


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    import tracemalloc

    def peak(n_appends: int) -> int:
        writer = _writer(Location(str(tmp_path)), n_neurons=256, chunk_rows=64)
        block = np.ones((32, 2, 256), np.float32)
        rows = _rows(32)
        tracemalloc.start()
        for _ in range(n_appends):
            writer.append(rows, {Feature.MEAN: block})
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        writer.discard()
        return top

    peak(2)
    # 4 MB more of float16 pass through; only the bookkeeping of the rows may grow
    assert peak(128) < peak(2) + 200_000
