"""``sql`` and ``score`` through the command line."""

from __future__ import annotations

import csv
import io
import json
import re
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
    assert cli("sql", query, "--format", "markdown").out == "| sample_id |\n| --------- |\n"
    assert cli("sql", query, "--format", "csv").out == '"sample_id"\n'
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


def test_decimals_maps_and_bytes_are_what_programs_expect(cli: Any, store: Path) -> None:
    query = "SELECT 1.5 AS d, [0.5] AS l, {'n': sum(2)} AS s, MAP {7: DATE '2026-01-02'} AS m, 'a\\xFF'::BLOB AS b"
    [row] = cli("sql", query, "--format", "json").json
    assert row == {"d": 1.5, "l": [0.5], "s": {"n": 2}, "m": {"7": "2026-01-02"}, "b": "a\\xFF"}
    assert isinstance(row["s"]["n"], int)
    [line] = csv.DictReader(io.StringIO(cli("sql", query, "--format", "csv").out))
    assert {name: json.loads(line[name]) for name in "dlsm"} == {name: row[name] for name in "dlsm"}
    assert line["b"] == row["b"]


@pytest.mark.parametrize("form", ["json", "csv"])
def test_columns_of_one_name_are_told_apart_for_programs(cli: Any, store: Path, form: str) -> None:
    out = cli("sql", "SELECT 1 AS x, 2 AS x", "--format", form).out
    [row] = json.loads(out) if form == "json" else csv.DictReader(io.StringIO(out))
    assert {name: int(value) for name, value in row.items()} == {"x": 1, "x_1": 2}


def test_a_decimal_is_aligned_right_like_other_numbers(cli: Any, store: Path) -> None:
    assert cli("sql", "SELECT unnest([1.25, 10.5]) AS n").out == "    n\n 1.25\n10.50\n"


def test_markdown_shows_values_and_not_their_markup(cli: Any, store: Path) -> None:
    query = "SELECT 'a|b\nc' AS text, 12.5 AS n, '<b>_x_ s_1' AS markup UNION ALL SELECT '*', NULL, '[1]' ORDER BY n"
    assert cli("sql", query, "--format", "markdown").out.splitlines() == [
        "| text      |    n | markup        |",
        "| --------- | ---: | ------------- |",
        "| a\\|b<br>c | 12.5 | \\<b>\\_x\\_ s_1 |",
        "| \\*        |      | \\[1\\]         |",
    ]


def test_the_plan_of_explain_is_drawn_line_by_line(cli: Any, store: Path) -> None:
    lines = cli("sql", "EXPLAIN SELECT 1 AS one").out.splitlines()
    assert len(lines) > 2
    assert all(len(line) == len(lines[0]) for line in lines)


def test_a_list_names_several_profiles(cli: Any, store: Path) -> None:
    query = "SELECT DISTINCT profile FROM alignment('pool', $names)"
    assert cli("sql", query, "--param", 'names=["math"]', "--json").json == [{"profile": "math@1"}]


def test_parameters_are_json_or_text(cli: Any, store: Path) -> None:
    given = {"n": "[1, 2.5]", "t": "[a-z]", "o": '{"a": 1}', "d": "2026-01-02", "b": "true", "x": "null", "id": "007"}
    query = "SELECT typeof($n) n, $t t, $o->>'a' o, $d::DATE + 1 > DATE '2026-01-02' d, $b b, $x x, $id id"
    [row] = cli("sql", query, "--json", *(f"--param={name}={value}" for name, value in given.items())).json
    assert row == {"n": "DOUBLE[]", "t": "[a-z]", "o": "1", "d": True, "b": True, "x": None, "id": "007"}


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


def test_a_pipe_is_read_where_no_query_is_given(cli: Any, store: Path) -> None:
    assert cli("sql", "--json", stdin="SELECT 41 + 1 AS n;\n").json == [{"n": 42}]


