"""A store and a registry are brought to the same versions; what cannot be is said, and keeps nothing back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nait_store
from nait_store.errors import InvalidInputError, NotFoundError
from tests.sharing.conftest import Teams, new_store

Digests = Callable[[Any], dict[str, str]]


def test_both_sides_get_what_they_miss(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    other = new_store(str(tmp_path / "other"), seed=7)
    other.profiles.build("code", source="gsm8k", method="mean")
    other.remotes.push("code", teams.registry)
    report = teams.ours.remotes.sync(teams.registry)
    assert (report.pushed, report.pulled, report.problems) == (("math@2",), ("code@1",), ())
    assert teams.ours.profiles.names() == ["code", "math"]
    assert [one.reference for one in teams.ours.remotes.show(teams.registry)] == ["code@1", "math@1", "math@2"]


def test_second_sync_has_nothing_to_do(teams: Teams, digests: Digests) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    teams.ours.remotes.sync(teams.registry)
    before = digests(teams.registry), digests(teams.ours)
    report = teams.ours.remotes.sync(teams.registry)
    assert (report.pushed, report.pulled, report.n_bytes) == ((), (), 0)
    assert (digests(teams.registry), digests(teams.ours)) == before


def test_profiles_that_were_never_pushed_stay_at_home_unless_named(teams: Teams) -> None:
    teams.ours.profiles.build("draft", source="gsm8k", method="mean", limit=10)
    teams.ours.remotes.push("math@1", teams.registry)
    assert teams.ours.remotes.sync(teams.registry).pushed == ("math@2",)
    assert teams.ours.remotes.sync(teams.registry, ["draft"]).pushed == ("draft@1",)


@pytest.mark.parametrize(("direction", "n_pushed", "n_pulled"), [("push", 1, 0), ("pull", 0, 1)])
def test_one_way_only(teams: Teams, tmp_path: Path, direction: Any, n_pushed: int, n_pulled: int) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    other = new_store(str(tmp_path / "other"), seed=7)
    other.profiles.build("code", source="gsm8k", method="mean")
    other.remotes.push("code", teams.registry)
    report = teams.ours.remotes.sync(teams.registry, direction=direction)
    assert (len(report.pushed), len(report.pulled)) == (n_pushed, n_pulled)


def test_dry_run_says_the_same_and_changes_nothing(teams: Teams, digests: Digests) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    before = digests(teams.registry), digests(teams.ours)
    assert teams.ours.remotes.sync(teams.registry, dry_run=True).pushed == ("math@2",)
    assert (digests(teams.registry), digests(teams.ours)) == before


def test_conflict_is_told_once_and_keeps_the_rest_going(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    teams.ours.remotes.push("math@2", teams.registry)
    other = new_store(str(tmp_path / "other"), seed=7)
    other.profiles.build("math", source="gsm8k", method="mean")
    report = other.remotes.sync(teams.registry)
    assert report.pulled == ("math@2",)
    assert [problem.reference for problem in report.problems] == ["math@1"]
    assert "is one profile here and another there, published by" in report.problems[0].what
    assert report.problems[0].exit_code == 5


def test_conflict_is_settled_by_taking_and_publishing_under_the_next_numbers(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    other = new_store(str(tmp_path / "other"), seed=7)
    other.profiles.build("math", source="gsm8k", method="mean")
    other.remotes.pull("math@1", teams.registry, as_name="math")
    other.remotes.push("math@1", teams.registry, as_name="math")
    report = other.remotes.sync(teams.registry)
    assert (report.pushed, report.pulled, report.problems) == ((), (), ())


def test_what_was_deleted_here_is_not_pulled_again(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    teams.theirs.remotes.sync(teams.registry)
    teams.theirs.profiles.delete("math@2")
    report = teams.theirs.remotes.sync(teams.registry)
    assert (report.pulled, report.left) == ((), ("math@2",))


def test_damaged_version_is_told_and_the_others_come(teams: Teams) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    teams.ours.remotes.push("math@2", teams.registry)
    teams.files.write_bytes("profiles/math/versions/1.json", b"{}")
    report = teams.theirs.remotes.sync(teams.registry)
    assert report.pulled == ("math@2",)
    assert [problem.reference for problem in report.problems] == ["math@1"]


def test_unknown_name_and_missing_registry_are_errors(teams: Teams) -> None:
    with pytest.raises(NotFoundError, match="no shared registry"):
        teams.ours.remotes.sync(teams.registry)
    teams.ours.remotes.push("math@1", teams.registry)
    with pytest.raises(NotFoundError, match="there is no profile 'maths' here, nor in"):
        teams.ours.remotes.sync(teams.registry, ["maths"])
    with pytest.raises(InvalidInputError, match="no direction"):
        teams.ours.remotes.sync(teams.registry, direction="up")  # type: ignore[arg-type]


def test_command_lists_what_it_did_and_fails_on_conflicts(
    teams: Teams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nait_store.cli.main import main

    def run(store: nait_store.Store, *arguments: str) -> tuple[int, str]:
        code = main(("--store", store.url, "sync", teams.registry, *arguments))
        return code, capsys.readouterr().out

    teams.ours.remotes.push("math@1", teams.registry)
    assert run(teams.ours, "--dry-run") == (0, "would be pushed: math@2\n")
    assert run(teams.ours)[1].startswith("pushed: math@2\n")
    assert run(teams.ours)[1].startswith("nothing is missing here, nor in")
    other = new_store(str(tmp_path / "other"), seed=7)
    other.profiles.build("math", source="gsm8k", method="mean")
    code, out = run(other, "--profile", "math", "--json")
    assert code == 5
    assert [problem["reference"] for problem in json.loads(out)["problems"]] == ["math@1"]
