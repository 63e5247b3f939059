"""Finding the top rows first: which statements have that form, and that it changes no answer."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nait_store.query import session as session_module
from nait_store.query.stored_scores import StoredScores
from nait_store.query.top_k import OrderKey, find_top_k
from nait_store.query.top_rows import find_best
from nait_store.schemas.activation_set import ROW_BITS
from nait_store.schemas.capture import Feature
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

Workbench = Any  # of conftest.py, which importlib mode cannot import
A, S = "alignment('pool','math')", "samples('pool')"


@pytest.fixture
def parse(shared: Workbench) -> Any:
    return lambda query: find_top_k(shared.session._parser.parse(query))


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY score DESC LIMIT 5",
        f"SELECT * FROM {S} JOIN {A} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT * FROM {A} a JOIN {S} s ON a.sample_id = s.sample_id ORDER BY a.score DESC LIMIT 5 OFFSET 2",
        f"SELECT * FROM {A} a INNER JOIN {S} s ON s.row_id = a.row_id ORDER BY score DESC NULLS LAST LIMIT $n",
        f"SELECT * FROM {A} JOIN {S} USING (sample_id, row_id) ORDER BY score, row_id LIMIT 5",
        f"SELECT * FROM {A} a JOIN {S} s USING (sample_id) ORDER BY score DESC, s.sample_id LIMIT 5",
        f"SELECT * EXCLUDE (record), round(score, 2) AS r, upper(instruction) FROM {A} JOIN {S} USING (sample_id) "
        "ORDER BY score LIMIT 5",
        f"SELECT a.score AS score, s.n_tokens + 1 FROM {A} a JOIN {S} s USING (row_id) ORDER BY score LIMIT 5",
        f"SELECT count(*) FROM (SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5)",
        f"WITH best AS (SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5) FROM best",
        f"SELECT CASE WHEN score > 0 THEN 'up' END FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
    ],
)
def test_the_natural_form_is_recognised(parse: Any, query: str) -> None:
    assert len(parse(query)) == 1


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY score DESC",
        f"SELECT * FROM {A} JOIN {S} USING (sample_id) LIMIT 5",
        f"SELECT * FROM {A} JOIN {S} USING (sample_id) WHERE n_tokens > 5 ORDER BY score LIMIT 5",
        f"SELECT * FROM {A} LEFT JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT * FROM {S} LEFT JOIN {A} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT score FROM {A} SEMI JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT * FROM {A}, {S} ORDER BY score LIMIT 5",
        f"SELECT * FROM {A} a JOIN {S} s ON a.sample_id <> s.sample_id ORDER BY score LIMIT 5",
        f"SELECT * FROM {A} a JOIN {S} s ON a.sample_id = s.instruction ORDER BY score LIMIT 5",
        f"SELECT * FROM {A} a JOIN {S} s ON a.sample_id = a.sample_id ORDER BY score LIMIT 5",
        f"SELECT * FROM {A} a JOIN {S} s ON a.sample_id = s.sample_id AND n_tokens > 5 ORDER BY score LIMIT 5",
        f"SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY n_tokens LIMIT 5",
        f"SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY score, n_tokens LIMIT 5",
        f"SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY abs(score) LIMIT 5",
        f"SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY 1 LIMIT 5",
        f"SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY ALL LIMIT 5",
        f"SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 10%",
        f"SELECT -score AS score FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT n_tokens AS score FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT * REPLACE (-score AS score) FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT DISTINCT score FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT score FROM {A} JOIN {S} USING (sample_id) GROUP BY score ORDER BY score LIMIT 5",
        f"SELECT max(score) OVER () FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT unnest([1, 2]) FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT score FROM {A} JOIN {S} USING (sample_id) QUALIFY row_number() OVER (ORDER BY score) < 3 "
        "ORDER BY score LIMIT 5",
        f"SELECT score FROM {A} JOIN {S} USING (sample_id) USING SAMPLE 50% ORDER BY score LIMIT 5",
        f"SELECT score FROM {A} TABLESAMPLE 50% JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
        f"SELECT x FROM {A} a(x) JOIN {S} s USING (row_id) ORDER BY score LIMIT 5",
        f"SELECT score FROM {A} JOIN {S} USING (sample_id) JOIN versions ON true ORDER BY score LIMIT 5",
        f"SELECT a.score FROM {A} a JOIN {A} b USING (sample_id) ORDER BY a.score LIMIT 5",
        f"SELECT (SELECT 1) FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5",
    ],
)
def test_every_other_form_runs_as_written(parse: Any, query: str) -> None:
    assert parse(query) == ()


@pytest.fixture(scope="module")
def ties(shared: Workbench) -> Workbench:
    """tied@2: 85 samples in 5 segments; every other score is exactly 0; some rows are hidden."""
    location = shared.location
    shared.sets.create(fake_set_record("tied"))
    rng = np.random.default_rng(3)
    for version in range(2):
        records = []
        for segment in range(2 + version):
            first = 20 * segment + 25 * version
            ids = [f"t{i:03d}" for i in range(first, first + 20)]
            rows = [fake_row(sample_id, int(sample_id[1:]), {"text": f"of {sample_id}"}) for sample_id in ids]
            array = rng.standard_normal((len(ids), 2, 8)).astype(np.float32)
            array[::2] = 0
            records.append(build_segment(location, "tied", rows, {Feature.MEAN: array}))
        shared.sets.commit("tied", records, ingest_ids=())
    return shared


def test_the_set_has_ties_and_hidden_rows(ties: Workbench) -> None:
    assert ties.sets.open("tied").manifest.tombstones is not None
    [(n_rows, n_tied)] = ties.rows("SELECT count(*), count(*) FILTER (score = 0) FROM alignment('tied','math')")
    assert n_rows == 85
    assert n_tied > 30


@pytest.mark.parametrize("seed", range(4))
def test_answers_are_those_of_the_statement_as_written(
    ties: Workbench, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    rewritten = 0
    for _ in range(12):
        name = chance.choice(["tied", "pool", "pool@1"])
        a, s = f"alignment('{name}','{chance.choice(['math', 'code'])}') a", f"samples('{name}') s"
        left, right = chance.sample([a, s], 2)
        join = chance.choice(["USING (sample_id)", "ON a.sample_id = s.sample_id", "ON s.row_id = a.row_id"])
        keys = chance.sample(["a.score", "a.row_id", "s.sample_id"], chance.randint(1, 3))
        order = ", ".join(key + chance.choice(["", " DESC", " ASC", " DESC NULLS FIRST"]) for key in keys)
        limit, offset = chance.choice([0, 1, 3, 7, 30, 59, 500]), chance.choice([0, 0, 2, 40])
        items = chance.choice(["*", "a.*, s.*", "s.sample_id, a.score, s.n_tokens * 2 AS n, a.row_id"])
        query = f"SELECT {items} FROM {left} JOIN {right} {join} ORDER BY {order} LIMIT {limit} OFFSET {offset}"

        ours, was_rewritten = _answer(ties, query)
        rewritten += was_rewritten
        with monkeypatch.context() as patch:
            patch.setattr(session_module, "find_top_k", lambda statement: ())
            plain = ties.sql(query).arrow()

        assert ours.schema == plain.schema, query
        unique = any(key != "a.score" for key in keys[:2]) or keys[0] != "a.score"
        if unique:
            assert ours.to_pylist() == plain.to_pylist(), query
        else:  # ties may be broken either way, but the scores are the same and every row is a real one
            assert ours["score"].to_pylist() == plain["score"].to_pylist(), query
            everything = ties.sql(query.partition(" ORDER BY")[0]).arrow().to_pylist()
            pool = Counter(map(str, everything))
            assert not Counter(map(str, ours.to_pylist())) - pool, query
    assert rewritten > 0


def _answer(bench: Workbench, query: str) -> tuple[Any, bool]:
    """The answer, and whether it came from the top rows."""
    texts: list[str] = []
    compose = session_module.compose

    def spy(*args: Any) -> Any:
        composition = compose(*args)
        texts.append(composition.text)
        return composition

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "compose", spy)
        table = bench.sql(query).arrow()
    return table, any("top rows" in text for text in texts)


def test_two_tops_in_one_statement(shared: Workbench) -> None:
    best = f"SELECT sample_id, score, instruction FROM {A} JOIN {S} USING (sample_id) ORDER BY score DESC LIMIT 3"
    worst = best.replace("DESC", "ASC")
    both = shared.rows(f"({best}) UNION ALL ({worst}) ORDER BY score")
    assert both == sorted([*shared.rows(best), *shared.rows(worst)], key=lambda row: row[1])


def test_different_versions_on_the_two_sides_run_as_written(shared: Workbench) -> None:
    query = "SELECT score, s.sample_id FROM alignment('pool@2','math') a JOIN samples('pool@1') s USING (sample_id) "
    everything = shared.rows(query)
    assert len(everything) == 40
    best = shared.rows(query + "ORDER BY score DESC LIMIT 5")
    assert best == sorted(everything, key=lambda row: -row[0])[:5]


def test_limits_may_be_parameters(shared: Workbench) -> None:
    query = f"SELECT sample_id FROM {A} JOIN {S} USING (sample_id) ORDER BY score DESC LIMIT $k OFFSET $o"
    everything = [row[0] for row in shared.rows(query, {"k": 60, "o": 0})]
    for k, o in itertools.product([0, 1, 5], [0, 3]):
        assert [row[0] for row in shared.rows(query, {"k": k, "o": o})] == everything[o : o + k]


def test_many_wanted_rows_are_joined_instead_of_listed(shared: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    query = f"SELECT sample_id, instruction, score FROM {A} JOIN {S} USING (sample_id) ORDER BY score DESC LIMIT 20"
    listed = shared.rows(query)
    monkeypatch.setattr("nait_store.query.top_rows._FEW_ROWS", 3)
    assert shared.rows(query) == listed


@pytest.mark.parametrize(
    "items",
    [
        "s",
        "s.output, upper(S.INSTRUCTION)",
        "s.* EXCLUDE (record)",
        "COLUMNS('in.*')",
        "struct_extract(s, 'domain')",
        "a, record->>'output'",
    ],
)
def test_every_way_to_name_columns_finds_them(shared: Workbench, items: str, monkeypatch: pytest.MonkeyPatch) -> None:
    query = f"SELECT {items} FROM {A} a JOIN {S} s ON a.sample_id = s.sample_id ORDER BY a.score DESC LIMIT 4"
    ours = shared.rows(query)
    monkeypatch.setattr(session_module, "find_top_k", lambda statement: ())
    assert ours == shared.rows(query)


def test_columns_named_only_outside_are_found(shared: Workbench) -> None:
    query = (
        f"SELECT domain, count(*) FROM (SELECT * FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 9) "
        "GROUP BY ALL ORDER BY 2"
    )
    assert sum(n for _, n in shared.rows(query)) == 9


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("distinct", [3, 40, 10_000])
def test_the_best_rows_of_many_segments_are_those_of_a_full_sort(descending: bool, distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    lengths = rng.integers(1, 60, 50).tolist()
    scores = [rng.integers(-distinct, distinct, n).astype(float) for n in lengths]
    masks = [rng.random(n) < 0.7 if i % 3 else None for i, n in enumerate(lengths)]
    for n_rows in (1, 7, 100, 400):
        found = _find_best(scores, masks, n_rows, descending=descending)
        visible = [
            ((ordinal << ROW_BITS) + row, value)
            for ordinal, values in enumerate(scores)
            for row, value in enumerate(values.tolist())
            if masks[ordinal] is None or masks[ordinal][row]
        ]
        last = sorted((value for _, value in visible), reverse=descending)[n_rows - 1]
        expected = [(row, value) for row, value in visible if (value >= last if descending else value <= last)]
        assert list(zip(found.row_ids.tolist(), found.scores.tolist(), strict=True)) == expected


def test_a_score_that_is_no_number_leaves_the_statement_as_written() -> None:
    assert _find_best([np.array([1.0, np.nan, 2.0, 0.5])], [None], 2, descending=True) is None


def _find_best(scores: list[Any], masks: list[Any], n_rows: int, *, descending: bool) -> Any:
    """Best rows of a version whose segments have these scores and visible rows."""
    segments = [SimpleNamespace(ordinal=i, scores=pa.array(values)) for i, values in enumerate(scores)]
    version = SimpleNamespace(
        segments=segments,
        n_samples=sum(map(len, scores)),
        visible_rows=lambda segment: masks[segment.ordinal],
    )
    stored = SimpleNamespace(scores=lambda segment, target: segment.scores)
    top = SimpleNamespace(order=(OrderKey("score", descending),))
    pair = SimpleNamespace(version=version, target=None)
    return find_best(stored, pair, top, n_rows)  # type: ignore[arg-type]


def test_ids_make_room_for_scores_in_memory(bench: Workbench) -> None:
    version, target = bench.sets.open("pool"), bench.registry.open("math").target()
    scores = StoredScores(bench.location, bench.events.append, memory_bytes=8 * 60 + 100)
    first = [scores.scores(segment, target) for segment in version.segments]
    for _ in range(2):
        ids = [scores.sample_ids(segment) for segment in version.segments]
    assert [len(i) for i in ids] == [segment.n_rows for segment in version.segments]
    assert all(scores.scores(segment, target) is known for segment, known in zip(version.segments, first, strict=True))


def test_an_error_in_the_rest_of_the_statement_is_reported_as_the_user_wrote_it(shared: Workbench) -> None:
    query = f"SELECT instrction FROM {A} JOIN {S} USING (sample_id) ORDER BY score LIMIT 5"
    with pytest.raises(KeyError, match="there is no column 'instrction'"):
        shared.sql(query)
