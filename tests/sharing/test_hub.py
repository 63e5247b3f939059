"""A registry on the Hugging Face hub: every push is one commit upon what was read, with a page for browsers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.errors import (
    ConflictError,
    CorruptChunkError,
    InvalidInputError,
    MissingExtraError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
    UntrustedError,
)
from nait_store.registry.sharing import hub_registry
from nait_store.storage.location import Location
from nait_store.testing.fake_hub import FakeHub, FakeRepository
from tests.sharing.conftest import Teams, new_store

URL = "hf://datasets/team/profiles"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().installed() as hub:
        yield hub


@pytest.fixture
def repository(hub: FakeHub) -> FakeRepository:
    return hub.create("team/profiles")


@pytest.fixture
def other(tmp_path: Path) -> nait_store.Store:
    """A third team, which has another math@1."""
    store = new_store(str(tmp_path / "other"), seed=7)
    store.profiles.build("math", source="gsm8k", method="mean", quality_card=False)
    return store


def once(action: Callable[[], Any]) -> Callable[[], None]:
    """Do it at the first call only."""
    left = [action]

    def act() -> None:
        if left:
            left.pop()()

    return act


def page(repository: FakeRepository) -> str:
    return repository.head.files["README.md"].decode()


def test_push_is_one_commit_upon_the_last(teams: Teams, hub: FakeHub, repository: FakeRepository) -> None:
    before = repository.head
    pushed = teams.ours.remotes.push("math@1", URL)
    assert (pushed.published, pushed.created, pushed.moved.n_bytes) == ("math@1", True, pushed.size_bytes)
    assert [commit.parent for commit in repository.commits[1:]] == [before.sha]
    assert repository.head.message == "Publish math@1"
    (call,) = hub.called("create_commit")
    assert (call.arguments["parent_commit"], call.arguments["repo_type"]) == (before.sha, "dataset")
    kinds = {path.split("/")[0] for path in repository.head.files}
    assert kinds == {".gitattributes", "README.md", "registry.json", "objects", "profiles"}


@pytest.mark.usefixtures("repository")
def test_what_arrives_is_what_was_sent(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", URL)
    pulled = teams.theirs.remotes.pull("math", URL)
    assert (pulled.profile.reference, pulled.url) == ("math@2", URL)
    np.testing.assert_array_equal(
        teams.ours.profiles.open("math@2").directions(), teams.theirs.profiles.open("math@2").directions()
    )
    assert teams.theirs.verify().findings == ()


def test_second_push_moves_nothing(teams: Teams, hub: FakeHub, repository: FakeRepository) -> None:
    teams.ours.remotes.push("math@1", URL)
    n_commits = len(repository.commits)
    again = teams.ours.remotes.push("math@1", URL)
    assert (again.created, again.moved.n_bytes) == (False, 0)
    assert (len(repository.commits), len(hub.called("create_commit"))) == (n_commits, 1)


@pytest.mark.usefixtures("repository")
def test_files_that_are_there_are_not_sent_again(teams: Teams) -> None:
    teams.ours.remotes.push("math@1", URL)
    assert teams.ours.remotes.push("math@1", URL, as_name="arithmetic").moved.n_files == 0


def test_push_in_a_folder_of_a_repository(teams: Teams, repository: FakeRepository) -> None:
    teams.ours.remotes.push("math@1", f"{URL}/shared/maths")
    assert "shared/maths/profiles/math/versions/1.json" in repository.head.files
    assert teams.theirs.remotes.pull("math", f"{URL}/shared/maths").created


def test_lost_race_with_another_profile_is_tried_again_upon_its_commit(
    teams: Teams, hub: FakeHub, repository: FakeRepository, other: nait_store.Store
) -> None:
    hub.before_commit = once(lambda: other.remotes.push("math@1", URL, as_name="theirs"))
    assert teams.ours.remotes.push("math@1", URL).created
    assert [commit.message for commit in repository.commits[1:]] == ["Publish theirs@1", "Publish math@1"]
    assert [each.reference for each in teams.theirs.remotes.show(URL)] == ["math@1", "theirs@1"]
    assert "## math@1" in page(repository)
    assert "## theirs@1" in page(repository)


def test_lost_race_for_the_same_number_conflicts_and_changes_nothing(
    teams: Teams, hub: FakeHub, repository: FakeRepository, other: nait_store.Store
) -> None:
    hub.before_commit = once(lambda: other.remotes.push("math@1", URL))
    with pytest.raises(ConflictError, match=r"math@1 in hf://.* is another profile than math@1 here"):
        teams.ours.remotes.push("math@1", URL)
    assert [commit.message for commit in repository.commits[1:]] == ["Publish math@1"]
    assert teams.ours.remotes.push("math@1", URL, as_name="math").published == "math@2"


def test_lost_race_with_oneself_is_no_conflict(teams: Teams, hub: FakeHub, repository: FakeRepository) -> None:
    hub.before_commit = once(lambda: teams.ours.remotes.push("math@1", URL))
    assert not teams.ours.remotes.push("math@1", URL).created
    assert len(repository.commits) == 2


def test_number_lost_in_a_race_is_followed_by_the_next(
    teams: Teams, hub: FakeHub, repository: FakeRepository, other: nait_store.Store
) -> None:
    hub.before_commit = once(lambda: other.remotes.push("math@1", URL, as_name="sums"))
    assert teams.ours.remotes.push("math@1", URL, as_name="sums").published == "sums@2"
    assert len(repository.commits) == 3


def test_race_that_never_ends_is_a_conflict(teams: Teams, hub: FakeHub, repository: FakeRepository) -> None:
    def commit() -> None:
        repository.commit({"LICENSE": b""})

    hub.before_commit = commit
    with pytest.raises(ConflictError, match="others commit to hf://datasets/team/profiles all the time"):
        teams.ours.remotes.push("math@1", URL)
    assert "registry.json" not in repository.head.files


@pytest.mark.usefixtures("repository")
def test_profile_that_is_there_conflicts(teams: Teams, other: nait_store.Store, hub: FakeHub) -> None:
    teams.ours.remotes.push("math@1", URL)
    n_commits = len(hub.called("create_commit"))
    with pytest.raises(ConflictError, match="is another profile than math@1 here"):
        other.remotes.push("math@1", URL)
    assert len(hub.called("create_commit")) == n_commits


def test_death_between_upload_and_commit_leaves_nothing_visible(
    teams: Teams, hub: FakeHub, repository: FakeRepository
) -> None:
    class Killed(BaseException):
        """Nothing catches it, as nothing catches a signal."""

    def die() -> None:
        raise Killed

    before = repository.head
    hub.before_commit = die
    with pytest.raises(Killed):
        teams.ours.remotes.push("math@1", URL)
    assert repository.head is before
    hub.before_commit = lambda: None
    assert teams.ours.remotes.push("math@1", URL).created


def test_answer_that_is_lost_after_the_commit_is_found_by_the_next_push(
    teams: Teams, hub: FakeHub, repository: FakeRepository
) -> None:
    def fail() -> None:
        raise _no_answer()

    hub.after_commit = fail
    with pytest.raises(StorageError, match="connection reset"):
        teams.ours.remotes.push("math@1", URL)
    again = teams.ours.remotes.push("math@1", URL)
    assert (again.created, len(repository.commits)) == (False, 2)


def test_page_that_the_hub_does_not_take_is_named(teams: Teams, hub: FakeHub, repository: FakeRepository) -> None:
    def refuse() -> None:
        raise ValueError("Invalid metadata in README.md.\n- Error: license is none")

    hub.before_commit = refuse
    with pytest.raises(InvalidInputError, match="license is none"):
        teams.ours.remotes.push("math@1", URL)
    assert len(repository.commits) == 1


def _no_answer() -> Exception:
    from huggingface_hub.errors import HTTPError

    return HTTPError("connection reset")


def test_push_anew_mends_a_lost_object(teams: Teams, repository: FakeRepository) -> None:
    teams.ours.remotes.push("math@1", URL)
    files = dict(repository.head.files)
    damaged = next(path for path in files if path.startswith("objects/"))
    repository.commit({damaged: b"x" * len(files[damaged])})
    with pytest.raises(CorruptChunkError):
        teams.theirs.remotes.pull("math@1", URL)
    teams.ours.remotes.push("math@1", URL, anew=True)
    assert teams.theirs.remotes.pull("math@1", URL).created


@pytest.mark.usefixtures("repository")
def test_sync_pushes_and_pulls(teams: Teams, other: nait_store.Store) -> None:
    teams.ours.remotes.push("math@1", URL)
    other.remotes.push("math@1", URL, as_name="theirs")
    report = teams.ours.remotes.sync(URL)
    assert (report.pushed, report.pulled, report.problems) == (("math@2",), ("theirs@1",), ())


def test_revision_is_read_and_not_pushed_to(teams: Teams, repository: FakeRepository) -> None:
    teams.ours.remotes.push("math@1", URL)
    repository.tags["v1"] = repository.head.sha
    teams.ours.remotes.push("math@2", URL)
    assert teams.theirs.remotes.pull("math", f"{URL}@v1").profile.reference == "math@1"
    with pytest.raises(ReadOnlyError, match="names a revision") as failed:
        teams.ours.remotes.push("math@2", f"{URL}@v1")
    assert failed.value.next_step == f"push to {URL}"


def test_revision_in_the_url_is_no_way_around_required_signatures(teams: Teams, repository: FakeRepository) -> None:
    teams.ours.remotes.push("math@1", URL)
    repository.tags["v1"] = repository.head.sha
    teams.theirs.remotes.add("team", URL, require_signed=True)
    with pytest.raises(UntrustedError):
        teams.theirs.remotes.pull("math@1", f"{URL}@v1")


def test_what_is_read_is_of_one_commit(teams: Teams, repository: FakeRepository) -> None:
    teams.ours.remotes.push("math@1", URL)
    location = Location(URL)
    assert location.names("profiles/math/versions") == ["1.json"]
    teams.ours.remotes.push("math@2", URL)
    assert location.names("profiles/math/versions") == ["1.json"]
    assert Location(URL).names("profiles/math/versions") == ["1.json", "2.json"]
    assert repository.head.parent == repository.commits[-2].sha


def test_missing_repository_says_how_to_make_one(teams: Teams, hub: FakeHub) -> None:
    for act in (teams.ours.remotes.push, teams.theirs.remotes.pull):
        with pytest.raises(
            NotFoundError, match="there is no dataset team/profiles on the hub, or it is private"
        ) as failed:
            act("math@1", URL)
        assert "hf repos create team/profiles --type dataset" in failed.value.next_step
        assert "hf auth login" in failed.value.next_step
    assert hub.called("create_commit") == []


def test_push_without_a_token_says_how_to_log_in(teams: Teams, hub: FakeHub, repository: FakeRepository) -> None:
    hub.token = None
    with pytest.raises(ReadOnlyError, match="needs a token") as failed:
        teams.ours.remotes.push("math@1", URL)
    assert "hf auth login" in failed.value.next_step
    assert len(repository.commits) == 1


def test_pull_needs_no_token(teams: Teams, hub: FakeHub, repository: FakeRepository) -> None:
    teams.ours.remotes.push("math@1", URL)
    hub.token = None
    assert teams.theirs.remotes.pull("math@1", URL).created
    assert "math@1" in page(repository)


def test_token_that_may_not_write_is_refused(teams: Teams, repository: FakeRepository) -> None:
    repository.writable = False
    with pytest.raises(ReadOnlyError, match="may not write") as failed:
        teams.ours.remotes.push("math@1", URL)
    assert "ask the owner of team/profiles for write access" in failed.value.next_step


def test_gated_repository_says_where_to_ask(teams: Teams, repository: FakeRepository) -> None:
    repository.gated = True
    with pytest.raises(ReadOnlyError, match="is gated") as failed:
        teams.theirs.remotes.pull("math@1", URL)
    assert "https://huggingface.co/datasets/team/profiles" in failed.value.next_step


@pytest.mark.usefixtures("repository")
def test_missing_revision_is_named(teams: Teams) -> None:
    with pytest.raises(NotFoundError, match="no revision 'v9'"):
        teams.theirs.remotes.pull("math@1", f"{URL}@v9")


@pytest.mark.usefixtures("repository")
def test_repository_without_a_registry_is_named(teams: Teams) -> None:
    with pytest.raises(NotFoundError, match="there is no shared registry at hf://datasets/team/profiles"):
        teams.theirs.remotes.pull("math@1", URL)


def test_repository_with_other_files_is_not_pushed_to(teams: Teams, repository: FakeRepository) -> None:
    repository.commit({"train.parquet": b"PAR1"})
    with pytest.raises(InvalidInputError, match="other files in it"):
        teams.ours.remotes.push("math@1", URL)
    assert "train.parquet" in repository.head.files
    assert "registry.json" not in repository.head.files


def test_missing_package_names_the_extra(teams: Teams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="huggingface_hub") as failed:
        teams.ours.remotes.push("math@1", URL)
    assert failed.value.next_step == "pip install 'nait-store[hub]'"


@pytest.mark.parametrize(
    "url",
    ["hf://datasets/profiles", "hf://datasets/team/profiles/../other", "hf://", "hf://datasets/te am/x", f"{URL}//a"],
)
def test_url_that_names_no_repository_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="names no repository"):
        Location(url)


@pytest.mark.usefixtures("repository")
def test_no_single_file_is_written_to_the_hub() -> None:
    with pytest.raises(ReadOnlyError, match="where no store can be written"):
        Location(URL).create_bytes("store.json", b"")


def test_page_has_front_matter_and_the_quality_card(teams: Teams, repository: FakeRepository) -> None:
    teams.ours.profiles.build("sums", source="gsm8k", method="mean", message="for the report")
    teams.ours.remotes.push("sums@1", URL)
    text = page(repository)
    front = text.split("---\n")[1]
    assert "license: unknown\n" in front
    assert "- nait-store\n" in front
    assert f"nait-store pull sums@1 {URL}" in text
    assert "- **message**: for the report" in text
    card = teams.ours.profiles.card("sums@1").markdown()
    stability = next(line for line in card.splitlines() if line.startswith("- **stability**"))
    assert stability in text


def test_page_lists_every_profile_with_its_latest_version(teams: Teams, repository: FakeRepository) -> None:
    teams.ours.remotes.push("math@1", URL, as_name="arithmetic")
    teams.ours.remotes.push("math@2", URL)
    teams.ours.remotes.push("math@1", URL)
    rows = [line.split("|")[1:3] for line in page(repository).splitlines() if line.startswith("| ")][2:]
    assert [[cell.strip() for cell in row] for row in rows] == [["arithmetic@1", "1"], ["math@2", "2"]]


def test_only_the_last_published_have_their_cards_on_the_page(
    teams: Teams, repository: FakeRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_registry, "MOST_CARDS", 1)
    teams.ours.remotes.push("math@1", URL, as_name="first")
    teams.ours.remotes.push("math@1", URL, as_name="second")
    assert "## second@1" in page(repository)
    assert "## first@1" not in page(repository)
    assert "| first@1" in page(repository)


def test_what_people_wrote_on_the_page_stays(teams: Teams, repository: FakeRepository) -> None:
    teams.ours.remotes.push("math@1", URL)
    written = page(repository).replace("license: unknown", "license: apache-2.0") + "\nAsk Ann.\r\n"
    repository.commit({"README.md": written.encode()})
    teams.ours.remotes.push("math@2", URL)
    text = page(repository)
    assert "license: apache-2.0" in text
    assert text.endswith("\nAsk Ann.\n")
    assert text.count("nait-store: end") == 1
    assert "## math@2" in text


def test_page_of_somebody_else_is_added_to(teams: Teams, repository: FakeRepository) -> None:
    repository.commit({"README.md": b"# Ours\n\nHand-written \xff.\n"})
    teams.ours.remotes.push("math@1", URL)
    data = repository.head.files["README.md"]
    assert data.startswith(b"---\nlicense: unknown\n")
    assert b"# Ours\n\nHand-written \xff.\n" in data
    assert b"## math@1" in data


HOSTILE = "<!-- nait-store: end -->\n---\n# <script>alert(1)</script> | [x](javascript:y) `z` ![i](http://e/p.png)"


def test_hostile_texts_act_on_nothing(
    teams: Teams, repository: FakeRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAIT_STORE_AUTHOR", "eve|`<b>")
    teams.ours.profiles.build("evil", source="gsm8k", method="mean", message=HOSTILE, quality_card=False)
    teams.ours.remotes.push("evil@1", URL)
    teams.ours.remotes.push("math@1", URL)
    text = page(repository)
    lines = text.splitlines()
    assert lines.count("<!-- nait-store: end -->") == 1
    assert lines[-1] == "<!-- nait-store: end -->"
    assert lines.count("---") == 2
    assert "<script" not in text.replace("\\<script", "")
    assert "](javascript" not in text.replace("\\](javascript", "")
    columns = {line.replace("\\|", "").count("|") for line in lines if line.startswith("| ")}
    assert columns == {7}


def test_damaged_publication_of_others_keeps_nobody_from_pushing(teams: Teams, repository: FakeRepository) -> None:
    teams.ours.remotes.push("math@1", URL)
    repository.commit({"profiles/broken/versions/1.json": b"{}"})
    assert teams.ours.remotes.push("math@2", URL).created
    assert "broken" not in page(repository)


def test_fake_refuses_what_the_installed_client_would_refuse(hub: FakeHub, repository: FakeRepository) -> None:
    from huggingface_hub import HfApi

    with pytest.raises(TypeError, match="unknown_option"):
        HfApi().create_commit("team/profiles", [], commit_message="x", repo_type="dataset", unknown_option=1)
    assert (hub.calls, len(repository.commits)) == ([], 1)
