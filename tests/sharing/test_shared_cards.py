"""Quality cards travel with their profiles, and are believed no more than the rest."""

from __future__ import annotations

from typing import Any

import pytest

from nait_store.errors import CorruptChunkError, FormatError, NotFoundError
from nait_store.registry.payload import CARD_FILE, size_limit_bytes
from nait_store.registry.sharing.arrival import HeldFiles, check_contents
from nait_store.schemas.record import document_bytes
from nait_store.schemas.sharing import Publication
from nait_store.storage.digests import sha256_bytes
from nait_store.testing.stores import build_set
from tests.sharing.conftest import Teams


def card_object(teams: Teams) -> str:
    """Where the registry keeps the card of math@2."""
    (sha256,) = [file.sha256 for file in teams.ours.profiles.open("math@2").record.files if file.path == CARD_FILE]
    return f"objects/{sha256[:2]}/{sha256}"


def test_card_arrives_with_its_profile(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    teams.theirs.remotes.pull("math@2", teams.registry)
    theirs = teams.theirs.profiles.card("math@2", measure=False)
    assert theirs.quality is not None
    assert theirs.quality == teams.ours.profiles.card("math@2").quality
    assert theirs.top == ()
    assert "gsm8k" in theirs.unknown


def test_damaged_card_is_refused(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    path = card_object(teams)
    teams.files.write_bytes(path, teams.files.read_bytes(path).replace(b'"n_draws":8', b'"n_draws":9'))
    with pytest.raises(CorruptChunkError):
        teams.theirs.remotes.pull("math@2", teams.registry)
    assert teams.theirs.profiles.names() == []


def test_card_that_cannot_be_is_refused(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    publication = Publication.from_json_bytes(
        teams.files.read_bytes("profiles/math/versions/2.json"), "profiles/math/versions/2.json"
    )
    profile = teams.ours.profiles.open("math@2")
    location = teams.ours.location
    contents = {file.path: location.read_bytes(f"{profile.folder}/{file.path}") for file in profile.record.files}
    card = profile.quality_card()
    assert card is not None
    fields = {**card.model_dump(mode="json"), "layers": card.model_dump(mode="json")["layers"][:-1]}
    contents[CARD_FILE] = document_bytes(fields)
    update: dict[str, Any] = {"sha256": sha256_bytes(contents[CARD_FILE]), "size_bytes": len(contents[CARD_FILE])}
    files = tuple(file.model_copy(update=update) if file.path == CARD_FILE else file for file in profile.record.files)
    record = profile.record.model_copy(update={"files": files})
    without_samples = publication.model_copy(
        update={"reference": publication.reference.model_copy(update={"file": None})}
    )
    with pytest.raises(FormatError, match="other layers"):
        check_contents(without_samples, record, HeldFiles("hostile", contents))


def test_card_has_a_limit_of_size() -> None:
    assert size_limit_bytes(CARD_FILE) == 4 << 20


def test_condition_of_a_pulled_profile_is_never_run(teams: Teams, monkeypatch: pytest.MonkeyPatch) -> None:
    teams.ours.profiles.build("some", source="gsm8k", where="n_content_tokens > 4", method="mean")
    teams.ours.remotes.push("some", teams.registry)
    teams.theirs.remotes.pull("some", teams.registry)
    build_set(teams.theirs.location, "gsm8k", 20, 2, 6)

    def run(*_: object) -> None:
        raise AssertionError("somebody else's SQL was run")

    monkeypatch.setattr("nait_store.query.rows.matching_rows", run)
    card = teams.theirs.profiles.card("some")
    assert card.top == ()
    assert "n_content_tokens > 4" in card.unknown
    with pytest.raises(NotFoundError, match="was pulled"):
        teams.theirs.profiles.card("some", against="gsm8k")
