"""Records from CSV, Parquet and Arrow tables, in bounded memory, as plain JSON values."""

from __future__ import annotations

import base64
import contextlib
import csv
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, BinaryIO
from uuid import UUID

import pyarrow as pa

from nait_store.capture.json_records import TOO_LONG, read_lines
from nait_store.capture.source_records import MAX_RECORD_BYTES, RejectedRecord, SourceRecord, accept, printable
from nait_store.errors import InvalidInputError

_ROWS_PER_BATCH = 256
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


def read_csv(stream: BinaryIO, uri: str, delimiter: str) -> Iterator[SourceRecord | RejectedRecord]:
    """Yield the rows of a delimited text file under its header; every value stays text.

    ``line`` is the one on which a row begins; quoted values may hold line breaks.

    Raises
    ------
    InvalidInputError
        The header is missing, repeats a name or has an empty one.
    """
    # The limit is the process's; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))
    last_line, overlong = 0, False

    def texts() -> Iterator[str]:
        nonlocal last_line, overlong
        for number, line, whole in read_lines(stream):
            last_line = number
            overlong = overlong or not whole
            # Invalid bytes become surrogates, which accept() rejects.
            yield line.decode("utf-8", errors="surrogateescape") if whole else "\n"

    rows = csv.reader(texts(), delimiter=delimiter, strict=True)
    header = _csv_header(rows, uri)
    index = -1
    while True:
        first_line, overlong = last_line + 1, False
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            index += 1
            yield RejectedRecord(uri, index, first_line, f"not valid CSV: {error}", "")
            continue
        if not row and not overlong:
            continue
        index += 1
        raw = delimiter.join(row)
        if overlong or len(row) != len(header):
            reason = TOO_LONG if overlong else f"{len(row)} values under {len(header)} columns"
            yield RejectedRecord(uri, index, first_line, reason, printable(raw))
        else:
            yield accept(dict(zip(header, row, strict=True)), uri, index, first_line, raw)


def read_parquet(stream: BinaryIO, uri: str) -> Iterator[SourceRecord | RejectedRecord]:
    """Yield the rows of a Parquet file, a few hundred at a time."""
    import pyarrow.parquet as pq

    with (
        _seekable(stream) as opened,
        _table_errors(uri, "Parquet"),
        pq.ParquetFile(opened, pre_buffer=False) as file,
    ):
        yield from _batch_records(file.iter_batches(batch_size=_ROWS_PER_BATCH), uri)


def read_arrow(stream: BinaryIO, uri: str) -> Iterator[SourceRecord | RejectedRecord]:
    """Yield the rows of an Arrow IPC file or stream."""
    with _seekable(stream) as opened, _table_errors(uri, "Arrow"):
        is_file = opened.read(6) == b"ARROW1"
        opened.seek(0)
        if is_file:
            reader = pa.ipc.open_file(opened)
            batches: Iterable[pa.RecordBatch] = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            batches = pa.ipc.open_stream(opened)
        yield from _batch_records(batches, uri)


def plain_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a row of Python values into plain JSON values, see :func:`plain_value`."""
    return {str(name): plain_value(value) for name, value in row.items()}


def plain_value(value: Any) -> Any:
    """Turn one value into plain JSON.

    Dates and times become ISO 8601 text, durations seconds, decimals their digits as text (a float would round
    them), bytes Base64 text, arrays and tuples lists. NaN stays and is rejected with its record.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else math.nan
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return plain_value(value.tolist())
    return value


@contextlib.contextmanager
def _seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Give the stream, or a copy in a temporary file where it cannot seek (decompressed or remote)."""
    try:
        stream.seek(0)
    except (OSError, ValueError):  # UnsupportedOperation is both
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
            copy.seek(0)
            yield copy
    else:
        yield stream


def _csv_header(rows: Iterator[list[str]], uri: str) -> list[str]:
    try:
        header = next((row for row in rows if row), [])
    except csv.Error as error:
        raise InvalidInputError(f"{uri}: not valid CSV: {error}", next_step="check the file's first lines") from error
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated or any(not name.strip() for name in header):
        problem = f"repeats {', '.join(map(repr, repeated))}" if repeated else "has a column without a name"
        raise InvalidInputError(f"{uri}: the header {problem}", next_step="name each column once, in the first line")
    if any("\udc80" <= c <= "\udfff" for name in header for c in name):
        raise InvalidInputError(f"{uri}:1: the header is not UTF-8", next_step="save the file as UTF-8")
    return header


def _batch_records(batches: Iterable[pa.RecordBatch], uri: str) -> Iterator[SourceRecord | RejectedRecord]:
    index = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_PER_BATCH):
            for row in _plain_columns(batch.slice(start, _ROWS_PER_BATCH)).to_pylist():
                yield accept(plain_record(row), uri, index, None, str(row)[:2_000])
                index += 1


def _plain_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Cut nanosecond columns to microseconds (Python's types hold no more) and drop pandas' stored index.

    The index numbers a file's rows: with it, no two equal records would have equal ids.
    """
    batch = batch.select([name for name in batch.schema.names if not _PANDAS_INDEX.fullmatch(name)])
    for position, column in enumerate(batch.schema):
        kind = column.type
        if str(getattr(kind, "unit", "")) == "ns":
            coarse: pa.DataType
            if pa.types.is_timestamp(kind):
                coarse = pa.timestamp("us", kind.tz)
            else:
                coarse = pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")
            batch = batch.set_column(position, column.name, batch.column(position).cast(coarse, safe=False))
    return batch


class _table_errors:  # noqa: N801 - reads as a verb phrase at its uses
    """Turn what Arrow raises about a damaged file into an error that names it."""

    def __init__(self, uri: str, kind: str) -> None:
        self._uri, self._kind = uri, kind

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        broken = isinstance(error, pa.ArrowException) or (isinstance(error, OSError) and error.errno is None)
        if broken:
            raise InvalidInputError(
                f"{self._uri} is not a readable {self._kind} file: {error}", next_step="write the file again"
            ) from error
