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


@pytest.mark.parametrize(("backend", "processes", "appends"), [("local", 4, 3), ("s3", 3, 2)])
def test_concurrent_appends_are_all_visible_once_to_readers_of_whole_versions(
    backend: str, processes: int, appends: int
) -> None:
    shown = _run(
        *("benchmarks.faults.appends", "--backend", backend, "--readers", "1"),
        *("--processes", str(processes), "--appends", str(appends)),
    )
    n = processes * appends
    assert re.search(rf"\| {n}/{n} \| 0 \| 0 \| [1-9]\d* \| 0 \|", shown)


def test_a_full_disk_is_said_clearly_and_does_no_harm() -> None:
    shown = _run("benchmarks.faults.no_space", "--points", "3")
    rows = re.findall(r"^\| (\S+) \| \d+ \| (\d) \| (\d) \| (\d) \| (\d) \| (\d) \|$", shown, re.MULTILINE)
    assert [row[0] for row in rows] == ["ingest", "commit", "score", "compact", "gc", "delete-samples"]
    for _, tried, clear, went_on, sound, resumed in rows:
        assert int(clear) + int(went_on) == int(sound) == int(resumed) == int(tried)


def test_a_full_object_store_is_said_clearly_and_does_no_harm() -> None:
    shown = _run("benchmarks.faults.no_space", "--backend", "s3", "--points", "3", "--operations", "ingest")
    assert re.search(r"\| ingest \| \d+ \| 3 \| 3 \| 0 \| 3 \| 3 \|", shown)
