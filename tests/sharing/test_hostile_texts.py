"""What strangers write cannot act on the terminal of who reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nait_store.cli.main import main
from nait_store.schemas.record import document_bytes
from tests.sharing.conftest import Teams, new_store
from tests.sharing.forged_bundles import Forgery

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def test_author_in_a_conflict_is_spelled(teams: Teams, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    path = "profiles/math/versions/1.json"
    publication = json.loads(teams.files.read_bytes(path))
    publication["provenance"]["author"] = ESCAPE
    teams.files.write_bytes(path, document_bytes(publication))
    other = new_store(str(tmp_path / "other"), seed=7)
    other.profiles.build("math", source="gsm8k", method="mean", quality_card=False)
    assert main(("--store", other.url, "pull", "math@1", teams.registry)) == 5
    assert main(("--store", other.url, "sync", teams.registry)) == 5
    assert main(("--store", other.url, "remote", "show", teams.registry)) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\\x1b]0;owned" in err


def test_warnings_card_and_message_are_spelled(
    teams: Teams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    honest, hostile = tmp_path / "honest.zip", tmp_path / "hostile.zip"
    teams.ours.remotes.export_bundle("math@2", str(honest))
    forgery = Forgery.of(honest)
    forgery.record.update(card=ESCAPE, warnings=[ESCAPE])
    forgery.record["recipe"]["name"] = ESCAPE
    forgery.publication["message"] = ESCAPE
    hostile.write_bytes(forgery.bytes())
    store = ("--store", teams.theirs.url)
    for command in (("import-bundle", str(hostile)), ("profile", "show", "math"), ("profile", "list"),
                    ("profile", "history", "math"), ("profile", "search", "math")):  # fmt: skip
        assert main((*store, *command)) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\\x1b]0;owned" in out
    assert "\\x1b]0;owned" in err


def test_unknown_flags_are_spelled(teams: Teams, capsys: pytest.CaptureFixture[str]) -> None:
    teams.ours.remotes.push("math@1", teams.registry)
    record = json.loads(teams.files.read_bytes("registry.json")) | {"reader_features": [ESCAPE]}
    teams.files.write_bytes("registry.json", document_bytes(record))
    assert main(("--store", teams.theirs.url, "pull", "math", teams.registry)) == 9
    assert "\x1b" not in "".join(capsys.readouterr())
