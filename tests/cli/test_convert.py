"""``sets convert`` through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nait_store.errors import InvalidInputError

BY_SCORE = "SELECT sample_id FROM alignment('pool', 'math') ORDER BY score DESC LIMIT 10"


def test_a_set_becomes_int8_and_is_queried_as_before(cli: Any, store: Path) -> None:
    before = cli("sql", BY_SCORE, "--format", "jsonl").out.splitlines()
    run = cli("sets", "convert", "pool", "--dtype", "int8", "--message", "smaller")
    assert run.code == 0
    assert run.out.startswith("pool@3: converted 2 segments to int8, ")
    assert "2 segments to int8" in cli("sets", "history", "pool").out.splitlines()[-1]
    after = cli("sql", BY_SCORE, "--format", "jsonl").out.splitlines()
    assert len(set(after) & set(before)) >= 9
    assert cli("verify").code == 0


def test_a_dry_run_changes_nothing(cli: Any, store: Path, snapshot: Callable[[Path], dict[str, str]]) -> None:
    before = snapshot(store)
    run = cli("sets", "convert", "pool", "--dtype", "bfloat16", "--dry-run")
    assert run.out.startswith("pool@2: would convert 2 segments to bfloat16, ")
    assert snapshot(store) == before


def test_what_has_the_dtype_is_said_and_no_error(cli: Any, store: Path) -> None:
    run = cli("sets", "convert", "maths", "--dtype", "float16")
    assert (run.code, run.out) == (0, "maths@1: all of it is float16 already\n")


def test_a_version_is_refused(cli: Any, store: Path) -> None:
    run = cli("sets", "convert", "pool@1", "--dtype", "int8")
    assert run.code == InvalidInputError.exit_code
    assert "give the set: 'pool'" in run.err


def test_the_report_as_json(cli: Any, store: Path) -> None:
    report = cli("sets", "convert", "pool", "--dtype", "int8", "--json").json
    assert (report["source"], report["reference"], report["dtype"]) == ("pool@2", "pool@3", "int8")
