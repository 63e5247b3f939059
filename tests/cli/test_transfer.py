"""``transfer-report`` through the command line; the numbers themselves are tested with the store."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import nait_store
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set, fake_identity


@pytest.fixture
def two_pools(store: Path) -> Path:
    """Beside pool, 30 of whose samples another model has captured too, with ten others."""
    build_set(Location(str(store)), "pool-other", 10, seed=8, first=3000, identity=fake_identity("other"), n_layers=3)
    kinds = [("code", "chat")[i % 2] for i in range(30)]
    shape: dict[str, Any] = {"identity": fake_identity("other"), "n_layers": 3}
    build_set(Location(str(store)), "pool-other", 30, seed=9, user_fields={"kind": kinds}, **shape)
    return store


ARGUMENTS = ("transfer-report", "math", "foreign", "--on", "pool", "pool-other")


def test_text_says_what_is_compared_and_how_alike(cli: Any, two_pools: Path) -> None:
    run = cli(*ARGUMENTS)
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert lines[0] == "first     math@1 on pool@2 (./fake-model)"
    assert lines[2] == "compared  30 samples"
    assert lines[3] == "left out  10 only in pool@2, 10 only in pool-other@2"
    assert [line.split()[0] for line in lines[6:]] == ["top", "10%", "30%"]


def test_json_has_every_figure_and_no_rows(cli: Any, two_pools: Path) -> None:
    value = cli(*ARGUMENTS, "--top", "50%", "--json").json
    report = nait_store.open(str(two_pools)).transfer_report("math", "foreign", on=("pool", "pool-other"), top=["50%"])
    assert value["spearman"] == pytest.approx(report.spearman, abs=1e-12)
    (overlap,) = value["overlaps"]
    assert (overlap["n_best"], overlap["n_candidates"], overlap["share_by_chance"]) == (15, 30, 0.5)
    assert overlap["share"] == report.overlaps[0].share
    assert "rows" not in value


def test_out_writes_both_rankings(cli: Any, two_pools: Path, folder: Path) -> None:
    run = cli(*ARGUMENTS, "--out", "ranks.csv")
    assert "30 rows written" in run.err
    rows = list(csv.DictReader((folder / "ranks.csv").read_text().splitlines()))
    assert [int(row["first_rank"]) for row in rows] == list(range(1, 31))
    assert sorted(int(row["second_rank"]) for row in rows) == list(range(1, 31))
    assert cli(*ARGUMENTS, "--out", "ranks.csv").code == 4
    assert cli(*ARGUMENTS, "--out", "ranks.csv", "--force").code == 0


def test_out_to_standard_output_is_csv_alone(cli: Any, two_pools: Path) -> None:
    run = cli(*ARGUMENTS, "--out", "-")
    assert run.out.splitlines()[0] == '"sample_id","first_rank","first_score","second_rank","second_score"'
    assert len(run.out.splitlines()) == 31


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--on", "pool", "other-model"), 7, "no sample in common"),
        (("--on", "pool-other", "pool"), 6, "--on pool pool-other"),
        (("--on", "pool"), 2, "--on"),
        ((), 2, "--on"),
        (("--on", "pool", "pool-other", "--top", "0%"), 7, "selects nothing"),
        (("--on", "pool", "pool-other", "--out", "x.docx"), 7, "stands for no format"),
    ],
)
def test_slips(cli: Any, two_pools: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    run = cli("transfer-report", "math", "foreign", *arguments)
    assert run.code == code, run.err
    assert says in run.err
