"""Every query of docs/sql.md runs on a store like the one that it speaks of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nait_store.query.functions import FUNCTIONS
from nait_store.query.reference import rewrite

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


CALLS = {
    "samples": "samples('pool')",
    "alignment": "alignment('pool', 'math')",
    "alignment_all": "alignment_all('pool')",
    "alignment_layers": "alignment_layers('pool', 'math')",
    "neuron": "neuron('pool', 1, 5)",
    "activation": "activation('pool', 1)",
    "top_neurons": "top_neurons('pool', 's000003')",
    "similar": "similar('pool', 's000003')",
    "profile_similarity": "profile_similarity()",
}


def section(function: str) -> str:
    """What follows the heading of a function, up to the next heading."""
    [found] = re.findall(rf"^##+ `{function}\(.*?(?=^##)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_columns_of_every_function_are_documented(shared: Workbench, function: str) -> None:
    documented = section("alignment" if function == "alignment_all" else function)
    own = {"instruction", "output", "domain"}  # fields of the records
    columns = {row[0] for row in shared.rows(f"DESCRIBE FROM {CALLS[function]}")} - own
    assert {name for name in columns if f"`{name}`" not in documented} == set()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_cost_of_every_function_is_documented(function: str) -> None:
    assert "**Cost.**" in section(function) or "costs what `alignment`" in section(function)


def test_the_columns_of_the_views_are_documented_by_their_comments() -> None:
    """Rewrite the page with ``python -m nait_store.query.reference docs/sql.md``."""
    page = PAGE.read_text(encoding="utf-8")
    assert rewrite(page) == page


def test_a_view_without_a_table_of_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="aliases"):
        rewrite(PAGE.read_text(encoding="utf-8").replace("<!-- columns: aliases -->", ""))


def test_the_views_are_documented(shared: Workbench) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for (name,) in shared.rows("SHOW TABLES") if f"| `{name}` |" not in page] == []
