"""``analyze core`` through the command line; the numbers themselves are tested with the analysis."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import nait_store

ARGUMENTS = ("analyze", "core", "math", "kind", "--on", "pool", "--top", "60%")


@pytest.fixture
def two_profiles(store: Path) -> nait_store.Store:
    """Beside math a profile of some of the candidates."""
    opened = nait_store.open(str(store))
    opened.profiles.build("kind", source="pool", where="kind = 'code'", limit=10)
    return opened


def test_text_says_how_far_profiles_agree_and_on_what(cli: Any, two_profiles: nait_store.Store) -> None:
    found = two_profiles.analyses.core("math", "kind", on="pool", top="60%", by="kind")
    run = cli(*ARGUMENTS, "--by", "kind")
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert lines[:3] == [
        "set       pool@2, 40 candidates", "profiles  math@1, kind@1", "best      60%: 24 samples of each profile",
    ]  # fmt: skip
    one, both = found.agreements
    assert lines[5].split() == ["at", "least", "1", str(one.n_samples), f"{2.5 * one.n_samples:.1f}", "%", "33.6"]
    assert lines[6].split() == ["all", "2", str(both.n_samples), f"{2.5 * both.n_samples:.1f}", "%", "14.4"]
    assert f"the core: {found.n_samples} samples in the top of all 2" in lines
    for value in found.values:
        figures = f"{value.n_core} {100 * value.n_core / found.n_samples:.1f} % {value.n_candidates} 50.0 %"
        assert f"{value.value} {figures}" in [" ".join(line.split()) for line in lines]
    first = found.rows.column("sample_id")[0].as_py()
    assert f"do {first}" in next(line for line in lines if line.split()[:2] == ["1", first])
    assert lines[-1] == f"… and {found.n_samples - 5} more"


def test_saved_it_is_a_selection_that_is_exported_like_any_other(
    cli: Any, two_profiles: nait_store.Store, folder: Path
) -> None:
    run = cli(*ARGUMENTS, "--save", "core", "--message", "both want it")
    assert "saved as selection:core@1" in run.err
    assert "selection export core@1" in run.err
    assert cli("selection", "verify", "core").code == 0
    assert cli("selection", "export", "core", "--to", "jsonl", "--out", "core.jsonl").code == 0
    written = [json.loads(line)["instruction"] for line in (folder / "core.jsonl").read_text().splitlines()]
    chosen = two_profiles.selections.open("core").rows().column("sample_id").to_pylist()
    assert written == [f"do {sample_id}" for sample_id in chosen]


def test_out_writes_the_ranks(cli: Any, two_profiles: nait_store.Store, folder: Path) -> None:
    found = two_profiles.analyses.core("math", "kind", on="pool", top="60%")
    run = cli(*ARGUMENTS, "--out", "core.csv")
    assert f"{found.n_samples} rows written to" in run.err
    rows = list(csv.DictReader((folder / "core.csv").read_text().splitlines()))
    assert list(rows[0]) == ["rank", "sample_id", "score", "n_profiles", "math@1", "kind@1"]
    assert [row["sample_id"] for row in rows] == found.rows.column("sample_id").to_pylist()
    assert all(int(row[name]) <= 24 for row in rows for name in ("math@1", "kind@1"))
    assert cli(*ARGUMENTS, "--out", "core.csv").code == 4
    assert cli(*ARGUMENTS, "--out", "-").out.startswith('"rank","sample_id"')


def test_json_has_the_rows_only_where_they_went_nowhere_else(cli: Any, two_profiles: nait_store.Store) -> None:
    found = two_profiles.analyses.core("math", "kind", on="pool", top="60%")
    value = cli(*ARGUMENTS, "--json").json
    assert value["rows"] == found.rows.to_pylist()
    assert [one["n_samples"] for one in value["agreements"]] == [one.n_samples for one in found.agreements]
    assert (value["n_samples"], value["saved"], value["written_to"]) == (found.n_samples, None, None)
    assert "selection" not in value
    kept = cli(*ARGUMENTS, "--save", "core", "--json").json
    assert kept["saved"] == "core@1"
    assert "rows" not in kept


def test_empty_core_is_shown_and_not_saved(cli: Any, two_profiles: nait_store.Store) -> None:
    shown = cli(*ARGUMENTS[:-1], "1")
    assert shown.code == 0
    assert shown.out.splitlines()[-2:] == [
        "the core: 0 samples in the top of all 2", "a larger --top, or fewer --min-profiles, would give one",
    ]  # fmt: skip
    refused = cli(*ARGUMENTS[:-1], "1", "--save", "core")
    assert refused.code == 7
    assert "the core is empty" in refused.err
    assert two_profiles.selections.names() == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("math", "--on", "pool"), 7, "there is only math@1"),
        (("math", "kind"), 2, "--on"),
        (("math", "kind", "--on", "pool", "--min-profiles", "3"), 7, "the number of profiles, 2"),
        (("math", "kind", "--on", "pool", "--min-profiles", "0"), 2, "--min-profiles"),
        (("math", "kind", "--on", "pool", "--top", "41"), 7, "40 candidates"),
        (("math", "kind", "--on", "pool", "--by", "kin"), 3, "kind"),
        (("math", "kind", "--on", "pool", "--save", "No!"), 7, "No!"),
    ],
)
def test_slips(cli: Any, two_profiles: nait_store.Store, arguments: tuple[str, ...], code: int, says: str) -> None:
    run = cli("analyze", "core", *arguments)
    assert run.code == code, run.err
    assert says in run.err
