"""``analyze transfer`` through the command line; the numbers themselves are tested with the analysis."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest

import nait_store

ARGUMENTS = ("analyze", "transfer", "math", "kind", "--on", "pool")


@pytest.fixture
def two_profiles(store: Path) -> nait_store.Store:
    """Beside math a profile of some of the candidates."""
    opened = nait_store.open(str(store))
    opened.profiles.build("kind", source="pool", where="kind = 'code'", limit=10, metric="dot")
    return opened


def test_text_says_what_is_compared_and_how_alike(cli: Any, two_profiles: nait_store.Store) -> None:
    found = two_profiles.analyses.transfer("math", "kind", on="pool")
    run = cli(*ARGUMENTS)
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert lines[:2] == ["set   pool@2, 40 candidates", "best  10%: 4 samples of each profile"]
    (pair,) = found.pairs
    low, high = (f"{pair.cosines[i]:.4f} (layer {i})" for i in pair.extremes)
    figures = f"{pair.cosine:.4f} {low} {high} {pair.spearman:.4f} {pair.n_common} {100 * pair.overlap:.1f} %"
    assert " ".join(lines[4].split()) == f"math@1, kind@1 {figures}"
    assert lines[5] == "two unrelated rankings share 10.0 % of the best on average"
    areas = next(line for line in lines if line.startswith("math@1 "))
    assert areas.split() == ["math@1", *(f"{domain.aucs['math@1']:.3f}" for domain in found.domains)]
    assert "of math@1: 20 in-domain samples of maths@1, told from 40 other candidates" in lines
    assert "of kind@1: 10 in-domain samples of pool@2, told from 30 other candidates" in lines
    assert lines[-4:] == ["layer  math@1, kind@1", *(f"    {i}  {c:.4f}" for i, c in pair.cosines.items())]


def test_nobody_is_flattered_by_a_condition(cli: Any, two_profiles: nait_store.Store) -> None:
    assert "flatter it" in cli(*ARGUMENTS).out
    given = ("--domain", "math=kind = 'chat'", "--domain", "kind=kind = 'code'")
    out = cli(*ARGUMENTS, *given).out
    assert "flatter it" not in out
    assert "of math@1: candidates where kind = 'chat', told from 20 other candidates" in out


def test_json_has_every_figure(cli: Any, two_profiles: nait_store.Store) -> None:
    found = two_profiles.analyses.transfer("math", "kind", on="pool", top="50%", where="n_tokens > 7")
    value = cli(*ARGUMENTS, "--top", "50%", "--where", "n_tokens > 7", "--json").json
    (pair,) = value["pairs"]
    assert pair["cosines"] == {str(layer): cosine for layer, cosine in found.pairs[0].cosines.items()}
    assert (pair["spearman"], pair["n_common"]) == (found.pairs[0].spearman, found.pairs[0].n_common)
    assert [domain["aucs"] for domain in value["domains"]] == [dict(domain.aucs) for domain in found.domains]
    assert (value["n_candidates"], value["n_best"], value["overlap_by_chance"]) == (32, 16, 0.5)
    assert (value["written_to"], value["picture"]) == (None, None)


def test_out_writes_a_row_a_pair_and_picture_a_picture(cli: Any, two_profiles: nait_store.Store, folder: Path) -> None:
    run = cli(*ARGUMENTS, "--out", "pairs.csv", "--picture", "pairs.png")
    assert run.code == 0, run.err
    assert "4 rows written to" in run.err
    rows = list(csv.DictReader((folder / "pairs.csv").read_text().splitlines()))
    assert [(row["profile"], row["other"]) for row in rows] == [
        (one, other) for one in ("math@1", "kind@1") for other in ("math@1", "kind@1")
    ]
    assert (folder / "pairs.png").read_bytes().startswith(b"\x89PNG")
    assert cli(*ARGUMENTS, "--out", "pairs.csv").code == 4
    assert cli(*ARGUMENTS, "--picture", "pairs.png").code == 4
    assert cli(*ARGUMENTS, "--out", "pairs.csv", "--picture", "pairs.png", "--force").code == 0


def test_out_to_standard_output_is_csv_alone(cli: Any, two_profiles: nait_store.Store) -> None:
    run = cli(*ARGUMENTS, "--out", "-")
    assert run.out.startswith('"profile","other","cosine",')
    assert len(run.out.splitlines()) == 5


def test_many_pairs_are_not_listed_layer_by_layer(cli: Any, two_profiles: nait_store.Store) -> None:
    for name in ("a", "b", "c"):
        two_profiles.profiles.build(name, source="maths", limit=10, seed=ord(name))
    run = cli("analyze", "transfer", "--on", "pool")
    assert len([line for line in run.out.splitlines() if ", " in line and "@1  " in line]) == 10
    assert run.out.splitlines()[-1] == (
        "cosines by layer are written by --out FILE.csv and drawn by --picture FILE.png"
    )


def test_why_there_is_no_area_is_said(cli: Any, two_profiles: nait_store.Store) -> None:
    two_profiles.profiles.combine("both", {"math": 1.0, "kind": 1.0}, metric="dot")
    two_profiles.profiles.combine("twice", {"math": 2.0, "kind": 1.0}, metric="dot")
    out = cli("analyze", "transfer", "both", "twice", "--on", "pool").out
    assert "area under the curve" not in out
    assert "the domain of both@1 is left out: both@1 was made from" in out


def test_without_matplotlib_nothing_is_computed_in_vain(
    cli: Any, two_profiles: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("nait_store.store.profile_transfer.analyze_transfer", None)
    run = cli(*ARGUMENTS, "--picture", "pairs.png")
    assert run.code == 11
    assert "pip install 'nait-store[plots]'" in run.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("math", "--on", "pool"), 7, "there is only math@1"),
        (("math", "kind"), 2, "--on"),
        (("math", "foreign", "--on", "pool"), 6, "does not apply"),
        (("math", "kind", "--on", "pool", "--top", "41"), 7, "pool@2 has 40 candidates"),
        (("math", "kind", "--on", "pool", "--domain", "math"), 7, "is not of the form PROFILE=SQL"),
        (("math", "kind", "--on", "pool", "--domain", "math=true", "--domain", "math=1=1"), 7, "given twice"),
        (("math", "kind", "--on", "pool", "--domain", "math=kind = 'x'"), 7, "is no candidate"),
        (("math", "kind", "--on", "pool", "--picture", "x.jpg"), 7, "does not end like a picture"),
        (("math", "kind", "--on", "pool", "--out", "x.docx"), 7, "stands for no format"),
    ],
)
def test_slips(cli: Any, two_profiles: nait_store.Store, arguments: tuple[str, ...], code: int, says: str) -> None:
    run = cli("analyze", "transfer", *arguments)
    assert run.code == code, run.err
    assert says in run.err
