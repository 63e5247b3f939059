"""The sandbox has three walls, and each holds without those before it."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nait_store.query.sandbox import landlock
from nait_store.query.sandbox.confinement import Reach
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.lockdown import lock
from nait_store.query.sandbox.pool import SandboxPool
from nait_store.query.sandbox.processes import RunnerSource, RunnerTask
from nait_store.query.sandbox.runner import UntrustedQuery
from tests.sandbox.attacks import OTHER_STATEMENTS, SELECTS, WRITES_IN_A_SELECT, Attack

Bench = Any  # of conftest.py, which importlib mode cannot import
EVERYWHERE = Reach(readable=None)
LIMITS = SandboxLimits(wall_seconds=5, memory_bytes=192 << 20, output_bytes=1 << 20)


@pytest.fixture(scope="module")
def without_allow_list() -> Iterator[SandboxPool]:
    with SandboxPool(RunnerSource("tests.sandbox.tables_runner:open_without_allow_list")) as pool:
        yield pool


@pytest.fixture(scope="module")
def without_any() -> Iterator[SandboxPool]:
    with SandboxPool(RunnerSource("tests.sandbox.tables_runner:open_without_any")) as pool:
        yield pool


def _try(pool: SandboxPool, queries: Sequence[str], *files: str, reach: Reach = EVERYWHERE) -> list[str]:
    """What comes of queries, one after the other in one process: rows or an error, as text."""
    tables = {
        "activation_sets": pa.table({"activation_set": ["pool"], "model": ["m"]}),
        "attempts": pa.table({"query": queries}),
    }
    answer = pool.run(UntrustedQuery("", {}, tables), LIMITS, task=RunnerTask(files, reach))
    outcomes: list[str] = answer.table["outcome"].to_pylist()
    return outcomes


def _placed(bench: Bench, attack: Attack) -> str:
    query = attack.query
    for name, path in bench.places.items():
        query = query.replace(name, path)
    return query


def test_without_the_allow_list_nothing_is_written_and_no_other_file_read(
    bench: Bench, without_allow_list: SandboxPool
) -> None:
    attacks = [a for a in (*SELECTS, *OTHER_STATEMENTS) if a.name not in ("sleep", "pg_sleep")]
    before = bench.fingerprint()
    outcomes = _try(without_allow_list, [_placed(bench, attack) for attack in attacks], bench.places["{segment}"])
    assert [a.name for a, outcome in zip(attacks, outcomes, strict=True) if "secret of the host" in outcome] == []
    assert bench.fingerprint() == before


def test_without_the_allow_list_duckdb_would_write_the_files_that_it_may_read(tmp_path: Path) -> None:
    # Why the kernel must hold, too: a path that DuckDB may read when it is locked, it may also write.
    segment = tmp_path / "segment.parquet"
    pq.write_table(pa.table({"a": [1]}), segment)
    before = segment.read_bytes()
    with duckdb.connect() as connection:
        lock(connection, [str(segment)])
        connection.execute(f"COPY (SELECT 2) TO '{segment}' (FORMAT parquet, USE_TMP_FILE false)").fetchall()
    assert segment.read_bytes() != before


def test_locked_duckdb_reads_the_files_that_it_may_and_no_others(bench: Bench, without_allow_list: SandboxPool) -> None:
    segment = bench.places["{segment}"]
    beside = str(Path(segment).parent)
    others = (f"{segment}/../segment.json", f"{beside}/*", f"{beside}/segment.json", "/etc/passwd")
    queries = [f"SELECT count(*) FROM read_parquet('{segment}')", *(f"FROM read_text('{path}')" for path in others)]
    allowed, *refused = _try(without_allow_list, queries, segment)
    assert allowed == "[(20,)]"
    assert all("disabled by configuration" in outcome for outcome in refused)


def test_locked_duckdb_keeps_its_settings(without_allow_list: SandboxPool) -> None:
    settings = (
        "enable_external_access = true",
        "lock_configuration = false",
        "allowed_paths = ['/etc/passwd']",
        "allowed_directories = ['/']",
        "allowed_configs = ['threads']",
        "memory_limit = '100GB'",
        "threads = 64",
    )
    outcomes = _try(without_allow_list, [f"SET {setting}" for setting in settings])
    assert all("the configuration has been locked" in outcome for outcome in outcomes)


def test_with_the_kernel_alone_nothing_is_written(bench: Bench, without_any: SandboxPool) -> None:
    before = bench.fingerprint()
    queries = [_placed(bench, attack) for attack in (*WRITES_IN_A_SELECT, *OTHER_STATEMENTS)]
    outcomes = _try(without_any, [*queries, f"COPY (SELECT 1) TO '{bench.tree}/out.csv'"])
    assert "Operation not permitted" in outcomes[-1]
    assert bench.fingerprint() == before


@pytest.mark.skipif(not landlock.is_available(), reason="this kernel has no Landlock")
def test_with_the_kernel_alone_nothing_is_read_but_the_store(bench: Bench, without_any: SandboxPool) -> None:
    store, secret = bench.places["{store}"], f"{bench.tree}/secret.csv"
    queries = [f"SELECT length(content) FROM read_text('{path}')" for path in (f"{store}/store.json", secret)]
    reach = Reach(readable=(store,))
    allowed, refused = _try(without_any, queries, reach=reach)
    assert int(allowed.strip("[](),")) > 0
    assert "Permission denied" in refused
    [listed] = _try(without_any, [f"SELECT file FROM glob('{bench.tree}/*')"], reach=reach)
    assert "secret" not in listed
    [listed] = _try(
        without_any, [f"SELECT file FROM glob('{bench.tree}/*')"], reach=replace(reach, listable=(str(bench.tree),))
    )
    assert "secret" in listed


CONFINED = """
import ctypes, errno, os, resource, signal, socket, subprocess, sys, threading
from nait_store.query.sandbox.confinement import Reach, confine
from nait_store.query.sandbox.limits import SandboxLimits

