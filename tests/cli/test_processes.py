"""What only a process of its own shows: exit codes, signals, pipes, what is imported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import nait_store

PROGRAM = [sys.executable, "-m", "nait_store.cli.main"]
HEAVY = {
    "torch",
    "transformers",
    "numba",
    "duckdb",
    "pyarrow",
    "pandas",
    "zarr",
    "rich",
    "scipy",
    "sklearn",
    "datasets",
}


def imported_by(code: str, *arguments: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``code``."""
    program = f"import sys\n{code}\nprint('\\n##' + ' '.join({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("##")[2].split())


def test_import_is_light() -> None:
    assert imported_by("import nait_store") & (HEAVY | {"pydantic", "fsspec", "numpy"}) == set()


def test_opening_a_store_is_light(store: Path) -> None:
    code = f"import nait_store; nait_store.open({str(store)!r}).url"
    assert imported_by(code) & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["ingest", "--help"], ["--version"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = f"from nait_store.cli.main import main\nmain({arguments!r})"
    assert imported_by(code) & (HEAVY | {"fsspec", "numpy"}) == set()


def test_listing_sets_needs_no_model_and_no_sql(store: Path) -> None:
    code = f"from nait_store.cli.main import main\nmain(['--store', {str(store)!r}, 'sets', 'list'])"
    assert imported_by(code) & {"torch", "transformers", "duckdb", "pandas", "sklearn"} == set()


@pytest.mark.parametrize("command", [["list"], ["search", "school"]])
def test_listing_profiles_needs_no_database(store: Path, command: list[str]) -> None:
    nait_store.open(str(store)).profiles.list()  # the first look makes the index
    code = f"from nait_store.cli.main import main\nmain(['--store', {str(store)!r}, 'profile', *{command!r}])"
    assert imported_by(code) & HEAVY == set()


def test_exit_code_and_streams(store: Path, folder: Path) -> None:
    done = subprocess.run([*PROGRAM, "sets", "show", "nope"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no set 'nope'")
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error(store: Path, folder: Path) -> None:
    query = "SELECT a.sample_id FROM samples('pool') a, samples('pool') b, samples('pool') c"
    command = [*PROGRAM, "sql", query, "--format", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())
        process.stdout.close()
        stderr = process.stderr.read().decode()
        code = process.wait(timeout=60)
    assert stderr == ""
    assert code == 141


def test_a_reader_that_goes_away_is_no_error_without_buffers(store: Path, folder: Path) -> None:
    # Then one write of many bytes may end half-way, and tell nobody.
    command = [*PROGRAM, "sql", "SELECT repeat('x', 1000000) AS x"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.stdout.close()
        stderr = process.stderr.read().decode()
        code = process.wait(timeout=60)
    assert (code, stderr) == (141, "")


BUSY = """
import threading, time
from nait_store.cli import main

def announce():
    while all(thread.name != "nait-query" for thread in threading.enumerate()):
        time.sleep(0.01)
    time.sleep(0.2)  # by then it is the query itself that runs
    print("busy", flush=True)

threading.Thread(target=announce, daemon=True).start()
main.run()
"""
"""The program, which says when DuckDB is at work."""


@pytest.mark.parametrize(
    ("number", "code", "says"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_stops_an_endless_query_and_leaves_nothing_behind(
    store: Path, folder: Path, number: signal.Signals, code: int, says: str
) -> None:
    before = set(folder.rglob("*"))
    query = "SELECT sum(a.range * b.range) FROM range(3000000) a, range(3000000) b"
    command = [sys.executable, "-c", BUSY, "sql", query, "--out", "sum.csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()  # what does not stop would be waited for to the end
    assert (process.returncode, out, err) == (code, "", f"error: {says}\n")
    assert set(folder.rglob("*")) == before


def test_interrupt_exits_with_130_and_one_line(store: Path, folder: Path) -> None:
    # Reading the query from a pipe that never ends: certain to be interrupted in the middle.
    reader, writer = os.pipe()
    with subprocess.Popen([*PROGRAM, "sql", "-"], stdin=reader, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        os.close(reader)
        wait_until_it_reads(process.pid)
        process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
        code = process.wait(timeout=60)
    os.close(writer)
    assert (code, stderr) == (130, "error: interrupted\n")


def wait_until_it_reads(pid: int) -> None:
    """Wait until the process sleeps in a read from its standard input."""
    import time

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/syscall")
        if not status.exists():
            time.sleep(3)  # not Linux: give it time to start
            return
        words = status.read_text().split()
        if words[:2] == ["0", "0x0"]:
            return
        time.sleep(0.02)
    raise TimeoutError("the process never read its standard input")
