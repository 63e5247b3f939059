"""Rows from a process that may be hostile: what is read, and what is not."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from nait_store.errors import LimitExceededError
from nait_store.query.sandbox.answers import HostileAnswerError, batch_values, read_answer

LIMIT_BYTES = 1 << 20
PLAIN = pa.table(
    {
        "number": [1, None, 3] * 20,
        "text": ["x", None, "añ"] * 20,
        "list": [[1], None, [2, 3]] * 20,
        "struct": [{"a": 1, "b": "x"}, None, {"a": None, "b": ""}] * 20,
        "map": pa.array([[("k", 1)], None, []] * 20, pa.map_(pa.string(), pa.int64())),
        "fixed": pa.array([[1, 2], None, [3, 4]] * 20, pa.list_(pa.int8(), 2)),
        "nothing": pa.nulls(60),
    }
)


def _stream(*batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def _one(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def test_plain_rows_are_read() -> None:
    assert read_answer(_stream(*PLAIN.to_batches(max_chunksize=7)), LIMIT_BYTES).equals(PLAIN)


def test_a_schema_alone_is_an_answer_without_rows() -> None:
    assert read_answer(_stream(PLAIN.to_batches()[0].slice(0, 0)), LIMIT_BYTES).schema == PLAIN.schema


def test_metadata_is_left_behind() -> None:
    batch = PLAIN.replace_schema_metadata({"pandas": "{}"}).to_batches()[0]
    assert read_answer(_stream(batch), LIMIT_BYTES).schema.metadata is None


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_rows_are_refused(compression: str) -> None:
    with pytest.raises(HostileAnswerError, match="compressed"):
        read_answer(_stream(_one(a=[0] * 1000), compression=compression), LIMIT_BYTES)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["x"]).dictionary_encode(),
        pa.array(["x"], pa.string_view()),
        pa.array([[1]], pa.list_view(pa.int8())),
        pa.RunEndEncodedArray.from_arrays(pa.array([5], pa.int32()), pa.array([1])),
        pa.array([b"x" * 16], pa.uuid()),
        pa.ListArray.from_arrays([0, 1], pa.array([b"x" * 16], pa.uuid())),
        pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
    ],
    ids=lambda column: str(column.type)[:20],
)
def test_types_that_say_much_in_few_bytes_are_refused(column: pa.Array) -> None:
    with pytest.raises(HostileAnswerError):
        read_answer(_stream(pa.RecordBatch.from_arrays([column], ["c"])), LIMIT_BYTES)


def test_columns_of_nothing_count() -> None:
    with pytest.raises(LimitExceededError):
        read_answer(_stream(_one(a=pa.nulls(LIMIT_BYTES + 1))), LIMIT_BYTES)


def test_values_count_as_they_are_in_memory() -> None:
    # 60 rows of 7 columns, and within them the values of "list", "struct", "map" and "fixed"
    assert [batch_values(batch) for batch in PLAIN.to_batches()] == [60 * 7 + 60 + 120 + 40 + 120]


def test_an_index_out_of_a_buffer_is_refused() -> None:
    stream = _stream(_one(a=["x" * 77]))
    offsets = b"\x00\x00\x00\x00\x4d\x00\x00\x00"
    before, _, after = stream.rpartition(offsets)
    with pytest.raises(HostileAnswerError):
        read_answer(before + b"\x00\x00\x00\x00\xff\x00\x00\x00" + after, LIMIT_BYTES)


def test_text_that_is_no_text_is_refused() -> None:
    offsets = pa.py_buffer(b"\x00\x00\x00\x00\x01\x00\x00\x00")
    broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    with pytest.raises(HostileAnswerError):
        read_answer(_stream(pa.RecordBatch.from_arrays([broken], ["c"])), LIMIT_BYTES)


def test_damaged_streams_are_refused_or_read_as_valid_rows() -> None:
    # Arrow aborts the process for some lengths that are negative, for example: reaching the end is the test.
    stream = _stream(*PLAIN.to_batches(max_chunksize=20))
    chance = random.Random(7)
    n_refused = 0
    for _ in range(4000):
        damaged = bytearray(stream)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 127, 128, 255, chance.randrange(256)))
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(damaged)) :]
        try:
            read_answer(damaged, LIMIT_BYTES).to_pylist()
        except (HostileAnswerError, LimitExceededError):
            n_refused += 1
    assert n_refused > 1000
