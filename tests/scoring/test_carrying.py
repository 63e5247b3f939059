from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nait_store.activations.reader import SegmentReader
from nait_store.activations.set_version import SetVersion
from nait_store.errors import InvalidInputError
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.scoring import sidecar_files
from nait_store.scoring.carrying import CarriedRows, carry_over, sidecar_records
from nait_store.scoring.completion import ensure_scores
from nait_store.scoring.layer_plans import SegmentScores
from nait_store.scoring.sidecar_files import delete_sidecar
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid
from nait_store.testing.scores import random_target

COLUMNS = ("row_index", "score", "projections")


def target(seed: int = 0, **options: Any) -> ScoringTarget:
    return random_target(seed, **{"layers": (0, 1, 2), "n_neurons": 37, **options})


def made_of(version: SetVersion, n_rows: int) -> SegmentRecord:
    """Record of a segment that exists on paper: sidecars are all that these tests look at."""
    return version.segments[0].record.model_copy(update={"segment_id": new_ulid(), "n_rows": n_rows})


def carried(version: SetVersion, segment: int, rows: Any, blank: Any = None) -> CarriedRows:
    mask = None if blank is None else np.isin(rows, blank)
    return CarriedRows(version.refs[segment].record_sha256, np.array(rows, dtype=np.int64), mask)


def table(location: Location, record: SegmentRecord, one: ScoringTarget) -> tuple[Any, Any, Any]:
    found = ScoreSidecars(location).read(SegmentReader(location, record), one, COLUMNS)
    return found["row_index"].to_numpy(), found["score"].to_numpy(), np.stack(found["projections"].to_numpy())


def test_rows_of_several_segments_follow_each_other(location: Location, version: SetVersion) -> None:
    targets = [target(1), target(2, metric=Metric.COSINE, layers=(1,)), target(3, feature=Feature.DRIFT)]
    ensure_scores(location, version, targets)
    first, second = np.arange(0, 150, 3), np.arange(5, 150)
    record = made_of(version, len(first) + len(second))
    made = carry_over(location, [carried(version, 0, first), carried(version, 1, second)], record)
    assert len(made) == 3
    for one in targets:
        index, scores, projections = table(location, record, one)
        old = [table(location, segment.record, one) for segment in version.segments]
        assert np.array_equal(index, np.arange(record.n_rows))
        assert np.array_equal(scores, np.concatenate([old[0][1][first], old[1][1][second]]))
        assert np.array_equal(projections, np.concatenate([old[0][2][first], old[1][2][second]]))


def test_blank_rows_get_zero(location: Location, version: SetVersion) -> None:
    ensure_scores(location, version, [target()])
    record = made_of(version, 150)
    carry_over(location, [carried(version, 0, range(150), blank=[0, 7, 149])], record)
    _, scores, projections = table(location, record, target())
    _, old_scores, old_projections = table(location, version.segments[0].record, target())
    others = np.delete(np.arange(150), [0, 7, 149])
    assert (scores[[0, 7, 149]] == 0).all()
    assert (projections[[0, 7, 149]] == 0).all()
    assert np.array_equal(scores[others], old_scores[others])
    assert np.array_equal(projections[others], old_projections[others])


def test_many_row_groups_are_carried_in_order(
    location: Location, version: SetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar_files, "_ROW_GROUP_BYTES", 1)
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(150)
    segment = version.segments[0].record.model_copy(update={"segment_id": new_ulid(), "n_rows": 5000})
    old = SegmentReader(location, segment)
    given = np.resize(scores, 5000) + np.arange(5000)
    with ScoreSidecars(location).writing(old, target()) as writer:
        for start in range(0, 5000, 500):
            part = given[start : start + 500]
            writer.append(SegmentScores(part, np.repeat(part[:, None], 3, axis=1).astype(np.float32)))
    rows = np.flatnonzero(rng.random(5000) < 0.3)
    record = made_of(version, len(rows))
    carry_over(location, [CarriedRows(segment.digest(), rows.astype(np.int64))], record)
    _, found, projections = table(location, record, target())
    assert np.array_equal(found, given[rows])
    assert np.array_equal(projections[:, 2], given[rows].astype(np.float32))


def test_a_profile_that_one_segment_lacks_is_left_out(location: Location, version: SetVersion) -> None:
    ensure_scores(location, version, [target(1), target(2)])
    delete_sidecar(location, ScoreSidecars.key(version.segments[1], target(2)).key)
    record = made_of(version, 300)
    sources = [carried(version, 0, range(150)), carried(version, 1, range(150))]
    assert [made.directions_sha256 for made in carry_over(location, sources, record)] == [target(1).directions_sha256]
    reader = SegmentReader(location, record)
    assert ScoreSidecars(location).existing([(reader, target(1)), (reader, target(2))]) == [True, False]


def test_a_damaged_source_costs_its_profiles_scores_only(
    location: Location, version: SetVersion, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_scores(location, version, [target(1), target(2)])
    path = location.local_path(f"scores/{ScoreSidecars.key(version.segments[0], target(1)).key}.parquet")
    assert path is not None
    path.write_bytes(path.read_bytes()[:-9])
    before = set(location.names("scores"))
    record = made_of(version, 150)
    with caplog.at_level(logging.WARNING):
        made = carry_over(location, [carried(version, 0, range(150))], record)
    assert [one.directions_sha256 for one in made] == [target(2).directions_sha256]
    assert "scores are not carried over" in caplog.text
    assert set(location.names("scores")) - before == {f"{made[0].key}.json", f"{made[0].key}.parquet"}


def test_rows_must_be_those_of_the_segment(location: Location, version: SetVersion) -> None:
    with pytest.raises(InvalidInputError, match="not those of the new segment"):
        carry_over(location, [carried(version, 0, range(149))], made_of(version, 150))


def test_sidecars_of_a_segment_are_told_from_others(location: Location, version: SetVersion) -> None:
    ensure_scores(location, version, [target(1), target(2)])
    found = list(sidecar_records(location))
    assert len(found) == 4
    assert {(record.segment_sha256, record.directions_sha256) for record in found} == {
        (ref.record_sha256, directions)
        for ref in version.refs
        for directions in (target(1).directions_sha256, target(2).directions_sha256)
    }


def test_a_damaged_record_is_left_out_and_reported(
    location: Location, version: SetVersion, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_scores(location, version, [target()])
    victim = ScoreSidecars.key(version.segments[0], target()).key
    location.write_bytes(f"scores/{victim}.json", b"{}")
    with caplog.at_level(logging.WARNING):
        assert [record.segment_sha256 for record in sidecar_records(location)] == [version.refs[1].record_sha256]
    assert victim in caplog.text


def test_a_deleted_sidecar_is_gone_with_both_files(tmp_path: Path, location: Location, version: SetVersion) -> None:
    ensure_scores(location, version, [target()])
    for segment in version.segments:
        delete_sidecar(location, ScoreSidecars.key(segment, target()).key)
    assert location.names("scores") == []
    assert list((tmp_path / "store" / "scores").iterdir()) == []
