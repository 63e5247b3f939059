"""What travels of the in-domain samples: records, hashes, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import nait_store
from nait_store.errors import ConflictError, InvalidInputError, NotFoundError
from nait_store.registry.sharing.reference_samples import stored_reference
from nait_store.schemas.sharing import ReferencePolicy, ReferenceSamples
from tests.sharing.conftest import Teams


def came(teams: Teams) -> ReferenceSamples | None:
    pulled = teams.theirs.remotes.pull("math@2", teams.registry)
    return stored_reference(teams.theirs.location, pulled.profile)


def expected(teams: Teams, column: str) -> list[str]:
    """What the 16 samples have that math@2 was built from, by SQL."""
    ranked = "ORDER BY sha256('0:' || sample_id) LIMIT 16"
    rows = teams.ours.sql(f"SELECT {column} FROM samples('gsm8k') {ranked}").fetchall()
    return sorted(value for (value,) in rows)


def test_hashes_travel_by_default_and_no_text_does(teams: Teams) -> None:
    assert teams.ours.remotes.push("math@2", teams.registry).policy is ReferencePolicy.HASHES
    reference = came(teams)
    assert reference is not None
    assert list(reference.content_sha256) == expected(teams, "content_hash")
    assert reference.samples == ()
    assert not any(b"done s0" in teams.files.read_bytes(path) for path, _ in teams.files.walk())


def test_full_records_travel_when_asked_for(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry, reference_samples="full")
    reference = came(teams)
    assert reference is not None
    assert [sample.sample_id for sample in reference.samples] == expected(teams, "sample_id")
    assert sorted(sample.record for sample in reference.samples) == expected(teams, "record")
    assert list(reference.content_sha256) == expected(teams, "content_hash")


def test_nothing_travels_when_asked_for(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry, reference_samples="none")
    assert came(teams) is None


def test_condition_that_chose_the_samples_is_applied_again(teams: Teams) -> None:
    teams.ours.profiles.build("odd", source="gsm8k", method="mean", where="source_index % 2 = 1")
    teams.ours.remotes.push("odd", teams.registry, reference_samples="full")
    pulled = teams.theirs.remotes.pull("odd", teams.registry)
    reference = stored_reference(teams.theirs.location, pulled.profile)
    assert reference is not None
    assert [sample.sample_id for sample in reference.samples] == [f"s{i:06d}" for i in range(1, 20, 2)]


def test_without_its_set_a_profile_travels_without_hashes_and_says_so(teams: Teams) -> None:
    teams.ours.sets.delete("gsm8k", force=True)
    pushed = teams.ours.remotes.push("math@2", teams.registry)
    assert pushed.policy is ReferencePolicy.NONE
    assert "no hashes of the in-domain samples travel with math@2" in pushed.notes[0]


def test_without_its_set_hashes_that_were_asked_for_are_an_error(teams: Teams) -> None:
    teams.ours.sets.delete("gsm8k", force=True)
    with pytest.raises(NotFoundError, match="was deleted"):
        teams.ours.remotes.push("math@2", teams.registry, reference_samples="hashes")
    assert teams.files.names("profiles") == []


def test_purged_samples_never_travel(teams: Teams) -> None:
    teams.ours.purge("gsm8k", ids=expected(teams, "sample_id")[:1])
    with pytest.raises(NotFoundError, match="no longer holds all samples"):
        teams.ours.remotes.push("math@2", teams.registry, reference_samples="full")


def test_what_was_published_with_one_policy_is_not_with_another(teams: Teams) -> None:
    remotes = teams.ours.remotes
    remotes.push("math@2", teams.registry)
    with pytest.raises(ConflictError, match="was published with --reference hashes"):
        remotes.push("math@2", teams.registry, reference_samples="full")
    assert not remotes.push("math@2", teams.registry, reference_samples="hashes").created
    again = remotes.push("math@2", teams.registry, as_name="math", reference_samples="full")
    assert (again.published, again.created) == ("math@3", True)


def test_what_came_full_goes_on_as_hashes_or_full(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@2", teams.registry, reference_samples="full")
    full = came(teams)
    for policy in ("hashes", "full"):
        url = str(tmp_path / policy)
        teams.theirs.remotes.push("math@2", url, reference_samples=policy)
        third = nait_store.open(str(tmp_path / f"third-{policy}"), create=True)
        reference = stored_reference(third.location, third.remotes.pull("math", url).profile)
        assert reference is not None
        assert full is not None
        assert reference.content_sha256 == full.content_sha256
        assert reference.samples == (full.samples if policy == "full" else ())


def test_what_came_as_hashes_cannot_go_on_in_full(teams: Teams, tmp_path: Path) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    came(teams)
    with pytest.raises(NotFoundError, match="came with hashes of its reference samples only"):
        teams.theirs.remotes.push("math@2", str(tmp_path / "elsewhere"), reference_samples="full")


def test_unknown_policy_is_refused(teams: Teams) -> None:
    with pytest.raises(InvalidInputError, match="no policy"):
        teams.ours.remotes.push("math@2", teams.registry, reference_samples="some")  # type: ignore[arg-type]


def test_changed_reference_file_is_damage(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    profile = teams.theirs.remotes.pull("math@2", teams.registry).profile
    teams.theirs.location.write_bytes(f"{profile.folder}/reference.json", b"{}")
    assert [finding.place for finding in teams.theirs.verify().errors] == ["reference samples"]


def test_purge_names_the_registries_that_hold_copies(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry, reference_samples="full")
    teams.ours.remotes.push("math@1", teams.registry, as_name="sums")
    teams.ours.profiles.delete("math@2")
    report = teams.ours.purge("gsm8k", ids=expected(teams, "sample_id")[:1])
    (told,) = (text for text in report.remains if "registries" in text)
    assert f"sums@1 of {teams.registry} (--reference hashes)" in told
    assert f"math@2 of {teams.registry} (--reference full)" in told


def test_purge_says_nothing_of_registries_where_nothing_was_pushed(teams: Teams) -> None:
    report = teams.ours.purge("gsm8k", ids=expected(teams, "sample_id")[:1])
    assert not any("registries" in text for text in report.remains)
