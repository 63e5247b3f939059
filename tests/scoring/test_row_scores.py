from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.activations.set_version import SetVersion
from nait_store.progress import ProgressEvent
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.scoring.completion import ensure_scores
from nait_store.scoring.row_scores import score_rows
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location
from nait_store.testing.scores import plain_projections, random_target

ROW_BYTES = 37 * 2  # of one layer
ALL = np.arange(150)


def target(seed: int, feature: Feature = Feature.MEAN, metric: Metric = Metric.DOT) -> ScoringTarget:
    return random_target(seed, layers=(0, 1, 2), n_neurons=37, feature=feature, metric=metric)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Feature, int, int]]:
    """Bytes of every chunk that is read, with whose it is."""
    original = SegmentReader.chunk
    chunks: list[tuple[str, Feature, int, int]] = []

    def noted(self: SegmentReader, feature: Feature, layer: int, block: int, **options: Any) -> NDArray[Any]:
        chunk = original(self, feature, layer, block, **options)
        chunks.append((self.segment_id, feature, block, chunk.nbytes))
        return chunk

    monkeypatch.setattr(SegmentReader, "chunk", noted)
    return chunks


def assert_right(
    version: SetVersion,
    targets: list[ScoringTarget],
    rows: dict[int, NDArray[np.int64]],
    found: dict[int, NDArray[np.float64]],
) -> None:
    assert found.keys() == rows.keys()
    for segment in version.segments:
        for p, each in enumerate(targets):
            exact = plain_projections(segment, each).sum(axis=1)
            if segment.ordinal in rows:
                wanted = rows[segment.ordinal]
                np.testing.assert_allclose(found[segment.ordinal][:, p], exact[wanted], atol=1e-5 * exact.std())


def test_only_blocks_that_hold_the_rows_are_read(
    version: SetVersion, location: Location, read: list[tuple[str, Feature, int, int]]
) -> None:
    first, second = version.segments
    rows = {first.ordinal: np.array([70, 127]), second.ordinal: np.array([5, 149])}
    targets = [target(1), target(2, metric=Metric.COSINE), target(3, Feature.DRIFT), target(1)]
    events: list[ProgressEvent] = []
    found = score_rows(ScoreSidecars(location), version.segments, targets, rows, events.append)
    blocks = {(s, f, b) for s, f, b, _ in read}
    features = (Feature.MEAN, Feature.DRIFT)
    assert blocks == {
        (segment.segment_id, feature, block)
        for feature in features
        for segment, block in ((first, 1), (second, 0), (second, 2))
    }
    assert sum(n for *_, n in read) == 2 * 3 * (64 + 64 + 22) * ROW_BYTES  # features × layers × rows
    assert events[-1].bytes_done == sum(n for *_, n in read)
    assert events[-1].done == events[-1].total == 2 * (64 + 64 + 22)
    assert_right(version, targets, rows, found)


def test_scores_of_some_blocks_are_not_kept(version: SetVersion, location: Location) -> None:
    (segment, _), one = version.segments, target(1)
    sidecars = ScoreSidecars(location)
    score_rows(sidecars, version.segments, [one], {segment.ordinal: np.array([3])})
    assert not sidecars.exists(segment, one)
    assert location.names("scores") == []


def test_a_segment_of_which_all_blocks_are_needed_is_kept(version: SetVersion, location: Location) -> None:
    (first, second), one = version.segments, target(1)
    sidecars = ScoreSidecars(location)
    rows = {first.ordinal: np.array([0, 64, 128]), second.ordinal: np.array([149])}
    assert_right(version, [one], rows, score_rows(sidecars, version.segments, [one], rows))
    assert sidecars.existing([(first, one), (second, one)]) == [True, False]


def test_kept_scores_are_read_and_no_chunks(
    version: SetVersion, location: Location, read: list[tuple[str, Feature, int, int]]
) -> None:
    kept, other = target(1), target(2)
    ensure_scores(location, version, [kept])
    read.clear()
    rows = {segment.ordinal: np.array([9]) for segment in version.segments}
    found = score_rows(ScoreSidecars(location), version.segments, [kept], rows)
    assert not read
    assert_right(version, [kept], rows, found)
    read.clear()
    both = score_rows(ScoreSidecars(location), version.segments, [kept, other], rows)
    assert {block for _, _, block, _ in read} == {0}
    assert_right(version, [kept, other], rows, both)


def test_no_rows_are_no_work(version: SetVersion, location: Location, read: list[Any]) -> None:
    assert score_rows(ScoreSidecars(location), version.segments, [target(1)], {}) == {}
    none = {version.segments[0].ordinal: ALL[:0]}
    assert score_rows(ScoreSidecars(location), version.segments, [target(1)], none) == {}
    assert not read
