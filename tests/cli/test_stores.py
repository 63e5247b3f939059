"""``init``, and what can be wrong with a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nait_store.schemas.record import document_bytes


def test_init_says_where_and_what_next(cli: Any, folder: Path) -> None:
    run = cli("init")
    assert run.out.splitlines()[0] == f"created a store at {folder / '.nait-store'}"
    assert run.out.splitlines()[1].startswith("next: nait-store ingest")


def test_init_twice_changes_nothing(cli: Any, folder: Path, snapshot: Any) -> None:
    cli("init")
    before = snapshot(folder / ".nait-store")
    run = cli("init")
    assert run.code == 0
    assert "already" in run.out
    assert snapshot(folder / ".nait-store") == before
    assert cli("init", "--json").json["created"] is False


def test_init_refuses_a_folder_of_other_things(cli: Any, folder: Path) -> None:
    (folder / "home").mkdir()
    (folder / "home" / "thesis.tex").write_text("x")
    run = cli("init", "--store", "home")
    assert run.code == 7
    assert "not a store" in run.err
    assert [p.name for p in (folder / "home").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "command",
    [
        ("sets", "list"),
        ("profile", "list"),
        ("sql", "SELECT 1"),
        ("verify",),
        ("select", "--from", "a", "--random"),
        ("score", "a", "b"),
        ("ingest", "x.jsonl", "--set", "a", "--model", "m"),
    ],
)
def test_a_missing_store_names_init(cli: Any, folder: Path, command: tuple[str, ...]) -> None:
    run = cli(*command)
    assert run.code == 3
    assert str(folder / ".nait-store") in run.err
    assert "'nait-store init'" in run.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", [("init",), ("sets", "list")])
def test_a_store_path_that_is_a_file(cli: Any, folder: Path, command: tuple[str, ...]) -> None:
    (folder / "file").write_text("mine")
    run = cli(*command, "--store", "file")
    assert run.code == 7
    assert "is a file" in run.err
    assert "--store" in run.err
    assert (folder / "file").read_text() == "mine"


@pytest.mark.parametrize("url", ["", "nosuch://x", "a\x00b"])
def test_a_store_url_that_is_none(cli: Any, url: str, folder: Path) -> None:
    run = cli("--store", url, "sets", "list")
    assert run.code in (3, 7)
    assert run.err.startswith("error: ")


@pytest.mark.parametrize("change", [{"format_version": 2}, {"reader_features": ["teleportation"]}])
def test_a_store_of_a_newer_format(cli: Any, store: Path, snapshot: Any, change: dict[str, Any]) -> None:
    record = json.loads((store / "store.json").read_text())
    (store / "store.json").write_bytes(document_bytes(record | change))
    before = snapshot(store)
    for command in (("sets", "list"), ("init",), ("sql", "SELECT 1")):
        run = cli(*command)
        assert run.code == 9
        assert "newer release" in run.err
        assert "pip install --upgrade nait-store" in run.err
    assert snapshot(store) == before


def test_a_damaged_store_record(cli: Any, store: Path) -> None:
    (store / "store.json").write_text("{")
    run = cli("sets", "list")
    assert run.code == 9
    assert "store.json" in run.err


def test_unknown_writer_features_make_it_read_only(
    cli: Any, store: Path, snapshot: Any, fake_model: Any, write_jsonl: Any
) -> None:
    record = json.loads((store / "store.json").read_text())
    (store / "store.json").write_bytes(document_bytes(record | {"writer_features": ["teleportation"]}))
    before = snapshot(store)
    assert cli("sets", "list").code == 0
    for command in (
        ("ingest", write_jsonl("new.jsonl"), "--set", "pool", "--model", "m"),
        ("profile", "build", "new", "--from", "maths"),
        ("select", "--from", "pool", "--profile", "math", "--save", "best"),
        ("score", "pool", "math"),
    ):
        run = cli(*command)
        assert (run.code, "teleportation" in run.err) == (8, True), command
    query = "SELECT count(*) AS n, count(score) AS m FROM alignment('pool', 'math')"
    assert cli("sql", query, "--format", "jsonl").json == {"n": 40, "m": 40}
    assert snapshot(store) == before
