"""Errors of a query show the place in the query as it was written."""

from __future__ import annotations

from typing import Any

import pytest

from nait_store.errors import InvalidInputError, NaitStoreError, NotFoundError

Workbench = Any  # of conftest.py, which importlib mode cannot import
JOINED = "samples('pool') s\n  JOIN alignment($set, 'math') a USING (sample_id)\n "


def place(bench: Workbench, query: str, params: Any = None) -> list[str]:
    """The lines of the message that show the place."""
    with pytest.raises(NaitStoreError) as caught:
        bench.sql(query, params)
    return caught.value.what.splitlines()[1:]


@pytest.mark.parametrize(
    ("query", "wrong", "error"),
    [
        (f"SELECT s.sample_id,\n  instuction\nFROM {JOINED}", "instuction", NotFoundError),
        (f"SELECT 'ü', score\nFROM {JOINED} WHERE 'ü' = scor", "scor", NotFoundError),
        (f"SELECT x.score FROM {JOINED}", "x.score", NotFoundError),
        (f"SELECT foo(score) FROM {JOINED}", "foo(score)", NotFoundError),
        (f"SELECT 1 FROM {JOINED} JOIN nope USING (sample_id)", "nope", NotFoundError),
        (f"SELECT row_id FROM {JOINED}", "row_id", InvalidInputError),
        (f"SELECT 1 FROM {JOINED} WHERE sum(score) > 1", "sum(score)", InvalidInputError),
    ],
)
def test_a_slip_is_marked_where_it_stands(
    shared: Workbench, query: str, wrong: str, error: type[NaitStoreError]
) -> None:
    with pytest.raises(error):
        shared.sql(query, {"set": "pool"})
    shown, marks = place(shared, query, {"set": "pool"})
    before = query[: query.rindex(wrong)]
    number = before.count("\n")
    assert shown == f"LINE {number + 1}: {query.splitlines()[number]}"
    start = shown.rindex(wrong)
    assert marks == " " * start + "^" * len(wrong)


def test_a_question_mark_shows_as_written(shared: Workbench) -> None:
    shown, marks = place(shared, "SELECT ? AS one, wrong FROM samples(?)", [1, "pool"])
    assert shown == "LINE 1: SELECT ? AS one, wrong FROM samples(?)"
    assert marks.index("^") == shown.index("wrong")


def test_a_long_line_is_cut_around_the_place(shared: Workbench) -> None:
    padding = " + ".join(["n_tokens"] * 40)
    shown, marks = place(shared, f"SELECT {padding} + wrong + {padding} FROM samples('pool')")
    assert len(shown) < 90
    assert shown.count("…") == 2
    assert shown[marks.index("^") : marks.rindex("^") + 1] == "wrong"


def test_nothing_is_shown_where_there_is_no_place(shared: Workbench) -> None:
    assert place(shared, "SELECT 1 UNION SELECT 1, 2") == []
    assert place(shared, "EXPLAIN SELECT wrong") == []
    assert place(shared, "SELECT CAST(sample_id AS INTEGER) FROM samples('pool')") == []


def test_advice_is_short_where_duckdb_lists_every_overload(shared: Workbench) -> None:
    with pytest.raises(InvalidInputError, match="VARCHAR") as caught:
        shared.sql("SELECT sample_id + 1 FROM samples('pool')")
    assert caught.value.next_step == "write the types that are meant: CAST(x AS DOUBLE)"


def test_a_function_that_is_taken_for_a_table_is_named(shared: Workbench) -> None:
    with pytest.raises(NotFoundError) as caught:
        shared.sql("DESCRIBE alignment")
    assert caught.value.next_step == "it is a function: write FROM alignment('pool', 'math')"


def test_a_column_without_from_may_be_a_text(shared: Workbench) -> None:
    with pytest.raises(NotFoundError) as caught:
        shared.sql("SELECT hello")
    assert "'hello'" in (caught.value.next_step or "")
