"""``ingest`` through the command line, with a capture that needs no model."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from nait_store.storage import backend as backend_module

TO_NEW = ("--set", "new", "--model", "./model")


def test_says_what_happened_and_what_next(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    run = cli("ingest", write_jsonl("a.jsonl"), *TO_NEW)
    assert run.code == 0
    first, second, third, fourth = run.out.splitlines()
    assert re.match(r"new@1: 10 samples added, [\d.]+ k?B, [\d.]+ s$", first)
    assert second == "  single batches of 1,024 tokens on cpu"
    assert third == "  scored with math@1"
    assert fourth == "next: nait-store profile build NAME --from new"


def test_counts_known_duplicates_and_rejected(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    cli("ingest", write_jsonl("a.jsonl", n=4), *TO_NEW)
    records = [{"instruction": f"question {i}", "output": f"answer {i}"} for i in (0, 1, 7, 8, 8)]
    name = write_jsonl("b.jsonl", [*records, {"instruction": "<empty>", "output": ""}])
    run = cli("ingest", name, *TO_NEW, "--rejects", "rejects.jsonl")
    assert run.code == 0
    assert "new@2: 2 samples added (2 known, 1 duplicate, 1 rejected → rejects.jsonl)" in run.out
    assert "b.jsonl" in run.out.splitlines()[3]
    assert len(Path("rejects.jsonl").read_text().splitlines()) == 1


def test_json_report(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    report = cli("ingest", write_jsonl("a.jsonl"), *TO_NEW, "--json").json
    assert (report["set_ref"], report["n_added"], report["n_known"]) == ("new@1", 10, 0)


def test_named_profiles_are_scored(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    cli("profile", "build", "second", "--from", "maths", "--metric", "dot")
    report = cli("ingest", write_jsonl("a.jsonl"), *TO_NEW, "--score-with", "second", "--json").json
    assert report["scored_with"] == ["second@1"]
    explained = cli("sql", "--explain", "SELECT score FROM alignment('new', 'second')", "--json").json
    assert explained["scores"][0]["n_cached_segments"] == 1
    assert explained["passes"] == []


def test_many_profiles_are_counted(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    for number in range(5):
        cli("profile", "build", f"p{number}", "--from", "maths", "--limit", str(10 + number))
    run = cli("ingest", write_jsonl("a.jsonl"), *TO_NEW)
    assert "  scored with math@1, p0@1, p1@1, p2@1 and 2 more profiles" in run.out.splitlines()


def test_none_scores_nothing(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    run = cli("ingest", write_jsonl("a.jsonl"), *TO_NEW, "--score-with", "none")
    assert (run.code, "scored with" in run.out) == (0, False)
    assert cli("cache", "list", "--json").json["scores"] == []


def test_an_unknown_profile_is_refused_before_a_model_is_loaded(
    cli: Any, store: Path, write_jsonl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nait_store.store.ingesting.open_capture", lambda *_: pytest.fail("a model was loaded"))
    run = cli("ingest", write_jsonl("a.jsonl"), *TO_NEW, "--score-with", "mth")
    assert run.code == 3
    assert "did you mean 'math'" in run.err


def test_an_empty_choice_of_profiles_is_refused(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    run = cli("ingest", write_jsonl("a.jsonl"), *TO_NEW, "--score-with", ",")
    assert run.code == 7
    assert "or write none" in run.err


def test_features_and_layers_reach_the_set(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    cli("ingest", write_jsonl("a.jsonl"), *TO_NEW, "--features", "mean, drift")
    shown = cli("sets", "show", "new", "--json").json
    assert shown["summary"]["features"] == ["mean", "drift"]


def test_map_and_id_field(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    name = write_jsonl("a.jsonl", [{"q": "one", "a": "two", "key": "k1"}])
    run = cli("ingest", name, *TO_NEW, "--map", "instruction=q,output=a", "--id-field", "key")
    assert run.code == 0
    assert cli("sql", "SELECT sample_id, q FROM samples('new')", "--format", "jsonl").json == {
        "sample_id": "k1",
        "q": "one",
    }


def test_nan_and_overflow_reject_the_sample_and_keep_the_rest(
    cli: Any, store: Path, fake_model: Any, write_jsonl: Any
) -> None:
    records = [{"id": f"r{i}", "instruction": f"q {i}", "output": "a"} for i in range(12)]
    fake_model.poison = {"r3": float("nan"), "r5": 1e30, "r7": float("inf")}
    run = cli("ingest", write_jsonl("a.jsonl", records), *TO_NEW, "--id-field", "id", "--dtype", "float16")
    assert run.code == 0
    assert "9 samples added (3 rejected" in run.out
    assert cli("sets", "show", "new", "--json").json["summary"]["n_samples"] == 9


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "bad.jsonl"),
    "broken JSON on line 7": (
        b"".join(
            b'{"instruction": "q%d", "output": "a"}\n' % i if i != 7 else b'{"instruction": \n' for i in range(1, 11)
        ),
        "bad.jsonl:7",
    ),
    "no usable fields": (b'{"colour": "blue"}\n', "bad.jsonl:1"),
    "invalid UTF-8": (
        b'{"instruction": "q", "output": "a"}\n{"instruction": "\xff\xfe", "output": "a"}\n',
        "bad.jsonl:2",
    ),
    "not an object": (b"17\n", "bad.jsonl:1"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_unusable_files(cli: Any, store: Path, folder: Path, fake_model: Any, snapshot: Any, case: str) -> None:
    content, where = BAD_FILES[case]
    (folder / "bad.jsonl").write_bytes(content)
    before = committed(snapshot(store))
    run = cli("ingest", "bad.jsonl", "--set", "pool", "--model", "m")
    assert run.code == 7
    assert where in run.err
    assert "\n  → " in run.err
    assert committed(snapshot(store)) == before


def committed(files: dict[str, str]) -> dict[str, str]:
    """What a reader of the store can see: everything but the journals of ingests."""
    return {path: digest for path, digest in files.items() if "/ingests/" not in path}


def test_skipping_writes_rejects_with_line_numbers(cli: Any, store: Path, folder: Path, fake_model: Any) -> None:
    (folder / "bad.jsonl").write_bytes(BAD_FILES["broken JSON on line 7"][0])
    run = cli("ingest", "bad.jsonl", *TO_NEW, "--on-error", "skip", "--rejects", "r.jsonl")
    assert run.code == 0
    assert "9 samples added (1 rejected → r.jsonl)" in run.out
    assert json.loads((folder / "r.jsonl").read_text())["line"] == 7


def test_duplicate_ids_with_different_text(
    cli: Any, store: Path, fake_model: Any, write_jsonl: Any, snapshot: Any
) -> None:
    before = committed(snapshot(store))
    records = [{"id": "x1", "instruction": text, "output": "a"} for text in ("one", "two")]
    run = cli("ingest", write_jsonl("a.jsonl", records), *TO_NEW, "--id-field", "id")
    assert run.code == 5
    assert "x1" in run.err
    assert "a.jsonl" in run.err
    after = committed(snapshot(store))
    assert {p: d for p, d in after.items() if not p.startswith("activations/new/set.json")} == before


@pytest.mark.parametrize("name", ["../x", "a b", "", "x" * 300, "Pool", "pool/x"])
def test_bad_set_names(cli: Any, store: Path, fake_model: Any, write_jsonl: Any, snapshot: Any, name: str) -> None:
    before = snapshot(store)
    run = cli("ingest", write_jsonl("a.jsonl"), "--set", name, "--model", "m")
    assert run.code == 7
    assert "not a valid set name" in run.err
    assert "a-z" in run.err
    assert len(run.err) < 400
    assert snapshot(store) == before


def test_missing_source_names_near_files(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    write_jsonl("records.jsonl")
    run = cli("ingest", "record.jsonl", *TO_NEW)
    assert run.code == 3
    assert "record.jsonl" in run.err
    assert "records.jsonl" in run.err


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--features", "mean,mode", "'mode' is not a feature"),
        ("--features", ",", "no feature"),
        ("--layers", "0,x", "'x' is not a layer"),
        ("--layers", "5-2", "'5-2' is not a layer"),
        ("--map", "instruction", "not of the form"),
        ("--map", "colour=q", "not a canonical field"),
    ],
)
def test_bad_option_values(
    cli: Any, store: Path, fake_model: Any, write_jsonl: Any, snapshot: Any, option: str, value: str, says: str
) -> None:
    before = snapshot(store)
    run = cli("ingest", write_jsonl("a.jsonl"), *TO_NEW, option, value)
    assert run.code == 7
    assert says in run.err
    assert snapshot(store) == before


def test_another_model_is_refused_and_named(
    cli: Any, store: Path, fake_model: Any, write_jsonl: Any, snapshot: Any
) -> None:
    from nait_store.testing.stores import fake_identity

    fake_model.identity = fake_identity("quite another")
    before = committed(snapshot(store))
    run = cli("ingest", write_jsonl("a.jsonl"), "--set", "pool", "--model", "m")
    assert run.code == 6
    assert "model_fingerprint" in run.err
    assert committed(snapshot(store)) == before


def test_full_disk(
    cli: Any, store: Path, fake_model: Any, write_jsonl: Any, snapshot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = committed(snapshot(store))
    real = backend_module.replace_local

    def refuse(target: Path, data: Any) -> None:
        if "/segments/" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(target, data)

    monkeypatch.setattr(backend_module, "replace_local", refuse)
    run = cli("ingest", write_jsonl("a.jsonl"), "--set", "pool", "--model", "m")
    assert run.code == 10
    assert "No space left" in run.err
    assert "free some disk space" in run.err
    assert committed(snapshot(store)) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_ingest_commits_what_it_captured_and_goes_on(
    cli: Any, store: Path, fake_model: Any, write_jsonl: Any, number: int, code: int
) -> None:
    name = write_jsonl("a.jsonl", n=64)

    def stop(n_captured: int) -> None:
        if n_captured >= 32:
            os.kill(os.getpid(), number)

    fake_model.on_batch = stop
    run = cli("ingest", name, *TO_NEW)
    assert run.code == code
    assert run.out == ""
    assert "error: interrupted; new@1 holds 32 samples, with the 32 that were captured now\n  → run the same" in run.err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    fake_model.on_batch = None
    captured_before = fake_model.n_captured
    again = cli("ingest", name, *TO_NEW, "--json").json
    assert fake_model.n_captured - captured_before == 32
    assert (again["set_ref"], again["n_added"], again["n_known"]) == ("new@2", 32, 32)
    shown = cli("sets", "show", "new", "--json").json
    assert shown["summary"]["n_samples"] == 64


def test_sigterm_before_anything_is_captured(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    fake_model.on_batch = lambda _: os.kill(os.getpid(), signal.SIGTERM)
    run = cli("ingest", write_jsonl("a.jsonl", n=64), *TO_NEW, "--json")
    assert run.code == 143
    assert json.loads(run.err)["error"]["exit_code"] == 143
    assert "the store is as it was" in run.err
    assert cli("sets", "show", "new").code == 3


def test_a_second_ingest_computes_nothing(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    name = write_jsonl("a.jsonl")
    cli("ingest", name, *TO_NEW)
    captured = fake_model.n_captured
    run = cli("ingest", name, *TO_NEW)
    assert "0 samples added (10 known)" in run.out
    assert fake_model.n_captured == captured
    assert len(cli("sets", "history", "new", "--json").json) == 1
