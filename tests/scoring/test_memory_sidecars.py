"""Scores of a store that cannot be written: what is kept of them, and how much memory they take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nait_store.activations.set_version import SetVersion
from nait_store.errors import NotFoundError
from nait_store.scoring.completion import ensure_scores, read_scores
from nait_store.scoring.layer_plans import SegmentScores
from nait_store.scoring.memory_sidecars import MemorySidecars
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.storage.location import Location
from nait_store.testing.scores import plain_projections, random_target

N_ROWS, N_LAYERS = 10, 3
ONE = N_ROWS * N_LAYERS * 4


def some_scores(seed: int = 0, n: int = N_ROWS) -> SegmentScores:
    projections = np.random.default_rng(seed).standard_normal((n, N_LAYERS)).astype(np.float32)
    return SegmentScores(projections.sum(axis=1).astype(np.float64), projections)


def keep(memory: MemorySidecars, *keys: str) -> None:
    for seed, key in enumerate(keys):
        writer = memory.open_writer(key, N_ROWS, N_LAYERS)
        writer.append(some_scores(seed))
        writer.close()


def with_projections(memory: MemorySidecars, keys: Sequence[str]) -> str:
    found = ""
    for key in keys:
        try:
            memory.read(key, ["projections"])
        except NotFoundError:
            continue
        found += key
    return found


def test_ranges_follow_each_other() -> None:
    memory = MemorySidecars()
    whole = some_scores()
    writer = memory.open_writer("a", N_ROWS, N_LAYERS)
    for rows in (slice(0, 4), slice(4, 10)):
        writer.append(SegmentScores(whole.scores[rows], whole.projections[rows]))
    assert "a" not in memory
    writer.close()
    table = memory.read("a", ["projections", "score"])
    assert np.array_equal(table["score"].to_numpy(), whole.scores)
    assert np.array_equal(np.stack(table["projections"].to_numpy()), whole.projections)


def test_the_projections_that_were_read_least_recently_are_dropped_and_the_scores_stay() -> None:
    memory = MemorySidecars(3 * ONE)
    keep(memory, "a", "b", "c")
    memory.read("a", ["projections"])
    keep(memory, "d")
    assert with_projections(memory, "abcd") == "acd"
    assert np.array_equal(memory.read("b", ["score"])["score"].to_numpy(), some_scores(1).scores)
    assert memory.held_bytes == 3 * ONE


def test_reading_scores_alone_keeps_no_projections_alive() -> None:
    memory = MemorySidecars(2 * ONE)
    keep(memory, "a", "b")
    memory.read("a", ["score"])
    keep(memory, "c")
    assert with_projections(memory, "abc") == "bc"


def test_one_segment_is_kept_whole_however_large() -> None:
    memory = MemorySidecars(ONE // 2)
    keep(memory, "a")
    assert with_projections(memory, "a") == "a"
    keep(memory, "b")
    assert with_projections(memory, "ab") == "b"


def test_what_is_written_at_once_counts_towards_the_limit() -> None:
    memory = MemorySidecars(2 * ONE)
    writers = [memory.open_writer(key, N_ROWS, N_LAYERS) for key in "abc"]
    assert memory.held_bytes == 2 * ONE
    for writer in writers:
        writer.append(some_scores())
        writer.close()
    assert with_projections(memory, "abc") == "ab"
    assert memory.read("c", ["score"]).num_rows == N_ROWS


def test_what_is_discarded_takes_no_memory() -> None:
    memory = MemorySidecars()
    writer = memory.open_writer("a", N_ROWS, N_LAYERS)
    writer.append(some_scores())
    writer.discard()
    assert (memory.held_bytes, "a" in memory) == (0, False)


def test_what_is_kept_again_takes_the_place_of_what_was() -> None:
    memory = MemorySidecars()
    keep(memory, "a", "a")
    assert memory.held_bytes == ONE
    assert np.array_equal(memory.read("a", ["score"])["score"].to_numpy(), some_scores(1).scores)


@pytest.mark.parametrize("n", [N_ROWS - 1, N_ROWS + 1])
def test_every_row_is_needed(n: int) -> None:
    memory = MemorySidecars()
    writer = memory.open_writer("a", N_ROWS, N_LAYERS)
    writer.append(some_scores(n=n))
    with pytest.raises(ValueError, match=f"{n} of the segment's {N_ROWS} rows"):
        writer.close()
    writer.discard()
    assert (memory.held_bytes, "a" in memory) == (0, False)


def test_dropped_projections_are_computed_again(location: Location, version: SetVersion) -> None:
    sidecars = ScoreSidecars(location.read_only("closed", "open it"))
    sidecars._memory = MemorySidecars(0)
    one = random_target(layers=(0, 1, 2), n_neurons=37)
    ensure_scores(location, version, [one], sidecars=sidecars)
    with pytest.raises(NotFoundError, match="dropped to save memory"):
        sidecars.read(version.segments[0], one, ["projections"])
    for segment in version.segments:
        found = read_scores(sidecars, segment, one, ["projections"])["projections"]
        np.testing.assert_allclose(np.stack(found.to_numpy()), plain_projections(segment, one), atol=1e-6)