path = sys.argv[1]
confine(SandboxLimits(memory_bytes=64 << 20), os.getppid(), Reach(None))


def attempt(name, call):
    try:
        call()
    except (OSError, ValueError, MemoryError) as error:
        print(name, getattr(error, "errno", None) or type(error).__name__)
    else:
        print(name, "done")


def in_a_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


attempt("read", lambda: open(path).read())
attempt("write", lambda: open(path, "w"))
attempt("append", lambda: open(path, "a"))
attempt("truncate_at_open", lambda: os.open(path, os.O_RDONLY | os.O_TRUNC))
attempt("truncate", lambda: os.truncate(path, 0))
attempt("create", lambda: os.open(path + ".new", os.O_CREAT))
attempt("temporary", lambda: os.open(os.path.dirname(path), os.O_RDWR | os.O_TMPFILE))
attempt("memory_file", lambda: os.memfd_create("x"))
attempt("delete", lambda: os.unlink(path))
attempt("rename", lambda: os.rename(path, path + ".moved"))
attempt("link", lambda: os.link(path, path + ".link"))
attempt("symlink", lambda: os.symlink(path, path + ".link"))
attempt("folder", lambda: os.mkdir(path + ".folder"))
attempt("mode", lambda: os.chmod(path, 0o777))
attempt("owner", lambda: os.chown(path, 1, 1))
attempt("times", lambda: os.utime(path, (0, 0)))
attempt("attribute", lambda: os.setxattr(path, "user.a", b"1"))
attempt("fork", os.fork)
attempt("program", lambda: os.execv("/bin/true", ["true"]))
attempt("spawn", lambda: subprocess.run(["/bin/true"]))
attempt("socket", socket.socket)
attempt("socket_pair", socket.socketpair)
attempt("signal", lambda: os.kill(os.getppid(), signal.SIGTERM))
attempt("session", os.setsid)
attempt("more_time", lambda: resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6)))
attempt("its_limits", lambda: resource.getrlimit(resource.RLIMIT_AS))
attempt("thread", lambda: in_a_thread(lambda: None))
attempt("memory", lambda: bytearray(2 << 30))
attempt("outlive", lambda: None if ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0 else attempt.missing())
in_a_thread(lambda: attempt("write_in_a_thread", lambda: open(path, "w")))
sys.stdout.flush()
os.abort()
"""


@pytest.fixture(scope="module")
def confined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], int]:
    """A file, what a confined process could do with it and with others, and how it ended."""
    path = tmp_path_factory.mktemp("confined") / "file"
    path.write_text("unchanged", encoding="utf-8")
    script = textwrap.dedent(CONFINED).replace("attempt.missing()", "(_ for _ in ()).throw(OSError(1, 'refused'))")
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, cwd=Path.cwd())
    return path, dict(line.split() for line in done.stdout.splitlines()), done.returncode


def test_a_confined_process_can_read_and_compute(confined: tuple[Path, dict[str, str], int]) -> None:
    _, outcomes, _ = confined
    assert {outcomes[name] for name in ("read", "its_limits", "thread")} == {"done"}


def test_a_confined_process_is_refused_everything_else(confined: tuple[Path, dict[str, str], int]) -> None:
    path, outcomes, _ = confined
    refused = {
        name: o for name, o in outcomes.items() if name not in ("read", "its_limits", "thread", "memory", "more_time")
    }
    assert len(refused) == 25
    assert set(refused.values()) == {str(errno.EPERM)}
    assert path.read_text(encoding="utf-8") == "unchanged"
    assert list(path.parent.iterdir()) == [path]


def test_a_confined_process_gets_no_more_memory_or_time(confined: tuple[Path, dict[str, str], int]) -> None:
    assert (confined[1]["memory"], confined[1]["more_time"]) == ("MemoryError", "ValueError")


def test_a_confined_process_can_end_itself(confined: tuple[Path, dict[str, str], int]) -> None:
    assert confined[2] == -6
