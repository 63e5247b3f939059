"""Ctrl-C while DuckDB is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from nait_store.query.interruption import interruptible

Workbench = Any  # of conftest.py, which importlib mode cannot import
ENDLESS = "SELECT sum(a.range * b.range) FROM range(3000000) a, range(3000000) b"


def test_ctrl_c_stops_a_query_and_the_session_goes_on(shared: Workbench, press_ctrl_c: Callable[[], None]) -> None:
    press_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        shared.sql(ENDLESS)
    assert shared.rows("SELECT count(*) FROM samples('pool')") == [(60,)]


def test_a_query_in_another_thread_answers_as_in_the_main_one(shared: Workbench) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(shared.rows("SELECT count(*) FROM samples('pool')")))
    thread.start()
    thread.join()
    assert found == [(60,)]


class _InterruptedStart(threading.Thread):
    """A thread whose start is interrupted once it has begun."""

    def start(self) -> None:
        super().start()
        raise KeyboardInterrupt


class _InterruptedBeforeStart(threading.Thread):
    """A thread whose start is interrupted before it begins, and which begins all the same."""

    def start(self) -> None:
        self.late = threading.Timer(0.1, super().start)
        self.late.start()
        raise KeyboardInterrupt


def test_a_signal_as_the_query_begins_leaves_none_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", _InterruptedStart)
    begun, stopped, ended = threading.Event(), threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        stopped.wait(30)
        ended.set()

    def stop() -> None:
        assert begun.wait(30)
        stopped.set()

    with duckdb.connect() as connection, pytest.raises(KeyboardInterrupt):
        interruptible(connection, run, stop)
    # Either it had not begun, and never will, or it has ended by now.
    assert ended.is_set() or not begun.wait(0.5)


def test_a_signal_before_the_query_begins_keeps_it_from_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", _InterruptedBeforeStart)
    begun = threading.Event()
    with duckdb.connect() as connection, pytest.raises(KeyboardInterrupt):
        interruptible(connection, begun.set, lambda: None)
    assert not begun.wait(0.5)
