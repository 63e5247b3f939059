"""Every benchmark runs from a clean checkout at toy size and reports in the common form."""

from __future__ import annotations

import pytest

from benchmarks.run_all import names, run_one


@pytest.mark.parametrize("name", names())
def test_benchmark_runs_at_toy_size(name: str) -> None:
    done = run_one(name, ["--toy"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
