"""What ``alignment`` and its kin take: lists, every profile, another feature or metric, single layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nait_store.errors import IncompatibleError, NotFoundError
from nait_store.registry.recipes import choose_recipe
from nait_store.schemas.capture import Feature
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

Workbench = Any  # of conftest.py, which importlib mode cannot import


def scores(rows: list[tuple[Any, ...]]) -> dict[tuple[str, ...], float]:
    return {tuple(row[:-1]): row[-1] for row in rows}


def test_a_list_of_profiles_gives_the_rows_of_each(shared: Workbench) -> None:
    listed = shared.rows("SELECT profile, sample_id, score FROM alignment('pool', ['math', 'code@1'])")
    apart = shared.rows(
        "SELECT profile, sample_id, score FROM alignment('pool', 'math') "
        "UNION ALL SELECT profile, sample_id, score FROM alignment('pool', 'code')"
    )
    assert scores(listed) == scores(apart)
    assert len(listed) == len(apart) == 120


def test_a_name_that_is_listed_twice_counts_once(shared: Workbench) -> None:
    rows = shared.rows("SELECT count(*) FROM alignment(['pool', 'pool@2'], ['math', 'math@2', 'math'])")
    assert rows == [(60,)]


def test_lists_of_sets_and_profiles_are_combined(shared: Workbench) -> None:
    rows = shared.rows(
        "SELECT activation_set, profile, count(*) FROM alignment(['pool@1', 'pool'], $profiles) "
        "GROUP BY ALL ORDER BY ALL",
        {"profiles": ["code", "math@1"]},
    )
    assert rows == [
        ("pool@1", "code@1", 40),
        ("pool@1", "math@1", 40),
        ("pool@2", "code@1", 60),
        ("pool@2", "math@1", 60),
    ]


def test_a_list_is_scanned_in_one_pass(bench: Workbench) -> None:
    bench.rows("SELECT count(*), sum(score) FROM alignment('pool', ['math@1', 'math@2', 'code'])")
    last = bench.events[-1]
    assert last.bytes_done == sum(segment.read(Feature.MEAN).nbytes for segment in bench.sets.open("pool").segments)
    assert len(bench.sidecars()) == 3 * 4


def test_only_the_profiles_that_a_condition_names_are_read(shared: Workbench) -> None:
    rows = shared.rows("SELECT DISTINCT profile FROM alignment('pool', ['math', 'code']) WHERE profile = 'code@1'")
    assert rows == [("code@1",)]
    either = shared.rows(
        "SELECT DISTINCT profile FROM alignment('pool', ['math', 'code']) WHERE profile IN ('x', 'math@2')"
    )
    assert either == [("math@2",)]


def test_one_unknown_name_in_a_list_is_an_error(shared: Workbench) -> None:
    with pytest.raises(NotFoundError, match="'cod'") as caught:
        shared.sql("FROM alignment('pool', ['math', 'cod'])")
    assert "did you mean 'code'?" in (caught.value.next_step or "")


def test_every_profile_that_fits_is_the_latest_of_each(shared: Workbench) -> None:
    rows = shared.rows("SELECT DISTINCT profile FROM alignment_all('pool') ORDER BY ALL")
    assert rows == [("code@1",), ("math@2",)]


def test_a_set_that_no_profile_fits_is_an_error_and_not_an_empty_table(shared: Workbench) -> None:
    with pytest.raises(NotFoundError, match="no profile applies to set elsewhere@1"):
        shared.sql("FROM alignment_all('elsewhere')")


@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_another_metric_can_be_asked_for(shared: Workbench, metric: str) -> None:
    directions = shared.registry.open("math").directions().astype(np.float64)
    expected = {}
    for segment in shared.sets.open("pool").segments:
        array = segment.read(Feature.MEAN).astype(np.float64)  # [n, L, J]
        terms = np.einsum("nlj,lj->nl", array, directions)
        if metric == "cosine":
            terms /= np.linalg.norm(array, axis=2)
        ids = segment.samples(["sample_id"]).column("sample_id").to_pylist()
        expected |= dict(zip(ids, terms.sum(axis=1).tolist(), strict=True))
    found = dict(shared.rows("SELECT sample_id, score FROM alignment('pool', 'math', metric := $m)", {"m": metric}))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def two_features(bench: Workbench) -> dict[str, np.ndarray[Any, Any]]:
    """A set 'both' with mean and drift, and the arrays of it."""
    rng = np.random.default_rng(3)
    arrays = {feature: rng.standard_normal((9, 2, 8), dtype=np.float32) for feature in (Feature.MEAN, Feature.DRIFT)}
    bench.sets.create(fake_set_record("both", n_layers=2, n_neurons=8))
    rows = [fake_row(f"b{i}", i, {}) for i in range(9)]
    bench.sets.commit("both", [build_segment(bench.location, "both", rows, arrays)], ingest_ids=())
    return {feature.value: array for feature, array in arrays.items()}


@pytest.mark.parametrize("feature", ["mean", "drift"])
def test_another_feature_can_be_asked_for(bench: Workbench, feature: str) -> None:
    arrays = two_features(bench)
    directions = bench.registry.open("code").directions()  # metric dot
    expected = np.einsum("nlj,lj->n", arrays[feature].astype(np.float64), directions.astype(np.float64))
    rows = bench.rows("SELECT score FROM alignment('both', 'code', feature := $f) ORDER BY row_id", {"f": feature})
    np.testing.assert_allclose([row[0] for row in rows], expected, rtol=1e-2)  # stored as float16


def test_a_feature_that_the_set_lacks_is_refused(shared: Workbench) -> None:
    with pytest.raises(IncompatibleError, match="reads drift"):
        shared.sql("FROM alignment('pool', 'math', feature := 'drift')")


def test_a_centred_profile_keeps_its_feature(bench: Workbench) -> None:
    two_features(bench)
    bench.registry.build(
        "apart",
        bench.sets.open("pool@1"),
        recipe=choose_recipe(method="contrastive"),
        rows=None,
        where=None,
        limit=None,
        seed=0,
        background=bench.sets.open("pool"),
    )
    with pytest.raises(IncompatibleError, match="background's mean of mean"):
        bench.sql("FROM alignment('both', 'apart', feature := 'drift')")


def test_layers_add_up_to_the_score(shared: Workbench) -> None:
    rows = shared.rows(
        "SELECT a.score, l.total, l.n FROM alignment('pool', 'math') a JOIN (SELECT row_id, sum(projection) AS total, "
        "count(*) AS n FROM alignment_layers('pool', 'math') GROUP BY row_id) l USING (row_id)"
    )
    assert len(rows) == 60
    for score, total, n in rows:
        assert total == pytest.approx(score, rel=1e-5, abs=1e-6)
        assert n == 2


def test_layers_leave_out_what_the_version_leaves_out(bench: Workbench) -> None:
    bench.delete("pool", ["s000003"])
    rows = bench.rows("SELECT count(*), count(DISTINCT sample_id) FROM alignment_layers('pool', ['math', 'code'])")
    assert rows == [(59 * 2 * 2, 59)]
    assert bench.rows("FROM alignment_layers('pool', 'math') WHERE sample_id = 's000003'") == []


def test_a_single_layer_can_be_asked_for(shared: Workbench) -> None:
    version, profile = shared.sets.open("pool"), shared.registry.open("code")
    direction = profile.directions()[1].astype(np.float64)
    expected = np.concatenate([s.read(Feature.MEAN)[:, 1].astype(np.float64) @ direction for s in version.segments])
    rows = shared.rows("SELECT layer, projection FROM alignment_layers('pool', 'code') WHERE layer = 1 ORDER BY row_id")
    assert {layer for layer, _ in rows} == {1}
    np.testing.assert_allclose([value for _, value in rows], expected, rtol=1e-4, atol=1e-6)


def test_more_calls_than_are_remembered_fit_into_one_statement(shared: Workbench) -> None:
    calls = " UNION ALL ".join(
        f"SELECT {i} AS i, count(*) AS n FROM alignment('pool@{1 + i % 2}', 'code', metric := '{m}')"
        for i, m in enumerate(["dot", "cosine"] * 40)
    )
    assert shared.rows(f"SELECT count(*), sum(n) FROM ({calls})") == [(80, 40 * 40 + 40 * 60)]
