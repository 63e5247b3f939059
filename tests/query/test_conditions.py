"""``--where``: one boolean expression over the samples of a set, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.query.rows import matching_rows

Workbench = Any  # of conftest.py, which importlib mode cannot import


def ids_of(bench: Workbench, version: Any, rows: Any) -> list[str]:
    found = []
    for segment in version.segments:
        ids = segment.samples(["sample_id"]).column("sample_id").to_pylist()
        found += [ids[row] for row in rows.get(segment.ordinal, ())]
    return found


@pytest.mark.parametrize(
    "where",
    [
        "domain = 'maths'",
        "domain IN ('maths') -- comment",
        "/* ( */ domain = 'maths'",
        "\ndomain\n=\n'maths'\n",
        "(domain = 'maths')",
        "domain = 'maths' AND NOT (n_tokens < 0 OR truncated IS NULL)",
        "sample_id IN (SELECT sample_id FROM samples('pool') WHERE domain = 'maths')",
        "CASE WHEN domain = 'maths' THEN true ELSE false END",
        "record->>'domain' = 'maths'",
    ],
)
def test_rows_that_meet_the_condition(shared: Workbench, where: str) -> None:
    version = shared.sets.open("pool")
    rows = matching_rows(shared.session, version, where)
    assert ids_of(shared, version, rows) == [f"s{i:06d}" for i in range(0, 60, 3)]
    assert all(indices.dtype == np.int64 for indices in rows.values())


def test_the_condition_is_over_the_version_that_was_given(shared: Workbench) -> None:
    rows = matching_rows(shared.session, shared.sets.open("pool@1"), "true")
    assert sum(len(indices) for indices in rows.values()) == 40


def test_nothing_may_match(shared: Workbench) -> None:
    assert matching_rows(shared.session, shared.sets.open("pool"), "false") == {}


def test_alignment_can_be_part_of_it(shared: Workbench) -> None:
    where = "sample_id IN (SELECT sample_id FROM alignment('pool','math') ORDER BY score DESC LIMIT 7)"
    rows = matching_rows(shared.session, shared.sets.open("pool"), where)
    assert sum(len(indices) for indices in rows.values()) == 7


@pytest.mark.parametrize(
    "where",
    [
        "",
        "  ",
        "-- nothing",
        "1=1; DROP TABLE versions",
        "true;",
        "true) UNION SELECT (1",
        "true) UNION (SELECT 1",
        "true) OR (true",
        "1=1) --",
        "true, false",
        "true AS x",
        "true FROM versions",
        "true ORDER BY 1",
        "true LIMIT 1",
        "true GROUP BY ALL",
        "true WHERE true",
        "SELECT true",
        "WITH x AS (SELECT 1) SELECT true",
        "*",
        "DISTINCT true",
        "domain =",
        "/* open",
        "'open",
        "(true",
    ],
)
def test_what_is_not_one_expression_is_refused(shared: Workbench, where: str) -> None:
    with pytest.raises(InvalidInputError, match="is not one SQL expression"):
        matching_rows(shared.session, shared.sets.open("pool"), where)


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("n_tokens", InvalidInputError, "of type INTEGER"),
        ("'maths'", InvalidInputError, "of type VARCHAR"),
        ("domain = $1", InvalidInputError, "has a parameter"),
        ("domian = 'maths'", NotFoundError, "no column 'domian'"),
        ("count(*) > 1", InvalidInputError, "aggregate"),
        ("row_number() OVER () > 1", InvalidInputError, "window"),
        ("no_such(domain)", NotFoundError, "no function 'no_such'"),
        ("domain = 'a'::INTEGER::VARCHAR", InvalidInputError, "Could not convert"),
    ],
)
def test_what_cannot_be_a_condition_is_refused(shared: Workbench, where: str, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        matching_rows(shared.session, shared.sets.open("pool"), where)
    assert caught.value.next_step
