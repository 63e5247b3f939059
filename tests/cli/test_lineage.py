"""``nait-store lineage``: text, drawings and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nait_store.errors import InvalidInputError, NotFoundError


@pytest.fixture
def best(cli: Any, store: Path) -> Path:
    assert cli("select", "--from", "pool", "--profile", "math", "--top", "5", "--save", "best").code == 0
    return store


def test_the_tree_names_each_thing_below_what_was_made_from_it(cli: Any, best: Path) -> None:
    run = cli("lineage", "best")
    assert run.code == 0
    text = run.out
    assert text.startswith("selection best@1: 5 of 40 candidates, alignment, 5 samples, ")
    assert "\nmade from\n  selected from: set pool@2: ingest, 40 samples" in text
    assert "\n    appended to: set pool@1: ingest, 20 samples" in text
    assert "\n  ranked by: profile math@1: default:" in text
    assert "\n    built from: set maths@1: ingest, 20 samples" in text
    assert "\nmade from it\n  nothing\n" in text


@pytest.mark.parametrize(
    ("option", "there", "absent"),
    [("--up", "made from", "made from it"), ("--down", "made from it", "maths@1: ingest")],
)
def test_one_direction_shows_that_one(cli: Any, best: Path, option: str, there: str, absent: str) -> None:
    out = cli("lineage", "math", option).out
    assert there in out
    assert absent not in out


def test_json_has_nodes_edges_and_gaps(cli: Any, best: Path) -> None:
    for run in (cli("lineage", "math", "--json"), cli("lineage", "math", "--format", "json")):
        assert run.json["root"] == "profile:math@1"
        assert {edge["relation"] for edge in run.json["edges"]} >= {"built from", "ranked by"}
        assert {"id", "kind", "name", "state", "digest"} <= run.json["nodes"][0].keys()


def test_drawings_begin_as_their_languages_do(cli: Any, best: Path) -> None:
    assert cli("lineage", "best", "--format", "mermaid").out.startswith("flowchart LR\n  n0")
    assert cli("lineage", "best", "--format", "dot").out.startswith("digraph lineage {\n")


def test_gaps_are_warnings_beside_a_drawing(cli: Any, best: Path) -> None:
    run = cli("lineage", "best", "--format", "dot")
    assert "warning: " in run.err
    assert "is not recorded any more" in run.err


def test_an_unknown_name_suggests_one_of_any_kind(cli: Any, best: Path) -> None:
    run = cli("lineage", "bst")
    assert run.code == NotFoundError.exit_code
    assert "best" in run.err


def test_both_excludes_the_others(cli: Any, best: Path) -> None:
    assert cli("lineage", "best", "--both", "--up").code == InvalidInputError.exit_code
