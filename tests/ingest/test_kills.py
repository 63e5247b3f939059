"""The fault injections at a small size; `python -m benchmarks.faults.kills` is the full one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("backend", "points"), [("local", 60), ("s3", 15)])
def test_an_ingest_killed_at_any_moment_loses_nothing_and_is_resumed(backend: str, points: int) -> None:
    shown = _run("benchmarks.faults.kills", "--backend", backend, "--points", str(points))
    assert re.search(rf"\| {points} \| \d+ \| \d+ \| 0 \| 0 \| 0 \| 0 \| 0 \|", shown)


def test_the_program_killed_with_a_real_model_loses_nothing_and_is_resumed() -> None:
    shown = _run("benchmarks.faults.kills", "--points", "0", "--real-model", "2")
    assert re.search(r"\| 2 \| \d+ \| \d+ \| 0 \| 0 \| 0 \| 0 \| 0 \|", shown)
