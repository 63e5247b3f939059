"""Every query of docs/sql.md runs on a store like the one that it speaks of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nait_store.catalog.reference import rewrite

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sql.md"
BLOCK = re.compile(r"^```(sql|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(kind, text) for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8"))]

Workbench = Any  # of conftest.py, which importlib mode cannot import


@pytest.mark.parametrize("query", [text for kind, text in BLOCKS if kind == "sql"])
def test_queries_run_and_find_something(shared: Workbench, query: str) -> None:
    assert shared.sql(query).n_rows > 0


def test_the_program_runs(shared: Workbench) -> None:
    [program] = [text for kind, text in BLOCKS if kind == "python"]
    names: dict[str, Any] = {"store": shared}
    exec(program, names)
    assert sorted(row[0] for row in names["result"].fetchall()) == ["bad", "good"]


def test_the_columns_are_documented(shared: Workbench) -> None:
    page = PAGE.read_text(encoding="utf-8")
    columns = {row[0] for call in ("samples('pool')", "alignment('pool','math')")
               for row in shared.rows(f"DESCRIBE FROM {call}")}  # fmt: skip
    missing = {name for name in columns - {"instruction", "output", "domain"} if f"`{name}`" not in page}
    assert missing == set()


def test_the_columns_of_the_views_are_documented_by_their_comments() -> None:
    """Rewrite the page with ``python -m nait_store.catalog.reference docs/sql.md``."""
    page = PAGE.read_text(encoding="utf-8")
    assert rewrite(page) == page


def test_a_view_without_a_table_of_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="aliases"):
        rewrite(PAGE.read_text(encoding="utf-8").replace("<!-- columns: aliases -->", ""))


def test_the_views_are_documented(shared: Workbench) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for (name,) in shared.rows("SHOW TABLES") if f"| `{name}` |" not in page] == []
