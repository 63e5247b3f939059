"""``sets``, ``verify`` and ``doctor`` through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nait_store.store.doctor
from nait_store.schemas.store_record import StoreRecord


def test_sets_list(cli: Any, store: Path) -> None:
    run = cli("sets", "list")
    assert [line.split()[:2] for line in run.out.splitlines()[1:]] == [
        ["maths@1", "20"],
        ["other-model@1", "20"],
        ["pool@2", "40"],
    ]


def test_sets_list_of_an_empty_store_says_what_to_do(cli: Any) -> None:
    cli("init")
    assert "nait-store ingest FILE" in cli("sets", "list").out


def test_sets_show_names_everything(cli: Any, store: Path) -> None:
    out = cli("sets", "show", "pool").out
    for text in (
        "pool@2",
        "2 (1–2)",
        "40",
        "mean",
        "0–2 (3)",
        "8 at mlp",
        "float16",
        "./fake-model",
        "plain",
        "kind string",
    ):
        assert text in out
    details = cli("sets", "show", "pool@1", "--json").json
    assert (details["summary"]["n_samples"], details["n_segments"], details["layers"]) == (20, 1, [0, 1, 2])
    assert details["fields"] == {"instruction": "string", "output": "string", "kind": "string"}


def test_sets_history(cli: Any, store: Path) -> None:
    rows = [line.split()[:3] for line in cli("sets", "history", "pool").out.splitlines()[1:]]
    assert rows == [["pool@1", "20", "+20"], ["pool@2", "40", "+20"]]
    assert [one["number"] for one in cli("sets", "history", "pool", "--json").json] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("show", "pol"), 3, "'pool'"),
        (("show", "pool@3"), 3, "pool@1, pool@2"),
        (("show", "pool@"), 7, "pool@1"),
        (("show", "pool@prod"), 3, "pool@1"),
        (("history", "pol"), 3, "'pool'"),
        (("history", "../x"), 7, "a-z"),
        (("show", "profile:math"), 7, "set:NAME"),
    ],
)
def test_unknown_sets(cli: Any, store: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    run = cli("sets", *arguments)
    assert run.code == code
    assert says in run.err


def test_verify_of_a_sound_store(cli: Any, store: Path) -> None:
    cli("select", "--from", "pool", "--profile", "math", "--save", "best")
    run = cli("verify")
    assert run.code == 0, run.out
    n_files = sum(path.is_file() for path in store.rglob("*"))
    assert run.out.startswith(f"the store is sound: 3 sets, 2 profiles, 1 selection, {n_files} files hashed, ")
    assert f"{n_files} files compared by size" in cli("verify", "--quick").out
    assert cli("verify", "--json").json["ok"] is True
    assert cli("verify", "--quiet").out == ""


@pytest.mark.parametrize(
    "kind",
    [
        "activations/pool/segments/*/data.zarr/mean/c/*/*/*",
        "activations/*/segments/*/samples.parquet",
        "profiles/math/payloads/*/directions.zarr/**/*",
        "selections/best/payloads/*/selection.parquet",
    ],
)
def test_verify_finds_a_flipped_bit(cli: Any, store: Path, kind: str) -> None:
    cli("select", "--from", "pool", "--profile", "math", "--save", "best")
    path = max((p for p in store.glob(kind) if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    run = cli("verify")
    assert run.code == 9
    assert str(path.relative_to(store)) in run.out
    assert "\n  → " in run.out
    assert cli("verify", "--json").json["ok"] is False


def test_verify_of_one_set_leaves_the_others_alone(cli: Any, store: Path) -> None:
    next(store.glob("activations/pool/segments/*/samples.parquet")).unlink()
    assert cli("verify", "--set", "maths").code == 0
    assert cli("verify", "--set", "pool").code == 9
    run = cli("verify", "--set", "pol")
    assert run.code == 3
    assert "did you mean 'pool'?" in run.err


def test_verify_reports_in_json(cli: Any, store: Path) -> None:
    path = next(store.glob("activations/pool/segments/*/data.zarr/mean/c/0/1/0"))
    path.write_bytes(bytes(path.stat().st_size))
    report = cli("verify", "--json").json
    (finding,) = report["findings"]
    assert finding["path"] == str(path.relative_to(store))
    assert finding["severity"] == "error"
    assert finding["place"].startswith("mean of layer 1, rows 0")
    assert report["n_files"] == sum(path.is_file() for path in store.rglob("*"))
    assert report["n_bytes"] == sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert report["elapsed_seconds"] > 0


def test_verify_of_a_damaged_store_json_says_so_like_of_any_file(cli: Any, store: Path) -> None:
    path = store / "store.json"
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    run = cli("verify", "--json")
    assert run.code == 9
    assert [finding["path"] for finding in run.json["findings"]] == ["store.json"]


def test_quick_verify_finds_a_missing_file(cli: Any, store: Path) -> None:
    path = next(store.glob("activations/pool/segments/*/samples.parquet"))
    path.unlink()
    run = cli("verify", "--quick")
    assert run.code == 9
    assert str(path.relative_to(store)) in run.out


@pytest.fixture
def quick_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor asks torch in a process of its own, which takes seconds: answer for it."""
    answer = json.dumps({"torch": "9.9", "devices": ["cuda:0 Test GPU"], "threads": 1})
    monkeypatch.setattr(nait_store.store.doctor, "_ASK_TORCH", f"print({answer!r})")


def test_doctor_of_a_sound_store(cli: Any, store: Path, quick_torch: None) -> None:
    run = cli("doctor")
    assert run.code == 0, run.out
    for text in ("python", "duckdb", "cuda:0 Test GPU", "cache", "format 1", "3 sets (80 samples", "catalog"):
        assert text in run.out
    assert {check["state"] for check in cli("doctor", "--json").json["checks"]} <= {"ok", "note"}


def test_doctor_without_a_store_names_init(cli: Any, quick_torch: None) -> None:
    run = cli("doctor")
    assert run.code == 0
    assert "nait-store init" in run.out


def test_doctor_of_a_store_that_cannot_be_read(cli: Any, store: Path, quick_torch: None) -> None:
    path = store / "store.json"
    record = StoreRecord.from_json_bytes(path.read_bytes(), "")
    path.write_bytes(record.model_copy(update={"format_version": 99}).to_json_bytes())
    run = cli("doctor")
    assert run.code == 1
    assert "PROBLEM  store" in run.out
    assert "pip install --upgrade" in run.out


def test_doctor_of_a_damaged_store(cli: Any, store: Path, quick_torch: None) -> None:
    next(store.glob("activations/pool/segments/*/segment.json")).unlink()
    run = cli("doctor")
    assert run.code == 1
    assert "nait-store verify" in run.out


def test_doctor_with_a_broken_torch(cli: Any, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nait_store.store.doctor, "_ASK_TORCH", "raise ImportError('libcuda.so.1 is missing')")
    run = cli("doctor")
    assert run.code == 1
    assert "libcuda.so.1 is missing" in run.out
    assert "pip install torch" in run.out
