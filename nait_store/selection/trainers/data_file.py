"""The data file of an export: written whole or not at all, and hashed on the way."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from nait_store.selection.destination import Destination
from nait_store.selection.export import infer_schema, write_jsonl, write_parquet
from nait_store.selection.trainers.provenance import DataFile

Rows = Callable[[], Iterator[dict[str, Any]]]
"""Gives the rows from the first one on, as often as it is called."""


def write_rows(destination: Destination, rows: Rows, *, as_parquet: bool) -> tuple[DataFile, int]:
    """Write rows as JSON lines or Parquet; returns the file and how many there are."""
    counted = _Counted(rows())
    with destination.open() as stream:
        hashed = _HashedStream(stream)
        if as_parquet:
            write_parquet(cast(BinaryIO, hashed), counted, infer_schema(rows()))
        else:
            write_jsonl(cast(BinaryIO, hashed), counted)
    return hashed.file(destination.url), counted.n


def write_bytes(destination: Destination, data: bytes) -> DataFile:
    """Write a small file."""
    with destination.open() as stream:
        stream.write(data)
    return DataFile(destination.url, len(data), hashlib.sha256(data).hexdigest())


class _Counted(Iterator[dict[str, Any]]):
    def __init__(self, rows: Iterator[dict[str, Any]]) -> None:
        self._rows = rows
        self.n = 0

    def __next__(self) -> dict[str, Any]:
        row = next(self._rows)
        self.n += 1
        return row


class _HashedStream(io.RawIOBase):
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._n_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._stream.write(view)
        self._hash.update(view)
        self._n_bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self._n_bytes

    def flush(self) -> None:
        if not self.closed:
            self._stream.flush()

    def file(self, url: str) -> DataFile:
        return DataFile(url, self._n_bytes, self._hash.hexdigest())
