"""What a query gives back."""

from __future__ import annotations

import sys
from typing import Any

import pyarrow as pa
import pytest

from nait_store.errors import MissingExtraError
from nait_store.query.result import QueryResult

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
    assert shared.sql("SELECT 1 AS x, 2 AS x").fetchall() == [(1, 2)]


def test_times_are_utc(shared: Workbench) -> None:
    (written,) = shared.sql("SELECT max(created_at) FROM versions").fetchone()
    assert str(written.tzinfo) == "UTC"
