"""``sets compact`` through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nait_store.cli.options import parse_bytes
from nait_store.errors import InvalidInputError


def test_two_segments_become_one(cli: Any, store: Path) -> None:
    run = cli("sets", "compact", "pool", "--message", "tidy up")
    assert run.code == 0
    assert run.out.startswith("pool@3: merged 2 segments into 1, ")
    history = cli("sets", "history", "pool").out.splitlines()[-1]
    assert "2 segments into 1" in history
    assert "tidy up" in history


def test_scores_are_the_same_and_none_is_computed_again(cli: Any, store: Path) -> None:
    query = "SELECT sample_id, score FROM alignment('pool', 'math') ORDER BY sample_id"
    before = cli("sql", query, "--format", "jsonl").out
    run = cli("sets", "compact", "pool")
    assert "1 score sidecar carried over" in run.out
    assert cli("score", "pool", "math", "--json").json["work"]["n_computed"] == 0
    assert cli("sql", query, "--format", "jsonl").out == before


def test_hidden_rows_are_counted(cli: Any, store: Path) -> None:
    cli("sets", "delete-samples", "pool", "--where", "kind = 'code'")
    run = cli("sets", "compact", "pool")
    assert ", 20 hidden rows left behind, " in run.out
    assert "2 segments into 1 without 20 hidden rows" in cli("sets", "history", "pool").out


def test_a_dry_run_changes_nothing(cli: Any, store: Path, snapshot: Callable[[Path], dict[str, str]]) -> None:
    before = snapshot(store)
    run = cli("sets", "compact", "pool", "--dry-run")
    assert run.out.startswith("pool@2: would merge 2 segments into 1, about ")
    assert snapshot(store) == before


def test_nothing_to_gain_is_said_and_no_error(cli: Any, store: Path) -> None:
    run = cli("sets", "compact", "maths")
    assert (run.code, run.out) == (0, "maths@1: nothing to gain from its 1 segment\n")


def test_the_report_as_json(cli: Any, store: Path) -> None:
    report = cli("sets", "compact", "pool", "--json").json
    assert (report["source"], report["reference"]) == ("pool@2", "pool@3")
    assert (report["n_merged"], report["n_written"], report["n_segments_after"]) == (2, 1, 1)


def test_a_version_is_refused(cli: Any, store: Path) -> None:
    run = cli("sets", "compact", "pool@1")
    assert run.code == InvalidInputError.exit_code
    assert "give the set: 'pool'" in run.err


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1GB", 10**9),
        ("1.5 gb", 1_500_000_000),
        ("500MB", 5 * 10**8),
        ("64MiB", 64 << 20),
        ("2k", 2000),
        ("123", 123),
        ("7 B", 7),
    ],
)
def test_sizes(text: str, n_bytes: int) -> None:
    assert parse_bytes("--target-size", text) == n_bytes


@pytest.mark.parametrize("text", ["", "0", "GB", "-1GB", "1e9", "1XB", "1 G B", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--target-size"):
        parse_bytes("--target-size", text)
