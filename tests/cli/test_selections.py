"""``nait-store selection``."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import nait_store

BEST = ("select", "--from", "pool", "--profile", "math")


@pytest.fixture
def best(cli: Any, store: Path) -> Path:
    assert cli(*BEST, "--top", "5", "--save", "best", "--message", "the first").code == 0
    return store


def test_list_names_each_with_how_it_was_chosen(cli: Any, best: Path) -> None:
    cli("select", "--from", "pool@1", "--random", "--seed", "7", "--top", "3", "--save", "chance")
    run = cli("selection", "list")
    header, first, second = run.out.splitlines()
    assert header.split()[:5] == ["selection", "samples", "of", "set", "chosen"]
    assert first.split()[:4] == ["best@1", "5", "40", "pool@2"]
    assert "highest under math@1" in first
    assert first.endswith("the first")
    assert "by chance, seed 7" in second
    assert [one["reference"] for one in cli("selection", "list", "--json").json] == ["best@1", "chance@1"]


def test_an_empty_list_says_how_to_save_one(cli: Any, store: Path) -> None:
    assert cli("selection", "list").out.splitlines() == [
        "no selection is saved yet",
        "next: nait-store select --from SET --profile PROFILE --save NAME",
    ]


def test_show_describes_one(cli: Any, best: Path) -> None:
    run = cli("selection", "show", "best")
    assert "samples     5 of 40 candidates" in run.out
    assert "chosen      highest under math@1, top 5" in run.out
    assert "FROM alignment('pool@2', 'math@1')" in run.out
    assert "memory:synthetic.jsonl        5  100.0 %" in run.out
    assert "do s0" in run.out
    assert cli("selection", "show", "best", "--json").json["summary"]["message"] == "the first"


def test_show_warns_of_a_deleted_set_and_goes_on(cli: Any, best: Path) -> None:
    cli("sets", "delete", "pool", "--force")
    run = cli("selection", "show", "best")
    assert run.code == 0
    assert "warning: set pool@2 was deleted on " in run.err
    assert "selection  best@1" in run.out


def test_diff_writes_what_one_alone_has(cli: Any, best: Path, folder: Path) -> None:
    cli(*BEST, "--top", "8", "--save", "best")
    run = cli("selection", "diff", "best@1", "best@2", "--out", "diff.csv")
    assert run.out.startswith(
        "best@1 → best@2: 5 samples in both (62.5 % of those of either), 0 only in best@1, 3 only"
    )
    assert "top             5 → 8" in run.out
    rows = list(csv.DictReader((folder / "diff.csv").read_text().splitlines()))
    assert [(row["only_in"], row["rank"]) for row in rows] == [("best@2", "6"), ("best@2", "7"), ("best@2", "8")]
    value = cli("selection", "diff", "best@1", "best@2", "--json").json
    assert (value["overlap"], value["only_second"]["n_samples"], value["written_to"]) == (0.625, 3, None)
    assert len(cli("selection", "diff", "best@1", "best@2", "--out", "-").out.splitlines()) == 4
    assert cli("selection", "diff", "best@1", "best@2", "--out", "diff.csv").code == 4


def test_verify_ends_well_where_it_is_identical(cli: Any, best: Path) -> None:
    run = cli("selection", "verify", "best")
    assert run.code == 0
    assert run.out.splitlines()[-1] == "best@1 was made again: 5 samples, identical in order and score"
    assert cli("selection", "verify", "best", "--json").json["ok"] is True


def test_verify_ends_with_one_where_it_differs(cli: Any, best: Path) -> None:
    import dataclasses

    opened = nait_store.open(str(best))
    other = opened.select("pool", profile="math", top=5, strategy="lowest")
    record = opened.selections.open("best").selection()
    opened.selections.save("best", dataclasses.replace(record, rows=other.rows))
    run = cli("selection", "verify", "best@2")
    assert run.code == 1
    assert "DIFFERS  5 missing, 5 too many" in run.out
    assert run.out.splitlines()[-1] == "best@2 is not what its record gives"


def test_verify_says_what_is_gone(cli: Any, best: Path) -> None:
    cli("profile", "delete", "math", "--force")
    run = cli("selection", "verify", "best")
    assert run.code == 1
    assert "profile math@1 was deleted on " in run.out
    assert run.out.splitlines()[-1] == "best@1 was not made again: what it was made from is gone"


def test_delete_and_undelete(cli: Any, best: Path) -> None:
    run = cli("selection", "delete", "best", "--reason", "a slip")
    assert run.out.splitlines() == [
        "deleted best@1; none is left",
        "until gc takes it: nait-store selection undelete best@1",
    ]
    missing = cli("selection", "show", "best")
    assert missing.code == 3
    assert "undelete best" in missing.err
    assert cli("selection", "undelete", "best").out == "best@1 is back\n"
    assert cli("selection", "show", "best").code == 0


def test_a_tag_is_shown_and_protects(cli: Any, best: Path) -> None:
    cli("selection", "tag", "best@1", "paper", "--reason", "table 3")
    cli("selection", "describe", "best", "run 7 was trained on it")
    assert "labels      tag paper" in cli("selection", "show", "best").out
    assert "run 7 was trained on it" in cli("selection", "list").out
    assert cli("sql", "SELECT tag FROM tags WHERE kind = 'selection'", "--json").json == [{"tag": "paper"}]
    run = cli("selection", "delete", "best@1")
    assert run.code == 7
    assert "nait-store selection untag best paper" in run.err
    assert cli("selection", "tags", "best").out.splitlines()[1].split()[:3] == ["paper", "tag", "best@1"]


def test_an_alias_names_the_version_that_commands_take(cli: Any, best: Path) -> None:
    assert cli("selection", "alias", "best@1", "prod").out == "best@prod is best@1\n"
    assert "best@1" in cli("selection", "show", "best@prod").out
    cli("selection", "untag", "best", "prod")
    assert cli("selection", "show", "best@prod").code == 3


@pytest.mark.parametrize("command", ["show", "verify", "delete"])
def test_unknown_selections_suggest(cli: Any, best: Path, command: str) -> None:

    run = cli("selection", command, "bst")
    assert run.code == 3
    assert "'best'" in run.err


def test_export_says_what_the_training_run_needs(cli: Any, best: Path, folder: Path) -> None:
    run = cli("selection", "export", "best", "--to", "llama-factory", "--out", "train")
    assert run.out.splitlines() == [
        f"5 samples written to {folder}/train/best-1.jsonl (alpaca, by rank)",
        f"where they come from: {folder}/train/best-1.provenance.json",
        f"entry 'best-1' of {folder}/train/dataset_info.json; in the training run:",
        f"  dataset_dir: {folder}/train",
        "  dataset: best-1",
    ]
    value = cli("selection", "export", "best", "--to", "axolotl", "--shuffle", "3", "--out", "ax", "--json").json
    assert (value["trainer"], value["layout"], value["configuration"]) == (
        "axolotl",
        "messages",
        f"{folder}/ax/best-1.yaml",
    )
    assert "load_dataset(" in cli("selection", "export", "best", "--to", "trl", "--out", "t").out
    run = cli("selection", "export", "best", "--to", "hf-datasets", "--out", "hf")
    assert run.out.splitlines()[0].endswith("(records as they are, by rank)")
    assert f"load_dataset('{folder}/hf', split=\"train\")" in run.out


def test_export_refuses_and_leaves_out(cli: Any, best: Path, folder: Path) -> None:
    refused = cli("selection", "export", "best", "--to", "trl", "--layout", "text", "--out", "train")
    assert refused.code == 7
    assert "5 of 5 samples cannot be written as text for trl without a loss" in refused.err
    mapped = ("--map", "text=instruction", "--layout", "text")
    run = cli("selection", "export", "best", "--to", "trl", "--out", "train", *mapped)
    assert run.code == 0
    assert len((folder / "train" / "best-1.jsonl").read_text().splitlines()) == 5
    again = cli("selection", "export", "best", "--to", "trl", "--out", "train")
    assert again.code == 4
    assert "--force" in again.err


def test_fields_are_read_as_they_were_ingested(
    cli: Any, store: Path, folder: Path, fake_model: Any, write_jsonl: Any
) -> None:
    write_jsonl("qa.jsonl", [{"q": f"why {i}?", "a": f"so {i}", "instruction": "x"} for i in range(4)])
    ingested = ("--set", "qa", "--model", "./m", "--map", "instruction=q,output=a")
    assert cli("ingest", "qa.jsonl", *ingested).code == 0
    cli("select", "--from", "qa", "--random", "--top", "4", "--save", "qa")
    assert cli("selection", "export", "qa", "--to", "jsonl", "--layout", "alpaca", "--out", "qa-out.jsonl").code == 0
    rows = [json.loads(line) for line in (folder / "qa-out.jsonl").read_text().splitlines()]
    assert sorted(row["instruction"] for row in rows) == [f"why {i}?" for i in range(4)]
    assert {tuple(row) for row in rows} == {("instruction", "input", "output")}


def test_what_was_ingested_with_different_maps_asks_for_one(
    cli: Any, store: Path, folder: Path, fake_model: Any, write_jsonl: Any
) -> None:
    write_jsonl("a.jsonl", [{"q": f"why {i}?", "a": f"so {i}"} for i in range(2)])
    write_jsonl("b.jsonl", [{"instruction": f"do {i}", "output": f"done {i}"} for i in range(2)])
    cli("ingest", "a.jsonl", "--set", "qa", "--model", "./m", "--map", "instruction=q,output=a")
    cli("ingest", "b.jsonl", "--set", "qa", "--model", "./m")
    cli("select", "--from", "qa", "--random", "--top", "4", "--save", "qa")
    run = cli("selection", "export", "qa", "--to", "trl", "--out", "t")
    assert run.code == 7
    assert "different --map: instruction=q,output=a and none" in run.err
    assert cli("selection", "export", "qa", "--to", "jsonl", "--out", "t.jsonl").code == 0
