"""Purges and repairs that are killed; ``python -m benchmarks.faults.purges`` does it at every write step."""

from __future__ import annotations

import subprocess
import sys

from tests.docs.pages import REPOSITORY


def test_a_purge_and_a_repair_that_were_killed_are_finished_by_the_next() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults.purges", "--points", "4"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| purge | local |" in done.stdout
