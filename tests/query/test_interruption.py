"""Ctrl-C while DuckDB is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

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
