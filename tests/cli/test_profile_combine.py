"""``profile combine`` through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def store(store: Path, cli: Any) -> Path:
    """With a second profile of the same model."""
    cli("profile", "build", "code", "--from", "pool", "--where", "kind = 'code'")
    return store


def test_combine_says_of_what_and_what_next(cli: Any, store: Path) -> None:
    run = cli("profile", "combine", "both", "math@1:1.0", "code:-0.5")
    assert run.out.splitlines()[0] == (
        "both@1: 3 directions of 8 neurons from 1 × math@1 - 0.5 × code@1 (recipe combined: candidates' mean, cosine)"
    )
    again = cli("profile", "combine", "both", "code@1:-0.5", "math")
    assert again.out.startswith("both@1 has these very directions already: nothing was done\n")
    assert "1 × math@1 - 0.5 × code@1" in cli("profile", "show", "both").out


def test_every_option_reaches_the_record(cli: Any, store: Path) -> None:
    cli("profile", "build", "contrast", "--from", "maths", "--against", "pool")
    run = cli(
        "profile", "combine", "new", "contrast", "--without", "code", "--without", "math", "--offset", "none",
        "--feature", "drift", "--metric", "dot", "--message", "why", "--card", "text", "--json",
    )  # fmt: skip
    record = run.json["profile"]
    assert (record["recipe"]["feature"], record["recipe"]["metric"], record["card"]) == ("drift", "dot", "text")
    assert [(part["name"], part["weight"]) for part in record["parts"]] == [
        ("contrast", 1.0), ("code", None), ("math", None),
    ]  # fmt: skip
    assert (record["has_offset"], record["source"]) == (False, None)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("math:x",), 7, "not a weight"),
        (("math:0",), 7, "finite number other than 0"),
        (("math:nan",), 7, "finite number"),
        (("mth",), 3, "'math'"),
        (("math", "math:2"), 7, "named twice"),
        (("math", "--without", "math"), 7, "named twice"),
        (("math", "foreign"), 6, "model_fingerprint"),
        (("math", "--offset", "math"), 7, "no offset"),
        (("math", "--offset", "code"), 7, "not among the profiles"),
    ],
)
def test_bad_combinations(
    cli: Any, store: Path, snapshot: Any, arguments: tuple[str, ...], code: int, says: str
) -> None:
    before = snapshot(store)
    run = cli("profile", "combine", "new", *arguments)
    assert (run.code, says in run.err) == (code, True), run.err
    assert "\n  → " in run.err
    assert snapshot(store) == before
