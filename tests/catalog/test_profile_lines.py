"""Lines about profiles beside the index: what they say, and that none but the very ones are believed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import nait_store
from nait_store.catalog.profile_lines import ProfileLines, Rank
from nait_store.catalog.record import lines_path
from nait_store.storage import layout
from nait_store.testing.stores import build_set


def row(profile: str, version: int, *, latest: bool = False, **values: Any) -> dict[str, Any]:
    """A row of the catalog's table."""
    return {
        "profile": profile,
        "version": version,
        "reference": f"{profile}@{version}",
        "is_latest": latest,
        "recipe": "default",
        "method": "pca",
        "center": False,
        "component": 1,
        "profile_feature": "mean",
        "feature": "mean",
        "metric": "cosine",
        "made_from": "",
        "source": "maths@1",
        "background": None,
        "n_samples": 20,
        "layers": [0, 1],
        "n_neurons": 8,
        "ported_from": None,
        "model": "./fake-model",
        "hook_point": "mlp",
        "capture_id": "c",
        "warnings": [],
        "message": "",
        "card": "",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "author": "me",
        "family_keys": [],
        **values,
    }


def lines_of(*rows: dict[str, Any], **tables: list[dict[str, Any]]) -> ProfileLines:
    return ProfileLines.of({"profiles": list(rows), "aliases": [], "tags": [], "notes": [], **tables})


def references(lines: ProfileLines, upto: Rank, *words: str) -> list[str]:
    return [line.reference for line in lines.read(upto, words)]


def test_each_rank_takes_in_those_before_it() -> None:
    noted = {"kind": "profile", "name": "b", "version": 1, "note": "mind this"}
    other = {"kind": "set", "name": "b", "version": 2, "note": "of a set"}
    rows = [row("b", 3, latest=True), row("a", 1, latest=True), row("b", 2), row("b", 1)]
    lines = lines_of(*rows, notes=[noted, other])
    assert references(lines, Rank.LATEST) == ["a@1", "b@3"]
    assert references(lines, Rank.TOLD_OF) == ["a@1", "b@1", "b@3"]
    assert references(lines, Rank.ANY) == ["a@1", "b@1", "b@2", "b@3"]


def test_numbers_are_in_the_order_of_numbers() -> None:
    lines = lines_of(*(row("a", n, latest=n == 11) for n in range(11, 0, -1)))
    assert [line.version for line in lines.read(Rank.ANY)] == list(range(1, 12))


def test_no_profile_is_no_line() -> None:
    assert lines_of().read(Rank.ANY) == []


@pytest.mark.parametrize("word", ['"quoted"', "back\\slash", "STRASSE", "Σίσυφος", "\u2028", "\x1f", "plain", "@2"])
def test_a_word_of_a_value_is_found_however_json_spells_it(word: str) -> None:
    lines = lines_of(row("a", 1, card='say "quoted", back\\slash,\nstraße ΣΊΣΥΦΟΣ \u2028 \x1f Plain'), row("a", 2))
    assert references(lines, Rank.ANY, word) == (["a@2"] if word == "@2" else ["a@1"])


def test_lines_that_another_release_wrote_otherwise_are_not_read() -> None:
    lines = lines_of(row("a", 1))
    assert ProfileLines.from_bytes(lines.data) == lines
    assert ProfileLines.from_bytes(lines.data.replace(b'"family_keys"', b'"kin"', 1)) is None


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nait_store.Store:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    store = nait_store.open(str(tmp_path / "store"), create=True)
    build_set(store.location, "maths", 6)
    store.profiles.build("math", source="maths", quality_card=False)
    assert len(store.profiles.list()) == 1
    return store


@pytest.fixture
def kept(store: nait_store.Store) -> Path:
    return lines_path(Path(store.url) / layout.CATALOG)


def test_they_lie_beside_the_index(kept: Path) -> None:
    assert kept.name == layout.CATALOG_PROFILES
    assert kept.is_file()


@pytest.mark.parametrize("damage", ["flip", "missing", "stale"])
def test_other_lines_are_not_believed(store: nait_store.Store, kept: Path, damage: str) -> None:
    data = kept.read_bytes()
    if damage == "flip":
        kept.write_bytes(data.replace(b"math@1", b"math@9"))
    elif damage == "missing":
        kept.unlink()
    else:
        store.profiles.describe("math@1", "mind this")
        assert store.profiles.list()[0].note == "mind this"
        kept.write_bytes(data)
    assert [one.reference for one in store.profiles.list()] == ["math@1"]
    assert store.profiles.list()[0].note == ("mind this" if damage == "stale" else "")
    assert ProfileLines.from_bytes(kept.read_bytes()) is not None


def test_verify_finds_damage(store: nait_store.Store, kept: Path) -> None:
    kept.write_bytes(kept.read_bytes() + b"\n")
    (finding,) = store.verify().errors
    assert finding.path == layout.CATALOG_PROFILES


def test_a_purge_leaves_none_behind(store: nait_store.Store, kept: Path) -> None:
    store.catalog.discard()
    assert [file.name for file in kept.parent.glob(f"{layout.CATALOG}*")] == []
