"""Names for registries: kept in the store, without secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import nait_store
from nait_store.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from tests.sharing.conftest import Teams


def test_name_stands_for_its_url(teams: Teams) -> None:
    teams.ours.remotes.add("team", teams.registry)
    teams.ours.remotes.push("math@1", "team")
    teams.theirs.remotes.add("team", teams.registry)
    assert teams.theirs.remotes.pull("math", "team").created


def test_only_remote_needs_no_name(teams: Teams) -> None:
    teams.ours.remotes.add("team", teams.registry)
    assert teams.ours.remotes.push("math@1").url == teams.registry


def test_which_of_two_must_be_said(teams: Teams) -> None:
    teams.ours.remotes.add("team", teams.registry)
    teams.ours.remotes.add("archive", f"{teams.registry}-old")
    with pytest.raises(InvalidInputError, match="which registry") as caught:
        teams.ours.remotes.push("math@1")
    assert "archive, team" in str(caught.value.next_step)


def test_none_at_all_says_how_to_name_one(teams: Teams) -> None:
    with pytest.raises(InvalidInputError, match="knows none") as caught:
        teams.ours.remotes.pull("math@1")
    assert "remote add NAME URL" in str(caught.value.next_step)


def test_unknown_name_suggests_near_ones(teams: Teams) -> None:
    teams.ours.remotes.add("team", teams.registry)
    with pytest.raises(NotFoundError, match="no remote 'taem'") as caught:
        teams.ours.remotes.push("math@1", "taem")
    assert "did you mean 'team'" in str(caught.value.next_step)
    assert "./taem" in str(caught.value.next_step)


def test_relative_folder_is_kept_as_an_absolute_one(teams: Teams, tmp_path: Path) -> None:
    os.chdir(tmp_path)
    assert teams.ours.remotes.add("team", "./registry").url == str(tmp_path / "registry")


def test_adding_again_changes_nothing(teams: Teams) -> None:
    first = teams.ours.remotes.add("team", teams.registry)
    assert teams.ours.remotes.add("team", teams.registry) == first
    with pytest.raises(AlreadyExistsError, match="there is a remote 'team' already"):
        teams.ours.remotes.add("team", f"{teams.registry}-other")


def test_removed_name_can_be_given_again(teams: Teams) -> None:
    teams.ours.remotes.add("team", teams.registry)
    assert teams.ours.remotes.remove("team").url == teams.registry
    assert teams.ours.remotes.list() == []
    with pytest.raises(NotFoundError):
        teams.ours.remotes.remove("team")
    assert teams.ours.remotes.add("team", f"{teams.registry}-other").name == "team"


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/registry", "sftp://me:secret@host/registry"])
def test_credentials_are_never_kept(teams: Teams, url: str) -> None:
    with pytest.raises(InvalidInputError, match="has credentials in its URL"):
        teams.ours.remotes.add("team", url)
    assert not any(b"secret" in teams.ours.location.read_bytes(path) for path, _ in teams.ours.location.walk())


@pytest.mark.parametrize("name", ["", "Team", "../up", "a b", "team@1"])
def test_names_are_checked(teams: Teams, name: str) -> None:
    with pytest.raises(InvalidInputError, match="not a valid remote name"):
        teams.ours.remotes.add(name, teams.registry)


def test_damaged_or_misplaced_remote_is_found_by_verification(teams: Teams) -> None:
    teams.ours.remotes.add("team", teams.registry)
    assert teams.ours.verify().findings == ()
    location = teams.ours.location
    location.write_bytes("remotes/other.json", location.read_bytes("remotes/team.json"))
    location.write_bytes("remotes/team.json", location.read_bytes("remotes/team.json")[:-3])
    assert [finding.path for finding in teams.ours.verify().errors] == ["remotes/other.json", "remotes/team.json"]


def test_commands_say_what_they_did(teams: Teams, capsys: pytest.CaptureFixture[str]) -> None:
    from nait_store.cli.main import main

    def run(store: nait_store.Store, *arguments: str) -> str:
        assert main(("--store", store.url, *arguments)) == 0
        return capsys.readouterr().out

    assert run(teams.ours, "remote", "list").startswith("no registry has a name")
    assert f"team is {teams.registry}" in run(teams.ours, "remote", "add", "team", teams.registry)
    assert "math@2 published in" in run(teams.ours, "push", "math", "team")
    assert "nothing was sent" in run(teams.ours, "push", "math", "team")
    assert json.loads(run(teams.ours, "push", "math@1", "--as", "sums", "--json"))["published"] == "sums@1"
    assert "math@2" in run(teams.theirs, "remote", "show", teams.registry)
    shown = run(teams.theirs, "pull", "math", teams.registry)
    assert f"math@2 pulled from {teams.registry}: 6 files fetched" in shown
    assert "with it came: hashes of its in-domain samples" in shown
    assert "nothing was fetched" in run(teams.theirs, "pull", "math", teams.registry)
    assert json.loads(run(teams.theirs, "pull", "sums", teams.registry, "--json"))["reference"] == "sums@1"
    assert f"from math@2 of {teams.registry}, published by" in run(teams.theirs, "profile", "show", "math")
    assert "is no longer a name" in run(teams.ours, "remote", "remove", "team")
