"""Lists of sample ids in files: one a line, or the column ``sample_id`` of a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from nait_store.capture.json_records import read_lines
from nait_store.capture.readers import read_records
from nait_store.capture.sources import expand, open_plain, open_raw, reading_errors
from nait_store.errors import InvalidInputError, NotFoundError, did_you_mean

COLUMN = "sample_id"
_RECORDS = {".jsonl", ".ndjson", ".json", ".csv", ".tsv"}
_PARQUET = {".parquet", ".pq"}
_COMPRESSED = {".gz", ".zst", ".zstd"}
_MAX_LINE_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


def read_ids(source: str) -> Iterator[str]:
    """Read sample ids.

    Parameters
    ----------
    source
        A path or fsspec URL. ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` and ``.parquet`` files have a column
        ``sample_id``; any other file has one id a line. All but Parquet may be compressed (.gz, .zst).

    Yields
    ------
    str
        In the order of the file, repetitions included.

    Raises
    ------
    NotFoundError
        There is no such file, or no such column in it.
    InvalidInputError
        It cannot be read as what its name says; the message names the line.
    """
    [path] = expand(source) if "*" not in source else [source]
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind in _PARQUET:
        yield from _of_parquet(path)
    elif kind in _RECORDS:
        for record in read_records(path):
            yield id_of_record(record.record, record.where)
    else:
        with reading_errors(path), open_plain(path) as stream:
            yield from read_id_lines(stream, path)


def read_id_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Read one id a line; blank lines are passed over.

    Parameters
    ----------
    stream
        UTF-8 text.
    name
        What to call it in errors.
    """
    for number, line, whole in read_lines(stream, _MAX_LINE_BYTES):
        if not whole:
            raise InvalidInputError(
                f"{name}:{number}: a line longer than 1 MiB is no sample id", next_step="give one id a line"
            )
        if number == 1:
            line = line.removeprefix(_BOM)
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"{name}:{number}: invalid UTF-8 at byte {error.start + 1} of the line",
                next_step="give one id a line, or a .jsonl, .csv or .parquet file with a column sample_id",
            ) from error
        text = text.removesuffix("\n").removesuffix("\r")
        if text.strip():
            yield text


def id_of_record(record: dict[str, object], where: str) -> str:
    """The sample id of a record; ``where`` is what to call it in errors."""
    if COLUMN not in record:
        raise NotFoundError(f"{where}: the record has no {COLUMN}", next_step=did_you_mean(COLUMN, map(str, record)))
    value = record[COLUMN]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidInputError(f"{where}: its {COLUMN} is {value!r:.40}, not text", next_step="give ids as text")
    return str(value)


def _of_parquet(path: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading_errors(path), open_raw(path) as stream:
        try:
            with pq.ParquetFile(stream, pre_buffer=False) as file:
                if COLUMN not in file.schema_arrow.names:
                    raise NotFoundError(
                        f"{path} has no column {COLUMN}", next_step=did_you_mean(COLUMN, file.schema_arrow.names)
                    )
                position = 0
                for batch in file.iter_batches(columns=[COLUMN]):
                    for value in batch.column(0).to_pylist():
                        yield id_of_record({COLUMN: value}, f"{path}, record {position} (from 0)")
                        position += 1
        except pa.ArrowException as error:
            raise InvalidInputError(f"{path} is not a whole Parquet file: {error}") from error
