from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.activations.set_version import SetVersion
from nait_store.errors import CorruptChunkError, IncompatibleError, InvalidInputError, NotFoundError
from nait_store.progress import ProgressEvent
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.profile import Metric
from nait_store.scoring.kernels import NumpyKernels
from nait_store.scoring.scan import Pairs, scan, score_segments, thread_count
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location
from nait_store.testing.scores import plain_projections, random_target
from nait_store.testing.stores import build_set

KINDS = [(metric, offset) for metric in Metric for offset in (None, 0.0, 2.0)]


def target(seed: int = 0, **options: Any) -> ScoringTarget:
    return random_target(seed, **{"layers": (0, 1, 2), "n_neurons": 37, **options})


def assert_right(pairs: Pairs, tolerance: float = 1e-5) -> None:
    """Every pair comes out once, within 1e-5 of the scores' standard deviation."""
    expected = Counter((segment.segment_id, id(t)) for segment, targets in pairs for t in targets)
    found = Counter[tuple[str, int]]()
    for segment, each, scores in score_segments(pairs):
        found[segment.segment_id, id(each)] += 1
        exact = plain_projections(segment, each)
        assert scores.scores.dtype == np.float64
        assert scores.projections.dtype == np.float32
        sd = exact.sum(axis=1).std()
        assert np.abs(scores.scores - exact.sum(axis=1)).max() <= tolerance * sd
        np.testing.assert_allclose(scores.projections, exact, rtol=1e-5, atol=tolerance * sd)
    assert found == expected


@pytest.mark.parametrize(("metric", "offset"), KINDS)
def test_scores_equal_float64(version: SetVersion, metric: Metric, offset: float | None) -> None:
    one = target(metric=metric, offset=offset)
    assert_right([(segment, [one]) for segment in version.segments])


@pytest.mark.parametrize("n_targets", [2, 3, 5, 8, 32, 33])
def test_scores_of_many_targets_equal_float64(version: SetVersion, n_targets: int) -> None:
    kinds = [KINDS[i % len(KINDS)] for i in range(n_targets)]
    features = [list(Feature)[i % 2] for i in range(n_targets)]
    targets = [
        target(i, metric=m, offset=o, feature=f) for i, ((m, o), f) in enumerate(zip(kinds, features, strict=True))
    ]
    assert_right([(segment, targets) for segment in version.segments])


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(12, 90),  # fewer rows can have next to no standard deviation by chance
    n_layers=st.integers(1, 4),
    J=st.integers(2, 700),
    chunk_rows=st.integers(1, 90),
    dtype=st.sampled_from(StoredDtype),
    common=st.sampled_from([0.0, 30.0]),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=7),
    seed=st.integers(0, 1000),
)
def test_scores_equal_float64_for_any_geometry(
    n: int,
    n_layers: int,
    J: int,
    chunk_rows: int,
    dtype: StoredDtype,
    common: float,
    kinds: list[tuple[Metric, float | None]],
    seed: int,
) -> None:
    location = Location(f"memory://scan-{seed}-{n}-{J}")
    mean = np.float32(common)
    version = build_set(location, "s", n, n_layers, J, seed=seed, dtype=dtype, chunk_rows=chunk_rows, mean=mean)
    targets = [
        random_target(seed + i, layers=range(n_layers), n_neurons=J, metric=m, offset=None if o is None else o + common)
        for i, (m, o) in enumerate(kinds)
    ]
    try:
        # Directions that meet int8 are rounded to 16 bits; few neurons and rows do not even that out.
        assert_right([(version.segments[0], targets)], 3e-4 if dtype is StoredDtype.INT8 else 1e-5)
    finally:
        location.delete("")


