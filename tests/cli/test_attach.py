"""``nait-store attach``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import duckdb


def test_left_out_pairs_are_told_with_a_command_that_adds_them(cli: Any, store: Path, folder: Path) -> None:
    run = cli("attach", "--out", "view.duckdb")
    assert run.code == 0
    assert run.out.startswith(f"{folder / 'view.duckdb'}: 3 views of samples, 0 of scores, ")
    warnings = [line for line in run.err.splitlines() if line.startswith("warning: left out: ")]
    assert len(warnings) == 3
    [about_pool] = [line for line in warnings if "pool@2 under math@1" in line]

    command = shlex.split(about_pool.partition("; run ")[2].partition(" and attach again")[0])
    assert command[0] == "nait-store"
    assert cli(*command[1:]).code == 0
    again = cli("attach", "--out", "view.duckdb", "--overwrite")

    assert "3 views of samples, 1 of scores" in again.out
    with duckdb.connect(folder / "view.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM alignment('pool', 'math')").fetchall() == [(40,)]


def test_compute_leaves_nothing_out(cli: Any, store: Path) -> None:
    run = cli("attach", "--out", "view.duckdb", "--compute", "--json")
    assert run.json["missing"] == []
    assert run.json["n_computed"] > 0
    names = {(view["schema"], view["name"]) for view in run.json["views"]}
    assert {("samples", "pool"), ("alignment", "pool__math"), ("alignment", "other-model__foreign")} <= names
    assert ("alignment", "pool__foreign") not in names
    assert run.err == ""


def test_sets_and_profiles_are_restricted(cli: Any, store: Path) -> None:
    run = cli("attach", "--out", "v.duckdb", "--set", "pool@*", "--set", "maths", "--profile", "math", "--json")
    assert [view["name"] for view in run.json["views"]] == ["pool@1", "pool@2", "maths"]
    assert [missing["set_ref"] for missing in run.json["missing"]] == ["pool@1", "pool@2", "maths@1"]
    assert run.err.count("warning: left out") == 3


def test_errors_have_their_exit_codes(cli: Any, store: Path, folder: Path) -> None:
    (folder / "there.duckdb").write_text("mine")
    for arguments, code, says in [
        (("--out", "there.duckdb"), 4, "--force"),
        (("--out", "v.duckdb", "--set", "poool"), 3, "'pool'"),
        (("--out", "v.duckdb", "--set", "pool", "--profile", "foreign"), 6, "does not apply"),
        (("--out", "samples.duckdb"), 7, "view.duckdb"),
    ]:
        run = cli("attach", *arguments)
        assert (run.code, run.out) == (code, "")
        assert says in run.err
    assert sorted(path.name for path in folder.glob("*.duckdb")) == ["there.duckdb"]
