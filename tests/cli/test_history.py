"""``sets history``, ``diff``, ``delete-samples``, ``restore``, ``delete``, ``tag`` … through the command line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nait_store.activations.versions import ActivationSets
from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

Stdin = Callable[[bytes], None]
CODE = "kind = 'code'"


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Stdin:
    """Give the next command these bytes as its standard input."""
    return lambda data: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def count_of(cli: Any, reference: str) -> int:
    return int(cli("sql", f"SELECT count(*) AS n FROM samples('{reference}')", "--format", "jsonl").json["n"])


# --- delete-samples


def test_a_dry_run_says_what_would_go_and_writes_nothing(cli: Any, store: Path, snapshot: Any) -> None:
    before = snapshot(store)
    run = cli("sets", "delete-samples", "pool", "--where", CODE, "--dry-run")
    assert run.code == 0
    assert run.out.splitlines() == [
        "20 samples of pool@2 would be deleted, 20 left",
        "  s000000, s000002, s000004, … (20 in all)",
    ]
    assert snapshot(store) == before
    assert cli("sets", "delete-samples", "pool", "--where", CODE, "--dry-run", "--quiet").out == run.out


def test_samples_are_deleted_by_condition(cli: Any, store: Path) -> None:
    run = cli("sets", "delete-samples", "pool", "--where", CODE, "--message", "no code")
    assert run.out.splitlines() == [
        "pool@3: 20 samples deleted, 20 left",
        "next: nait-store sets diff pool@2 pool@3",
    ]
    assert (count_of(cli, "pool"), count_of(cli, "pool@2")) == (20, 40)
    last = cli("sets", "history", "pool").out.splitlines()[-1]
    assert "delete-samples  20 samples where kind = 'code'" in last
    assert last.endswith("no code")


def test_scores_and_selections_do_without_deleted_samples(cli: Any, store: Path) -> None:
    cli("score", "pool", "math")
    cli("sets", "delete-samples", "pool", "--where", CODE)
    run = cli("select", "--from", "pool", "--profile", "math", "--top", "100%", "--out", "-", "--format", "ids")
    assert run.out.split()
    assert all(int(one[1:]) % 2 for one in run.out.split())
    query = "SELECT count(*) AS n, count(score) AS m FROM alignment('pool', 'math') JOIN samples('pool') USING (row_id)"
    assert cli("sql", query, "--format", "jsonl").json == {"n": 20, "m": 20}


@pytest.mark.parametrize("name", ["ids.txt", "ids", "ids.jsonl", "ids.csv", "ids.tsv", "ids.parquet", "ids.txt.gz"])
def test_ids_come_from_files_of_every_kind(cli: Any, store: Path, folder: Path, name: str) -> None:
    ids = ["s000003", "s000039", "s000003"]
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps({"other": 1, "sample_id": one}) + "\n" for one in ids))
    elif name.endswith(("csv", "tsv")):
        comma = "," if name.endswith("csv") else "\t"
        path.write_text(f"other{comma}sample_id\n" + "".join(f"1{comma}{one}\n" for one in ids))
    elif name.endswith("parquet"):
        pq.write_table(pa.table({"other": [1, 2, 3], "sample_id": ids}), path)
    elif name.endswith("gz"):
        import gzip

        path.write_bytes(gzip.compress("\n".join(ids).encode()))
    else:
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(ids).encode())
    run = cli("sets", "delete-samples", "pool", "--ids", name, "--json")
    assert run.code == 0, run.err
    assert (run.json["n_deleted"], run.json["sample_ids"]) == (2, ["s000003", "s000039"])
    assert cli("sets", "history", "pool", "--json").json[-1]["details"] == {"n_ids": 2, "n_deleted": 2}


def test_ids_come_from_standard_input(cli: Any, store: Path, stdin: Stdin) -> None:
    ids = cli("select", "--from", "pool", "--random", "--top", "3", "--out", "-", "--format", "ids").out
    stdin(ids.encode())
    assert "3 samples deleted" in cli("sets", "delete-samples", "pool", "--ids", "-").out
    assert count_of(cli, "pool") == 37


def test_ids_are_not_in_the_history(cli: Any, store: Path, stdin: Stdin) -> None:
    stdin(b"s000007\n")
    cli("sets", "delete-samples", "pool", "--ids", "-")
    assert b"s000007" not in (store / "activations/pool/versions/3.json").read_bytes()


def test_unknown_ids_are_named(cli: Any, store: Path, stdin: Stdin, snapshot: Any) -> None:
    before = snapshot(store)
    stdin("s000001\nzzz\nümlaut ✂\n".encode() + b"x" * 200 + b"\n")
    run = cli("sets", "delete-samples", "pool", "--ids", "-")
    assert run.code == 3
    assert "pool@2 has no sample 'zzz', 'ümlaut ✂', 'xxx" in run.err
    assert "3 of 4 ids are not there" in run.err
    assert "--ignore-missing" in run.err
    assert max(map(len, run.err.splitlines())) < 250
    assert snapshot(store) == before


def test_unknown_ids_may_be_passed_over(cli: Any, store: Path, stdin: Stdin) -> None:
    stdin(b"s000001\nzzz\n")
    run = cli("sets", "delete-samples", "pool", "--ids", "-", "--ignore-missing")
    assert "pool@3: 1 sample deleted, 39 left; 1 of the ids are not there" in run.out
    stdin(b"zzz\n")
    run = cli("sets", "delete-samples", "pool", "--ids", "-", "--ignore-missing")
    assert (run.code, "nothing was deleted" in run.out) == (0, True)
    assert cli("sets", "history", "pool", "--json").json[-1]["number"] == 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the list of ids is empty"),
        (b"\n \n\r\n", "the list of ids is empty"),
        (b"s000001\n\xff\xfe\n", "standard input:2: invalid UTF-8 at byte 1"),
        (b"s000001\n" + b"y" * (1 << 20) + b"zz", "standard input:2: a line longer than 1 MiB"),
    ],
)
def test_unusable_lists_of_ids(cli: Any, store: Path, stdin: Stdin, data: bytes, says: str) -> None:
    stdin(data)
    run = cli("sets", "delete-samples", "pool", "--ids", "-")
    assert run.code == 7
    assert says in run.err


@pytest.mark.parametrize(
    ("name", "content", "code", "says"),
    [
        ("ids.csv", b"id,x\n1,2\n", 3, "ids.csv:2: the record has no sample_id"),
        ("ids.jsonl", b'{"sample_id": null}\n', 7, "ids.jsonl:1: its sample_id is None"),
        ("ids.jsonl", b"{\n", 7, "ids.jsonl:1: not valid JSON"),
        ("ids.parquet", b"PAR1", 7, "ids.parquet is not a whole Parquet file"),
        ("ids.gz", b"\x1f\x8bxx", 7, "not a whole compressed file"),
    ],
)
def test_unusable_files_of_ids(
    cli: Any, store: Path, folder: Path, name: str, content: bytes, code: int, says: str
) -> None:
    (folder / name).write_bytes(content)
    run = cli("sets", "delete-samples", "pool", "--ids", name)
    assert run.code == code, run.err
    assert says in run.err


def test_a_parquet_file_without_the_column(cli: Any, store: Path, folder: Path) -> None:
    pq.write_table(pa.table({"sample": ["a"]}), folder / "ids.parquet")
    run = cli("sets", "delete-samples", "pool", "--ids", "ids.parquet")
    assert run.code == 3
    assert "no column sample_id" in run.err


def test_a_missing_file_of_ids_suggests_a_near_one(cli: Any, store: Path, folder: Path) -> None:
    (folder / "bad-ids.txt").write_text("s000001\n")
    run = cli("sets", "delete-samples", "pool", "--ids", "bad-id.txt")
    assert run.code == 3
    assert "'bad-ids.txt'" in run.err


def test_200_000_unknown_ids_are_a_short_message(cli: Any, store: Path, stdin: Stdin) -> None:
    stdin("".join(f"unknown-{i}\n" for i in range(200_000)).encode())
    run = cli("sets", "delete-samples", "pool", "--ids", "-")
    assert run.code == 3
    assert "200,000 of 200,000 ids" in run.err
    assert len(run.err) < 500


def test_a_condition_that_nothing_meets(cli: Any, store: Path, snapshot: Any) -> None:
    before = snapshot(store)
    run = cli("sets", "delete-samples", "pool", "--where", "kind = 'poetry'")
    assert run.code == 0
    assert run.out == "pool@2 has none of these samples: nothing was deleted\n"
    assert snapshot(store) == before


def test_a_condition_that_everything_meets_needs_all(cli: Any, store: Path) -> None:
    run = cli("sets", "delete-samples", "pool", "--where", "true")
    assert run.code == 7
    assert "all 40 samples of pool@2" in run.err
    assert "--all" in run.err
    assert "needs --all" in cli("sets", "delete-samples", "pool", "--where", "true", "--dry-run").out
    assert cli("sets", "delete-samples", "pool", "--where", "true", "--all").code == 0
    assert count_of(cli, "pool") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("pool",), 7, "--where SQL and --ids FILE"),
        (("pool", "--where", "true", "--ids", "x"), 7, "--where SQL and --ids FILE"),
        (("pool@1", "--where", CODE), 7, "give the set: 'pool'"),
        (("pol", "--where", CODE), 3, "'pool'"),
        (("pool", "--where", "knd = 'code'"), 3, "did you mean 'kind'?"),
        (("pool", "--where", "true; DROP TABLE x"), 7, "not one SQL expression"),
        (("pool", "--where", "n_tokens"), 7, "not true or false"),
        (("../x", "--where", CODE), 7, "a-z"),
    ],
)
def test_refused_deletions(cli: Any, store: Path, snapshot: Any, arguments: Any, code: int, says: str) -> None:
    before = snapshot(store)
    run = cli("sets", "delete-samples", *arguments)
    assert (run.code, says in run.err) == (code, True), run.err
    assert snapshot(store) == before


# --- diff


def test_diff_counts_and_names_the_first(cli: Any, store: Path) -> None:
    run = cli("sets", "diff", "pool@1", "pool@2")
    assert run.out.splitlines() == [
        "pool@1 → pool@2: 20 added, 0 removed, 0 changed, 20 the same",
        "added     s000020, s000021, s000022, … (20 in all)",
        "segments  +1",
    ]
    value = cli("sets", "diff", "pool@2", "pool@1", "--json").json
    assert (value["n_removed"], value["removed"][0], value["same_samples"]) == (20, "s000020", False)
    assert "samples" not in value


def test_diff_of_equal_versions(cli: Any, store: Path) -> None:
    cli("sets", "restore", "pool@1")
    assert cli("sets", "diff", "pool@1", "pool").out == "pool@1 and pool@3 have the same 20 samples\n"


def test_diff_of_two_sets_tells_features_and_capture(cli: Any, store: Path) -> None:
    out = cli("sets", "diff", "pool", "maths").out
    assert "20 added, 40 removed" in out
    assert "features  +drift" in out
    assert "capture" not in out
    assert "sets show" in cli("sets", "diff", "pool", "other-model").out


def test_diff_writes_every_id_as_csv_or_json_lines(cli: Any, store: Path, folder: Path) -> None:
    expected = [f"s{i:06d}" for i in range(20, 40)]
    rows = list(csv.DictReader(io.StringIO(cli("sets", "diff", "pool@1", "pool@2", "--ids").out)))
    assert [(row["change"], row["sample_id"]) for row in rows] == [("added", one) for one in expected]
    lines = cli("sets", "diff", "pool@2", "pool@1", "--ids", "--json").out.splitlines()
    assert [json.loads(line) for line in lines] == [{"change": "removed", "sample_id": one} for one in expected]


def test_what_diff_writes_delete_samples_reads(cli: Any, store: Path, folder: Path) -> None:
    (folder / "new.csv").write_text(cli("sets", "diff", "pool@1", "pool@2", "--ids").out)
    cli("sets", "delete-samples", "pool", "--ids", "new.csv")
    assert "same 20 samples" in cli("sets", "diff", "pool@1", "pool").out


@pytest.mark.parametrize(("second", "says"), [("pool@9", "no version 9"), ("pol", "'pool'"), ("pool@x", "no alias")])
def test_diff_with_what_is_not_there(cli: Any, store: Path, second: str, says: str) -> None:
    run = cli("sets", "diff", "pool", second)
    assert (run.code, says in run.err) == (3, True)


# --- restore, delete, undelete


def test_restore_makes_a_version_like_the_old_one(cli: Any, store: Path) -> None:
    run = cli("sets", "restore", "pool@1", "--message", "fewer")
    assert run.out == "pool@3: 20 samples, as in pool@1\n"
    assert "restored pool@1" in cli("sets", "history", "pool").out.splitlines()[-1]
    again = cli("sets", "restore", "pool@1", "--json").json
    assert again == {"set_ref": "pool@3", "restored": "pool@1", "n_samples": 20, "created": False}


def test_a_deleted_version_is_shown_as_such_and_can_come_back(cli: Any, store: Path) -> None:
    run = cli("sets", "delete", "pool@2", "--reason", "bad labels")
    assert run.out.splitlines() == ["deleted pool@2; 1 left", "until gc takes it: nait-store sets undelete pool@2"]
    assert count_of(cli, "pool") == 20
    assert cli("sets", "history", "pool").out.splitlines()[-1].endswith(": bad labels")
    deleted = cli("sets", "history", "pool", "--json").json[-1]["deleted"]
    assert (deleted["reason"], set(deleted)) == ("bad labels", {"author", "deleted_at", "reason"})
    run = cli("sets", "show", "pool@2")
    assert (run.code, "'nait-store sets undelete pool@2'" in run.err) == (3, True)
    assert cli("sql", "FROM samples('pool@2')").code == 3
    assert cli("sets", "restore", "pool@2").out == "pool@3: 40 samples, as in pool@2\n"
    assert cli("sets", "undelete", "pool@2").out == "pool@2 is back\n"
    assert cli("sets", "undelete", "pool@2").out == "pool@2 is not deleted: nothing was done\n"
    assert count_of(cli, "pool@2") == 40


def test_a_whole_set_is_deleted_and_comes_back(cli: Any, store: Path) -> None:
    run = cli("sets", "delete", "pool", "--reason", "wrong data")
    assert run.out.splitlines() == [
        "deleted pool@1, pool@2; none is left",
        "until gc takes it: nait-store sets undelete pool",
    ]
    assert "pool" not in cli("sets", "list").out.replace("pool@", "")
    run = cli("sets", "show", "pool")
    assert (run.code, "'nait-store sets undelete pool'" in run.err) == (3, True)
    assert len(cli("sets", "history", "pool").out.splitlines()) == 3
    assert cli("sets", "delete", "pool").code == 3
    assert cli("sets", "undelete", "pool").out == "pool@1, pool@2 are back\n"
    assert count_of(cli, "pool") == 40


def test_latest_is_one_version_and_not_the_set(cli: Any, store: Path) -> None:
    assert "deleted pool@2; 1 left" in cli("sets", "delete", "pool@latest").out


def test_an_ingest_into_a_deleted_set(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    name = write_jsonl("new.jsonl", n=5)
    assert cli("ingest", name, "--set", "new", "--model", "m").code == 0
    assert cli("sets", "delete", "new").code == 0
    run = cli("ingest", name, "--set", "new", "--model", "m")
    assert (run.code, run.out.startswith("new@2: 5 samples added")) == (0, True), run.err
    assert [one["parent"] for one in cli("sets", "history", "new", "--json").json] == [None, None]


def test_the_name_of_a_deleted_set_keeps_its_identity(cli: Any, store: Path, fake_model: Any, write_jsonl: Any) -> None:
    assert cli("sets", "delete", "other-model", "--force").code == 0
    run = cli("ingest", write_jsonl("new.jsonl", n=5), "--set", "other-model", "--model", "m")
    assert run.code == 6
    assert "model_fingerprint" in run.err


def test_what_somebody_needs_is_named_with_what_to_do(cli: Any, store: Path) -> None:
    cli("select", "--from", "maths", "--profile", "math", "--top", "3", "--save", "best")
    cli("sets", "tag", "maths@1", "paper", "--reason", "table 2")
    cli("sets", "alias", "maths@1", "prod")
    for arguments in (("maths",), ("maths@1",), ("maths@paper",)):
        run = cli("sets", "delete", *arguments)
        assert run.code == 7
        for text in (
            "maths@paper (tag: table 2)",
            "maths@prod (alias)",
            "selection:best@1 (was selected from it)",
            "profile:math@1 (was built from it)",
            "'nait-store sets untag maths paper'",
            "can no longer be exported",
            "cannot be built again",
        ):
            assert text in run.err
    assert count_of(cli, "maths") == 20


def test_force_goes_past_all_but_tags(cli: Any, store: Path) -> None:
    cli("sets", "alias", "maths@1", "prod")
    cli("sets", "tag", "maths@1", "paper")
    run = cli("sets", "delete", "maths", "--force")
    assert (run.code, "maths@paper" in run.err, "--force" in run.err) == (7, True, False)
    cli("sets", "untag", "maths", "paper")
    assert cli("sets", "delete", "maths", "--force").code == 0
    assert cli("sets", "show", "maths@prod").code == 3
    assert cli("profile", "show", "math").code == 0


@pytest.mark.parametrize("command", ["delete", "undelete", "restore", "tags", "history"])
def test_sets_that_are_not_there(cli: Any, store: Path, command: str) -> None:
    run = cli("sets", command, "pol")
    assert (run.code, "'pool'" in run.err) == (3, True)
    run = cli("sets", command, "../pool")
    assert (run.code, "a-z" in run.err) == (7, True)


# --- labels


def test_labels_are_listed_with_their_moves(cli: Any, store: Path) -> None:
    cli("sets", "alias", "pool@1", "prod")
    cli("sets", "alias", "pool@2", "prod", "--reason", "more")
    cli("sets", "tag", "pool@1", "paper", "--reason", "table 2")
    rows = [line.split()[:4] for line in cli("sets", "tags", "pool").out.splitlines()[1:]]
    assert rows == [
        ["paper", "tag", "pool@1", "now"],
        ["prod", "alias", "pool@2", "now"],
        ["prod", "alias", "pool@1", "before"],
    ]
    value = cli("sets", "tags", "pool", "--json").json
    assert [(one["label"], one["kind"], one["version"]) for one in value] == [
        ("paper", "tag", "pool@1"),
        ("prod", "alias", "pool@2"),
    ]
    assert [move["version"] for move in value[1]["moves"]] == ["pool@1", "pool@2"]
    history = cli("sets", "history", "pool", "--json").json
    assert [(one["tags"], one["aliases"]) for one in history] == [(["paper"], []), ([], ["prod"])]


def test_a_label_that_was_taken_away_stays_in_the_list(cli: Any, store: Path) -> None:
    cli("sets", "tag", "pool", "paper")
    assert cli("sets", "untag", "pool", "paper", "--reason", "rejected").out == "tag paper was taken away\n"
    assert "taken away" in cli("sets", "tags", "pool").out
    run = cli("sets", "show", "pool@paper")
    assert (run.code, "no alias or tag 'paper'" in run.err) == (3, True)


def test_no_labels_yet(cli: Any, store: Path) -> None:
    assert cli("sets", "tags", "pool").out.startswith("set pool has no alias and no tag\n")


@pytest.mark.parametrize("command", ["tag", "alias"])
def test_bad_labels(cli: Any, store: Path, snapshot: Any, command: str) -> None:
    before = snapshot(store)
    for label in ("3", "latest", "Prod", "a b", "../x", "x" * 65, "", "ü", "a\nb", "a@b"):
        run = cli("sets", command, "pool@1", "--", label)
        assert (run.code, "→" in run.err) == (7, True), label
    assert snapshot(store) == before


def test_a_tag_does_not_move_and_shares_its_name_with_no_alias(cli: Any, store: Path) -> None:
    cli("sets", "tag", "pool@1", "paper")
    assert cli("sets", "tag", "pool@1", "paper").code == 0
    assert cli("sets", "tag", "pool@2", "paper").code == 4
    assert cli("sets", "alias", "pool@2", "paper").code == 4


@pytest.mark.parametrize("command", [("tag", "pool@9", "x"), ("alias", "pol", "x"), ("untag", "pool", "papr")])
def test_labels_on_what_is_not_there(cli: Any, store: Path, command: tuple[str, ...]) -> None:
    cli("sets", "tag", "pool", "paper")
    run = cli("sets", *command)
    assert run.code == 3
    assert "'paper'" in run.err or "pool" in run.err


@pytest.mark.parametrize("label", ["paper", "prod", "1"])
def test_labels_stand_wherever_a_version_may(cli: Any, store: Path, label: str) -> None:
    """pool@1 has 20 samples, the latest 40."""
    cli("sets", "tag", "pool@1", "paper")
    cli("sets", "alias", "pool@1", "prod")
    reference = f"pool@{label}"
    assert cli("sets", "show", reference, "--json").json["summary"]["reference"] == "pool@1"
    assert cli("sets", "diff", reference, "pool", "--json").json["first"] == "pool@1"
    assert count_of(cli, reference) == 20
    query = f"SELECT any_value(activation_set) AS s, count(*) AS n FROM alignment('{reference}', 'math')"
    assert cli("sql", query, "--format", "jsonl").json == {"s": "pool@1", "n": 20}
    asked = cli("sql", "SELECT count(*) AS n FROM samples($s)", "--param", f"s={reference}", "--format", "jsonl")
    assert asked.json == {"n": 20}
    assert cli("score", reference, "math").code == 0
    value = cli("select", "--from", reference, "--profile", "math", "--top", "2", "--save", "best", "--json").json
    assert (value["set_ref"], value["n_candidates"]) == ("pool@1", 20)
    built = cli("profile", "build", "p", "--from", reference, "--against", reference, "--json")
    assert built.code == 7  # a set against itself has no contrast; it was found, though
    record = cli("profile", "build", "p", "--from", reference, "--json").json["profile"]
    assert (record["source"]["set_name"], record["source"]["version"]) == ("pool", 1)
    against = cli("profile", "build", "q", "--from", "maths", "--against", reference, "--json").json["profile"]
    assert against["background"]["version"] == 1
    assert cli("sets", "restore", reference).out == "pool@3: 20 samples, as in pool@1\n"
    assert cli("sets", "tag", reference, "again", "--json").json["version"] == "pool@1"
    assert "pool@1 cannot be deleted" in cli("sets", "delete", reference).err


@pytest.mark.parametrize(
    "command",
    [
        ("delete-samples", "pool", "--where", CODE),
        ("restore", "pool@1"),
        ("delete", "pool@1"),
        ("undelete", "pool"),
        ("tag", "pool@1", "x"),
        ("untag", "pool", "x"),
        ("alias", "pool@1", "x"),
    ],
)
def test_a_read_only_store_refuses_changes_of_its_history(
    cli: Any, store: Path, snapshot: Any, read_only: None, command: tuple[str, ...]
) -> None:
    before = snapshot(store)
    assert cli("sets", *command).code == 8
    for look in (("history", "pool"), ("diff", "pool@1", "pool"), ("tags", "pool")):
        assert cli("sets", *look).code == 0
    assert cli("sets", "delete-samples", "pool", "--where", CODE, "--dry-run").code == 0
    assert snapshot(store) == before


@pytest.fixture
def read_only(store: Path) -> None:
    """A release to come uses this store."""
    from nait_store.schemas.store_record import StoreRecord

    record = StoreRecord.from_json_bytes((store / "store.json").read_bytes(), "store.json")
    changed = record.model_copy(update={"writer_features": ("teleportation",)})
    (store / "store.json").write_bytes(changed.to_json_bytes())


STRANGE = ["a\nb", "c\rd", 'quo"te, comma', "ü✂\x1b[31m", " space ", "{}"]


@pytest.fixture
def strange(store: Path) -> None:
    """A set whose ids another program made."""
    sets = ActivationSets(Location(str(store)))
    sets.create(fake_set_record("strange", n_layers=1, n_neurons=4))
    for ids in (["plain"], STRANGE):
        rows = [fake_row(sample_id, i) for i, sample_id in enumerate(ids)]
        arrays = {Feature.MEAN: np.ones((len(ids), 1, 4), np.float32)}
        sets.commit("strange", [build_segment(sets.location, "strange", rows, arrays)], ingest_ids=())


def test_strange_ids_survive_the_way_out_and_back(cli: Any, strange: None, folder: Path) -> None:
    lines = cli("sets", "diff", "strange@1", "strange@2", "--ids", "--json").out
    assert [json.loads(line)["sample_id"] for line in lines.splitlines()] == STRANGE
    table = cli("sets", "diff", "strange@1", "strange@2", "--ids").out
    assert [row["sample_id"] for row in csv.DictReader(io.StringIO(table, newline=""))] == STRANGE
    for name, text in (("ids.jsonl", lines), ("ids.csv", table)):
        (folder / name).write_text(text, encoding="utf-8", newline="")
        run = cli("sets", "delete-samples", "strange", "--ids", name, "--dry-run", "--json")
        assert run.json["n_deleted"] == len(STRANGE)


def test_strange_ids_cannot_act_on_a_terminal(cli: Any, strange: None, stdin: Stdin) -> None:
    for command in (
        ("diff", "strange@1", "strange@2"),
        ("delete-samples", "strange", "--where", "sample_id <> 'plain'", "--dry-run"),
    ):
        out = cli("sets", *command).out
        assert r"a\nb, c\rd, quo" in out
        assert "\x1b" not in out
    stdin(b"\x1b[31m\n")
    assert "\x1b" not in cli("sets", "delete-samples", "strange", "--ids", "-").err


def test_ids_of_one_line_each_are_taken_to_the_letter(cli: Any, strange: None, stdin: Stdin) -> None:
    stdin(f"{STRANGE[4]}\r\n{STRANGE[5]}\n{STRANGE[2]}".encode())
    assert cli("sets", "delete-samples", "strange", "--ids", "-", "--json").json["n_deleted"] == 3


@pytest.mark.parametrize(("group", "name"), [("profile", "math"), ("sets", "pool")])
def test_a_note_is_written_shown_and_taken_away(cli: Any, store: Path, group: str, name: str) -> None:
    assert cli(group, "describe", f"{name}@1", "good\nenough").out == f"{name}@1: good\\nenough\n"
    assert "good\\nenough" in cli(group, "show", f"{name}@1").out
    assert "good\\nenough  now" in cli(group, "history", name).out
    assert cli(group, "describe", f"{name}@1", "").out == f"the note on {name}@1 was taken away\n"
    assert "good" not in cli(group, "show", f"{name}@1").out
    out = cli(group, "history", name).out
    assert "taken away" in out
    assert "good\\nenough  before" in out


def test_the_list_of_profiles_has_a_column_of_notes_only_where_there_are_any(cli: Any, store: Path) -> None:
    assert "note" not in cli("profile", "list").out.splitlines()[0]
    cli("profile", "describe", "math", "approved")
    lines = cli("profile", "list").out.splitlines()
    assert lines[0].endswith("note")
    assert [line.split()[0] for line in lines if line.endswith("approved")] == ["math@1"]


def test_an_empty_note_where_there_is_none_is_refused(cli: Any, store: Path) -> None:
    run = cli("profile", "describe", "math", "")
    assert (run.code, run.out) == (InvalidInputError.exit_code, "")
    assert "no note on profile math@1" in run.err
