"""Processes that run untrusted queries: what goes in, what comes out, and how they end."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from nait_store.errors import InvalidInputError, LimitExceededError, NaitStoreError
from nait_store.query.sandbox import pool as pool_module
from nait_store.query.sandbox import processes, syscall_filter
from nait_store.query.sandbox.frames import FrameKind
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.pool import SandboxPool
from nait_store.query.sandbox.processes import RunnerSource, RunnerTask
from nait_store.query.sandbox.runner import UntrustedQuery
from nait_store.query.sources import WantedScores

Bench = Tables = Any  # of conftest.py, which importlib mode cannot import
ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT n + 1 FROM r) SELECT max(n) FROM r"
PROGRAM = """
import pyarrow as pa
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.pool import SandboxPool
from nait_store.query.sandbox.processes import RunnerSource, RunnerTask
from nait_store.query.sandbox.runner import UntrustedQuery

pool = SandboxPool(RunnerSource("tests.sandbox.tables_runner:open_runner"))


def ask(text, **limits):
    return pool.run(UntrustedQuery(text), SandboxLimits(**limits)).table.to_pylist()
"""


@pytest.mark.parametrize(
    "value",
    [
        *("text", "", 7, 2.5, True, None, b"bytes", datetime.date(2026, 3, 1), datetime.datetime(2026, 3, 1, 12, 30)),
        *(decimal.Decimal("1.25"), [1, 2], ["a", None], [[1], []], {"a": 1}),
    ],
    ids=str,
)
def test_a_parameter_arrives_as_it_was(tables: Tables, value: Any) -> None:
    [(found,)] = tables.rows("SELECT $value", {"value": value})
    assert found == value
    assert type(found) is type(value)


def test_a_parameter_that_no_column_can_hold_is_named(tables: Tables) -> None:
    with pytest.raises(InvalidInputError, match=r"\$thing cannot be handed to an untrusted query"):
        tables.rows("SELECT $thing", {"thing": object()})


def test_the_callers_tables_can_be_read(tables: Tables) -> None:
    mine = pa.table({"a": pa.array(["x", "y"]).dictionary_encode(), "b": [[1], [2, 3]]})
    assert tables.rows("SELECT a, len(b) FROM mine ORDER BY a", mine=mine) == [("x", 1), ("y", 2)]


def test_a_large_table_goes_in_and_out(tables: Tables) -> None:
    mine = pa.table({"a": range(300_000)})
    limits = SandboxLimits(output_bytes=16 << 20)
    assert tables.sql("FROM mine", mine=mine, limits=limits).table.equals(mine)


def test_types_of_duckdb_come_along(tables: Tables) -> None:
    answer = tables.sql("SELECT sum(1) s, 'a' t, [1::TINYINT] l")
    assert answer.duckdb_types == ("HUGEINT", "VARCHAR", "TINYINT[]")


def test_enumerations_leave_as_texts(tables: Tables) -> None:
    assert tables.rows("SELECT e, [e], {'e': e} FROM (SELECT 'b'::ENUM('a', 'b') e)") == [("b", ["b"], {"e": "b"})]


def test_a_type_without_a_plain_form_is_named(tables: Tables) -> None:
    with pytest.raises(InvalidInputError, match="'n' of type BIGNUM cannot leave the sandbox"):
        tables.rows("SELECT 1::BIGNUM AS n")


def test_a_value_that_is_nested_too_deeply_is_named(tables: Tables) -> None:
    with pytest.raises(InvalidInputError, match="nested too deeply to leave"):
        tables.rows("SELECT " + "[" * 40 + "1" + "]" * 40)


def test_no_rows_have_columns(tables: Tables) -> None:
    table = tables.sql("SELECT 1 AS a, 'x' AS b WHERE false").table
    assert (table.num_rows, table.column_names) == (0, ["a", "b"])


def test_every_query_has_a_process_of_its_own(tables: Tables) -> None:
    tables.rows("SELECT setseed(0.5)")
    first = tables.rows("SELECT random() FROM range(3)")
    assert first != tables.rows("SELECT random() FROM range(3)")


def test_missing_scores_are_computed_by_the_caller(tables: Tables) -> None:
    asked: list[WantedScores] = []
    query = UntrustedQuery("SELECT 1", {}, {"missing": pa.table({"profile": ["math@1", "code@2"]})})
    tables.pool.run(query, SandboxLimits(), asked.extend)
    assert asked == [WantedScores("pool@1", name, "mean", "dot") for name in ("math@1", "code@2")]


def test_more_missing_scores_than_allowed_are_refused(tables: Tables) -> None:
    query = UntrustedQuery("SELECT 1", {}, {"missing": pa.table({"profile": ["math@1", "code@2"]})})
    with pytest.raises(LimitExceededError, match="2 pairs of set and profile"):
        tables.pool.run(query, SandboxLimits(new_scores=1), _fail)


def test_what_goes_wrong_with_missing_scores_ends_the_query(tables: Tables) -> None:
    query = UntrustedQuery("SELECT 1", {}, {"missing": pa.table({"profile": ["math@1"]})})
    with pytest.raises(ZeroDivisionError):
        tables.pool.run(query, SandboxLimits(), lambda pairs: 1 // 0)
    assert _workers() == []


def test_time_that_the_caller_takes_for_scores_is_not_counted(tables: Tables) -> None:
    query = UntrustedQuery("SELECT 1 AS a", {}, {"missing": pa.table({"profile": ["math@1"]})})
    limits = SandboxLimits(wall_seconds=2)
    answer = tables.pool.run(query, limits, lambda pairs: time.sleep(limits.wall_seconds + 0.2))
    assert answer.table.num_rows == 1


def test_queries_of_several_threads_run_at_once(tables: Tables) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda i=i: found.append(tables.rows(f"SELECT {i}"))) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [[(i,)] for i in range(6)]


def test_a_process_that_is_killed_from_outside_is_an_error(tables: Tables) -> None:
    with _meanwhile(lambda: _workers()[0].kill()), pytest.raises(LimitExceededError, match="SIGKILL"):
        tables.rows(ENDLESS, limits=SandboxLimits(wall_seconds=20))
    assert tables.rows("SELECT 1") == [(1,)]


def test_a_fork_server_that_is_killed_is_replaced(tables: Tables) -> None:
    tables.rows("SELECT 1")
    server = _server_of(tables.pool)
    server.kill()
    server.wait(timeout=10)
    assert tables.rows("SELECT 1") == [(1,)]


def test_an_interrupted_query_leaves_no_process(tables: Tables) -> None:
    def interrupt(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            tables.rows(ENDLESS, limits=SandboxLimits(wall_seconds=20))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert _workers() == []


def test_a_closed_pool_runs_nothing_and_has_no_process() -> None:
    before = set(psutil.Process().children(recursive=True))
    pool = SandboxPool(RunnerSource("tests.sandbox.tables_runner:open_runner"))
    pool.run(UntrustedQuery("SELECT 1"), SandboxLimits())
    pool.close()
    pool.close()
    assert set(psutil.Process().children(recursive=True)) <= before
    with pytest.raises(InvalidInputError, match="closed"):
        pool.run(UntrustedQuery("SELECT 1"), SandboxLimits())


def test_a_pool_that_is_forgotten_ends_its_processes() -> None:
    before = set(_servers())
    pool = SandboxPool(RunnerSource("tests.sandbox.tables_runner:open_runner"))
    assert set(_servers()) - before
    del pool
    assert set(_servers()) <= before


def test_nothing_outlives_a_caller_that_is_killed() -> None:
    endless = f"threading.Thread(target=ask, args=({ENDLESS!r},), daemon=True).start()"
    with _program(f"{PROGRAM}\nimport threading, time\nask('SELECT 1')\n{endless}\ntime.sleep(60)") as caller:
        family = _eventually(lambda: _family_of_three(caller.pid))
        caller.kill()
        assert psutil.wait_procs(family, timeout=15)[1] == []


def test_a_program_ends_although_a_query_is_running() -> None:
    ask = f"threading.Thread(target=ask, args=({ENDLESS!r},), daemon=True).start()"
    with _program(f"{PROGRAM}\nimport threading, time\n{ask}\ntime.sleep(0.5)") as caller:
        assert caller.wait(timeout=60) == 0


def test_a_program_without_a_file_can_ask_and_so_can_what_it_forks() -> None:
    forks = (
        "import os\npid = os.fork()\nanswer = ask('SELECT 1')\nif pid: os.waitpid(pid, 0)\nprint(answer, flush=True)"
    )
    with _program(f"{PROGRAM}\nask('SELECT 1')\n{forks}") as caller:
        out, _ = caller.communicate(timeout=60)
    assert out.splitlines() == ["[{'1': 1}]"] * 2


def test_the_environment_is_withheld(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with SandboxPool(RunnerSource("tests.sandbox.tables_runner:open_environment")) as pool:
        task = RunnerTask(environment={"GIVEN": "1"})
        seen = set(pool.run(UntrustedQuery("SELECT 1"), SandboxLimits(), task=task).table["name"].to_pylist())
    assert "GIVEN" in seen
    assert seen <= {"GIVEN", *processes._INHERITED_VARIABLES, *processes._FIXED_VARIABLES, "LC_CTYPE"}


def test_the_fork_server_has_one_thread(tables: Tables, bench: Bench) -> None:
    # Another thread might hold a lock at the moment of a fork, which nobody would ever release in the new process.
    tables.rows("SELECT 1")
    bench.sql("SELECT 1")
    assert {server.num_threads() for server in _servers()} == {1}


def test_a_fork_server_that_cannot_start_says_why() -> None:
    missing = RunnerSource("nait_store.no_such_module:open")
    with SandboxPool(missing) as pool, pytest.raises(NaitStoreError, match="no_such_module"):
        pool.run(UntrustedQuery("SELECT 1"), SandboxLimits())


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscall_filter.platform, "machine", lambda: "mips")
    with pytest.raises(InvalidInputError, match="only be run on Linux"):
        SandboxPool(RunnerSource("tests.sandbox.tables_runner:open_runner"))


def _frame(kind: int, data: bytes, size: int | None = None) -> bytes:
    return struct.pack("<BQ", kind, len(data) if size is None else size) + data


NEEDS = _frame(FrameKind.NEEDS, b'{"scores": []}')
DONE = _frame(FrameKind.DONE, b'{"duckdb_types": [], "warnings": []}')
HOSTILE = {
    "nothing": b"",
    "noise": b"\xff" * 100,
    "a_frame_of_an_unknown_kind": _frame(77, b"x"),
    "a_frame_that_is_too_large": _frame(FrameKind.NEEDS, b"", size=1 << 40),
    "no_json": _frame(FrameKind.NEEDS, b"{"),
    "json_of_another_shape": _frame(FrameKind.NEEDS, b"[1]"),
    "deep_json": _frame(FrameKind.NEEDS, b"[" * 100_000),
    "scores_of_another_shape": _frame(FrameKind.NEEDS, b'{"scores": [1]}'),
    "an_endless_number_of_scores": _frame(FrameKind.NEEDS, json.dumps({"scores": [{}] * 9}).encode()),
    "rows_at_once": _frame(FrameKind.ROWS, b"x"),
    "rows_that_are_noise": NEEDS + _frame(FrameKind.ROWS, b"noise" * 100) + DONE,
    "no_rows": NEEDS + DONE,
    "an_error_of_another_shape": _frame(FrameKind.ERROR, b'{"kind": ["x"], "what": {"a": "\\u001b[2J"}}'),
    "a_request": _frame(FrameKind.REQUEST, b"{}"),
    "half_a_frame": NEEDS[:-3],
}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_a_process_that_says_what_it_must_not_is_an_error(said: bytes, hostile: Callable[[bytes], str]) -> None:
    assert hostile(said).isprintable() or "\n" in hostile(said)


@pytest.fixture(scope="module")
def hostile() -> Iterator[Callable[[bytes], str]]:
    """Has a process say some bytes and end; gives the error."""
    with SandboxPool(RunnerSource("tests.sandbox.tables_runner:open_hostile")) as pool:

        def say(said: bytes) -> str:
            with pytest.raises(NaitStoreError) as caught:
                pool.run(UntrustedQuery(said.hex()), SandboxLimits(wall_seconds=5))
            return str(caught.value)

        yield say


def test_a_flood_of_frames_is_cut_off(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    # The process stops itself first; here it is told of a limit that its caller does not have.
    kept = SandboxLimits(output_bytes=100_000)
    more = {SandboxLimits: {"output_bytes": 1 << 30}}
    monkeypatch.setattr(processes, "asdict", lambda one: {**asdict(one), **more.get(type(one), {})})
    with pytest.raises(LimitExceededError, match="more than 100,000 bytes"):
        tables.rows("SELECT repeat('x', 1000) FROM range(10000000)", limits=kept)


def test_messages_cannot_steer_a_terminal() -> None:
    assert pool_module._plain_text("a\x1b[31m\u202eb\nc") == "a\ufffd[31m\ufffdb\nc"


def _fail(pairs: Any) -> None:
    raise AssertionError("nothing is to be computed")


def _server_of(pool: SandboxPool) -> psutil.Process:
    return psutil.Process(pool._fork_server._process.pid)


def _servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "fork_server" in " ".join(_command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _workers() -> list[psutil.Process]:
    return [worker for server in _servers() for worker in server.children()]


def _family_of_three(pid: int) -> list[psutil.Process]:
    family = psutil.Process(pid).children(recursive=True)
    return [psutil.Process(pid), *family] if len(family) == 2 else []


def _eventually(look: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@contextmanager
def _meanwhile(do: Callable[[], Any]) -> Iterator[None]:
    """Do something as soon as a worker runs."""

    def wait_and_do() -> None:
        _eventually(_workers)
        do()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    yield
    thread.join()


@contextmanager
def _program(text: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    folder = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    program = subprocess.Popen([sys.executable, "-"], stdin=pipe, stdout=pipe, text=True, env=environment, cwd=folder)
    try:
        assert program.stdin is not None
        program.stdin.write(text)
        program.stdin.close()
        program.stdin = None
        yield program
    finally:
        program.kill()
        program.communicate()
