"""``nait-store compare``: several saved selections beside each other."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store

NAMES = ("best", "lowest", "chance")


@pytest.fixture
def saved(cli: Any, store: Path) -> nait_store.Store:
    """best, lowest and chance, of 12, 9 and 20 of 40 samples."""
    opened = nait_store.open(str(store))
    opened.selections.save("best", opened.select("pool", profile="math", top=12))
    opened.selections.save("lowest", opened.select("pool", profile="math", top=9, strategy="lowest"))
    opened.selections.save("chance", opened.select("pool", strategy="random", seed=2, top=20))
    return opened


def ids(store: nait_store.Store, name: str) -> list[str]:
    found: list[str] = store.selections.open(name).rows().column("sample_id").to_pylist()
    return found


def test_overlaps_are_those_of_the_sets_of_ids(cli: Any, saved: nait_store.Store) -> None:
    found = cli("compare", *NAMES, "--json").json
    sets = [set(ids(saved, name)) for name in NAMES]
    assert found["n_common"] == [[len(a & b) for b in sets] for a in sets]
    assert np.allclose(found["overlaps"], [[len(a & b) / len(a | b) for b in sets] for a in sets])
    assert found["n_in_any"] == len(set.union(*sets))
    assert found["n_in_all"] == len(set.intersection(*sets))


def test_each_has_its_scores_lengths_values_and_samples_of_its_own(cli: Any, saved: nait_store.Store) -> None:
    found = cli("compare", *NAMES, "--by", "kind", "--json").json
    rows = saved.sql("SELECT sample_id, kind, n_content_tokens FROM samples('pool')").fetchall()
    kinds = {sample_id: kind for sample_id, kind, _ in rows}
    tokens = {sample_id: n for sample_id, _, n in rows}
    for name, one in zip(NAMES, found["selections"], strict=True):
        mine = ids(saved, name)
        others = {other for each in NAMES if each != name for other in ids(saved, each)}
        alone = [sample_id for sample_id in mine if sample_id not in others]
        assert one["values"] == dict(Counter(kinds[sample_id] for sample_id in mine))
        assert one["lengths"]["mean"] == pytest.approx(np.mean([tokens[sample_id] for sample_id in mine]))
        assert (one["n_only"], one["only_ids"]) == (len(alone), alone[:5])
        scores = saved.selections.open(name).rows().column("score").to_pylist()
        if name == "chance":
            assert (one["mean_score"], one["score_range"]) == (None, None)
        else:
            assert one["mean_score"] == pytest.approx(np.mean(scores))
            assert one["score_range"] == [min(scores), max(scores)]


def test_every_sample_is_written_with_its_ranks(cli: Any, saved: nait_store.Store, folder: Path) -> None:
    run = cli("compare", *NAMES, "--out", "ranks.csv")
    assert "written to" in run.err or "written to" in run.out
    with (folder / "ranks.csv").open(newline="") as handle:
        rows = {row["sample_id"]: row for row in csv.DictReader(handle)}
    assert len(rows) == len({one for name in NAMES for one in ids(saved, name)})
    for name in NAMES:
        ranks = {one: str(rank) for rank, one in enumerate(ids(saved, name), start=1)}
        assert {one: row[f"{name}@1"] for one, row in rows.items()} == {one: ranks.get(one, "") for one in rows}


def test_people_see_a_matrix(cli: Any, saved: nait_store.Store) -> None:
    out = cli("compare", "best", "lowest").out
    assert "in both, of either" in out
    assert "12 (100.0 %)" in out
    assert "0 (0.0 %)" in out
    assert f"only in best@1: {', '.join(ids(saved, 'best')[:5])}, …" in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("best",), 7, "two selections at least"),
        (("best", "best@1"), 7, "named twice"),
        (("best", "bst"), 3, "'best'"),
        (("best", "lowest", "--by", "knd"), 3, "kind"),
    ],
)
def test_bad_input(cli: Any, saved: nait_store.Store, arguments: tuple[str, ...], code: int, says: str) -> None:
    run = cli("compare", *arguments)
    assert run.code == code, run.err
    assert says in run.err