def test_cosines_are_within_the_rounding_of_the_stored_norms(version: SetVersion) -> None:
    segment = version.segments[0]
    ((_, _, found),) = score_segments([(segment, [target(metric=Metric.COSINE)])])
    A = segment.read(Feature.MEAN).astype(np.float64)
    exact = (A * target().directions.astype(np.float64)).sum(axis=2) / np.sqrt(np.square(A).sum(axis=2))
    np.testing.assert_allclose(found.scores, exact.sum(axis=1), atol=3 * 1.2e-7)


def test_targets_may_cover_some_of_the_layers(version: SetVersion) -> None:
    targets = [
        target(1, layers=(0, 2)),
        target(2, layers=(1,), metric=Metric.COSINE),
        target(3),
        target(4, layers=(2,), metric=Metric.COSINE, offset=1.0),
    ]
    assert_right([(segment, targets) for segment in version.segments])


def test_segments_may_have_different_targets(version: SetVersion) -> None:
    first, second = version.segments
    shared = target(1)
    assert_right([(first, [shared, target(2)]), (second, [target(3, feature=Feature.DRIFT), shared])])


def test_rows_that_equal_their_offset_score_zero_under_cosine(location: Location) -> None:
    mean = np.zeros((2, 8), np.float32)
    version = build_set(location, "same", 5, mean=mean)
    segment = version.segments[0]
    row = segment.read(Feature.MEAN)[3].astype(np.float32)
    one = random_target()
    centred = ScoringTarget(one.directions, row, one.layers, one.feature, Metric.COSINE)
    ((_, _, found),) = score_segments([(segment, [centred])])
    assert found.scores[3] == 0
    assert (found.scores[[0, 1, 2, 4]] != 0).all()


