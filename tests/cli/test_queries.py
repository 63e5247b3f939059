"""``sql`` and ``score`` through the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

TOP = "SELECT sample_id, score FROM alignment('pool', 'math') ORDER BY score DESC, sample_id LIMIT 3"


def test_plain_table_is_aligned_and_whole(cli: Any, store: Path) -> None:
    run = cli("sql", "SELECT 1 AS n, 'a\nb' AS text, NULL AS nothing UNION ALL SELECT 23, 'ü', NULL ORDER BY n")
    assert run.out == " n  text  nothing\n 1  a\\nb\n23  ü\n"
    assert run.err == "2 rows\n"


def test_formats_agree(cli: Any, store: Path) -> None:
    rows = cli("sql", TOP, "--format", "json").json
    assert len(rows) == 3
    assert rows[0]["score"] >= rows[1]["score"] >= rows[2]["score"]
    assert cli("sql", TOP, "--json").json == rows
    lines = cli("sql", TOP, "--format", "jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = list(csv.DictReader(io.StringIO(cli("sql", TOP, "--format", "csv").out)))
    assert [(row["sample_id"], float(row["score"])) for row in table] == [(r["sample_id"], r["score"]) for r in rows]


def test_empty_results_are_well_formed(cli: Any, store: Path) -> None:
    query = "SELECT sample_id FROM samples('pool') WHERE false"
    assert cli("sql", query, "--format", "json").json == []
    assert cli("sql", query, "--format", "jsonl").out == ""
    assert cli("sql", query).out == "sample_id\n"


def test_nested_and_odd_values(cli: Any, store: Path) -> None:
    query = "SELECT [1, 2] AS l, {'a': 'x'} AS s, 'nan'::DOUBLE AS d, DATE '2026-01-02' AS t, 'a\x1b[31m' AS e"
    assert cli("sql", query, "--format", "json").json == [
        {"l": [1, 2], "s": {"a": "x"}, "d": None, "t": "2026-01-02", "e": "a\x1b[31m"}
    ]
    assert "\x1b" not in cli("sql", query).out
    row = next(csv.DictReader(io.StringIO(cli("sql", query, "--format", "csv").out)))
    assert (json.loads(row["l"]), json.loads(row["s"])) == ([1, 2], {"a": "x"})


def test_parameters(cli: Any, store: Path) -> None:
    query = "SELECT count(*) AS n FROM samples('pool') WHERE kind = $kind AND n_tokens >= $least"
    run = cli("sql", query, "--param", "kind=code", "--param", "least=0", "--json")
    assert run.json == [{"n": 20}]


def test_quoted_parameters_stay_text(cli: Any, store: Path) -> None:
    run = cli("sql", "SELECT typeof($a) AS a, typeof($b) AS b", "--param", "a=1", "--param", 'b="1"', "--json")
    assert run.json[0]["a"] != "VARCHAR"
    assert run.json[0]["b"] == "VARCHAR"


@pytest.mark.parametrize("param", ["novalue", "1=x", "=x"])
def test_bad_parameters(cli: Any, store: Path, param: str) -> None:
    run = cli("sql", "SELECT 1", "--param", param)
    assert run.code == 7
    assert "NAME=VALUE" in run.err


def test_query_from_standard_input(cli: Any, store: Path) -> None:
    assert cli("sql", "-", "--json", stdin="SELECT 41 + 1 AS n").json == [{"n": 42}]


def test_out_writes_whole_files_and_refuses_to_overwrite(cli: Any, store: Path, folder: Path) -> None:
    run = cli("sql", TOP, "--out", "top.parquet")
    assert run.out == f"3 rows written to {folder / 'top.parquet'} (parquet)\n"
    assert pq.read_table(folder / "top.parquet").column_names == ["sample_id", "score"]
    again = cli("sql", TOP, "--out", "top.parquet")
    assert again.code == 4
    assert "--force" in again.err
    assert cli("sql", TOP, "--out", "top.parquet", "--force").code == 0
    assert cli("sql", TOP, "--out", "top.csv", "--json").json["n_rows"] == 3
    assert (folder / "top.csv").read_text().startswith('"sample_id","score"')


@pytest.mark.parametrize(
    ("query", "code", "says", "next_step"),
    [
        ("SELECT * FROM alignment('poool', 'math')", 3, "poool", "'pool'"),
        ("SELECT * FROM alignment('pool', 'mth')", 3, "mth", "'math'"),
        ("SELECT * FROM alignment('pool@9', 'math')", 3, "no version 9", "pool@1, pool@2"),
        ("SELECT * FROM alignment('pool', 'math@9')", 3, "no version 9", "math@1"),
        ("SELECT instuction FROM samples('pool')", 3, "instuction", "instruction"),
        ("SELECT * FROM smples('pool')", 3, "smples", "samples"),
        ("SELEC 1", 7, "SELEC", ""),
        ("DROP TABLE x", 7, "", ""),
        ("", 7, "empty", "SELECT"),
        ("SELECT * FROM alignment('pool', 'foreign')", 6, "model_fingerprint", "ingest"),
    ],
)
def test_bad_queries(cli: Any, store: Path, snapshot: Any, query: str, code: int, says: str, next_step: str) -> None:
    before = snapshot(store)
    run = cli("sql", query)
    assert run.code == code, run.err
    assert says in run.err
    assert next_step in run.err
    assert run.out == ""
    assert snapshot(store) == before


def test_score_says_what_was_computed_and_then_known(cli: Any, store: Path) -> None:
    first = cli("score", "pool", "math")
    assert first.code == 0
    assert "2 segment scores computed" in first.out
    assert "known already" in cli("score", "pool", "math").out
    assert cli("score", "pool", "math", "--json").json["work"]["n_cached"] == 2


@pytest.mark.parametrize(
    ("arguments", "code"), [(("nope", "math"), 3), (("pool", "nope"), 3), (("pool", "foreign"), 6)]
)
def test_bad_scores(cli: Any, store: Path, snapshot: Any, arguments: tuple[str, str], code: int) -> None:
    before = snapshot(store)
    run = cli("score", *arguments)
    assert run.code == code
    assert "\n  → " in run.err
    assert snapshot(store) == before


def test_a_terminal_gets_a_cut_table(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.cells import cell_len

    from nait_store.cli.tables import Table, print_table

    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")  # no escape sequences
    print_table(Table(("id", "text"), [("a", "漢字" * 50), ("b", "x" * 200)]))
    assert max(cell_len(line) for line in stream.getvalue().splitlines()) <= 40
    assert "…" in stream.getvalue()
