"""Every competitor that is installed gives the scores that float64 gives, whatever the number of profiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import competitors, peers
from benchmarks.competitors import COMPETITORS, OURS, Competitor, missing
from benchmarks.report import Report
from benchmarks.scan import Size

SIZE = Size(150, 2, 32)  # neither a whole number of blocks nor of append batches


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "activations.npy"
    peers.write_source(path, SIZE)
    return path


@pytest.mark.parametrize("competitor", [*OURS, *COMPETITORS], ids=lambda each: each.__name__)
@pytest.mark.parametrize("n_profiles", [1, 5])
def test_scores_are_those_of_float64(
    competitor: type[Competitor], n_profiles: int, source: Path, tmp_path: Path
) -> None:
    if missing(competitor):
        pytest.skip(f"{missing(competitor)} not installed")
    activations = np.load(source, mmap_mode="r")
    competitor().write(activations, tmp_path)
    directions = peers.random_directions(n_profiles, SIZE)
    scores = competitor().open(tmp_path)(directions)
    assert scores.shape == (SIZE.n, n_profiles)
    exact = np.einsum("nlj,plj->np", activations.astype(np.float64), directions.astype(np.float64))
    assert peers.largest_error(scores, exact) <= competitor.tolerance


def test_a_competitor_that_is_not_installed_is_listed_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "missing", lambda each: ("tensorstore",) if each.name == "tensorstore" else ())
    report = Report("t", toy=True)
    peers.describe([], SIZE, report)
    assert ("tensorstore", "", "", "absent: tensorstore is not installed") in report.tables[0].rows


def test_a_package_that_nobody_has_is_missing() -> None:
    assert competitors.installed("numpy")
    assert not competitors.installed("nait-store-of-nobody")
