from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

from nait_store.activations.reader import SegmentReader
from nait_store.activations.writer import SegmentWriter
from nait_store.errors import (
    ConflictError,
    CorruptChunkError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.record import FileDigest
from nait_store.storage.digests import sha256_file
from nait_store.storage.location import Location
from nait_store.testing.stores import ENVIRONMENT, SETTINGS, build_segment, fake_identity, fake_row

_ARRAY = np.random.default_rng(7).standard_normal((11, 3, 8)).astype(np.float32)
_CHUNK = "data.zarr/mean/c/1/2/0"


@pytest.fixture
def record(location: Location) -> SegmentRecord:
    rows = [fake_row(f"s{i}", i) for i in range(11)]
    return build_segment(location, "pool", rows, {Feature.MEAN: _ARRAY}, chunk_rows=4)


def _folder(record: SegmentRecord) -> str:
    return f"activations/pool/segments/{record.segment_id}"


@pytest.mark.parametrize("path", [_CHUNK, "data.zarr/mean_norms/c/0/0", "data.zarr/mean/zarr.json", "samples.parquet"])
def test_a_missing_file_is_named(location: Location, record: SegmentRecord, path: str) -> None:
    location.delete(f"{_folder(record)}/{path}")
    reader = SegmentReader(location, record)
    with pytest.raises(CorruptChunkError, match=path.replace(".", r"\.") + " is missing"):
        reader.read(Feature.MEAN), reader.norms(Feature.MEAN), reader.samples()


@pytest.mark.parametrize(("row", "layer", "error"), [(11, 0, InvalidInputError), (0, 3, NotFoundError)])
def test_a_row_that_is_not_there_is_refused(
    location: Location, record: SegmentRecord, row: int, layer: int, error: type[Exception]
) -> None:
    reader = SegmentReader(location, record)
    with pytest.raises(error, match=f"segment {record.segment_id}"):
        reader.row(Feature.MEAN, layer, row)


@pytest.mark.parametrize("n_bytes", [0, 1, 63, 65, 10_000])
def test_a_chunk_of_another_size_is_named(location: Location, record: SegmentRecord, n_bytes: int) -> None:
    location.write_bytes(f"{_folder(record)}/{_CHUNK}", b"\1" * n_bytes)
    reader = SegmentReader(location, record)
    with pytest.raises(CorruptChunkError, match=r"mean/c/1/2/0 has [\d,]+ bytes instead of 64"):
        reader.chunk(Feature.MEAN, 2, 1)
    np.testing.assert_array_equal(reader.chunk(Feature.MEAN, 1, 1), _ARRAY[4:8, 1].astype(np.float16))


@pytest.mark.parametrize("path", [_CHUNK, "data.zarr/mean_norms/c/0/0", "samples.parquet"])
def test_a_flipped_bit_is_found_under_verify(location: Location, record: SegmentRecord, path: str) -> None:
    data = bytearray(location.read_bytes(f"{_folder(record)}/{path}"))
    data[len(data) // 2] ^= 4
    location.write_bytes(f"{_folder(record)}/{path}", bytes(data))
    reader = SegmentReader(location, record, verify=True)
    with pytest.raises(CorruptChunkError, match="differs from its recorded SHA-256"):
        reader.read(Feature.MEAN), reader.norms(Feature.MEAN), reader.samples()


@pytest.mark.parametrize("data", [b"", b"PAR1", b"garbage" * 100])
def test_samples_that_are_no_parquet_are_named(location: Location, record: SegmentRecord, data: bytes) -> None:
    location.write_bytes(f"{_folder(record)}/samples.parquet", data)
    with pytest.raises(CorruptChunkError, match=r"samples\.parquet cannot be read"):
        SegmentReader(location, record).samples()


def test_metadata_that_is_no_metadata_is_a_format_error(location: Location, record: SegmentRecord) -> None:
    location.write_bytes(f"{_folder(record)}/data.zarr/mean/zarr.json", b"{}")
    with pytest.raises(FormatError, match=r"zarr\.json is not valid Zarr v3 metadata"):
        SegmentReader(location, record).read(Feature.MEAN)


def test_metadata_of_another_shape_than_the_records_is_refused(location: Location, record: SegmentRecord) -> None:
    path = f"{_folder(record)}/data.zarr/mean/zarr.json"
    text = location.read_bytes(path).replace(b"11,", b"12,", 1)
    location.write_bytes(path, text)
    with pytest.raises(CorruptChunkError, match=r"shape \(12, 3, 8\)"):
        SegmentReader(location, record).read(Feature.MEAN)


def test_unknown_features_layers_and_blocks_name_what_there_is(location: Location, record: SegmentRecord) -> None:
    reader = SegmentReader(location, record)
    with pytest.raises(NotFoundError, match="it stores: mean"):
        reader.read(Feature.DRIFT)
    with pytest.raises(NotFoundError, match="it stores the layers 0, 1, 2"):
        reader.read(Feature.MEAN, layers=[3])
    for block in (-1, 3):
        with pytest.raises(InvalidInputError, match="no block"):
            reader.chunk(Feature.MEAN, 0, block)
    with pytest.raises(InvalidInputError, match="step"):
        reader.read(Feature.MEAN, slice(0, 4, 2))
    with pytest.raises(InvalidInputError, match="no ordinal"):
        _ = reader.ordinal


def test_a_mapped_chunk_is_the_file_itself(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    rows = [fake_row(f"s{i}", i) for i in range(11)]
    record = build_segment(location, "pool", rows, {Feature.MEAN: _ARRAY}, chunk_rows=4)
    chunk = SegmentReader(location, record).chunk(Feature.MEAN, 2, 1)
    with (tmp_path / _folder(record) / _CHUNK).open("r+b") as file:
        file.write(np.float16(123).tobytes())
    assert chunk[0, 0] == 123


def test_no_file_descriptor_stays_open(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    rows = [fake_row(f"s{i}", i) for i in range(40)]
    array = np.ones((40, 4, 8), np.float32)
    record = build_segment(location, "pool", rows, {Feature.MEAN: array}, chunk_rows=1)
    reader = SegmentReader(location, record)
    for _ in range(5):
        reader.read(Feature.MEAN), reader.samples(), reader.norms(Feature.MEAN)
    gc.collect()
    # Only files of this test: the process's count also falls as earlier tests' threads end.
    opened = [file.path for file in psutil.Process().open_files()]
    assert [path for path in opened if Path(path).is_relative_to(tmp_path.resolve())] == []


def _rewrite(location: Location, record: SegmentRecord, **options: object) -> SegmentRecord:
    """Let zarr write the same numbers in another form, and the record list the new files."""
    folder = _folder(record)
    values = SegmentReader(location, record).read(Feature.MEAN)
    location.delete(f"{folder}/data.zarr/mean")
    local = location.local_path(f"{folder}/data.zarr")
    store = (
        zarr.storage.LocalStore(local)
        if local
        else zarr.storage.FsspecStore.from_url(location.url_of(f"{folder}/data.zarr"))
    )
    group = zarr.open_group(store, mode="a")
    array = group.create_array("mean", shape=values.shape, dtype=options.pop("dtype", values.dtype), **options)  # type: ignore[arg-type]
    array[...] = values
    paths = [path for path, _ in location.sub(folder).walk() if path != "segment.json"]
    files = [
        FileDigest(
            path=path,
            size_bytes=location.size_bytes(f"{folder}/{path}"),
            sha256=sha256_file(location, f"{folder}/{path}"),
        )
        for path in paths
    ]
    return record.model_copy(update={"files": tuple(files)})


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (4, 1, 8), "compressors": zarr.codecs.ZstdCodec(level=3)},
        {"chunks": (4, 1, 8), "compressors": zarr.codecs.GzipCodec()},
        {"chunks": (2, 1, 8), "shards": (4, 3, 8), "compressors": zarr.codecs.ZstdCodec()},
        {"chunks": (4, 1, 8), "shards": (12, 3, 8), "compressors": None},
        {"chunks": (5, 3, 4), "compressors": None},
        {"chunks": (4, 1, 8), "compressors": None, "dtype": ">f2"},
    ],
    ids=["zstd", "gzip", "sharded+zstd", "sharded", "other chunks", "big endian"],
)
@pytest.mark.parametrize("verify", [False, True])
def test_a_segment_in_another_zarr_form_reads_the_same(
    location: Location, record: SegmentRecord, options: dict[str, object], verify: bool
) -> None:
    expected = _ARRAY.astype(np.float16)
    rewritten = _rewrite(location, record, **options)
    reader = SegmentReader(location, rewritten, verify=verify)
    np.testing.assert_array_equal(reader.read(Feature.MEAN), expected)
    np.testing.assert_array_equal(reader.read(Feature.MEAN, slice(3, 9), [2, 0]), expected[3:9, [2, 0]])
    for block, span in enumerate(reader.blocks(Feature.MEAN)):
        chunk = reader.chunk(Feature.MEAN, 1, block)
        np.testing.assert_array_equal(chunk, expected[span, 1])
        assert chunk.dtype == np.float16
        assert not chunk.flags.writeable
    np.testing.assert_array_equal(reader.row(Feature.MEAN, 2, 9), expected[9, 2])


def test_a_missing_chunk_of_another_zarr_form_is_not_taken_for_zeros(location: Location, record: SegmentRecord) -> None:
    rewritten = _rewrite(location, record, chunks=(4, 1, 8), compressors=zarr.codecs.ZstdCodec())
    location.delete(f"{_folder(record)}/{_CHUNK}")
    with pytest.raises(CorruptChunkError, match="mean/c/1/2/0 is missing"):
        SegmentReader(location, rewritten).read(Feature.MEAN)


def test_damage_that_a_codec_notices_is_an_error_that_names_the_array(
    location: Location, record: SegmentRecord
) -> None:
    rewritten = _rewrite(location, record, chunks=(4, 1, 8), compressors=zarr.codecs.ZstdCodec(checksum=True))
    path = f"{_folder(record)}/{_CHUNK}"
    data = bytearray(location.read_bytes(path))
    data[len(data) // 2] ^= 255
    location.write_bytes(path, bytes(data))
    with pytest.raises(CorruptChunkError, match=r"data\.zarr/mean cannot be decoded"):
        SegmentReader(location, rewritten).read(Feature.MEAN)


def test_too_many_open_files_are_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = Location(str(tmp_path))
    built = build_segment(location, "pool", [fake_row("a")], {Feature.MEAN: np.ones((1, 1, 8), np.float32)})
    reader = SegmentReader(location, built)
    reader.blocks(Feature.MEAN), reader.read(Feature.MEAN)

    def exhausted(*args: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", exhausted)
    with pytest.raises(StorageError, match="Too many open files"):
        reader.chunk(Feature.MEAN, 0, 0)


def test_a_segment_whose_beginning_was_taken_is_not_acknowledged(location: Location) -> None:
    rows = [fake_row(f"s{i}", i) for i in range(8)]
    writer = SegmentWriter(
        location,
        "pool",
        identity=fake_identity(),
        layers=[0],
        n_neurons=4,
        features=[Feature.MEAN],
        dtype=StoredDtype.FLOAT16,
        settings=SETTINGS,
        environment=ENVIRONMENT,
        chunk_rows=4,
    )
    writer.append(rows, {Feature.MEAN: np.ones((8, 1, 4), np.float32)})
    location.delete(f"activations/pool/segments/{writer.segment_id}")  # as gc does after a sleep of days
    with pytest.raises(ConflictError, match="was taken while its segment was being written"):
        writer.close()
