"""Queries over a store: what they may say, what they see, what they compute."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest

from nait_store.catalog.rows import TABLES
from nait_store.errors import (
    IncompatibleError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from nait_store.query.views import VIEWS

Workbench = Any  # of conftest.py, which importlib mode cannot import
NATURAL = (
    "SELECT sample_id, instruction, score FROM alignment('pool','math') JOIN samples('pool') USING (sample_id) "
    "ORDER BY score DESC LIMIT 5"
)


def test_the_natural_statement_gives_the_best_samples(shared: Workbench) -> None:
    expected = shared.expected_scores("pool", shared.registry.open("math"))
    best = sorted(expected, key=lambda sample_id: -expected[sample_id])[:5]

    rows = shared.rows(NATURAL)

    assert [row[0] for row in rows] == best
    assert [row[1] for row in rows] == [f"do {sample_id}" for sample_id in best]
    np.testing.assert_allclose([row[2] for row in rows], [expected[i] for i in best], rtol=1e-5)


def test_alignment_has_every_sample_once_with_its_score(shared: Workbench) -> None:
    expected = shared.expected_scores("pool@2", shared.registry.open("code"))

    table = shared.sql("FROM alignment('pool', 'code')").arrow()

    assert table.column_names == ["activation_set", "profile", "row_id", "sample_id", "score"]
    found = dict(zip(table["sample_id"].to_pylist(), table["score"].to_pylist(), strict=True))
    assert len(table) == len(found) == 60
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[i] for i in expected], list(expected.values()), rtol=1e-5, atol=1e-6)
    assert set(table["activation_set"].to_pylist()) == {"pool@2"}
    assert set(table["profile"].to_pylist()) == {"code@1"}


def test_references_resolve_to_versions(shared: Workbench) -> None:
    query = "SELECT activation_set, profile, count(*) FROM alignment('{}', '{}') GROUP BY ALL"
    assert shared.rows(query.format("pool@1", "math@1")) == [("pool@1", "math@1", 40)]
    assert shared.rows(query.format("set:pool", "profile:math")) == [("pool@2", "math@2", 60)]
    assert shared.rows(query.format("pool@latest", "math@latest")) == [("pool@2", "math@2", 60)]


def test_the_second_query_scans_nothing(bench: Workbench) -> None:
    bench.rows(NATURAL)
    assert bench.events
    bench.events.clear()

    bench.rows(NATURAL)
    other = bench.new_session()
    other.sql(NATURAL)
    other.close()

    assert bench.events == []


def test_all_profiles_of_a_statement_are_computed_in_one_pass(bench: Workbench) -> None:
    def bytes_read(query: str) -> int:
        bench.events.clear()
        bench.rows(query)
        return max(event.bytes_done for event in bench.events)

    # Both are dot products of the same feature, so that neither reads norms besides.
    bench.profile("one", "pool@1", method="mean", metric="dot", center=None)
    bench.profile("two", "pool@2", method="mean", metric="dot")
    single = bytes_read("SELECT count(score) FROM alignment('pool', 'code')")
    double = bytes_read(
        "SELECT max(a.score + b.score) FROM alignment('pool', 'one') a JOIN alignment('pool', 'two') b USING (row_id)"
    )

    assert double == single


def test_a_slip_is_reported_before_anything_is_computed(bench: Workbench) -> None:
    with pytest.raises(NotFoundError, match="instrction"):
        bench.sql("SELECT instrction, score FROM alignment('pool','math') JOIN samples('pool') USING (sample_id)")
    assert bench.events == []
    assert bench.sidecars() == []


def test_explain_computes_nothing(bench: Workbench) -> None:
    plan = bench.rows("EXPLAIN " + NATURAL)
    assert "Scan" in plan[0][1]
    assert bench.sidecars() == []
    assert "TOP_N" in bench.rows("EXPLAIN (FORMAT json) " + NATURAL)[0][1]
    assert bench.sidecars() == []


def test_explain_analyze_runs_the_statement(bench: Workbench) -> None:
    bench.rows("EXPLAIN ANALYZE " + NATURAL)
    assert len(bench.sidecars()) == 4


def test_a_read_only_store_answers(bench: Workbench) -> None:
    frozen = bench.location.read_only("frozen for the test", "thaw it")
    session = bench.new_session(frozen)
    query = "SELECT score FROM alignment('pool@1', 'code') ORDER BY row_id"
    expected = bench.rows(query)
    before = bench.sidecars()

    assert session.sql(NATURAL).n_rows == 5
    np.testing.assert_allclose(session.sql(query).fetchall(), expected, rtol=1e-12)
    assert session.sql("SELECT count(*) FROM activation_sets").fetchall() == [(2,)]

    assert bench.sidecars() == before
    session.close()


def test_a_full_disk_costs_the_sidecars_and_not_the_answer(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        def __init__(self, location: Any, *args: Any, **options: Any) -> None:
            location.require_writable()
            raise StorageError("no space left on device")

    monkeypatch.setattr("nait_store.scoring.sidecar_files.PendingFile", FullDisk)
    session = bench.new_session()
    result = session.sql(NATURAL)
    assert result.n_rows == 5
    assert any("no space left" in warning for warning in result.warnings)
    assert bench.sidecars() == []
    session.close()


def test_rows_that_a_version_leaves_out_are_in_neither_table(empty: Workbench) -> None:
    fields = [{"text": f"t{i}"} for i in range(6)]
    ids = [f"s{i}" for i in range(6)]
    empty.append("pool", fields[:4], ids[:4])
    empty.append("pool", fields[2:], ids[2:], seed=2)
    profile = empty.profile("math", "pool")
    expected = empty.expected_scores("pool", profile)

    samples = empty.rows("SELECT sample_id, row_id FROM samples('pool') ORDER BY 1")
    aligned = empty.rows("SELECT sample_id, row_id FROM alignment('pool','math') ORDER BY 1")

    assert [sample_id for sample_id, _ in samples] == ids
    assert samples == aligned
    assert empty.rows("SELECT count(*) FROM alignment('pool','math')") == [(6,)]
    assert empty.rows("SELECT count(*) FROM samples('pool')") == [(6,)]
    best = empty.rows(
        "SELECT sample_id FROM alignment('pool','math') JOIN samples('pool') USING (sample_id) ORDER BY score LIMIT 2"
    )
    assert [row[0] for row in best] == sorted(expected, key=lambda sample_id: expected[sample_id])[:2]


def test_a_later_version_is_seen_by_the_next_statement_and_old_references_stay(bench: Workbench) -> None:
    assert bench.rows("SELECT count(*) FROM samples('pool')") == [(60,)]
    bench.append("pool", [{"instruction": "new"}], ["brand-new"])
    assert bench.rows("SELECT count(*) FROM samples('pool')") == [(61,)]
    assert bench.rows("SELECT count(*) FROM alignment('pool', 'math')") == [(61,)]
    assert bench.rows("SELECT count(*) FROM samples('pool@2')") == [(60,)]


def test_a_statement_sees_one_version_of_a_set(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    original = bench.sets.numbers
    calls = []

    def numbers(name: str) -> list[int]:
        found = original(name)
        calls.append(name)
        if len(calls) == 1:  # another writer commits as soon as the statement has looked
            bench.append("pool", [{"instruction": "new"}], ["brand-new"])
        return found

    monkeypatch.setattr(bench.sets, "numbers", numbers)
    rows = bench.rows(
        "SELECT (SELECT count(*) FROM samples('pool')), (SELECT count(*) FROM alignment('pool','math')), "
        "(SELECT count(*) FROM samples('set:pool'))"
    )
    assert rows == [(60, 60, 60)]


@pytest.mark.parametrize(
    "query",
    [
        "WITH a AS (FROM alignment('pool','code')) SELECT count(*) FROM a",
        "SELECT count(*) FROM (SELECT * FROM alignment('pool','code'))",
        "SELECT count(*) FROM ((FROM alignment('pool','code')) UNION ALL (FROM alignment('pool','code') LIMIT 0))",
        "SELECT count(*) FROM samples('pool') s JOIN alignment('pool','code') a ON a.row_id = s.row_id",
        "SELECT count(*) FROM samples('pool') WHERE sample_id IN (SELECT sample_id FROM alignment('pool','code'))",
        "SELECT count(*) FROM samples('pool') s WHERE EXISTS (FROM alignment('pool','code') a WHERE a.row_id=s.row_id)",
        "SELECT (SELECT count(*) FROM alignment('pool','code'))",
        "SELECT count(*) FROM (VALUES (1)) v, LATERAL alignment('pool','code')",
        "SELECT count(*) FROM Alignment ( 'pool' , /* a comment ) */ 'code' )",
        "SELECT count(*) FROM \"alignment\"('pool','code') AS \"a b\"",
        "SELECT count(*) FROM alignment(profile := 'code', activation_set := 'pool')",
        "SELECT count(*) FROM alignment('po' || 'ol', lower('CODE'))",
        "SELECT count(alignment.score) FROM alignment('pool','code') WHERE alignment.score IS NOT NULL",
        "SELECT count(*) FROM alignment('pool','code') TABLESAMPLE 100%",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM r WHERE n < 2) "
        "SELECT max(c) FROM r, (SELECT count(*) c FROM alignment('pool','code'))",
        "-- alignment('nothing','here')\nSELECT count(*) FROM alignment('pool','code') /* samples('none') */;",
        "SELECT count(*) FROM alignment('pool','code') WHERE 'é''; alignment(''x'',''y'')' <> sample_id",
    ],
)
def test_calls_are_found_wherever_they_stand(shared: Workbench, query: str) -> None:
    assert shared.rows(query) == [(60,)]


def test_text_that_looks_like_a_call_is_text(shared: Workbench) -> None:
    assert shared.rows("SELECT 'alignment(''no'',''where'')' AS t -- samples('none')") == [("alignment('no','where')",)]


def test_columns_can_be_qualified_by_the_function_name_or_the_alias(shared: Workbench) -> None:
    query = (
        "SELECT samples.instruction, alignment.score, s.domain FROM samples('pool'), alignment('pool','math'), "
        "samples('pool') AS s(sample_id, x, y, domain) "
        "WHERE samples.row_id = alignment.row_id AND s.sample_id = samples.sample_id"
    )
    assert shared.sql(query).n_rows == 60


def test_several_calls_without_alias_can_stand_in_one_from(shared: Workbench) -> None:
    query = "SELECT sample_id, samples_2.row_id FROM samples('pool@2') JOIN samples('pool@1') USING (sample_id)"
    assert shared.sql(query).n_rows == 40
    assert (
        shared.sql("SELECT sample_id FROM samples('pool@2') ANTI JOIN samples('pool@1') USING (sample_id)").n_rows == 20
    )
    nested = "SELECT samples.row_id FROM samples('pool') WHERE row_id IN (SELECT samples.row_id FROM samples('pool@1'))"
    assert shared.sql(nested).n_rows == 40


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT count(*) FROM alignment($1, $2) JOIN samples($1) USING (row_id) WHERE n_tokens > $3",
         ["pool", "math", 0]),
        ("SELECT count(*) FROM alignment(?, ?) JOIN samples(?) USING (row_id) WHERE n_tokens > ? AND score > ?",
         ["pool", "math", "pool", 0, -1e9]),
        ("SELECT count(*) FROM alignment($s, $p) JOIN samples($s) USING (row_id) WHERE n_tokens > $n",
         {"s": "pool", "p": "math", "n": 0}),
        ("SELECT count(*) FROM samples($s) WHERE 'pool' = $s", {"s": "pool"}),
    ],
)  # fmt: skip
def test_parameters_work_as_arguments_and_elsewhere(shared: Workbench, query: str, params: Any) -> None:
    assert shared.rows(query, params) == [(60,)]


def test_one_text_with_other_parameters_is_another_query(shared: Workbench) -> None:
    query = "SELECT count(*) FROM samples($1)"
    assert shared.rows(query, ["pool@1"]) == [(40,)]
    assert shared.rows(query, ["elsewhere"]) == [(10,)]


@pytest.mark.parametrize(
    ("query", "params", "message"),
    [
        ("SELECT $a", None, r"\$a and no value"),
        ("SELECT $a", {"b": 1}, r"\$a and no value"),
        ("SELECT $name", {"name": 1, "nam": 2}, r"\$nam, which the query does not have"),
        ("SELECT 1", [1], "which the query does not have"),
        ("FROM samples($1)", "pool", "single text"),
        ("FROM samples($1)", [3], "is 3, not text"),
        ("FROM samples($1)", [None], "is NULL, not text"),
        ("FROM alignment('pool', $1)", [[]], "is an empty list"),
        ("FROM alignment('pool', $1)", [["math", 3]], "is 3, not text"),
        ("FROM samples($1)", [["pool"]], "is a list, not text"),
    ],
)
def test_parameters_that_do_not_match_are_refused(shared: Workbench, query: str, params: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        shared.sql(query, params)


@pytest.mark.parametrize(
    ("query", "message", "next_step"),
    [
        ("FROM samples('pol')", "no set 'pol'", "did you mean 'pool'?"),
        ("FROM samples('pool@9')", "no version 9", "pool@2"),
        ("FROM alignment('pool','mth')", "no profile 'mth'", "did you mean 'math'?"),
        ("FROM alignment('pool','math@7')", "no version 7", "math@2"),
        ("FROM alignment('math','pool')", "no set 'math'", "these exist"),
        ("FROM alignment('pol', (SELECT 'math'))", "no set 'pol'", "did you mean 'pool'?"),
        ("FROM alignment((SELECT 'pool'), 'mth')", "no profile 'mth'", "did you mean 'math'?"),
        ("SELECT 1 WHERE 1 IN (SELECT row_id FROM samples('pol'))", "no set 'pol'", "did you mean 'pool'?"),
        ("WITH unused AS (FROM samples('pol')) SELECT 1", "no set 'pol'", "did you mean 'pool'?"),
        ("FROM samples('pool@prod')", "no alias or tag 'prod'", "pool@1"),
        ("SELECT instrction FROM samples('pool')", "no column 'instrction'", "did you mean 'instruction'?"),
        ("SELECT s.scor FROM samples('pool') s", "no column 'scor'", "did you mean"),
        ("SELECT scor FROM alignment('pool','math')", "no column 'scor'", "did you mean 'score'?"),
        ("SELECT domain FROM alignment('pool','math')", "no column 'domain'", "JOIN samples('pool') USING (sample_id)"),
        ("FROM pool", "no table 'pool'", "samples('pool')"),
        ("FROM labels", "no table 'labels'", "files are read by path"),
        ("FROM 'labels.csv'", "there is no file /.*/labels.csv", "check the path"),
        ("FROM activation_set", "no table 'activation_set'", "did you mean 'activation_sets'"),
        ("FROM aligment('pool','math')", "no function 'aligment'", "did you mean 'alignment'"),
        ("SELECT samples('pool')", "no function 'samples'", "FROM samples(…)"),
        ("SELECT t.x FROM samples('pool') s", "no table 't'", "these exist: s"),
    ],
)
def test_unknown_names_are_errors_with_near_ones(shared: Workbench, query: str, message: str, next_step: str) -> None:
    with pytest.raises(NotFoundError, match=message) as caught:
        shared.sql(query)
    assert next_step in (caught.value.next_step or "")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "empty"),
        ("-- nothing", "empty"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELEC 1", "cannot be read"),
        ("SELECT 1 FROM", "cannot be read"),
        ("FROM samples('po\"ol')", "not a valid set name"),
        ("FROM samples('x''; DROP TABLE versions; --')", "not a valid set name"),
        ("FROM samples('../x')", "not a valid set name"),
        ("FROM samples('')", "not a valid set name"),
        ("FROM samples('profile:math')", "names a profile where a set is expected"),
        ("FROM samples(pool)", "must be a constant"),
        ("FROM samples(NULL)", "is NULL"),
        ("FROM samples()", "needs activation_set"),
        ("FROM samples('pool', 'math')", "takes 1 argument"),
        ("FROM alignment('pool')", "needs profile"),
        ("FROM alignment('pool', 'math', 'more')", "takes 2 arguments"),
        ("FROM alignment('pool', profil := 'math')", "no argument 'profil'"),
        ("FROM alignment('pool', activation_set := 'pool')", "twice"),
        ("FROM samples((SELECT 'pool'))", "must be a constant"),
        ("FROM alignment('pool', [])", "is an empty list"),
        ("FROM alignment('pool', 'math', feature := 'mode')", "'mode' is not a feature"),
        ("FROM alignment('pool', 'math', metric := 'euclid')", "'euclid' is not a metric"),
        ("FROM alignment('pool', 'math', 'dot')", "metric are given as feature := "),
        ("FROM (FROM profiles LIMIT 1) p, alignment('pool', p.profile, metric := 'dot')", "no lists and no options"),
        ("FROM (FROM profiles LIMIT 1) p, alignment(['pool', 'pool@1'], p.profile)", "no lists and no options"),
        ("FROM (FROM profiles LIMIT 1) p, alignment_layers('pool', p.profile)", "must be a constant"),
        ("FROM samples('pool') WITH ORDINALITY", "ORDINALITY"),
        ("SELECT 'a'::INTEGER", "Could not convert"),
        ("SELECT row_id FROM samples('pool') a, samples('pool') b", "ambiguous"),
        ("FROM query('FROM samples(''pool'')')", "hides"),
        ("FROM query_table('activation_sets')", "hides"),
        ("SELECT 1 \x00", "NUL"),
        # Python's parser of JSON goes so deep since 3.13; then it is Arrow that cannot hold the result.
        (
            "SELECT " + "[" * 900 + "1" + "]" * 900,
            "nested too deeply" if sys.version_info < (3, 13) else "does not fit into Arrow",
        ),
        ("SELECT " + "[" * 100 + "1" + "]" * 100, "does not fit into Arrow"),
        ("SELECT '\ud800'", "Unicode"),
    ],
)
def test_what_is_no_usable_query_is_refused(shared: Workbench, query: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        shared.sql(query)
    assert caught.value.next_step


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE activation_sets",
        "DELETE FROM versions",
        "UPDATE versions SET message = 'x'",
        "INSERT INTO versions SELECT * FROM versions",
        "CREATE TABLE t AS SELECT 1",
        "CREATE MACRO samples(x) AS TABLE SELECT 1",
        "COPY (SELECT 1) TO 'out.csv'",
        "ATTACH 'other.duckdb'",
        "SET threads = 1",
        "PRAGMA version",
        "CALL pragma_version()",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPORT DATABASE 'x'",
        "BEGIN",
        "USE memory",
        "VACUUM",
        "EXPLAIN DELETE FROM versions",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
        "WITH x AS (COPY (SELECT 1) TO 'out.csv') SELECT 1",
        "WITH x AS (DELETE FROM versions RETURNING *) SELECT * FROM x",
        "WITH x AS (INSERT INTO versions SELECT * FROM versions RETURNING *) SELECT * FROM x",
        "WITH x AS (UPDATE versions SET message = 'x' RETURNING *) SELECT * FROM x",
    ],
)
def test_only_queries_run(shared: Workbench, statement: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = shared.rows("FROM versions ORDER BY ALL")
    with pytest.raises(InvalidInputError):
        shared.sql(statement)
    assert shared.rows("FROM versions ORDER BY ALL") == before
    assert not (tmp_path / "out.csv").exists()


def test_other_ways_to_ask(shared: Workbench) -> None:
    assert shared.rows("VALUES (1), (2)") == [(1,), (2,)]
    assert ("sample_id", "VARCHAR") in [row[:2] for row in shared.rows("DESCRIBE FROM samples('pool')")]
    assert ("score", "DOUBLE") in [row[:2] for row in shared.rows("DESCRIBE FROM alignment('pool','math')")]
    assert shared.sql("SUMMARIZE FROM samples('pool')").n_rows == 12
    assert shared.rows("SHOW TABLES") == [(name,) for name in sorted([*TABLES, *VIEWS])]
    assert shared.rows("SELECT count(*) FROM duckdb_columns() WHERE table_name = 'versions' AND comment IS NULL") == [
        (0,)
    ]


def test_user_tables_are_joined_by_name_only(shared: Workbench) -> None:
    frame = pandas.DataFrame({"sample_id": ["s000001", "s000002", "nobody"], "mark": [1, 2, 3]})
    tables = {
        "a": frame,
        "b": polars.DataFrame({"sample_id": ["s000001"], "grade": ["x"]}),
        "c": pa.table({"sample_id": ["s000001"], "half": pa.array([0.5], pa.float16())}),
        "D d": {"sample_id": ["s000001"]},
    }
    query = (
        "SELECT mark, grade, half, instruction FROM a JOIN b USING (sample_id) JOIN c USING (sample_id) "
        "JOIN \"D d\" USING (sample_id) JOIN samples('pool') USING (sample_id)"
    )
    assert shared.rows(query, tables=tables) == [(1, "x", 0.5, "do s000001")]
    for query in ("FROM frame", "FROM a", "FROM tables"):
        with pytest.raises(NotFoundError, match="no table"):
            shared.sql(query)
    assert len(frame) == 3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("versions", {"a": [1]}, "taken"),
        ("Samples", {"a": [1]}, "taken"),
        ("", {"a": [1]}, "cannot name"),
        ("mine", 3, "cannot be read"),
        ("mine", {"a": [1], "b": [1, 2]}, "cannot be read"),
    ],
)
def test_unusable_user_tables_are_refused(shared: Workbench, name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        shared.sql("SELECT 1", tables={name: value})


def test_a_profile_of_another_model_is_refused(shared: Workbench) -> None:
    with pytest.raises(IncompatibleError, match="model_fingerprint"):
        shared.sql("FROM alignment('elsewhere', 'math')")


def test_profiles_from_a_query_are_served_from_what_is_stored(bench: Workbench) -> None:
    bench.rows("SELECT 1 FROM alignment('pool','math@1'), alignment('pool','code') LIMIT 1")
    expected = {
        name: pytest.approx(max(bench.expected_scores("pool", bench.registry.open(name)).values()), rel=1e-5)
        for name in ("math@1", "code@1")
    }
    bench.events.clear()

    query = (
        "SELECT a.profile, max(a.score), count(*) FROM profiles p, alignment('pool', p.reference) a "
        "WHERE p.reference IN ('math@1', 'code@1') GROUP BY ALL ORDER BY 1"
    )
    assert bench.rows(query) == [("code@1", expected["code@1"], 60), ("math@1", expected["math@1"], 60)]
    assert bench.rows("SELECT max(score) FROM alignment('pool', (SELECT 'math@1'))") == [(expected["math@1"],)]
    assert bench.rows("SELECT max(score) FROM alignment((SELECT 'pool@2'), 'math@1')") == [(expected["math@1"],)]
    assert bench.rows("SELECT count(*) FROM (VALUES ('pool', 'code')) v(s, p), alignment(v.s, v.p)") == [(60,)]
    assert bench.events == []


def test_profiles_from_a_query_are_never_computed_on_the_way(bench: Workbench) -> None:
    bench.rows("SELECT 1 FROM alignment('pool','math@1') LIMIT 1")
    with pytest.raises(InvalidInputError, match="not stored") as caught:
        bench.sql("SELECT max(a.score) FROM profiles p, alignment('pool', p.reference) a WHERE p.profile = 'math'")
    assert "nait-store score pool@2 math@2" in (caught.value.next_step or "")
    assert len(bench.sidecars()) == 4


def test_unknown_profiles_from_a_query_are_errors_and_not_nothing(bench: Workbench) -> None:
    bench.rows("SELECT 1 FROM alignment('pool','math') LIMIT 1")
    with pytest.raises(NotFoundError, match="no profile 'mth'"):
        bench.sql("FROM alignment('pool', (SELECT 'mth'))")
    with pytest.raises(NotFoundError, match="no set 'pol'"):
        bench.sql("FROM alignment((SELECT 'pol'), 'math')")
    with pytest.raises(IncompatibleError):
        bench.sql("FROM alignment((SELECT 'elsewhere'), 'math')")


def test_a_sidecar_that_vanishes_is_computed_again(bench: Workbench) -> None:
    query = "SELECT score FROM alignment('pool','code') ORDER BY row_id"
    expected = bench.rows(query)
    session = bench.new_session()
    session.sql("SELECT count(*) FROM alignment('pool','code')")  # knows the sidecars now, holds no scores
    bench.location.delete("scores")
    np.testing.assert_allclose(session.sql(query).fetchall(), expected, rtol=1e-12)
    session.close()


def test_a_damaged_sidecar_is_computed_again(bench: Workbench) -> None:
    query = "SELECT score FROM alignment('pool','code') ORDER BY row_id"
    expected = bench.rows(query)
    for name in bench.sidecars():
        bench.location.write_bytes(f"scores/{name}", b"PAR1 nonsense")
    session = bench.new_session()
    np.testing.assert_allclose(session.sql(query).fetchall(), expected, rtol=1e-12)
    session.close()


def test_a_missing_samples_file_is_an_error_of_the_store(bench: Workbench) -> None:
    segment = bench.sets.open("pool").segments[1]
    bench.location.delete(f"activations/pool/segments/{segment.segment_id}/samples.parquet")
    with pytest.raises(StorageError, match="could not read"):
        bench.sql("SELECT sum(n_tokens) FROM samples('pool')")


def test_ctrl_c_in_a_scan_comes_out_as_such(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any) -> Any:
        raise KeyboardInterrupt

    bench.rows("SELECT count(score) FROM alignment('pool','math')")
    session = bench.new_session()
    monkeypatch.setattr("nait_store.query.stored_scores.read_scores", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.sql("SELECT sum(score) FROM alignment('pool','math')")
    session.close()


def test_an_empty_store_has_empty_views_and_no_sets(empty: Workbench) -> None:
    for view in ("activation_sets", "versions", "segments", "profiles", "profile_layers", "selections"):
        assert empty.rows(f"FROM {view}") == []
    with pytest.raises(NotFoundError, match="there is no set 'pool'"):
        empty.sql("FROM samples('pool')")


def test_sessions_may_be_used_from_several_threads(shared: Workbench) -> None:
    results: list[Any] = []

    def work() -> None:
        for _ in range(5):
            results.append(
                shared.rows("SELECT count(*) FROM samples('pool') JOIN alignment('pool','math') USING (row_id)")
            )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[(60,)]] * 20


_MANY_SCANS = """
import sys
import pyarrow
from nait_store.activations.versions import ActivationSets
from nait_store.catalog.build import Catalog
from nait_store.query.session import QuerySession
from nait_store.registry.profiles import ProfileRegistry
from nait_store.storage.location import Location

pyarrow.set_io_thread_count(1)
location = Location(sys.argv[1])
calls = ["FROM alignment('pool', 'math')", "FROM alignment('pool', 'code')"] * 3
with QuerySession(location, ActivationSets(location), ProfileRegistry(location), Catalog(location)) as session:
    print(len(session.sql(" UNION ALL ".join(calls))))
"""


def test_more_scans_at_once_than_arrow_has_io_threads(bench: Workbench) -> None:
    command = [sys.executable, "-c", _MANY_SCANS, bench.location.url]
    # Scans that wait for each other would wait for ever: in a process of its own, and not for long.
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "360\n", done.stderr
