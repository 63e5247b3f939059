"""``neuron`` and ``activation``: what the arrays hold, and no more of them read than needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.testing.stores import build_segment, build_set, fake_row, fake_set_record

Workbench = Any  # of conftest.py, which importlib mode cannot import
N_LAYERS, N_NEURONS = 4, 16
CHUNK_BYTES = 8 * N_NEURONS * 2


@pytest.mark.parametrize("feature", ["mean", "drift"])
def test_a_neuron_is_what_the_arrays_hold_of_every_visible_sample(wide: Workbench, feature: str) -> None:
    rows = wide.rows("FROM neuron('wide', 2, 11, feature := $f)", {"f": feature})
    expected = wide.stored("wide", Feature(feature))
    assert rows == [(row_id, sample_id, array[2, 11]) for row_id, (sample_id, array) in expected.items()]
    assert len(rows) == 76


@pytest.mark.parametrize("feature", ["mean", "drift"])
def test_a_layer_is_what_the_arrays_hold_of_every_visible_sample(wide: Workbench, feature: str) -> None:
    rows = wide.rows("FROM activation('wide', 3, feature := $f)", {"f": feature})
    expected = wide.stored("wide", Feature(feature))
    assert rows == [(row_id, sample_id, array[3].tolist()) for row_id, (sample_id, array) in expected.items()]


def test_layers_come_in_batches_of_bounded_size(wide: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = wide.rows("FROM activation('wide', 1)")
    monkeypatch.setattr("nait_store.query.features.neurons._BATCH_BYTES", 3 * N_NEURONS * 4)
    monkeypatch.setattr("nait_store.query.features.neurons._HELD_BYTES", 1)
    assert wide.rows("FROM activation('wide', 1)") == whole


def test_columns_have_the_types_that_they_are_said_to_have(wide: Workbench) -> None:
    described = wide.rows("SELECT column_name, column_type FROM (DESCRIBE FROM neuron('wide', 0, 0))")
    assert described == [("row_id", "BIGINT"), ("sample_id", "VARCHAR"), ("activation", "FLOAT")]
    [(kind,)] = wide.rows("SELECT DISTINCT typeof(activation) FROM activation('wide', 0)")
    assert kind == "FLOAT[]"


@pytest.mark.parametrize("call", ["neuron('wide', 2, 11)", "activation('wide', 2)"])
def test_one_layer_of_all_rows_reads_that_layer_alone(wide: Workbench, call: str) -> None:
    of_set = sum(segment.read(Feature.MEAN).nbytes for segment in wide.sets.open("wide").segments)
    wide.rows(f"SELECT count(activation) FROM {call}")
    assert wide.bytes_read() == of_set / N_LAYERS
    assert wide.session.explain(f"SELECT activation FROM {call}").size_bytes == of_set / N_LAYERS


@pytest.mark.parametrize(
    ("condition", "n_rows", "n_chunks"),
    [
        ("sample_id = 's000010'", 1, 1),
        ("sample_id IN ('s000010', 's000011', 's000047')", 3, 2),
        ("row_id BETWEEN 3 AND 8", 5, 2),  # row 5 is deleted
        ("row_id = 1 OR sample_id = 's000040'", 2, 2),
        ("sample_id = 's000000'", 0, 0),  # deleted
        ("sample_id = 'nobody'", 0, 0),
        ("sample_id > 's000002' AND sample_id <= 's000007' AND row_id <> 4", 3, 1),
        ("row_id < 3 AND activation IS NOT NULL", 2, 3 + 3),  # it looks at values: nothing can be left out
    ],
)
def test_chunks_without_rows_that_meet_the_condition_are_not_read(
    wide: Workbench, condition: str, n_rows: int, n_chunks: int
) -> None:
    every = wide.stored("wide")
    rows = wide.rows(f"SELECT row_id, activation FROM neuron('wide', 1, 3) WHERE {condition}")
    assert rows == [(row_id, every[row_id][1][1, 3]) for row_id, _ in rows]
    assert len(rows) == n_rows
    of_first_segments = min(wide.bytes_read(), 6 * CHUNK_BYTES)  # the last one is float32
    assert of_first_segments == n_chunks * CHUNK_BYTES
    lists = wide.rows(f"SELECT row_id, activation FROM activation('wide', 1) WHERE {condition}")
    assert lists == [(row_id, every[row_id][1][1].tolist()) for row_id, _ in rows]


def test_a_condition_on_the_values_is_met(wide: Workbench) -> None:
    every = {row_id: array[0, 0] for row_id, (_, array) in wide.stored("wide").items()}
    some = next(iter(every.values()))
    assert wide.rows("SELECT row_id FROM neuron('wide', 0, 0) WHERE activation = $v", {"v": some}) == [(1,)]
    found = wide.rows("SELECT row_id FROM neuron('wide', 0, 0) WHERE activation > 0.5 AND row_id < 30")
    assert found == [(row_id,) for row_id, value in every.items() if value > 0.5 and row_id < 30]


@pytest.mark.parametrize("call", ["neuron('wide', 1, 3)", "activation('wide', 1)"])
def test_without_the_activation_no_chunk_is_read(wide: Workbench, call: str) -> None:
    assert wide.rows(f"SELECT count(*), count(DISTINCT sample_id), max(row_id) FROM {call}")[0][:2] == (76, 76)
    assert wide.events == []


def test_a_limit_leaves_the_rest_unread(empty: Workbench) -> None:
    build_set(empty.location, "long", 120, 1, 4, chunk_rows=2)
    assert len(empty.rows("FROM activation('long', 0) LIMIT 3")) == 3
    assert 0 < empty.bytes_read() < 120 * 4 * 2 / 4


def test_neurons_of_one_statement_are_joined(wide: Workbench) -> None:
    rows = wide.rows(
        "SELECT a.row_id, a.activation - b.activation FROM neuron('wide', 0, 1) a JOIN neuron('wide', 3, 2) b "
        "USING (row_id) ORDER BY a.row_id"
    )
    expected = [(row_id, array[0, 1] - array[3, 2]) for row_id, (_, array) in wide.stored("wide").items()]
    assert [row[0] for row in rows] == [row[0] for row in expected]
    np.testing.assert_allclose([row[1] for row in rows], [row[1] for row in expected], rtol=1e-6, atol=1e-6)


def test_an_older_version_has_the_rows_that_it_had(wide: Workbench) -> None:
    assert wide.rows("SELECT count(*) FROM neuron('wide@1', 0, 0)") == [(48,)]
    assert wide.rows("SELECT sample_id FROM activation($s, 0) WHERE row_id = 0", {"s": "wide@1"}) == [("s000000",)]


def test_only_the_layers_that_are_stored_can_be_asked_for(empty: Workbench) -> None:
    empty.sets.create(fake_set_record("some", n_layers=6, n_neurons=4))
    array = np.random.default_rng(0).standard_normal((5, 2, 4), dtype=np.float32)
    rows = [fake_row(f"x{i}", i) for i in range(5)]
    record = build_segment(
        empty.location, "some", rows, {Feature.LAST: array}, layers=[1, 4], dtype=StoredDtype.FLOAT32
    )
    empty.sets.commit("some", [record], ingest_ids=())
    # The only feature that there is needs no name.
    assert empty.rows("SELECT activation FROM neuron('some', 4, 2)") == [(value,) for value in array[:, 1, 2].tolist()]
    with pytest.raises(NotFoundError, match="does not store layer 0") as caught:
        empty.sql("FROM activation('some', 0)")
    assert caught.value.next_step == "it stores the layers 1, 4"


@pytest.mark.parametrize(
    ("call", "error", "message", "next_step"),
    [
        ("neuron('wide', 4, 0)", NotFoundError, "set wide@3 does not store layer 4", "it stores the layers 0, 1, 2, 3"),
        ("neuron('wide', 3, 16)", NotFoundError, "layer 3 of set wide@3 has no neuron 16", "its neurons are 0 to 15"),
        ("activation('wide', 9)", NotFoundError, "does not store layer 9", "it stores the layers 0, 1, 2, 3"),
        ("neuron('wide', 0, 0, feature := 'last')", NotFoundError, "feature last", "it stores: mean, drift"),
        ("neuron('wide', 0, 0, feature := 'mea')", InvalidInputError, "'mea' is not a feature", "mean, drift, last"),
        ("neuron('wid', 0, 0)", NotFoundError, "no set 'wid'", "did you mean 'wide'?"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    wide: Workbench, call: str, error: type[Exception], message: str, next_step: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        wide.sql(f"FROM {call}")
    assert next_step in str(caught.value)
