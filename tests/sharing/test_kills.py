"""Pushes and pulls that are killed, and two at once; ``python -m benchmarks.faults.sharing`` does it at full size."""

from __future__ import annotations

import subprocess
import sys

from tests.docs.pages import REPOSITORY


def test_what_was_killed_is_not_seen_and_is_finished_by_the_next_and_races_end_clearly() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults.sharing", "--points", "5", "--rounds", "3"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| push | local |" in done.stdout
    assert "| race, two stores | local |" in done.stdout
