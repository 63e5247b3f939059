"""What the allow-list lets through, and that nobody overlooks what a new DuckDB brings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from nait_store.errors import ForbiddenError
from nait_store.query.sandbox import functions
from nait_store.query.sandbox.allow_list import AllowList
from tests.sandbox.attacks import SELECTS, Attack


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def _names(connection: duckdb.DuckDBPyConnection, *kinds: str) -> set[str]:
    query = "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE list_contains(?, function_type)"
    return {name for (name,) in connection.execute(query, [list(kinds)]).fetchall()}


def _tree(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    [(text,)] = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()
    document = json.loads(text)
    assert not document["error"], document
    return document["statements"][0]["node"]


def test_every_function_of_the_installed_duckdb_is_allowed_or_knowingly_refused(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    installed = _names(connection, "scalar", "aggregate", "window", "macro")
    unknown = installed - functions.FUNCTIONS - functions.REFUSED_FUNCTIONS
    assert sorted(name for name in unknown if not name.startswith(functions.REFUSED_FUNCTION_PREFIXES)) == []


def test_every_table_function_of_the_installed_duckdb_is_allowed_or_knowingly_refused(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    installed = _names(connection, "table", "table_macro")
    unknown = installed - functions.TABLE_FUNCTIONS - functions.REFUSED_TABLE_FUNCTIONS
    assert sorted(name for name in unknown if not name.startswith(functions.REFUSED_TABLE_FUNCTION_PREFIXES)) == []


def test_every_type_of_the_installed_duckdb_is_allowed_or_knowingly_refused(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    installed = {
        name for (name,) in connection.execute("SELECT DISTINCT lower(type_name) FROM duckdb_types()").fetchall()
    }
    assert installed - functions.TYPES - functions.REFUSED_TYPES == set()


def test_nothing_is_both_allowed_and_refused() -> None:
    allowed, refused = functions.FUNCTIONS, functions.REFUSED_FUNCTIONS
    assert allowed.isdisjoint(refused)
    assert [name for name in allowed if name.startswith(functions.REFUSED_FUNCTION_PREFIXES)] == []
    assert functions.TABLE_FUNCTIONS.isdisjoint(functions.REFUSED_TABLE_FUNCTIONS)
    assert [n for n in functions.TABLE_FUNCTIONS if n.startswith(functions.REFUSED_TABLE_FUNCTION_PREFIXES)] == []
    assert functions.TYPES.isdisjoint(functions.REFUSED_TYPES)


def test_what_is_allowed_exists(connection: duckdb.DuckDBPyConnection) -> None:
    installed = _names(connection, "scalar", "aggregate", "window", "macro")
    assert functions.FUNCTIONS - installed == {"unnest"}  # built into the binder
    assert functions.TABLE_FUNCTIONS - _names(connection, "table") == set()


def test_no_allowed_function_reads_or_writes_anything_but_its_arguments(connection: duckdb.DuckDBPyConnection) -> None:
    # DuckDB marks functions whose value is not decided by their arguments alone; these are the ones that are allowed.
    query = "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    changing = {name for (name,) in connection.execute(query).fetchall()} & functions.FUNCTIONS
    clocks = {"get_current_time", "get_current_timestamp", "now", "today", "current_date", "transaction_timestamp"}
    clocks |= {"age", "current_localtime", "current_localtimestamp"}
    chance = {"random", "gen_random_uuid", "uuid", "uuidv4", "uuidv7", "setseed"}
    others = {"error", "invoke"}
    assert changing <= clocks | chance | others


STATEMENTS = """
SELECT 1
SELECT * EXCLUDE (a) REPLACE (b AS c) RENAME (d AS e), t.*, COLUMNS('a.*'), COLUMNS(c -> c LIKE 'a'), * LIKE 'b%' FROM t
FROM t SELECT a WHERE b
FROM t TABLESAMPLE 10%
FROM t USING SAMPLE reservoir(10 ROWS) REPEATABLE (3)
VALUES (1, 2), (3, 4)
TABLE t
DESCRIBE t
DESCRIBE SELECT a FROM t
SUMMARIZE t
WITH a AS MATERIALIZED (SELECT 2 AS x), b(y) AS (FROM a) SELECT x::VARCHAR(10), y FROM a, b
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) FROM r
WITH a AS (WITH b AS (FROM t) FROM b) FROM a
WITH A AS (FROM t) FROM a
WITH t AS (FROM t) FROM t
SELECT a, sum(b) FILTER (WHERE c) OVER (PARTITION BY d ORDER BY e ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t
SELECT rank() OVER w, lag(a, 1, 0) OVER w FROM t WINDOW w AS (ORDER BY b RANGE UNBOUNDED PRECEDING EXCLUDE TIES)
SELECT a FROM t GROUP BY ALL HAVING count(*) > 1 QUALIFY row_number() OVER (ORDER BY a) = 1 ORDER BY ALL LIMIT 5
SELECT a, b FROM t GROUP BY CUBE (a, b), GROUPING SETS ((a), ())
SELECT DISTINCT ON (a) a FROM t UNION SELECT 1 EXCEPT ALL SELECT 2 INTERSECT SELECT 3 ORDER BY 1 LIMIT 10%
SELECT 1 UNION ALL BY NAME SELECT 2
FROM t JOIN u USING (a) LEFT JOIN t b ON t.a = b.a CROSS JOIN u c, LATERAL (SELECT t.a) d NATURAL JOIN u e
FROM t ASOF JOIN u ON t.a >= u.a POSITIONAL JOIN u b SEMI JOIN u c USING (a) ANTI JOIN u d USING (a)
FROM (PIVOT t ON a IN (1, 2) USING sum(b) GROUP BY c)
FROM t UNPIVOT (v FOR n IN (a, b))
FROM range(10) WITH ORDINALITY
FROM unnest([1, 2]) x(y), generate_series(1, 3), repeat('x', 3), json_each('[1]'), json_tree('[1]')
SELECT [x + 1 FOR x IN [1, 2] IF x > 1], list_transform([1], lambda x: x + 1), [1, 2][1:2], {'a': 1}.a, map {'a': 1}
SELECT sum(DISTINCT a ORDER BY b), string_agg(a, ',' ORDER BY b DESC NULLS LAST), quantile_cont(a, [0.1, 0.9]) FROM t
SELECT list_aggregate([1, 2], 'sum'), [1, 2].list_aggr('stddev')
SELECT a->'$.b', a->>'$.c', json_extract_string(a, '$.d'), CAST(a AS JSON), from_json(a, '{"x": "INTEGER"}') FROM t
SELECT a.b.c[2].d, (a).b, 'x'.upper(), (t.a).lower() FROM t
SELECT CASE a WHEN 1 THEN 2 ELSE 3 END, a BETWEEN 1 AND 2, a IN (1, 2), a IN (FROM u), EXISTS (FROM u), NOT a FROM t
SELECT a IS NULL, a IS DISTINCT FROM 1, a > ALL (SELECT 1), a = ANY (SELECT 2) FROM t
SELECT coalesce(a, 1), nullif(a, 1), ifnull(a, 1), TRY(a), if(a, b, c) FROM t
SELECT a LIKE 'x' ESCAPE '$', a ILIKE 'y', a SIMILAR TO 'z', a ~ 'w', a GLOB 'v*', a COLLATE NOCASE FROM t
SELECT date_trunc('month', a), EXTRACT(year FROM a), a + INTERVAL 3 DAYS, a AT TIME ZONE 'UTC', strftime(a, '%Y') FROM t
SELECT DATE '2026-03-01', TIMESTAMP '2026-03-01 12:00', INTERVAL '1' YEAR, 'x'::UUID, 'ab'::BLOB, '101'::BIT, 1::HUGEINT
SELECT a::STRUCT(x INT, y VARCHAR[]), a::MAP(VARCHAR, INT), a::UNION(n INT, s VARCHAR), a::INT[3], a::ENUM('x') FROM t
SELECT -a, +a, a // 2, a % 3, a ** 2, a ^ 2, a & 1, a | 1, a << 1, ~a, @a, a || 'x', 5! FROM t
SELECT $name, $other::INT
SELECT ?, ?
SELECT #1, (SELECT max(a) FROM t), (1, 2), ROW(1, 2), CURRENT_DATE, CURRENT_TIMESTAMP FROM t
SELECT samples.a FROM samples('pool') JOIN ALIGNMENT('pool', 'math') USING (sample_id)
""".strip().splitlines()


@pytest.mark.parametrize("query", STATEMENTS)
def test_ordinary_sql_is_allowed(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    AllowList(["t", "u"], ["samples", "alignment"]).check(_tree(connection, query))


@pytest.mark.parametrize("attack", SELECTS, ids=lambda attack: attack.name)
def test_no_attack_that_is_a_select_is_allowed(connection: duckdb.DuckDBPyConnection, attack: Attack) -> None:
    # The parser in front of the list refuses some of them already; the list must not count on that.
    [(text,)] = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [attack.query]).fetchall()
    document = json.loads(text)
    assert not document["error"]
    with pytest.raises(ForbiddenError):
        AllowList(["activation_sets"], ["samples"]).check(document["statements"][0]["node"])


def test_a_part_that_a_later_duckdb_adds_is_refused(connection: duckdb.DuckDBPyConnection) -> None:
    tree = _tree(connection, "SELECT 1")
    AllowList([], []).check({**tree, "later": None, "later_list": [], "later_text": "", "later_flag": False})
    with pytest.raises(ForbiddenError, match="use into file in SELECT"):
        AllowList([], []).check({**tree, "into_file": "/tmp/x"})


def test_a_kind_that_a_later_duckdb_adds_is_refused(connection: duckdb.DuckDBPyConnection) -> None:
    tree = _tree(connection, "SELECT 1")
    for part in ({"class": "LATER", "type": "LATER"}, {"type": "LATER_NODE"}, {"no_type": 1}):
        with pytest.raises(ForbiddenError):
            AllowList([], []).check({**tree, "select_list": [part]})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT read_text('x')", "use the function 'read_text'"),
        ("FROM read_csv('x')", "use the table function 'read_csv'"),
        ("FROM 'x.csv'", "read 'x.csv'"),
        ("FROM main.t", "put a schema or database before a name: 'main.t'"),
        ("SELECT main.lower('X')", "put a schema or database before a name: 'main.lower'"),
        ("SELECT 1::GEOMETRY", "use the type 'GEOMETRY'"),
        ("WITH x AS (COPY (SELECT 1) TO 'y') SELECT 1", "use COPY"),
        ("SHOW TABLES", "use SHOW"),
        ('FROM "' + "x" * 200 + '"', "read '" + "x" * 59 + "…'"),
    ],
    ids=lambda text: text[:40],
)
def test_a_refusal_says_what_was_refused(connection: duckdb.DuckDBPyConnection, query: str, message: str) -> None:
    with pytest.raises(ForbiddenError) as caught:
        AllowList(["t"], []).check(_tree(connection, query))
    assert caught.value.what == f"an untrusted query may not {message}"
    assert caught.value.next_step is not None
