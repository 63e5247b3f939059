"""``nait-store cache`` as users see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import nait_store
from tests.cli.conftest import Cli


@pytest.fixture
def scored(store: Path) -> nait_store.Store:
    """The store with the scores of pool@1 and maths under math."""
    opened = nait_store.open(str(store))
    opened.score("pool@1", "math")
    opened.score("maths", "math")
    return opened


def test_a_line_for_each_set_and_profile_and_a_total(cli: Cli, scored: nait_store.Store) -> None:
    run = cli("cache", "list")
    assert (run.code, run.err) == (0, "")
    head, *lines, total = run.out.splitlines()
    assert head.split()[:6] == ["set", "profile", "feature", "metric", "segments", "rows"]
    assert sorted(line.split()[:8] for line in lines) == [
        ["maths@1", "math@1", "mean", "cosine", "1", "of", "1", "20"],
        ["pool@2", "math@1", "mean", "cosine", "1", "of", "2", "20"],
    ]
    assert total.startswith("2 sidecars, ")
    assert total not in cli("cache", "list", "--quiet").out


def test_an_empty_cache_is_said(cli: Cli, store: Path) -> None:
    assert cli("cache", "list").out == "0 sidecars, 0 B\n"
    assert cli("cache", "prune").out == "freed 0 B (0 bytes) in 0 sidecars; 0 sidecars left, 0 B\n"


def test_json_has_every_field(cli: Cli, scored: nait_store.Store) -> None:
    found = cli("cache", "list", "--profile", "math", "--set", "pool@1", "--json").json
    (one,) = found["scores"]
    assert (one["set"], one["set_ref"], one["profiles"]) == ("pool", "pool@1", ["math@1"])
    assert (one["n_covered"], one["n_segments"], one["n_rows"]) == (1, 1, 20)
    assert one["directions_sha256"] == scored.profiles.open("math").record.directions_sha256
    assert (found["n_sidecars"], found["size_bytes"]) == (1, one["size_bytes"])


def test_what_is_of_no_use_is_counted(cli: Cli, scored: nait_store.Store, store: Path) -> None:
    next((store / "scores").glob("*.parquet")).unlink()
    assert "1 sidecar of no use" in cli("cache", "list").out


def test_what_is_unknown_is_called_so(cli: Cli, scored: nait_store.Store) -> None:
    scored.profiles.registry.log.delete("math", 1)
    scored.profiles.registry.log.collect("math", 1)
    assert "pool@2   unknown  mean" in cli("cache", "list").out


def test_a_prune_tells_what_went_and_what_is_left(cli: Cli, scored: nait_store.Store) -> None:
    run = cli("cache", "prune", "--set", "maths")
    assert run.code == 0
    *_, line, total = run.out.splitlines()
    assert line.endswith("scores of set maths")
    assert line.split()[0] == "1"
    assert total.startswith("freed ")
    assert "in 1 sidecar; 1 sidecar left, " in total
    assert len(scored.location.names("scores")) == 2


def test_a_dry_run_changes_nothing_and_tells_the_same(
    cli: Cli, scored: nait_store.Store, store: Path, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    before = snapshot(store)
    dry = cli("cache", "prune", "--all", "--dry-run", "--json").json
    assert "would free" in cli("cache", "prune", "--all", "--dry-run").out
    assert snapshot(store) == before
    real = cli("cache", "prune", "--all", "--json").json
    assert (dry.pop("dry_run"), real.pop("dry_run")) == (True, False)
    assert dry == real
    assert real["freed_bytes"] > 0
    assert scored.location.names("scores") == []


def test_a_size_and_an_age_are_taken_as_they_are_elsewhere(cli: Cli, scored: nait_store.Store) -> None:
    assert cli("cache", "prune", "--older-than", "30d", "--max-size", "10GB", "--json").json["pruned"] == []
    assert len(cli("cache", "prune", "--max-size", "1B", "--dry-run", "--json").json["pruned"]) == 2
    assert len(cli("cache", "prune", "--older-than", "0", "--json").json["pruned"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--older-than", "30"), 7, "not a duration"),
        (("--max-size", "much"), 7, "not a size"),
        (("--all", "--set", "pool"), 7, "cannot be chosen at once"),
        (("--set", "poool"), 3, "did you mean 'pool'"),
        (("--profile", "maht"), 3, "did you mean 'math'"),
    ],
)
def test_unusable_input_is_refused(
    cli: Cli, scored: nait_store.Store, arguments: tuple[str, ...], code: int, message: str
) -> None:
    run = cli("cache", "prune", *arguments)
    assert (run.code, run.out) == (code, "")
    assert message in run.err
    assert len(scored.location.names("scores")) == 4
