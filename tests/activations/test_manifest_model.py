"""Commits of any segments in any grouping, against a plain list."""

from __future__ import annotations

import uuid
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nait_store.activations import changes as changes_module
from nait_store.activations.verify import verify_set
from nait_store.activations.versions import ActivationSets
from nait_store.errors import ConflictError
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

_IDS = st.sampled_from("abcdefgh")
_TEXTS = st.sampled_from(["x", "x", "x", "x", "x", "y"])
_SEGMENTS = st.lists(st.tuples(_IDS, _TEXTS), min_size=1, max_size=4)


def _segment(location: Location, samples: list[tuple[str, str]]) -> SegmentRecord:
    rows = [fake_row(i, n, {"text": text}) for n, (i, text) in enumerate(samples)]
    return build_segment(location, "pool", rows, {Feature.MEAN: np.ones((len(rows), 1, 1), np.float32)})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(_SEGMENTS, min_size=1, max_size=3), min_size=1, max_size=8), st.integers(1, 4))
def test_versions_are_what_a_list_of_first_occurrences_would_be(
    commits: list[list[list[tuple[str, str]]]], full_every: int
) -> None:
    location = Location(f"memory://{uuid.uuid4().hex}")
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_layers=1, n_neurons=1))
    known: dict[str, str] = {}
    states: list[list[str]] = []
    with mock.patch.object(changes_module, "FULL_MANIFEST_EVERY", full_every):
        for commit in commits:
            segments = [_segment(location, samples) for samples in commit]
            expected = dict(known)
            contradicts = False
            for samples in commit:
                within: dict[str, str] = {}
                for sample, text in samples:
                    contradicts |= expected.get(sample, text) != text
                    within.setdefault(sample, text)
                expected |= {s: t for s, t in within.items() if s not in expected}
            try:
                version = sets.commit("pool", segments, ingest_ids=())
            except ConflictError:
                assert contradicts
                continue
            assert not contradicts
            if expected != known:
                states.append(list(expected))
                known = expected
            assert version.number == len(states)
    for number, ids in enumerate(states, 1):
        version = sets.open(f"pool@{number}")
        assert version.sample_ids() == ids
        assert version.n_samples == len(ids)
        ordinals = [ref.ordinal for ref in version.refs]
        assert ordinals == list(range(len(ordinals)))
    assert [f for f in verify_set(sets, "pool") if f.severity == "error"] == []
