"""Repeated sample ids, against a plain count."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nait_store.activations.sample_keys import SegmentKeys, keys_of
from nait_store.activations.unique_ids import RepeatedIds, VisibleRows

Segments = dict[int, list[str]]
segments = st.dictionaries(
    st.integers(0, 6), st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5), min_size=1, max_size=5
)
version = st.tuples(st.sets(st.integers(0, 6)), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 4))))


def _keys(ids: list[str]) -> SegmentKeys:
    keys = keys_of(ids)
    order = np.argsort(keys, kind="stable").astype(np.int32)
    return SegmentKeys(keys[order], keys[order], order)


@given(segments, st.lists(version, max_size=6), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=3))
def test_the_count_of_every_version_of_a_history_is_that_of_a_plain_loop(
    ids: Segments, versions: list[tuple[set[int], set[tuple[int, int]]]], blank: set[tuple[int, int]]
) -> None:
    def rows(pairs: set[tuple[int, int]]) -> dict[int, np.ndarray]:
        ordinals = {ordinal for ordinal, row in pairs if ordinal in ids and row < len(ids[ordinal])}
        return {
            o: np.array(sorted(r for other, r in pairs if other == o and r < len(ids[o])), np.int64) for o in ordinals
        }

    repeated = RepeatedIds({ordinal: _keys(names) for ordinal, names in ids.items()}, rows(blank))
    earlier: VisibleRows | None = None
    for ordinals, hidden in versions:
        present = ordinals & ids.keys()
        shown = Counter(
            name
            for ordinal in present
            for row, name in enumerate(ids[ordinal])
            if (ordinal, row) not in hidden and (ordinal, row) not in blank
        )
        earlier = repeated.visible(present, rows({pair for pair in hidden if pair[0] in present}), earlier)
        assert earlier.n_repeated == sum(n - 1 for n in shown.values())


def test_a_set_without_rows_repeats_nothing() -> None:
    assert RepeatedIds({}, {}).visible([], {}, None).n_repeated == 0