def test_without_a_query_a_terminal_gets_help(cli: Any, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    run = cli("sql")
    assert (run.code, run.out) == (2, "")
    assert "Usage: nait-store sql" in run.err


def test_help_names_every_table_and_view(cli: Any, folder: Path) -> None:
    from nait_store.query.session import RESERVED

    words = set(re.findall(r"\w+", cli("sql", "--help").out))
    assert set(RESERVED) - words == set()


def test_query_from_a_file(cli: Any, store: Path, folder: Path) -> None:
    # As Windows editors leave it, with a byte-order mark.
    (folder / "q.sql").write_bytes('\ufeff-- how many\r\nSELECT 40 + $k AS "ü";\r\n'.encode())
    assert cli("sql", "--file", "q.sql", "--param", "k=2", "--json").json == [{"ü": 42}]
    assert cli("sql", "--file", "-", "--json", stdin="SELECT 1 AS n").json == [{"n": 1}]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--file", "absent.sql"), 3, "there is no file /"),
        (("--file", "."), 7, "Is a directory"),
        (("--file", "bad.sql"), 7, "not UTF-8"),
        (("--file", "empty.sql"), 7, "the query is empty"),
        (("--file", "two.sql"), 7, "2 statements"),
        (("SELECT 1", "--file", "two.sql"), 7, "exclude each other"),
        (("SELECT 1", "--table", "labels.csv"), 7, "NAME=FILE"),
        (("SELECT 1", "--table", "=labels.csv"), 7, "NAME=FILE"),
        (("SELECT 1", "--table", "a=x.csv", "--table", "a=y.csv"), 7, "given twice"),
        (("SELECT 1", "--table", "a=absent.csv"), 3, "there is no file /"),
        (("SELECT 1", "--table", "profiles=two.sql"), 7, "taken by the store"),
        (("SELECT 1", "--out", "result.xlsx"), 7, ".xlsx stands for no format"),
    ],
)
def test_unusable_files_are_refused(
    cli: Any, store: Path, folder: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    (folder / "bad.sql").write_bytes(b"SELECT '\xff'")
    (folder / "empty.sql").write_text("-- nothing\n")
    (folder / "two.sql").write_text("SELECT 1; SELECT 2")
    run = cli("sql", *arguments)
    assert run.code == code, run.err
    assert says in run.err
    assert run.out == ""


def test_tables_are_files_by_name(cli: Any, store: Path, folder: Path) -> None:
    ids = [row["sample_id"] for row in cli("sql", TOP, "--json").json]
    (folder / "top=1.csv").write_text("sample_id,label\n" + "".join(f"{i},good\n" for i in ids))
    (folder / "more.jsonl").write_text('{"label": "good", "weight": 2}\n')
    query = "SELECT count(*) AS n, sum(weight) AS w FROM samples('pool') JOIN a USING (sample_id) JOIN b USING (label)"
    run = cli("sql", query, "--table", "a=top=1.csv", "--table", "b=more.jsonl", "--json")
    assert run.json == [{"n": 3, "w": 6}]


def test_explain_says_what_would_be_scanned_and_leaves_everything_alone(
    cli: Any, store: Path, folder: Path, snapshot: Any
) -> None:
    before = snapshot(store)
    run = cli("sql", TOP, "--explain", "--out", "top.csv")
    assert run.code == 0
    head, scores, scan, total = run.out.splitlines()
    assert head.split() == ["set", "profile", "feature", "metric", "samples", "segments", "with", "scores"]
    assert scores.split() == ["pool@2", "math@1", "mean", "cosine", "40", "2", "0"]
    assert scan == "one pass over the mean of pool@2: 1.9 kB (2 segments, 40 rows, 3 layers) for math@1"
    assert total == "1.9 kB of activations would be read"
    assert snapshot(store) == before
    assert not (folder / "top.csv").exists()

    plan = cli("sql", TOP, "--explain", "--json").json
    assert plan["size_bytes"] == plan["passes"][0]["size_bytes"] == 40 * 3 * 8 * 2  # float16
    assert plan["scores"][0]["n_cached_segments"] == 0

    cli("score", "pool", "math")
    kept = cli("sql", TOP, "--explain").out.splitlines()
    assert kept[1].split()[-1] == "2"
    assert kept[2:] == ["no activations would be read: the scores are stored"]
    assert cli("sql", TOP, "--explain", "--json").json["size_bytes"] == 0


def test_explain_finds_slips(cli: Any, store: Path) -> None:
    run = cli("sql", TOP.replace("score FROM", "scor FROM"), "--explain")
    assert (run.code, run.out) == (3, "")
    assert "'scor'" in run.err


def test_explain_of_metadata_reads_no_activations(cli: Any, store: Path) -> None:
    assert cli("sql", "FROM profiles", "--explain").out == "no activations would be read\n"


def test_an_error_points_at_its_place(cli: Any, store: Path) -> None:
    assert cli("sql", "SELECT sample_id,\n  scor\nFROM alignment('pool', 'math')").err.splitlines()[:3] == [
        "error: there is no column 'scor' in this part of the query",
        "LINE 2:   scor",
        "          ^^^^",
    ]


def test_show_and_describe(cli: Any, store: Path) -> None:
    tables = cli("sql", "SHOW TABLES", "--json").json
    assert {"activation_sets", "profiles", "all_samples"} <= {row["name"] for row in tables}
    columns = {row["column_name"] for row in cli("sql", "DESCRIBE FROM samples('pool')", "--json").json}
    assert {"sample_id", "kind", "record"} <= columns


@pytest.mark.parametrize("name", ["top.md", "top.txt", "top.pq", "top.ndjson"])
def test_an_ending_chooses_the_format(cli: Any, store: Path, folder: Path, name: str) -> None:
    assert cli("sql", TOP, "--out", name).code == 0
    written = (folder / name).read_bytes()
    form = {"top.md": "markdown", "top.txt": "table", "top.ndjson": "jsonl"}.get(name)
    if form is None:
        assert pq.read_table(folder / name).num_rows == 3
    else:
        assert written.decode() == cli("sql", TOP, "--format", form).out


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
