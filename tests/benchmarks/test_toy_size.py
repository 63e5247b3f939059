"""Every benchmark runs from a clean checkout at toy size and reports in the common form."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import nait_store
from benchmarks.faults import many_versions
from benchmarks.large_pool import build_pool
from benchmarks.run_all import FOLDER, names, run_one
from tests.warm_processes import warm_environment

COLD = "startup"  # the one that is about imports, and the one that shows that run_all's processes start


@pytest.mark.parametrize("name", [name for name in names() if name != COLD])
def test_benchmark_runs_at_toy_size(name: str, programs: Path) -> None:
    command = ["python", "-m", f"benchmarks.{name}", "--toy"]
    environment = warm_environment(programs)
    # The command is looked up on our own PATH, not on that of the environment given.
    command[0] = str(programs / command[0])
    done = subprocess.run(command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_startup_benchmark_runs_at_toy_size() -> None:
    done = run_one(COLD, ["--toy"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_long_history_opens_and_keeps_its_promises(capsys: pytest.CaptureFixture[str]) -> None:
    assert many_versions.main(["--versions", "120", "--segments", "24", "--rounds", "1"]) == 0
    assert "manifests ≤ 100 MB: yes" in capsys.readouterr().out


def test_a_pool_written_column_by_column_is_as_sound_as_an_ingested_one(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    version = build_pool(store.location, "pool", 10_000, n_segments=2)
    assert version.n_samples == 10_000
    report = store.verify()
    assert report.ok, report.findings
    # The fields are what the record says.
    assert store.sql(
        "SELECT count(*) FROM samples('pool') WHERE record->>'instruction' = instruction "
        "AND record->>'output' = output AND starts_with(instruction, source_index || ': ')"
    ).fetchall() == [(10_000,)]
