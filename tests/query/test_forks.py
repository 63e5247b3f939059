"""A process that was forked with an open session: it may use it, drop it and end; its parent notices nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nait_store
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set

_PROGRAM = """
import gc, os, sys
import nait_store

QUERY = "SELECT count(*) FROM samples('pool'), range(100000)"
store = nait_store.open(sys.argv[1])
assert store.sql(QUERY).fetchone() == (2_000_000,)
child = os.fork()
if child == 0:
    {act}
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert store.sql(QUERY).fetchone() == (2_000_000,)
"""


@pytest.mark.parametrize(
    "act",
    [
        "pass",
        "del store; gc.collect()",
        "store.session.close()",
        "assert store.sql(QUERY).fetchone() == (2_000_000,)",
        "assert nait_store.open(sys.argv[1]).sql(QUERY).fetchone() == (2_000_000,)",
        "grandchild = os.fork(); grandchild and sys.exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))",
    ],
    ids=["exit", "garbage", "close", "query", "another session", "a fork of the fork"],
)
def test_a_fork_may_do_with_a_session_what_it_likes(act: str, tmp_path: Path) -> None:
    nait_store.open(str(tmp_path), create=True)
    build_set(Location(str(tmp_path)), "pool", 20)
    program = _PROGRAM.format(act=act)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.stdout, ran.returncode) == ("0\n", 0), ran.stderr
