"""``sql --sandbox`` through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

COUNT = "SELECT count(*) AS n FROM alignment('pool', 'math')"


def test_an_untrusted_query_gives_what_a_trusted_one_gives(cli: Any, store: Path) -> None:
    (store.parent / "mine.csv").write_text("a\n7\n", encoding="utf-8")
    query = "SELECT (SELECT count(*) FROM alignment('pool', $p)) AS n, a FROM mine"
    options = ("--param", "p=math", "--table", "mine=mine.csv", "--format", "json")
    sandboxed = cli("sql", query, *options, "--sandbox", "--timeout", "60", "--memory", "512MiB", "--max-output", "1MB")
    assert sandboxed.code == 0, sandboxed.err
    assert sandboxed.json == cli("sql", query, *options).json


def test_a_forbidden_query_has_an_exit_code_of_its_own(cli: Any, store: Path) -> None:
    run = cli("sql", "FROM read_text('/etc/passwd')", "--sandbox")
    assert (run.code, run.out) == (12, "")
    assert "may not use the table function 'read_text'" in run.err


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        ("SELECT count(*) FROM range(9000000000000000000)", ("--timeout", "0.5"), "took longer than 0.5 s"),
        ("SELECT length(repeat('x', 1000000000))", ("--memory", "64MiB"), "more memory than 64 MiB"),
        ("SELECT repeat('x', 10000)", ("--max-output", "1kB"), "more than 1,000 bytes of rows"),
    ],
)
def test_a_limit_has_an_exit_code_of_its_own(
    cli: Any, store: Path, query: str, options: tuple[str, ...], message: str
) -> None:
    run = cli("sql", query, "--sandbox", *options)
    assert (run.code, run.out) == (13, "")
    assert message in run.err


def test_new_scores_can_be_denied(cli: Any, store: Path) -> None:
    assert cli("sql", "FROM alignment('pool@1', 'math', metric := 'dot')", "--sandbox", "--new-scores", "0").code == 13


@pytest.mark.parametrize(
    "option", [("--timeout", "5"), ("--memory", "1GB"), ("--max-output", "1MB"), ("--new-scores", "1")]
)
def test_limits_without_the_sandbox_are_refused(cli: Any, store: Path, option: tuple[str, str]) -> None:
    run = cli("sql", COUNT, *option)
    assert run.code == 7
    assert f"{option[0]} is a limit of the sandbox" in run.err


def test_a_query_that_is_not_ones_own_is_not_explained(cli: Any, store: Path) -> None:
    # What a query would scan is found out in this process.
    run = cli("sql", COUNT, "--sandbox", "--explain")
    assert run.code == 7
    assert "--explain and --sandbox exclude each other" in run.err
