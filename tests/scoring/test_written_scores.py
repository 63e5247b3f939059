"""Scores of what is being written are those of a scan of what was written, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nait_store.activations.reader import SegmentReader
from nait_store.activations.writer import SegmentWriter
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.profile import Metric
from nait_store.scoring.kernels import NumpyKernels
from nait_store.scoring.layer_plans import SegmentScores
from nait_store.scoring.scan import score_segments
from nait_store.scoring.targets import ScoringTarget
from nait_store.scoring.written_scores import WrittenScores, plan_features
from nait_store.storage.location import Location
from nait_store.testing.scores import plain_projections, random_target
from nait_store.testing.stores import ENVIRONMENT, SETTINGS, fake_identity, fake_row

FEATURES = (Feature.MEAN, Feature.DRIFT)
LAYERS = (1, 2, 5)
N_NEURONS = 37
TARGETS = {
    "dot": {},
    "cosine": {"metric": Metric.COSINE},
    "offset": {"offset": 0.5},
    "cosine and offset": {"metric": Metric.COSINE, "offset": 0.5},
    "drift": {"feature": Feature.DRIFT, "metric": Metric.COSINE},
    "some layers": {"layers": (1, 5), "metric": Metric.COSINE},
    "another layer": {"layers": (2,)},
}


def target(seed: int, **options: Any) -> ScoringTarget:
    return random_target(seed, **{"layers": LAYERS, "n_neurons": N_NEURONS, **options})


def write(
    location: Location,
    targets: list[ScoringTarget],
    *,
    n: int = 150,
    dtype: StoredDtype = StoredDtype.FLOAT16,
    kernels: NumpyKernels | None = None,
    poison: int | None = None,
) -> tuple[SegmentReader, list[tuple[ScoringTarget, SegmentScores]], WrittenScores]:
    """Write a segment in blocks of 64, batch by batch."""
    written = WrittenScores(plan_features(targets), kernels)
    writer = SegmentWriter(
        location,
        "pool",
        identity=fake_identity(),
        layers=LAYERS,
        n_neurons=N_NEURONS,
        features=FEATURES,
        dtype=dtype,
        settings=SETTINGS,
        environment=ENVIRONMENT,
        chunk_rows=64,
        listener=written,
    )
    rng = np.random.default_rng(5)
    for first in range(0, n, 13):
        rows = [fake_row(f"s{i}", i) for i in range(first, min(first + 13, n))]
        values = {f: rng.normal(3, 1, (len(rows), 3, N_NEURONS)).astype(np.float32) for f in FEATURES}
        if poison is not None and first <= poison < first + 13:
            values[Feature.MEAN][poison - first, 0, 0] = np.nan
        writer.append(rows, values)
    record = writer.close()
    assert record is not None
    return SegmentReader(location, record), list(written.scores()), written


def scanned(segment: SegmentReader, targets: list[ScoringTarget]) -> dict[int, SegmentScores]:
    return {id(one): scores for _, one, scores in score_segments([(segment, targets)])}


@pytest.mark.parametrize("dtype", StoredDtype)
def test_equal_to_a_scan_bit_by_bit(location: Location, dtype: StoredDtype) -> None:
    targets = [target(seed, **options) for seed, options in enumerate(TARGETS.values())]
    segment, found, _ = write(location, targets, dtype=dtype)
    expected = scanned(segment, targets)
    assert len(found) == len(targets)
    for one, scores in found:
        assert scores.scores.tobytes() == expected[id(one)].scores.tobytes()
        assert scores.projections.tobytes() == expected[id(one)].projections.tobytes()


@pytest.mark.parametrize("n", [1, 63, 64, 65, 128])
def test_equal_to_a_scan_at_the_edges_of_blocks(location: Location, n: int) -> None:
    targets = [target(1, metric=Metric.COSINE)]
    segment, found, _ = write(location, targets, n=n)
    assert found[0][1].scores.tobytes() == scanned(segment, targets)[id(targets[0])].scores.tobytes()


@pytest.mark.parametrize("kind", TARGETS)
def test_scores_are_those_of_the_stored_values(location: Location, kind: str) -> None:
    one = target(3, **TARGETS[kind])
    segment, found, _ = write(location, [one], dtype=StoredDtype.INT8, kernels=NumpyKernels())
    np.testing.assert_allclose(found[0][1].scores, plain_projections(segment, one).sum(axis=1), rtol=1e-6, atol=1e-6)


def test_rejected_rows_have_no_score(location: Location) -> None:
    targets = [target(1)]
    segment, found, _ = write(location, targets, n=150, poison=70)
    assert segment.n_rows == 149
    assert found[0][1].scores.tobytes() == scanned(segment, targets)[id(targets[0])].scores.tobytes()


def test_equal_targets_are_scored_once(location: Location) -> None:
    _, found, _ = write(location, [target(1), target(1), target(2)])
    assert len(found) == 2


def test_held_bytes_are_those_of_the_scores(location: Location) -> None:
    _, _, written = write(location, [target(1), target(2, layers=(1,))], n=150)
    assert written.size_bytes == 150 * (8 + 4 * 3) + 150 * (8 + 4 * 1)
