"""Many segments in one commit: samples are found again wherever they are, and the message names the right one."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from nait_store.activations.versions import ActivationSets
from nait_store.errors import ConflictError
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import Feature
from nait_store.schemas.samples import SampleRow
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

_N_SEGMENTS, _N_ROWS = 40, 3  # beyond what is looked up one by one


@pytest.fixture
def location() -> Location:
    return Location(f"memory://{uuid.uuid4().hex}")


def _segment(location: Location, rows: list[SampleRow]) -> SegmentRecord:
    features = {Feature.MEAN: np.ones((len(rows), 2, 4), np.float32)}
    return build_segment(location, "pool", rows, features)


def _many(location: Location, first: int = 0) -> list[SegmentRecord]:
    return [
        _segment(location, [fake_row(f"s{first + _N_ROWS * i + row}", row) for row in range(_N_ROWS)])
        for i in range(_N_SEGMENTS)
    ]


def test_samples_that_come_again_in_many_segments_are_kept_once(location: Location) -> None:
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_neurons=4))
    sets.commit("pool", _many(location), ingest_ids=())
    version = sets.commit("pool", _many(location, first=_N_SEGMENTS), ingest_ids=())  # a third of them is new
    expected = {f"s{i}" for i in range(_N_SEGMENTS + _N_SEGMENTS * _N_ROWS)}
    assert sorted(version.sample_ids()) == sorted(expected)
    assert version.n_samples == len(expected)


def test_a_sample_in_two_of_the_new_segments_is_kept_once(location: Location) -> None:
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_neurons=4))
    segments = _many(location)
    again = _segment(location, [fake_row("s7", 1), fake_row("other")])
    version = sets.commit("pool", [*segments, again], ingest_ids=())
    assert version.n_samples == _N_SEGMENTS * _N_ROWS + 1
    assert {ordinal: rows.tolist() for ordinal, rows in version.tombstones().items()} == {_N_SEGMENTS: [0]}


@pytest.mark.parametrize("committed_first", [True, False])
def test_another_text_under_a_known_id_is_refused_with_both_places(location: Location, committed_first: bool) -> None:
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_neurons=4))
    segments = _many(location)
    new = [*_many(location, first=10_000), _segment(location, [fake_row("s7", 99, {"instruction": "another"})])]
    if committed_first:
        sets.commit("pool", segments, ingest_ids=())
        segments = []
    # s7 is the second row of its segment
    with pytest.raises(ConflictError, match=r"'s7' has one text .* record 1\) and another in .* record 99"):
        sets.commit("pool", [*segments, *new], ingest_ids=())
