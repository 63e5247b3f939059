"""Running untrusted queries, each in a process of its own that is killed when it is done, or when it takes too much."""

from __future__ import annotations

import json
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from nait_store import errors
from nait_store.errors import InvalidInputError, LimitExceededError, NaitStoreError
from nait_store.query.sandbox.answers import HostileAnswerError, read_answer
from nait_store.query.sandbox.frames import BrokenConversationError, Conversation, Frame, FrameKind
from nait_store.query.sandbox.limits import SandboxLimits, over_new_scores, over_output
from nait_store.query.sandbox.processes import ForkServer, ForkServerGoneError, RunnerSource, RunnerTask, Worker
from nait_store.query.sandbox.runner import UntrustedQuery
from nait_store.query.sources import WantedScores

_MOST_AT_ONCE = 4
_QUERY_LIMIT_BYTES = 1 << 20
_TEXT_LIMIT_CHARACTERS = 4000
_WARNINGS_LIMIT = 100
_CLASSES = {one.kind: one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, NaitStoreError)}


@dataclass(frozen=True, eq=False)
class SandboxAnswer:
    """Rows that came out of the sandbox, validated, and what to know about them."""

    table: pa.Table
    duckdb_types: tuple[str, ...]
    warnings: tuple[str, ...]


def _compute_nothing(pairs: Sequence[WantedScores]) -> None:
    raise InvalidInputError(f"the scores of {pairs[0].activation_set} under {pairs[0].profile} are not stored")