def test_zero_rows_score_zero_under_cosine(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    version = build_set(location, "zero", 4)
    monkeypatch.setattr(SegmentReader, "chunk", lambda self, *_, **_options: np.zeros((4, 8), np.float16))
    monkeypatch.setattr(SegmentReader, "norms", lambda self, *_: np.zeros((4, 2), np.float32))
    ((_, _, found),) = score_segments([(version.segments[0], [random_target(metric=Metric.COSINE)])])
    assert (found.scores == 0).all()


def test_each_chunk_is_read_once_for_all_targets(version: SetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    read = SegmentReader.chunk
    calls: list[tuple[Any, ...]] = []

    def counted(self: SegmentReader, feature: Feature, layer: int, block: int, **options: Any) -> NDArray[Any]:
        calls.append((self.segment_id, feature, layer, block))
        return read(self, feature, layer, block, **options)

    monkeypatch.setattr(SegmentReader, "chunk", counted)
    targets = [target(i, metric=m, offset=o) for i, (m, o) in enumerate(KINDS)]
    list(scan([(segment, targets) for segment in version.segments]))
    assert len(calls) == len(set(calls)) == 2 * 3 * 3  # segments × blocks × layers


def test_layers_and_features_nobody_asks_for_are_not_read(version: SetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    read = SegmentReader.chunk
    seen = set()

    def noted(self: SegmentReader, feature: Feature, layer: int, block: int, **options: Any) -> NDArray[Any]:
        seen.add((feature, layer))
        return read(self, feature, layer, block, **options)

    monkeypatch.setattr(SegmentReader, "chunk", noted)
    list(scan([(version.segments[0], [target(layers=(2,), feature=Feature.DRIFT)])]))
    assert seen == {(Feature.DRIFT, 2)}


def test_ranges_ascend_without_gaps_and_say_when_a_segment_ends(version: SetVersion) -> None:
    one = target()
    found = list(scan([(segment, [one]) for segment in version.segments]))
    assert [(f.rows.start, f.rows.stop, f.ends_segment) for f in found] == [
        (0, 64, False),
        (64, 128, False),
        (128, 150, True),
    ] * 2
    assert [f.segment.segment_id for f in found] == [s.segment_id for s in version.segments for _ in range(3)]


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_scores_do_not_depend_on_the_number_of_threads(version: SetVersion, n_threads: int) -> None:
    pairs = [(segment, [target(1), target(2, metric=Metric.COSINE)]) for segment in version.segments]
    reference = [f.scores for f in scan(pairs, n_threads=1)]
    found = [f.scores for f in scan(pairs, n_threads=n_threads)]
    for a, b in zip(found, reference, strict=True):
        assert np.array_equal(a.scores, b.scores)
        assert np.array_equal(a.projections, b.projections)


def test_blocks_of_very_many_rows_are_scored_in_parts(version: SetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nait_store.scoring.scan._TERMS_BYTES", 8 * 2 * 3 * 25)  # 25 rows of two targets
    targets = [target(1), target(2, metric=Metric.COSINE)]
    pairs = [(segment, targets) for segment in version.segments]
    assert_right(pairs)
    rows = [found.rows for found in scan(pairs[:1]) if found.target is targets[0]]
    assert [(r.start, r.stop) for r in rows][:4] == [(0, 25), (25, 50), (50, 64), (64, 89)]
    assert rows[-1].stop == 150


def test_no_more_threads_compute_than_were_asked_for(version: SetVersion) -> None:
    class Counting(NumpyKernels):
        running = most = 0
        lock = threading.Lock()

        def project(self, *arguments: Any) -> NDArray[np.float64]:
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            try:
                return super().project(*arguments)
            finally:
                with self.lock:
                    self.running -= 1

    kernels = Counting()
    list(scan([(segment, [target()]) for segment in version.segments], n_threads=1, kernels=kernels))
    assert kernels.most == 1


def test_scores_of_chunks_that_are_not_in_the_page_cache_are_the_same(
    version: SetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(segment, [target(1), target(2, metric=Metric.COSINE)]) for segment in version.segments]
    mapped = [found.scores for found in scan(pairs)]
    monkeypatch.setattr("nait_store.activations.segment_files.is_cached", lambda _: False)
    for a, b in zip(scan(pairs), mapped, strict=True):
        assert np.array_equal(a.scores.scores, b.scores)
        assert np.array_equal(a.scores.projections, b.projections)


@pytest.mark.parametrize("cached", [True, False])
def test_threads_that_wait_for_a_disk_are_there_only_where_there_is_something_to_wait_for(
    version: SetVersion, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    last = version.segments[1].segment_id
    read, lock, reading, most = SegmentReader.chunk, threading.Lock(), 0, 0

    def counted(self: SegmentReader, *arguments: Any, **options: Any) -> NDArray[Any]:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        time.sleep(0.005)
        with lock:
            reading -= 1
        return read(self, *arguments, **options)

    monkeypatch.setattr(SegmentReader, "chunk", counted)
    monkeypatch.setattr(
        SegmentReader,
        "is_in_page_cache",
        lambda self, _feature, _layer, block: cached or self.segment_id != last or block == 0,
    )
    pairs = [(segment, [target()]) for segment in version.segments]
    assert len(list(scan(pairs, n_threads=1))) == 6
    assert most == 1 if cached else most > 1


def test_whether_chunks_are_in_the_page_cache_is_asked_and_nothing_is_raised(
    version: SetVersion, location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = version.segments[0]
    assert segment.is_in_page_cache(Feature.MEAN, 0, 0)  # it was written just now
    for answer in (False, None):
        with monkeypatch.context() as patch:
            patch.setattr("nait_store.activations.segment_files.is_cached", lambda _, answer=answer: answer)
            assert not segment.is_in_page_cache(Feature.MEAN, 0, 0)
    (chunk,) = Path(str(location.local_path())).glob(
        f"activations/pool/segments/{segment.segment_id}/data.zarr/mean/c/0/0/0"
    )
    chunk.unlink()
    assert not segment.is_in_page_cache(Feature.MEAN, 0, 0)


def test_callers_may_scan_in_several_threads(version: SetVersion) -> None:
    one = target()
    expected = [f.scores.scores for f in scan([(version.segments[0], [one])])]
    found: list[list[NDArray[np.float64]]] = []

    def work() -> None:
        found.append([f.scores.scores for f in scan([(version.segments[0], [one])])])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(a, b) for each in found for a, b in zip(each, expected, strict=True))


def test_an_abandoned_scan_leaves_no_threads_behind(version: SetVersion) -> None:
    running = scan([(segment, [target()]) for segment in version.segments])
    next(running)
    running.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("nait-score")]


def test_only_a_bounded_number_of_chunks_is_read_ahead(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    version = build_set(location, "long", 600, chunk_rows=2)
    read = SegmentReader.chunk
    n_read = 0

    def counted(self: SegmentReader, *place: Any, **options: Any) -> NDArray[Any]:
        nonlocal n_read
        n_read += 1
        return read(self, *place, **options)

    monkeypatch.setattr(SegmentReader, "chunk", counted)
    running = scan([(version.segments[0], [random_target()])], n_threads=2)
    next(running)
    assert n_read <= 2 * 4 + 4 + 2 * 2  # of threads that compute, of those that wait, and whole ranges of two layers
    running.close()


def test_progress_counts_rows_and_bytes(version: SetVersion) -> None:
    events: list[ProgressEvent] = []
    targets = [target(1), target(2, feature=Feature.DRIFT)]
    list(scan([(segment, targets) for segment in version.segments], events.append))
    assert [e.done for e in events][-1] == events[-1].total == 600
    assert events[-1].bytes_done == 600 * 3 * 37 * 2
    assert all(a.done < b.done for a, b in itertools.pairwise(events))
    assert {e.stage for e in events} == {"score"}


def test_nothing_to_score_is_no_work() -> None:
    assert list(scan([])) == []


def test_a_missing_layer_is_named_before_anything_is_read(version: SetVersion) -> None:
    with pytest.raises(NotFoundError, match=r"does not store layer 3, 9\n.*layers 0, 1, 2"):
        scan([(version.segments[0], [target(layers=(1, 3, 9))])])


def test_a_missing_feature_is_named_with_those_there_are(version: SetVersion) -> None:
    with pytest.raises(NotFoundError, match=r"does not store the feature last\n.*mean, drift"):
        scan([(version.segments[0], [target(feature=Feature.LAST)])])


def test_directions_of_another_width_are_refused(version: SetVersion) -> None:
    with pytest.raises(IncompatibleError, match="directions over 36 neurons"):
        scan([(version.segments[0], [target(n_neurons=36)])])


def test_a_missing_chunk_stops_the_scan(version: SetVersion, location: Location) -> None:
    root = location.local_path()
    assert root is not None
    segment = version.segments[1]
    chunks = sorted(Path(root).glob(f"activations/pool/segments/{segment.segment_id}/data.zarr/mean/c/1/*/*"))
    chunks[0].unlink()
    with pytest.raises(CorruptChunkError, match="is missing"):
        list(scan([(s, [target()]) for s in version.segments]))
    assert not [t for t in threading.enumerate() if t.name.startswith("nait-score")]


def test_numpy_kernels_give_the_same_scores(version: SetVersion) -> None:
    targets = [target(i, metric=m, offset=o) for i, (m, o) in enumerate(KINDS)]
    pairs = [(version.segments[0], targets)]
    for a, b in zip(scan(pairs), scan(pairs, kernels=NumpyKernels()), strict=True):
        np.testing.assert_allclose(a.scores.scores, b.scores.scores, atol=1e-6)


def test_the_number_of_threads_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAIT_STORE_THREADS", "3")
    assert thread_count() == 3
    monkeypatch.setenv("NAIT_STORE_THREADS", "many")
    with pytest.raises(InvalidInputError, match="NAIT_STORE_THREADS is 'many'"):
        thread_count()
    monkeypatch.delenv("NAIT_STORE_THREADS")
    assert thread_count() >= 1
