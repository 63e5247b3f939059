"""The process that serves one untrusted query: forked, confined, and ended whatever comes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from nait_store.errors import InvalidInputError, NaitStoreError
from nait_store.query.sandbox.answers import batch_values, plain_schema
from nait_store.query.sandbox.frames import FrameKind, read_frame, write_frame
from nait_store.query.sandbox.limits import SandboxLimits, over_memory, over_new_scores, over_output
from nait_store.query.sandbox.runner import Answer, Runner, UntrustedQuery

_PIECE_BYTES = 1 << 18
_SHOWN_CHARACTERS = 4000
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "can't start new thread", "Out of Memory Error")


def serve(begin: Callable[[], Runner], limits: SandboxLimits, request_fd: int, answer_fd: int) -> None:
    """Serve the one query that this process is there for.

    Parameters
    ----------
    begin
        Confines this process and opens what runs the query.
    limits
        How much it may take.
    request_fd, answer_fd
        Ends of the pipes from and to the caller.
    """
    with os.fdopen(request_fd, "rb") as requests, os.fdopen(answer_fd, "wb") as answers:
        try:
            runner = begin()
            prepared = runner.prepare(_read_query(requests), limits)
            if len(prepared.missing) > limits.new_scores:
                raise over_new_scores(len(prepared.missing), limits)
            _write_json(answers, FrameKind.NEEDS, {"scores": [asdict(pair) for pair in prepared.missing]})
            read_frame(requests, FrameKind.GO)
            _send(prepared.run(), limits, answers)
        except Exception as error:
            _write_json(answers, FrameKind.ERROR, _described(error, limits))


def _read_query(requests: BinaryIO) -> UntrustedQuery:
    request = json.loads(read_frame(requests, FrameKind.REQUEST).data)
    parameters: dict[str, Any] = {}
    if request["has_parameters"]:
        row = _read_table(requests)
        parameters = {name: column[0].as_py() for name, column in zip(row.column_names, row.columns, strict=True)}
    tables = {name: _read_table(requests) for name in request["tables"]}
    return UntrustedQuery(request["text"], parameters, tables)


def _read_table(requests: BinaryIO) -> pa.Table:
    frame = read_frame(requests, FrameKind.TABLE)
    return pa.ipc.open_stream(pa.py_buffer(frame.data)).read_all()


def _send(answer: Answer, limits: SandboxLimits, answers: BinaryIO) -> None:
    schema = plain_schema(answer.reader.schema, answer.duckdb_types)
    sink = _Sink(answers, limits.output_bytes)
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in answer.reader:
            sink.count(batch_values(batch))
            writer.write_batch(batch if batch.schema.equals(schema) else batch.cast(schema))
    sink.flush()
    done = {"duckdb_types": answer.duckdb_types, "warnings": answer.warnings}
    _write_json(answers, FrameKind.DONE, done)


class _Sink:
    """Cuts what Arrow writes into frames, and stops it where it becomes too much."""

    closed = False

    def __init__(self, answers: BinaryIO, limit_bytes: int) -> None:
        self._answers = answers
        self._limit_bytes = limit_bytes
        self._taken = 0
        self._pending = bytearray()

    def count(self, n: int) -> None:
        self._taken += n
        if self._taken > self._limit_bytes:
            raise over_output(self._limit_bytes)

    def write(self, data: Any) -> int:
        piece = memoryview(data)
        self.count(piece.nbytes)
        self._pending += piece
        if len(self._pending) >= _PIECE_BYTES:
            self.flush()
        return piece.nbytes

    def flush(self) -> None:
        pending = memoryview(bytes(self._pending))
        self._pending.clear()
        for start in range(0, len(pending), _PIECE_BYTES):
            write_frame(self._answers, FrameKind.ROWS, pending[start : start + _PIECE_BYTES])

    def close(self) -> None:
        self.closed = True


def _described(error: Exception, limits: SandboxLimits) -> dict[str, str | None]:
    if _is_out_of_memory(error):
        error = over_memory(limits)
    elif isinstance(error, RecursionError) or "Max expression depth limit" in str(error):
        error = InvalidInputError("the query is nested too deeply", next_step="write it flatter")
    if not isinstance(error, NaitStoreError):
        return {"kind": "error", "what": f"unexpected {type(error).__name__}: {error}", "next_step": None}
    what, next_step = (None if text is None else text[:_SHOWN_CHARACTERS] for text in (error.what, error.next_step))
    return {"kind": error.kind, "what": what, "next_step": next_step}


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, or an address space that holds no more, somewhere along the causes of an error."""
    while error is not None:
        if isinstance(error, (MemoryError, duckdb.OutOfMemoryException)):
            return True
        if any(text in str(error) for text in _OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _write_json(stream: BinaryIO, kind: FrameKind, document: Any) -> None:
    write_frame(stream, kind, json.dumps(document).encode())