class SandboxPool:
    """Runs untrusted queries. Thread-safe; may be used after a fork, too.

    Starting it takes seconds, in the background; from then on a query's process is there within milliseconds.

    Parameters
    ----------
    source
        What queries are run with.
    most_at_once
        How many processes may run at a time; further queries wait for their turn.

    Raises
    ------
    InvalidInputError
        Untrusted SQL cannot be confined on this system.
    """

    def __init__(self, source: RunnerSource, *, most_at_once: int = _MOST_AT_ONCE) -> None:
        self._source = source
        self._turns = threading.BoundedSemaphore(most_at_once)
        self._lock = threading.Lock()
        self._closed = False
        self._begin()

    def __enter__(self) -> SandboxPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes; running queries fail, and no other can be run."""
        with self._lock:
            self._closed = True
            self._end()

    def run(
        self,
        query: UntrustedQuery,
        limits: SandboxLimits,
        compute: Callable[[Sequence[WantedScores]], None] = _compute_nothing,
        task: RunnerTask = RunnerTask(),  # noqa: B008 - it is frozen
    ) -> SandboxAnswer:
        """Run one query.

        Parameters
        ----------
        query
            The query.
        limits
            How much it may take.
        compute
            Called in this process with the scores that it needs and that are not stored, at most
            ``limits.new_scores`` of them. The names come from a process that has read the query: they are to be
            resolved and judged like the query itself.
        task
            What to open the runner with.

        Returns
        -------
        SandboxAnswer
            All rows, in memory.

        Raises
        ------
        ForbiddenError
            The query says something that an untrusted query may not.
        LimitExceededError
            It took too much, and its process was killed.
        NaitStoreError
            Whatever is wrong with the query, as for one that is trusted.
        """
        messages = _spelled(query)
        with self._turns, self._worker(limits, task) as (server, worker):
            try:
                return _converse(worker.conversation, messages, limits, compute)
            except (BrokenConversationError, HostileAnswerError) as error:
                raise _ended(server, worker, limits, error) from error

    @contextmanager
    def _worker(self, limits: SandboxLimits, task: RunnerTask) -> Iterator[tuple[ForkServer, Worker]]:
        with ExitStack() as stack:
            try:
                server = self._server()
                worker = stack.enter_context(server.worker(limits, task))
            except ForkServerGoneError:  # just now; the next one is new
                server = self._server()
                worker = stack.enter_context(server.worker(limits, task))
            yield server, worker

    def _server(self) -> ForkServer:
        with self._lock:
            if self._closed:
                raise InvalidInputError("the sandbox is closed", next_step="open the store again")
            if not self._fork_server.is_alive:
                self._end()
                self._begin()
            return self._fork_server

    def _begin(self) -> None:
        self._fork_server = ForkServer(self._source)
        self._closer = weakref.finalize(self, self._fork_server.close)

    def _end(self) -> None:
        self._closer()


_shared: dict[RunnerSource, SandboxPool] = {}
_shared_lock = threading.Lock()


def shared_pool(source: RunnerSource) -> SandboxPool:
    """The pool of this process for a source, begun now if there is none; it lives as long as the process."""
    with _shared_lock:
        if source not in _shared:
            _shared[source] = SandboxPool(source)
        return _shared[source]


def _spelled(query: UntrustedQuery) -> list[tuple[FrameKind, bytes | memoryview]]:
    try:
        text = query.text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError("the SQL is not valid Unicode text", next_step="remove the surrogates") from error
    if len(text) > _QUERY_LIMIT_BYTES:
        raise LimitExceededError(
            f"the query is {len(text):,} bytes long; an untrusted one may have {_QUERY_LIMIT_BYTES:,}",
            next_step="hand values over as a table: tables={'mine': …}",
        )
    request = {"text": query.text, "has_parameters": bool(query.parameters), "tables": list(query.tables)}
    tables = [*([_parameter_row(query.parameters)] if query.parameters else []), *query.tables.values()]
    messages: list[tuple[FrameKind, bytes | memoryview]] = [(FrameKind.REQUEST, json.dumps(request).encode())]
    return messages + [(FrameKind.TABLE, _stream(table)) for table in tables]


def _parameter_row(parameters: Mapping[str, Any]) -> pa.Table:
    """Parameters as a table of one row; unlike in JSON, dates, decimals and bytes stay what they are."""
    columns = []
    for name, value in parameters.items():
        try:
            columns.append(pa.array([value]))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise InvalidInputError(
                f"the value of the parameter ${name} cannot be handed to an untrusted query: {error}",
                next_step="give a text, a number, a date, or a list or dict of those",
            ) from error
    return pa.Table.from_arrays(columns, names=list(parameters))


def _stream(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def _converse(
    conversation: Conversation,
    messages: Sequence[tuple[FrameKind, bytes | memoryview]],
    limits: SandboxLimits,
    compute: Callable[[Sequence[WantedScores]], None],
) -> SandboxAnswer:
    for kind, data in messages:
        conversation.send(kind, data)
    needs = _document(_expect(conversation, FrameKind.NEEDS))
    missing = _missing(needs, limits)
    if missing:
        compute(missing)
    conversation.send(FrameKind.GO, b"")
    rows = bytearray()
    while (frame := _expect(conversation, FrameKind.ROWS, FrameKind.DONE)).kind is FrameKind.ROWS:
        if len(rows) + len(frame.data) > limits.output_bytes:
            raise over_output(limits.output_bytes)
        rows += frame.data
    done = _document(frame)
    table = read_answer(rows, limits.output_bytes)
    types = _texts(done.get("duckdb_types"), len(table.schema))
    if len(types) != len(table.schema):
        raise HostileAnswerError("the answer has types for other columns")
    return SandboxAnswer(table, types, _texts(done.get("warnings"), _WARNINGS_LIMIT))


def _expect(conversation: Conversation, *kinds: FrameKind) -> Frame:
    frame = conversation.receive()
    if frame.kind is FrameKind.ERROR:
        raise _error(_document(frame))
    if frame.kind not in kinds:
        raise BrokenConversationError(f"the process sent {frame.kind.name}")
    return frame


def _document(frame: Frame) -> dict[str, Any]:
    try:
        document = json.loads(frame.data)
    except (ValueError, RecursionError) as error:
        raise BrokenConversationError("the process sent no JSON") from error
    if not isinstance(document, dict):
        raise BrokenConversationError("the process sent another document")
    return document


def _missing(needs: dict[str, Any], limits: SandboxLimits) -> list[WantedScores]:
    scores = needs.get("scores")
    if not isinstance(scores, list) or not all(isinstance(pair, dict) for pair in scores):
        raise BrokenConversationError("the process sent no list of scores")
    if len(scores) > limits.new_scores:
        raise over_new_scores(len(scores), limits)
    return [WantedScores(*_texts([pair.get(field.name) for field in fields(WantedScores)], 4)) for pair in scores]


def _error(document: dict[str, Any]) -> NaitStoreError:
    kind, what, next_step = (document.get(key) for key in ("kind", "what", "next_step"))
    return _CLASSES.get(str(kind), NaitStoreError)(
        _plain_text(what), next_step=None if next_step is None else _plain_text(next_step)
    )


def _texts(values: Any, limit: int) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise BrokenConversationError("the process sent no list of texts")
    return tuple(_plain_text(value) for value in values[:limit])


def _plain_text(value: Any) -> str:
    """Text that may be shown: what a query makes of a message must not steer a terminal."""
    text = str(value)[:_TEXT_LIMIT_CHARACTERS]
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _ended(server: ForkServer, worker: Worker, limits: SandboxLimits, error: Exception) -> NaitStoreError:
    if isinstance(error, HostileAnswerError):
        return NaitStoreError(f"the query's process answered what it should not: {error}", next_step="report the query")
    code = server.reap(worker)
    if code == -signal.SIGXCPU:
        return LimitExceededError("the query took more processor time than it may and was stopped")
    how = signal.Signals(-code).name if code < 0 and -code in signal.valid_signals() else f"exit code {code}"
    return LimitExceededError(
        f"the query's process ended without an answer ({how}), most likely because it needed more memory than "
        f"{limits.memory_bytes >> 20:,} MiB",
        next_step="ask for less, or allow more: SandboxLimits(memory_bytes=…), --memory",
    )
