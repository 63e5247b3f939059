"""Notes on versions: said, changed, taken away, found, verified, mended, and in nobody's way."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

import nait_store
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.storage.location import Location
from nait_store.storage.notes import MAX_NOTE_BYTES


@pytest.fixture
def noted(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> nait_store.Store:
    """The store with math@1 and math@2, a note on the first that was changed once, and one on pool@1."""
    store.profiles.build("math", source="maths")
    store.profiles.build("math", source="maths", limit=5)
    monkeypatch.setenv("NAIT_STORE_AUTHOR", "ada")
    store.profiles.describe("math@1", "to be checked")
    monkeypatch.setenv("NAIT_STORE_AUTHOR", "bob")
    store.profiles.describe("math@1", "approved for release 7")
    store.sets.describe("pool", "licences checked")
    return store


def problems(store: nait_store.Store) -> dict[str, str]:
    return {finding.path: finding.problem for finding in store.verify().errors}


def test_the_last_text_is_the_note_and_every_text_is_kept(noted: nait_store.Store) -> None:
    (note,) = noted.profiles.notes("math")
    assert (note.reference, note.text, note.author) == ("math@1", "approved for release 7", "bob")
    assert [(text.text, text.author) for text in note.texts] == [
        ("to be checked", "ada"),
        ("approved for release 7", "bob"),
    ]
    assert note.texts[0].written_at <= note.texts[1].written_at == note.written_at


def test_a_note_is_about_its_version_alone(noted: nait_store.Store) -> None:
    assert noted.profiles.note("math@2") is None
    assert [one.note for one in noted.profiles.history("math")] == ["approved for release 7", ""]


def test_an_alias_leads_to_the_note_of_its_version(noted: nait_store.Store) -> None:
    noted.profiles.alias("math@1", "prod")
    noted.profiles.describe("math@prod", "in production")
    note = noted.profiles.note("math@1")
    assert note is not None
    assert note.text == "in production"


def test_an_empty_text_takes_the_note_away_and_leaves_its_history(noted: nait_store.Store) -> None:
    noted.profiles.describe("math@1", "  ")
    assert noted.profiles.note("math@1") is None
    (note,) = noted.profiles.notes("math")
    assert [text.text for text in note.texts] == ["to be checked", "approved for release 7", ""]
    assert noted.profiles.search("release") == []


def test_what_is_said_already_is_not_written_again(noted: nait_store.Store) -> None:
    assert len(noted.sets.describe("pool@1", " licences checked\n").texts) == 1


def test_there_must_be_a_note_to_take_away(noted: nait_store.Store) -> None:
    with pytest.raises(InvalidInputError, match="no note on profile math@2"):
        noted.profiles.describe("math@2", "")


@pytest.mark.parametrize("text", ["x" * (MAX_NOTE_BYTES + 1), "ü" * (MAX_NOTE_BYTES // 2 + 1), "broken \ud800"])
def test_a_text_that_cannot_be_kept_changes_nothing(noted: nait_store.Store, text: str) -> None:
    with pytest.raises(InvalidInputError, match="the note"):
        noted.profiles.describe("math@1", text)
    note = noted.profiles.note("math@1")
    assert note is not None
    assert note.text == "approved for release 7"


def test_a_version_that_is_not_there_cannot_be_described(noted: nait_store.Store) -> None:
    noted.profiles.delete("math@2")
    for reference in ("math@2", "math@9", "maths-2"):
        with pytest.raises(NotFoundError):
            noted.profiles.describe(reference, "text")


def test_hostile_text_is_kept_as_it_is(noted: nait_store.Store) -> None:
    text = "'; DROP TABLE notes; --\n\x1b[31mred\u202e\x00 ünï 🦀"
    noted.profiles.describe("math@1", text)
    assert noted.sql("SELECT note FROM notes WHERE kind = 'profile'").fetchall() == [(text,)]
    assert [one.note for one in noted.profiles.search("drop table")] == [text]


def test_sql_has_the_note_and_follows_it(noted: nait_store.Store) -> None:
    query = "SELECT kind, reference, note, n_texts, author, is_deleted FROM notes ORDER BY ALL"
    assert noted.sql(query).fetchall() == [
        ("profile", "math@1", "approved for release 7", 2, "bob", False),
        ("set", "pool@1", "licences checked", 1, "bob", False),
    ]
    noted.sets.describe("pool@1", "")
    noted.profiles.delete("math@1")
    assert noted.sql(query).fetchall() == [("profile", "math@1", "approved for release 7", 2, "bob", True)]


def test_search_and_show_see_the_note(noted: nait_store.Store) -> None:
    (found,) = noted.profiles.search("RELEASE approved")
    assert (found.reference, found.note) == ("math@1", "approved for release 7")
    assert noted.sets.show("pool").note == "licences checked"
    assert noted.sets.history("pool")[0].note == "licences checked"


def test_a_note_keeps_nothing_from_deletion_and_outlives_its_version(noted: nait_store.Store) -> None:
    noted.profiles.delete("math@1")
    noted.gc(grace=timedelta(0))
    assert noted.profiles.history("math")[0].collected
    assert noted.profiles.history("math")[0].note == "approved for release 7"
    assert problems(noted) == {}


def test_verify_knows_every_file_of_a_note(noted: nait_store.Store) -> None:
    assert [finding.path for finding in noted.verify().findings if "/notes/" in finding.path] == []


def test_verify_finds_a_text_that_is_missing_damaged_or_misplaced(noted: nait_store.Store) -> None:
    folder = "profiles/math/notes"
    good = noted.location.read_bytes(f"{folder}/1/2.json")
    noted.location.write_bytes(f"{folder}/1/2.json", good.replace(b"release", b"relapse"))
    noted.location.delete(f"{folder}/1/1.json")
    noted.location.write_bytes(f"{folder}/9/1.json", good)
    found = problems(noted)
    assert sorted(found) == [f"{folder}/1/1.json", f"{folder}/1/2.json", f"{folder}/9/1.json"]
    assert "text 1 of the note is missing" in found[f"{folder}/1/1.json"]


@pytest.mark.parametrize("item", ["profiles/math", "activations/pool"])
def test_repair_says_that_a_damaged_text_is_lost(noted: nait_store.Store, item: str) -> None:
    latest = f"{item}/notes/1/{2 if item.startswith('profiles') else 1}.json"
    data = noted.location.read_bytes(latest)
    noted.location.write_bytes(latest, data.replace(b'"text":"', b'"text":"cut'))
    assert noted.sql("SELECT count(*) FROM notes").fetchall() != [(0,)]
    report = noted.repair()
    assert report.ok
    assert any("write it again" in note.text for note in report.lost)
    opened = nait_store.open(noted.url)
    assert (opened.profiles if item.startswith("profiles") else opened.sets).note(latest.split("/")[1] + "@1") is None
    assert problems(opened) == {}


def test_a_note_that_cannot_be_read_is_left_out_of_the_catalog(noted: nait_store.Store) -> None:
    noted.profiles.describe("math@1", "third")
    noted.location.write_bytes("profiles/math/notes/1/3.json", b"{ broken")
    result = noted.sql("SELECT reference FROM notes")
    assert result.fetchall() == [("pool@1",)]
    assert any("the note on profile math@1 is left out" in warning for warning in result.warnings)


def test_purge_names_a_note_that_quotes_a_sample(noted: nait_store.Store) -> None:
    noted.sets.describe("pool@1", "mind s000003, it is odd")
    report = noted.purge("pool", ids=["s000003"])
    assert any("activations/pool/notes/1/2.json" in text for text in report.remains)


def test_foreign_files_among_the_notes_are_passed_over(noted: nait_store.Store) -> None:
    for path in ("notes/readme.txt", "notes/one/1.json", "notes/1/old.txt", "notes/01/1.json"):
        noted.location.write_bytes(f"profiles/math/{path}", b"not ours")
    assert [note.reference for note in noted.profiles.notes("math")] == ["math@1"]
    assert noted.sql("SELECT count(*) FROM notes").fetchall() == [(2,)]
    assert problems(noted) == {}


def test_two_writers_at_once_leave_two_texts(noted: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create = Location.create_bytes
    others = [nait_store.open(noted.url)]

    def crossed(self: Location, path: str, data: bytes) -> None:
        if path.endswith("notes/2/1.json") and others:
            others.pop().profiles.describe("math@2", "theirs")
        create(self, path, data)

    monkeypatch.setattr(Location, "create_bytes", crossed)
    assert [text.text for text in noted.profiles.describe("math@2", "ours").texts] == ["theirs", "ours"]


def test_the_document_is_what_the_format_says(noted: nait_store.Store) -> None:
    document = json.loads(noted.location.read_bytes("profiles/math/notes/1/2.json"))
    assert (document["version"], document["number"], document["text"]) == (1, 2, "approved for release 7")
    assert document["provenance"]["author"] == "bob"
