"""Profiles go from store to store through a registry, keep name and number, and conflict loudly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.errors import (
    ConflictError,
    CorruptChunkError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    UnsupportedVersionError,
)
from nait_store.registry.sharing.shared_registry import SharedRegistry
from nait_store.schemas.record import document_bytes
from nait_store.schemas.sharing import ReferencePolicy
from nait_store.storage.location import Location
from nait_store.testing.faults import write_steps
from nait_store.testing.stores import build_set
from tests.sharing.conftest import Teams, new_store

Digests = Callable[[Any], dict[str, str]]


def chunk_object(teams: Teams, reference: str = "math@2") -> str:
    """Where the registry keeps the directions of a version."""
    files = teams.ours.profiles.open(reference).record.files
    sha256 = next(file.sha256 for file in files if file.path == "directions.zarr/directions/c/0/0")
    return f"objects/{sha256[:2]}/{sha256}"


def test_what_arrives_is_what_was_sent(anywhere: Teams) -> None:
    pushed = anywhere.ours.remotes.push("math@2", anywhere.registry)
    assert (pushed.published, pushed.created) == ("math@2", True)
    pulled = anywhere.theirs.remotes.pull("math@2", anywhere.registry)
    assert (pulled.profile.reference, pulled.created) == ("math@2", True)
    assert pulled.moved.n_bytes == pushed.moved.n_bytes == pushed.size_bytes
    mine, theirs = anywhere.ours.profiles.open("math@2"), anywhere.theirs.profiles.open("math@2")
    np.testing.assert_array_equal(mine.directions(), theirs.directions())
    assert mine.record == theirs.record
    assert anywhere.theirs.verify().findings == anywhere.ours.verify().findings == ()


def test_a_combination_travels_with_its_parts_named(teams: Teams) -> None:
    teams.ours.profiles.combine("mixed", {"math@1": 1.0, "math@2": 0.5})
    pushed = teams.ours.remotes.push("mixed", teams.registry)
    assert pushed.policy is ReferencePolicy.NONE
    assert "was made from 1 × math@1 + 0.5 × math@2" in pushed.notes[0]
    pulled = teams.theirs.remotes.pull("mixed", teams.registry)
    assert pulled.profile.record == teams.ours.profiles.open("mixed").record
    again = nait_store.open(teams.theirs.url)
    assert again.record.reader_features == ("sourceless",)
    assert again.verify().findings == ()
    (summary,) = again.profiles.list()
    assert summary.made_from == "1 × math@1 + 0.5 × math@2"
    assert json.loads(teams.files.read_bytes("profiles/mixed/versions/1.json"))["reader_features"] == ["sourceless"]


def test_what_needs_no_feature_announces_none(teams: Teams) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    teams.theirs.remotes.pull("math@1", teams.registry)
    assert nait_store.open(teams.theirs.url).record.reader_features == ()


def test_bare_name_is_the_latest_on_either_side(teams: Teams) -> None:
    assert teams.ours.remotes.push("math", teams.registry).published == "math@2"
    teams.ours.remotes.push("math@1", teams.registry)
    assert teams.theirs.remotes.pull("math", teams.registry).profile.reference == "math@2"


def test_message_and_origin_are_recorded(teams: Teams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAIT_STORE_AUTHOR", "ann")
    teams.ours.remotes.push("math@1", teams.registry)
    monkeypatch.setenv("NAIT_STORE_AUTHOR", "bob")
    manifest = teams.theirs.remotes.pull("math@1", teams.registry).profile.manifest
    assert manifest.message == "the first"
    assert manifest.provenance.author == "bob"
    assert manifest.origin is not None
    assert manifest.origin.in_words == f"math@1 of {teams.registry}, published by ann"


def test_second_push_writes_nothing_to_the_registry(anywhere: Teams) -> None:
    anywhere.ours.remotes.push("math@2", anywhere.registry)
    with write_steps(anywhere.registry) as steps:
        again = anywhere.ours.remotes.push("math@2", anywhere.registry)
    assert (again.created, again.moved.n_bytes, list(steps)) == (False, 0, [])


def test_second_pull_changes_nothing(teams: Teams, digests: Digests) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    teams.theirs.remotes.pull("math@2", teams.registry)
    before = digests(teams.theirs)
    again = teams.theirs.remotes.pull("math@2", teams.registry)
    assert (again.created, again.moved.n_bytes) == (False, 0)
    assert digests(teams.theirs) == before


def test_files_that_two_versions_share_are_sent_once(teams: Teams) -> None:
    first = teams.ours.remotes.push("math@1", teams.registry)
    second = teams.ours.remotes.push("math@1", teams.registry, as_name="arithmetic")
    assert second.moved.n_files == 0
    assert first.size_bytes == second.size_bytes


def test_push_of_another_profile_under_a_taken_number_conflicts(
    teams: Teams, tmp_path: Path, digests: Digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAIT_STORE_AUTHOR", "ann")
    teams.ours.remotes.push("math@1", teams.registry)
    other = new_store(str(tmp_path / "other"), seed=7)
    other.profiles.build("math", source="gsm8k", method="mean")
    before = digests(teams.registry)
    with pytest.raises(ConflictError, match=r"math@1 in .* is another profile than math@1 here: published by ann"):
        other.remotes.push("math@1", teams.registry)
    assert digests(teams.registry) == before
    assert other.remotes.push("math@1", teams.registry, as_name="math").published == "math@2"


def test_conflict_says_where_only_the_record_differs(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    twin = new_store(str(tmp_path / "twin"))
    twin.profiles.build("math", source="gsm8k", method="mean")
    with pytest.raises(ConflictError, match="its directions are the same"):
        twin.remotes.push("math@1", teams.registry)


def test_pull_onto_another_profile_of_this_number_conflicts(teams: Teams, tmp_path: Path, digests: Digests) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    other = new_store(str(tmp_path / "other"), seed=7)
    other.profiles.build("math", source="gsm8k", method="mean")
    before = digests(other)
    with pytest.raises(ConflictError, match=r"is another profile than math@1 here"):
        other.remotes.pull("math@1", teams.registry)
    assert digests(other) == before
    assert other.remotes.pull("math@1", teams.registry, as_name="math").profile.reference == "math@2"


def test_push_as_takes_the_next_number_once(teams: Teams) -> None:
    remotes = teams.ours.remotes
    assert remotes.push("math@2", teams.registry, as_name="arithmetic").published == "arithmetic@1"
    assert remotes.push("math@1", teams.registry, as_name="arithmetic").published == "arithmetic@2"
    again = remotes.push("math@2", teams.registry, as_name="arithmetic")
    assert (again.published, again.created) == ("arithmetic@1", False)


def test_pull_as_takes_the_next_number_once(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    remotes = teams.theirs.remotes
    first = remotes.pull("math@2", teams.registry, as_name="sums")
    assert (first.profile.reference, first.profile.record.name) == ("sums@1", "math")
    assert teams.theirs.profiles.open("sums").reference == "sums@1"
    again = remotes.pull("math@2", teams.registry, as_name="sums")
    assert (again.profile.reference, again.created) == ("sums@1", False)
    assert teams.theirs.verify().findings == ()


def test_pulled_version_can_be_pushed_on(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    teams.theirs.remotes.pull("math@2", teams.registry, as_name="sums")
    elsewhere = str(tmp_path / "elsewhere")
    assert teams.theirs.remotes.push("sums", elsewhere).published == "sums@1"
    third = nait_store.open(str(tmp_path / "third"), create=True)
    pulled = third.remotes.pull("sums", elsewhere)
    np.testing.assert_array_equal(pulled.profile.directions(), teams.ours.profiles.open("math@2").directions())


def test_numbers_that_were_not_pulled_are_no_damage(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    teams.theirs.remotes.pull("math@2", teams.registry)
    assert teams.theirs.verify().findings == ()
    teams.ours.remotes.push("math@1", teams.registry)
    teams.theirs.remotes.pull("math@1", teams.registry)
    assert teams.theirs.verify().findings == ()
    assert teams.theirs.profiles.registry.numbers("math") == [1, 2]


def test_version_that_was_here_and_is_lost_is_still_damage(teams: Teams, tmp_path: Path) -> None:
    other = new_store(str(tmp_path / "other"), seed=7)
    other.profiles.build("math", source="gsm8k", method="mean")
    teams.ours.remotes.push("math@2", teams.registry)
    other.remotes.pull("math@2", teams.registry)
    other.location.delete("profiles/math/versions/1.json")
    assert "version 1 is missing" in other.verify().errors[0].problem


def test_next_build_follows_a_pulled_version(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    other = new_store(str(tmp_path / "other"), seed=7)
    other.remotes.pull("math@2", teams.registry)
    profile, created = other.profiles.build("math", source="gsm8k", method="mean")
    assert (profile.reference, created) == ("math@3", True)


def test_pulled_version_never_stands_for_a_build(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    same_inputs = new_store(str(tmp_path / "same"))
    same_inputs.remotes.pull("math@2", teams.registry)
    profile, created = same_inputs.profiles.build("math", source="gsm8k", method="mean", limit=16)
    assert (profile.reference, created) == ("math@3", True)


def test_pulled_profile_does_not_hold_a_set_that_only_has_the_name_of_its_source(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    other = new_store(str(tmp_path / "other"), seed=7)
    other.remotes.pull("math@2", teams.registry)
    assert other.sets.delete("gsm8k").deleted == ("gsm8k@1",)


def test_quality_card_travels(teams: Teams) -> None:
    built, _ = teams.ours.profiles.build("carded", source="gsm8k", method="mean")
    assert "card.json" in [file.path for file in built.record.files]
    teams.ours.remotes.push("carded", teams.registry)
    pulled = teams.theirs.remotes.pull("carded", teams.registry).profile
    assert pulled.record == built.record
    card = teams.theirs.profiles.card("carded", measure=False)
    assert card.quality == teams.ours.profiles.card("carded", measure=False).quality
    assert teams.theirs.verify().findings == ()


def test_set_of_the_same_name_explains_a_pulled_profile_only_if_it_holds_the_same_samples(
    teams: Teams, tmp_path: Path
) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    teams.ours.remotes.push("math@2", teams.registry, as_name="bare", reference_samples="none")
    same = new_store(str(tmp_path / "same"), seed=7)
    for name in ("math", "bare"):
        same.remotes.pull(name, teams.registry)
    same.profiles.build("mine", source="gsm8k", method="mean", limit=16)
    assert same.profiles.diff("math", "mine").n_kept == 16
    assert "nothing came with it that tells" in same.profiles.diff("bare", "mine").unknown


def test_set_with_the_same_ids_and_other_texts_does_not_explain_a_pulled_profile(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    other = nait_store.open(str(tmp_path / "other"), create=True)
    texts = {"note": [f"other {i}" for i in range(20)]}
    build_set(other.location, "gsm8k", 20, 2, 6, mean=np.ones(6, np.float32), user_fields=texts)
    other.remotes.pull("math", teams.registry)
    other.profiles.build("mine", source="gsm8k", method="mean")
    assert "holds other samples" in other.profiles.diff("math", "mine").unknown


def test_version_deleted_here_is_not_pulled_again(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    teams.theirs.remotes.pull("math@2", teams.registry)
    teams.theirs.profiles.delete("math@2")
    with pytest.raises(ConflictError, match="was deleted") as caught:
        teams.theirs.remotes.pull("math@2", teams.registry)
    assert "profile undelete math@2" in str(caught.value.next_step)


def test_version_collected_here_comes_only_under_another_number(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    teams.theirs.remotes.pull("math@2", teams.registry)
    teams.theirs.profiles.delete("math@2")
    teams.theirs.profiles.registry.log.collect("math", 2)
    with pytest.raises(ConflictError, match="collected by gc"):
        teams.theirs.remotes.pull("math@2", teams.registry)
    assert teams.theirs.remotes.pull("math@2", teams.registry, as_name="math").profile.reference == "math@3"


def test_damaged_profile_is_not_published(teams: Teams, digests: Digests) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    before = digests(teams.registry)
    profile = teams.ours.profiles.open("math@2")
    path = f"{profile.folder}/directions.zarr/directions/c/0/0"
    teams.ours.location.write_bytes(path, teams.ours.location.read_bytes(path)[::-1])
    with pytest.raises(CorruptChunkError, match="nothing was pushed"):
        teams.ours.remotes.push("math@2", teams.registry)
    assert digests(teams.registry) == before


def test_file_that_the_registry_lost_is_named_and_sent_again(teams: Teams, digests: Digests) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    whole = digests(teams.registry)
    teams.files.delete(chunk_object(teams))
    before = digests(teams.theirs)
    with pytest.raises(CorruptChunkError, match="is missing") as caught:
        teams.theirs.remotes.pull("math@2", teams.registry)
    assert "--anew" in str(caught.value.next_step)
    assert digests(teams.theirs) == before
    teams.ours.remotes.push("math@2", teams.registry, anew=True)
    assert digests(teams.registry) == whole


@pytest.mark.parametrize("damage", [lambda data: data[:-4] + b"\0\0\0\1", lambda data: data[:-4], lambda data: b""])
def test_damaged_file_is_refused_and_nothing_of_it_stays(
    teams: Teams, digests: Digests, damage: Callable[[bytes], bytes]
) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    path = chunk_object(teams)
    teams.files.write_bytes(path, damage(teams.files.read_bytes(path)))
    before = digests(teams.theirs)
    with pytest.raises(CorruptChunkError):
        teams.theirs.remotes.pull("math@2", teams.registry)
    assert digests(teams.theirs) == before
    assert teams.theirs.profiles.names() == []


def test_empty_place_is_no_registry_to_pull_from(teams: Teams) -> None:
    with pytest.raises(NotFoundError, match="no shared registry"):
        teams.theirs.remotes.pull("math", teams.registry)


def test_unknown_profile_and_version_name_what_there_is(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    with pytest.raises(NotFoundError) as unknown:
        teams.theirs.remotes.pull("maths", teams.registry)
    assert "did you mean 'math'" in str(unknown.value)
    with pytest.raises(NotFoundError, match="no version 7") as missing:
        teams.theirs.remotes.pull("math@7", teams.registry)
    assert "math@2" in str(missing.value.next_step)


def test_aliases_are_resolved_here_and_do_not_travel(teams: Teams) -> None:
    teams.ours.profiles.alias("math@1", "prod")
    assert teams.ours.remotes.push("math@prod", teams.registry).published == "math@1"
    with pytest.raises(InvalidInputError, match="do not travel"):
        teams.theirs.remotes.pull("math@prod", teams.registry)


def test_store_is_no_registry(teams: Teams) -> None:
    with pytest.raises(InvalidInputError, match="is a store"):
        teams.ours.remotes.push("math", teams.theirs.url)
    with pytest.raises(InvalidInputError, match="is a store"):
        teams.theirs.remotes.pull("math", teams.ours.url)
    with pytest.raises(InvalidInputError, match="this store itself"):
        teams.ours.remotes.push("math", teams.ours.url)


def test_folder_with_other_files_is_left_alone(teams: Teams) -> None:
    teams.files.write_bytes("thesis.tex", b"mine")
    with pytest.raises(InvalidInputError, match="other files in it"):
        teams.ours.remotes.push("math", teams.registry)
    assert teams.files.names() == ["thesis.tex"]


@pytest.mark.parametrize(
    "change", [{"format_version": 2}, {"reader_features": ["later"]}, {"writer_features": ["later"]}]
)
def test_registry_of_a_newer_release_is_not_written(teams: Teams, change: dict[str, Any]) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    record = json.loads(teams.files.read_bytes("registry.json")) | change
    teams.files.write_bytes("registry.json", document_bytes(record))
    with pytest.raises(UnsupportedVersionError, match="newer release"):
        teams.ours.remotes.push("math@2", teams.registry)


def test_registry_with_writer_features_can_be_read(teams: Teams) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    record = json.loads(teams.files.read_bytes("registry.json")) | {"writer_features": ["later"]}
    teams.files.write_bytes("registry.json", document_bytes(record))
    assert teams.theirs.remotes.pull("math@1", teams.registry).created


def test_version_with_unknown_features_is_refused(teams: Teams) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    path = "profiles/math/versions/1.json"
    publication = json.loads(teams.files.read_bytes(path)) | {"reader_features": ["subspace-of-tomorrow"]}
    teams.files.write_bytes(path, document_bytes(publication))
    with pytest.raises(FormatError, match="subspace-of-tomorrow"):
        teams.theirs.remotes.pull("math@1", teams.registry)


def test_store_that_can_only_be_read_can_be_pushed_from(teams: Teams) -> None:
    teams.ours.location = teams.ours.location.read_only("it is an archive", "copy it")
    assert teams.ours.remotes.push("math@1", teams.registry).created


def test_registry_that_can_only_be_read_says_so(teams: Teams, tmp_path: Path) -> None:
    with pytest.raises(ReadOnlyError, match="can be read but not written"):
        teams.ours.remotes.push("math@1", f"simplecache::file://{tmp_path}/nowhere")


def test_listing_says_what_is_here(teams: Teams) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    teams.ours.remotes.push("math@2", teams.registry)
    teams.theirs.remotes.pull("math@2", teams.registry, as_name="sums")
    found = teams.theirs.remotes.show(teams.registry)
    assert [(one.reference, one.here, one.message) for one in found] == [
        ("math@1", "", "the first"),
        ("math@2", "sums@1", ""),
    ]


def test_pushes_are_remembered_before_anything_is_sent(teams: Teams, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the network is gone")

    monkeypatch.setattr("nait_store.registry.sharing.shared_registry.WritableRegistry.publish", fail)
    with pytest.raises(OSError, match="the network is gone"):
        teams.ours.remotes.push("math@1", teams.registry)
    assert [record.url for record in teams.ours.remotes.pushed_to("math", 1)] == [Location(teams.registry).url]
    assert SharedRegistry(teams.files).names() == []
