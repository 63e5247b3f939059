"""Running a query so that Ctrl-C stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import duckdb

T = TypeVar("T")
_LOOK_SECONDS = 0.2


def interruptible(connection: duckdb.DuckDBPyConnection, run: Callable[[], T], stop: Callable[[], object]) -> T:
    """Call a function that is busy in DuckDB, and stop it on Ctrl-C.

    Python tells only its main thread of a signal, and only between two steps of the interpreter: a main thread that
    waits inside DuckDB hears nothing for as long as the query takes. So it waits here, and another one runs the query.

    Parameters
    ----------
    connection
        What the function queries.
    run
        The function.
    stop
        Called on Ctrl-C: DuckDB looks for interrupts between batches of a scan only, so the scan has to end by itself.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C; the query has ended by then.
    """
    if threading.current_thread() is not threading.main_thread():
        return run()
    outcome: list[T] = []
    errors: list[BaseException] = []
    # Not Thread.join(): interrupted, it takes a thread that still runs for one that has ended.
    ended = threading.Event()
    # Held by whoever comes first: the thread that begins, or the signal that comes before it does.
    first = threading.Lock()

    def work() -> None:
        if not first.acquire(blocking=False):
            return
        try:
            outcome.append(run())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    try:
        threading.Thread(target=work, name="nait-query", daemon=True).start()
        # Not for ever: a signal that comes just before the wait does not end it.
        while not ended.wait(_LOOK_SECONDS):
            pass
    except BaseException:
        if first.acquire(blocking=False):
            raise
        stop()
        while not ended.is_set():
            connection.interrupt()
            with suppress(KeyboardInterrupt):  # one is enough
                ended.wait(_LOOK_SECONDS)
        raise
    if errors:
        raise errors[0]
    return outcome[0]
