"""``top_neurons`` and ``similar``: what a sample activates most, and which samples are like it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nait_store.errors import NotFoundError
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.scoring.scan import scan
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

Workbench = Any  # of conftest.py, which importlib mode cannot import
N_LAYERS, N_NEURONS = 4, 16


def nearest(
    bench: Workbench, name: str, sample_id: str, layers: list[int], feature: Feature = Feature.MEAN
) -> list[tuple[int, str, float]]:
    """Every other sample, nearest first, in float64."""
    every = bench.stored(name, feature)
    [mine] = [array for found_id, array in every.values() if found_id == sample_id]
    found = []
    for row_id, (other_id, array) in every.items():
        cosines = []
        for layer in layers:
            lengths = np.linalg.norm(array[layer]) * np.linalg.norm(mine[layer])
            cosines.append(array[layer] @ mine[layer] / lengths if lengths else 0.0)
        if other_id != sample_id:
            found.append((row_id, other_id, float(np.mean(cosines))))
    return sorted(found, key=lambda row: (-row[2], row[1]))


def largest(vectors: Any, layers: list[int], k: int) -> list[tuple[int, int, float]]:
    """(layer, neuron, activation) by a plain loop over [L, J]."""
    found = [(layer, j, float(vectors[layer, j])) for layer in layers for j in range(vectors.shape[1])]
    return sorted(found, key=lambda row: (-abs(row[2]), row[0], row[1]))[:k]


def commit(bench: Workbench, name: str, array: Any) -> None:
    """Commit a set of these activations [n, L, J], with the samples a, b, c …"""
    bench.sets.create(fake_set_record(name, n_layers=array.shape[1], n_neurons=array.shape[2]))
    rows = [fake_row(chr(ord("a") + i), i) for i in range(len(array))]
    values = {Feature.MEAN: np.asarray(array, np.float32)}
    bench.sets.commit(
        name, [build_segment(bench.location, name, rows, values, dtype=StoredDtype.FLOAT32)], ingest_ids=()
    )


@pytest.mark.parametrize(
    ("options", "layers", "feature", "k"),
    [
        ("", [0, 1, 2, 3], "mean", 10),
        (", 5, layers := [3, 1]", [1, 3], "mean", 5),
        (", layers := 2, feature := 'drift'", [2], "drift", 10),
        (", 1000", [0, 1, 2, 3], "mean", 1000),
        (", 0", [0], "mean", 0),
    ],
)
def test_the_nearest_samples_by_the_mean_of_the_layers_cosines(
    wide: Workbench, options: str, layers: list[int], feature: str, k: int
) -> None:
    rows = wide.rows(f"FROM similar('wide', 's000060'{options}) ORDER BY rank")
    expected = nearest(wide, "wide", "s000060", layers, Feature(feature))[:k]
    assert [row[:3] for row in rows] == [(i, row_id, name) for i, (row_id, name, _) in enumerate(expected, start=1)]
    np.testing.assert_allclose([row[3] for row in rows], [row[2] for row in expected], rtol=0, atol=1e-6)


def test_the_nearest_are_found_whatever_is_kept_meanwhile(wide: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = wide.rows("FROM similar('wide', 's000012', 3) ORDER BY rank")
    monkeypatch.setattr("nait_store.query.features.similar._SORTED_ROWS", 1)
    assert wide.rows("FROM similar('wide', 's000012', 3) ORDER BY rank") == whole


def test_deleted_samples_are_not_among_the_nearest(wide: Workbench) -> None:
    before = {row[2] for row in wide.rows("FROM similar('wide@2', 's000001', 1000)")}
    after = {row[2] for row in wide.rows("FROM similar('wide', 's000001', 1000)")}
    assert before - after == {"s000000", "s000005", "s000030", "s000079"}
    assert len(after) == 75


def test_the_chosen_layers_are_read_once_and_nothing_is_kept(wide: Workbench) -> None:
    files = [path for path, _ in wide.location.walk()]
    plan = wide.session.explain("FROM similar('wide', 's000001', layers := [0, 2])")
    rows = wide.rows(
        "WITH near AS NOT MATERIALIZED (FROM similar('wide', 's000001', layers := [0, 2])) "
        "SELECT count(*) FROM near a JOIN near b ON a.rank < b.rank"
    )
    assert rows == [(45,)]
    of_set = sum(segment.read(Feature.MEAN).nbytes for segment in wide.sets.open("wide").segments)
    assert sum(event.bytes_done for event in wide.events if event.done == event.total) == of_set / 2 == plan.size_bytes
    assert [path for path, _ in wide.location.walk()] == files


def test_equally_near_samples_come_in_the_order_of_their_ids(empty: Workbench) -> None:
    one, other = np.eye(2, 4), -np.eye(2, 4)
    commit(empty, "ties", np.stack([one, other, one, one, other]))
    rows = empty.rows("SELECT rank, sample_id, similarity FROM similar('ties', 'd', 3) ORDER BY rank")
    assert [row[:2] for row in rows] == [(1, "a"), (2, "c"), (3, "b")]
    assert [row[2] for row in rows] == pytest.approx([1, 1, -1], abs=1e-6)


def test_a_layer_of_zeros_counts_as_no_likeness(empty: Workbench) -> None:
    commit(empty, "zeros", np.array([[[1, 0], [0, 1]], [[2, 0], [0, 0]], [[0, 0], [0, 0]], [[-1, 0], [0, 1]]]))
    rows = empty.rows("SELECT sample_id, similarity FROM similar('zeros', 'a') ORDER BY rank")
    assert rows == [("b", 0.5), ("c", 0.0), ("d", 0.0)]
    assert empty.rows("SELECT sample_id, similarity FROM similar('zeros', 'c') ORDER BY rank") == [
        ("a", 0.0),
        ("b", 0.0),
        ("d", 0.0),
    ]


def test_neighbours_are_joined_with_their_samples(shared: Workbench) -> None:
    rows = shared.rows(
        "SELECT s.instruction, near.similarity FROM similar('pool', 's000003', 4) near "
        "JOIN samples('pool') s USING (sample_id) ORDER BY rank"
    )
    expected = nearest(shared, "pool", "s000003", [0, 1])[:4]
    assert [row[0] for row in rows] == [f"do {name}" for _, name, _ in expected]


def test_a_query_may_speak_of_the_table_without_an_alias(shared: Workbench) -> None:
    """SIMILAR is a keyword of SQL, which an alias that we add must not trip over."""
    assert shared.rows("SELECT max(\"similar\".rank) FROM similar('pool', 's000003')") == [(10,)]


@pytest.mark.parametrize("function", ["similar", "top_neurons"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'wide', 'nobody'", "set wide@3 has no sample 'nobody'"),
        ("'wide', 's000000'", "set wide@3 has no sample 's000000'"),  # deleted
        ("'wide', 's000001', layers := [0, 7]", "set wide@3 does not store layer 7"),
        ("'wide', 's000001', feature := 'last'", "set wide@3 does not store the feature last"),
        ("'wid', 's000001'", "no set 'wid'"),
    ],
)
def test_what_is_not_there_is_an_error_before_anything_is_read(
    wide: Workbench, function: str, arguments: str, message: str
) -> None:
    with pytest.raises(NotFoundError, match=message):
        wide.session.explain(f"FROM {function}({arguments})")


def test_a_deleted_sample_is_found_in_the_version_that_had_it(wide: Workbench) -> None:
    assert wide.rows("SELECT count(*) FROM similar('wide@1', 's000000', 5)") == [(5,)]


def test_a_sample_that_came_back_in_a_later_segment_is_found_there(bench: Workbench) -> None:
    bench.delete("pool", ["s000007"])
    bench.append("pool", [{}], ids=["s000007"], seed=9)
    array = bench.sets.open("pool").segments[-1].read(Feature.MEAN)[0]  # [L, J]
    rows = bench.rows("SELECT layer, neuron, activation FROM top_neurons('pool', 's000007', 3) ORDER BY rank")
    assert rows == largest(array, [0, 1], 3)


@pytest.mark.parametrize(
    ("options", "layers", "k"),
    [("", [0, 1, 2, 3], 10), (", 3, layers := [2, 0]", [0, 2], 3), (", 1000", [0, 1, 2, 3], 1000), (", 0", [0], 0)],
)
def test_the_top_neurons_are_those_of_the_largest_magnitude(
    wide: Workbench, options: str, layers: list[int], k: int
) -> None:
    rows = wide.rows(f"FROM top_neurons('wide', 's000031'{options}) ORDER BY rank")
    [array] = [array for sample_id, array in wide.stored("wide").values() if sample_id == "s000031"]
    assert rows == [(rank, *row) for rank, row in enumerate(largest(array, layers, k), start=1)]


def test_equally_strong_neurons_come_by_layer_and_number(empty: Workbench) -> None:
    commit(empty, "ties", np.array([[[1, -2, 0], [2, 1, -2]]]))
    rows = empty.rows("SELECT layer, neuron, activation FROM top_neurons('ties', 'a', 5) ORDER BY rank")
    assert rows == [(0, 1, -2.0), (1, 0, 2.0), (1, 2, -2.0), (0, 0, 1.0), (1, 1, 1.0)]


def test_top_neurons_read_one_row_of_each_layer(wide: Workbench) -> None:
    plan = wide.session.explain("FROM top_neurons('wide', 's000031', layers := [1, 2, 3])")
    assert plan.size_bytes == 3 * N_NEURONS * 2
    assert wide.session.explain("FROM top_neurons('wide', 's000060')").size_bytes == 4 * N_NEURONS * 4  # float32


def test_ctrl_c_ends_the_search(shared: Workbench, monkeypatch: pytest.MonkeyPatch, press_ctrl_c: Any) -> None:
    def endless(*arguments: Any) -> Iterator[Any]:
        while True:
            yield from scan(*arguments)

    monkeypatch.setattr("nait_store.query.features.similar.scan", endless)
    press_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        shared.sql("FROM similar('pool', 's000003')")
    monkeypatch.undo()
    assert shared.rows("SELECT count(*) FROM similar('pool', 's000003')") == [(10,)]
