"""What a query gives back."""

from __future__ import annotations

import io
import sys
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet
import pytest

from nait_store.errors import InvalidInputError, MissingExtraError
from nait_store.query.result import QueryResult, distinct_names

Workbench = Any  # of conftest.py, which importlib mode cannot import


@pytest.fixture
def result() -> QueryResult:
    return QueryResult(pa.table({"i": [1, 2, None], "t": ["a", "b\nb", "c" * 80]}), ("careful",))


def test_every_form_has_the_rows(result: QueryResult) -> None:
    assert result.fetchall() == [(1, "a"), (2, "b\nb"), (None, "c" * 80)]
    assert list(result) == result.fetchall()
    assert result.fetchone() == (1, "a")
    assert result.columns == ["i", "t"]
    assert result.n_rows == len(result) == 3
    assert result.arrow().to_pylist()[0] == {"i": 1, "t": "a"}
    assert result.to_dicts()[1] == {"i": 2, "t": "b\nb"}
    assert result.df()["t"].tolist() == ["a", "b\nb", "c" * 80]
    assert result.pl()["t"].to_list() == ["a", "b\nb", "c" * 80]
    assert result.warnings == ("careful",)


def test_a_result_shows_itself(result: QueryResult) -> None:
    assert repr(result).splitlines() == [
        "i     t",
        "────  ────────────────────────────────────────",
        "1     a",
        "2     b b",
        "NULL  " + "c" * 39 + "…",
        "(3 rows)",
    ]
    assert repr(QueryResult(pa.table({"x": range(30)}))).endswith("… 20 more (30 rows)")
    assert "(1 row)" in repr(QueryResult(pa.table({"x": [1]})))


def test_a_notebook_shows_a_table_with_markup_spelled() -> None:
    shown = QueryResult(pa.table({"a<b": ["<script>", None]}))._repr_html_()
    assert "<th>a&lt;b</th>" in shown
    assert "<td>&lt;script&gt;</td>" in shown
    assert "<script>" not in shown
    assert "(2 rows)" in shown


def test_readers_of_arrow_take_a_result_itself(result: QueryResult, shared: Workbench) -> None:
    rows = result.fetchall()
    assert polars.DataFrame(result).rows() == rows
    assert pa.table(result).equals(result.arrow())
    assert duckdb.from_arrow(result).fetchall() == rows
    assert shared.rows("FROM earlier", tables={"earlier": result}) == rows


def test_an_empty_result_has_columns_and_no_rows(shared: Workbench) -> None:
    result = shared.sql("SELECT sample_id, score FROM alignment('pool','math') WHERE score > 1e9")
    assert result.fetchall() == []
    assert result.fetchone() is None
    assert result.columns == ["sample_id", "score"]
    assert len(result.df()) == 0
    assert result.pl().is_empty()


@pytest.mark.parametrize(("package", "method"), [("pandas", "df"), ("polars", "pl")])
def test_a_missing_package_is_named(
    result: QueryResult, package: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=package) as caught:
        getattr(result, method)()
    assert f"pip install {package}" in (caught.value.next_step or "")


def test_sums_of_integers_are_integers(shared: Workbench) -> None:
    table = shared.sql("SELECT sum(n_tokens) AS small, sum(9223372036854775807) AS large FROM samples('pool')").arrow()
    assert table.schema.field("small").type == pa.int64()
    assert int(table["large"][0].as_py()) == 9223372036854775807 * 60


def test_columns_of_one_name_are_all_there(shared: Workbench) -> None:
    result = shared.sql("SELECT 1 AS x, 2 AS x, 3 AS x_1, INTERVAL 1 DAY AS x")
    names = ["x", "x_2", "x_1", "x_3"]
    assert result.fetchall() == [(1, 2, 3, "1 day")]
    assert result.columns == result.arrow().column_names == ["x", "x", "x_1", "x"]
    assert list(result.df().columns) == result.pl().columns == names
    assert result.to_dicts() == [dict(zip(names, (1, 2, 3, "1 day"), strict=True))]


def test_distinct_names_keep_those_that_are() -> None:
    assert distinct_names(["a", "b", "a_1"]) == ["a", "b", "a_1"]
    assert distinct_names(["a", "a", "a_1", "a_1"]) == ["a", "a_2", "a_1", "a_1_1"]


ODD_TYPES = """
    SELECT 18446744073709551616::UHUGEINT AS u, INTERVAL 26 HOUR AS i, TIMETZ '01:02:03+02' AS z, '101'::BIT AS b,
           union_value(a := 1) AS v, [INTERVAL 1 DAY] AS l, {'x "y"': 1::UHUGEINT, 'n': 1} AS s,
           MAP{'k': 2::BIGNUM} AS m, [3::UHUGEINT]::UHUGEINT[1] AS f
"""


def test_types_without_a_form_in_arrow_are_text_everywhere(shared: Workbench) -> None:
    result = shared.sql(ODD_TYPES)
    row = (
        "18446744073709551616", "26:00:00", "01:02:03+02", "101",
        "1", ["1 day"], {'x "y"': "1", "n": 1}, [("k", "2")],
        ["3"],
    )  # fmt: skip
    assert result.fetchall() == [row]
    assert result.pl()["u"].to_list() == [row[0]]
    assert result.df()["i"].tolist() == [row[1]]
    pyarrow.parquet.write_table(result.arrow(), io.BytesIO())


def test_every_route_takes_nested_values_times_and_decimals(shared: Workbench) -> None:
    result = shared.sql(
        "SELECT [[1], NULL] AS l, {'a': [true]} AS s, 1.50 AS d, TIMESTAMP '2026-01-02 03:04:05.123456' AS t, "
        "DATE '0001-01-01' AS first, '\\xFF'::BLOB AS b, NULL AS n, 18446744073709551615::UBIGINT AS u"
    )
    (row,) = result.fetchall()
    assert (row[0], row[1], str(row[2]), str(row[3])) == (
        [[1], None],
        {"a": [True]},
        "1.50",
        "2026-01-02 03:04:05.123456",
    )
    assert result.pl().rows() == [row]
    assert result.df()["d"].dtype == "float64"
    assert result.df()["u"].tolist() == [18446744073709551615]


def test_a_time_that_is_none_in_python_is_named_and_shown(shared: Workbench) -> None:
    result = shared.sql("SELECT 1 AS one, 'infinity'::DATE AS never")
    with pytest.raises(InvalidInputError, match="Python cannot hold the column 'never'") as caught:
        result.fetchall()
    assert "CAST(never AS VARCHAR)" in (caught.value.next_step or "")
    with pytest.raises(InvalidInputError, match="pandas cannot hold the column 'never'"):
        result.df()
    assert "(1 row)" in repr(result)


def test_times_are_utc(shared: Workbench) -> None:
    (written,) = shared.sql("SELECT max(created_at) FROM versions").fetchone()
    assert str(written.tzinfo) == "UTC"
