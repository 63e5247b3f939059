"""``nait-store purge`` and ``repair`` as users see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nait_store
from nait_store.testing.fake_capture import FakeCapture
from tests.cli.conftest import Cli


def _chunk(store: Path) -> Path:
    return min(store.glob("activations/pool/segments/*/data.zarr/mean/c/0/0/0"))


def _rot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in (1, 8, 15):
        data[at] ^= 1
    path.write_bytes(bytes(data))


def test_a_purge_wants_to_be_confirmed(cli: Cli, store: Path) -> None:
    run = cli("purge", "pool", "--ids", "gone.ids")
    assert run.code == 7
    assert "cannot be undone" in run.err
    assert "--dry-run" in run.err
    assert nait_store.open(str(store)).sets.open("pool").number == 2


def test_a_purge_reports_what_it_rewrote_and_what_is_left_to_do(cli: Cli, store: Path, folder: Path) -> None:
    (folder / "gone.ids").write_text("s000003\ns000025\nnever-there\n")
    looked = cli("purge", "pool", "--ids", "gone.ids", "--dry-run")
    assert looked.code == 0
    assert "2 rows would be purged" in looked.out
    run = cli("purge", "pool", "--ids", "gone.ids", "--yes", "--reason", "asked for")
    assert run.code == 0
    assert "2 samples of 3 found in pool: 2 rows purged" in run.out
    assert "recorded as pool@3" in run.out
    assert "never-there" in run.out
    assert "memory:synthetic.jsonl" in run.out
    assert nait_store.open(str(store)).sets.open("pool").n_samples == 38


def test_ids_come_from_standard_input_too(cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import types

    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(b"s000001\n")))
    report = cli("purge", "--everywhere", "--ids", "-", "--yes", "--json").json
    assert report["n_found"] == 1
    assert report["sets"] == ["maths", "other-model", "pool"]


def test_profiles_that_saw_the_samples_are_named(cli: Cli, store: Path, folder: Path) -> None:
    (folder / "gone.ids").write_text("s001003\n")
    run = cli("purge", "maths", "--ids", "gone.ids", "--yes")
    assert "profile:math@1" in run.out
    assert "profile:foreign" not in run.out


def test_a_sound_store_needs_no_repair(cli: Cli, store: Path) -> None:
    run = cli("repair")
    assert run.code == 0
    assert "the store is sound: nothing to repair" in run.out


def test_a_repair_drops_and_lists_the_rows_that_are_lost(cli: Cli, store: Path, folder: Path) -> None:
    _rot(_chunk(store))
    looked = cli("repair", "--dry-run")
    assert looked.code == 9
    assert "20 rows would be dropped" in looked.out
    run = cli("repair", "--rejects", "lost.jsonl")
    assert run.code == 0
    assert "20 rows dropped, listed in lost.jsonl" in run.out
    assert "the store is sound now" in run.out
    assert len((folder / "lost.jsonl").read_text().splitlines()) == 20
    assert cli("verify").code == 0


def test_what_cannot_be_repaired_is_exit_code_9(cli: Cli, store: Path) -> None:
    for path in ("activations/other-model/set.json",):
        (store / path).unlink()
    for path in store.glob("profiles/foreign/**/*"):
        if path.is_file():
            path.unlink()
    run = cli("repair", "--json")
    assert run.code == 9
    assert not run.json["ok"]
    assert any("set.json" in note["path"] for note in run.json["lost"])


def test_a_flipped_bit_in_store_json_is_put_right(cli: Cli, store: Path) -> None:
    data = bytearray((store / "store.json").read_bytes())
    data[90] ^= 1
    (store / "store.json").write_bytes(bytes(data))
    assert cli("sets", "list").code == 9
    assert cli("repair").code == 0
    assert cli("sets", "list").code == 0


def test_a_truncated_store_json_is_told_with_the_way_out(cli: Cli, store: Path) -> None:
    (store / "store.json").write_bytes((store / "store.json").read_bytes()[:70])
    run = cli("repair")
    assert run.code == 9
    assert "copy of the store" in run.err


def test_the_dropped_samples_are_captured_again(
    cli: Cli, folder: Path, fake_model: FakeCapture, write_jsonl: object
) -> None:
    records = [{"instruction": f"question {i}", "output": f"answer {i}"} for i in range(10)]
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert cli("init").code == 0
    assert cli("ingest", "a.jsonl", "--set", "pool", "--model", "m").code == 0
    _rot(_chunk(folder / ".nait-store"))
    run = cli("repair", "--source", "a.jsonl", "--model", "m")
    assert run.code == 0, run.err
    assert "10 samples captured again" in run.out
    assert nait_store.open(".nait-store").sets.open("pool").n_samples == 10
