"""``select`` through the command line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.schemas.capture import Feature

BEST = ("select", "--from", "pool", "--profile", "math")


def scores(store: Path) -> dict[str, float]:
    """Σ_l A_l·v_l / ‖A_l‖ in plain float64 loops over the stored arrays."""
    opened = nait_store.open(str(store))
    profile = opened.profiles.open("math")
    directions = profile.directions().astype(np.float64)
    found = {}
    for segment in opened.sets.open("pool").segments:
        arrays = segment.read(Feature.MEAN).astype(np.float64)
        for sample_id, layers in zip(segment.samples(["sample_id"]).column(0).to_pylist(), arrays, strict=True):
            found[sample_id] = sum(
                float(a @ v) / float(np.linalg.norm(a)) for a, v in zip(layers, directions, strict=True)
            )
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_best_are_those_with_the_highest_scores(cli: Any, store: Path, folder: Path) -> None:
    run = cli(*BEST, "--top", "25%", "--out", "top.jsonl")
    assert run.code == 0
    expected = sorted(scores(store).items(), key=lambda item: (-item[1], item[0]))[:10]
    rows = lines(folder / "top.jsonl")
    assert [row["instruction"] for row in rows] == [f"do {sample_id}" for sample_id, _ in expected]
    assert np.allclose([row["score"] for row in rows], [score for _, score in expected], atol=1e-5)
    assert [row["rank"] for row in rows] == list(range(1, 11))
    assert run.out.splitlines()[0].startswith("10 of 40 candidates of pool@2, highest under math@1, scores ")
    assert f"written to {folder / 'top.jsonl'} (jsonl, with score and rank)" in run.out


def test_lowest_are_the_other_end(cli: Any, store: Path) -> None:
    rows = cli(*BEST, "--top", "5", "--lowest", "--json").json["rows"]
    expected = sorted(scores(store).items(), key=lambda item: (item[1], item[0]))[:5]
    assert [row["sample_id"] for row in rows] == [sample_id for sample_id, _ in expected]


def test_random_is_a_hash_of_seed_and_id(cli: Any, store: Path) -> None:
    for seed in ("0", "7"):
        run = cli("select", "--from", "pool", "--random", "--seed", seed, "--top", "6", "--json").json
        ids = sorted(scores(store), key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).hexdigest())
        assert [row["sample_id"] for row in run["rows"]] == ids[:6]
        assert run["seed"] == int(seed)
        assert all(row["score"] is None for row in run["rows"])


def test_random_with_a_profile_carries_scores(cli: Any, store: Path) -> None:
    rows = cli(*BEST, "--random", "--top", "6", "--json").json["rows"]
    expected = scores(store)
    assert all(abs(row["score"] - expected[row["sample_id"]]) < 1e-5 for row in rows)


def test_where_narrows_the_candidates(cli: Any, store: Path, folder: Path) -> None:
    run = cli(*BEST, "--top", "50%", "--where", "kind = 'code' -- only these", "--out", "x.jsonl", "--json").json
    assert (run["n_candidates"], run["n_selected"]) == (20, 10)
    assert {row["kind"] for row in lines(folder / "x.jsonl")} == {"code"}


def test_the_recorded_query_gives_the_selection_again(cli: Any, store: Path) -> None:
    for more in (("--where", "kind = 'code'"), ("--random", "--seed", "3"), ("--lowest",)):
        run = cli(*BEST, "--top", "4", *more, "--json").json
        assert cli("sql", run["query"], "--json").json == run["rows"]
    run = cli("select", "--from", "pool", "--random", "--where", "n_tokens > 8", "--top", "4", "--json").json
    assert cli("sql", run["query"], "--json").json == run["rows"]


def test_two_profiles_take_turns_and_the_summary_says_so(cli: Any, store: Path) -> None:
    nait_store.open(str(store)).profiles.build("code", source="pool", where="kind = 'code'")
    run = cli(*BEST, "--profile", "code:2", "--top", "9", "--save", "both")
    assert run.code == 0, run.err
    first, math, code, saved = run.out.splitlines()[:4]
    assert first.startswith("9 of 40 candidates of pool@2, highest under the union of math@1 and code@1 (2×), scores ")
    record = nait_store.open(str(store)).selections.open("both").record
    share = record.shares[0]
    assert math == f"math@1: {share.n_through} came in through it, {share.n_in_own_top} are in its own top 9"
    assert code.startswith("code@1: ")
    assert saved == "saved as selection:both@1"
    assert [(one.reference, one.weight) for one in record.profiles] == [("math@1", 1), ("code@1", 2)]
    both = cli(*BEST, "--profile", "code:2", "--top", "9", "--json").json
    rerun = cli("sql", both["query"], "--json").json
    assert [(row["sample_id"], row["score"]) for row in rerun] == [(r["sample_id"], r["score"]) for r in both["rows"]]
    assert sum(share["n_through"] for share in both["shares"]) == 9


def test_limits_say_what_was_reached(cli: Any, store: Path) -> None:
    run = cli(*BEST, "--budget-tokens", "100", "--out", "x.jsonl")
    assert run.out.splitlines()[0].endswith(" tokens of 100")
    run = cli(*BEST, "--quota", "kind=code:75%", "--top", "8", "--out", "quota.jsonl")
    assert [row["kind"] for row in lines(Path("quota.jsonl"))].count("code") == 6
    assert "the knee of the score curve is after" in cli(*BEST, "--knee", "--out", "knee.jsonl").out


def test_what_was_left_out_is_counted_and_kept(cli: Any, store: Path) -> None:
    rules = ("--drop-duplicates", "cosine:0.5", "--drop-duplicates", "exact")
    shown = cli(*BEST, "--top", "8", *rules, "--json").json
    [dropped] = shown["dropped"]
    assert (dropped["kind"], shown["drop_duplicates"]) == ("cosine", ["exact", "cosine:0.5"])
    run = cli(*BEST, "--top", "8", *rules, "--save", "unique")
    n = dropped["n_samples"]
    assert f"left out among the better-ranked: {n} duplicates ({n} cosine)" in run.out
    details = cli("selection", "show", "unique").out
    assert f"{n} duplicates ({n} cosine)" in details
    assert "exact, cosine:0.5" in details
    assert "identical in order and score" in cli("selection", "verify", "unique").out


def test_a_spread_selection_says_over_what(cli: Any, store: Path) -> None:
    run = cli(*BEST, "--top", "5", "--diversity", "k-center", "--among", "50%", "--out", "diverse.jsonl")
    assert "highest under math@1, spread over the best 20 by k-center, scores " in run.out
    assert len(lines(Path("diverse.jsonl"))) == 5
    refused = cli(*BEST, "--among", "9")
    assert (refused.code, "--among is for --diversity" in refused.err) == (7, True)


def test_old_versions_can_be_selected_from(cli: Any, store: Path) -> None:
    run = cli("select", "--from", "pool@1", "--profile", "math@1", "--top", "100%", "--json").json
    assert (run["set_ref"], run["n_selected"]) == ("pool@1", 20)


def test_without_destination_a_preview_says_so(cli: Any, store: Path) -> None:
    run = cli(*BEST, "--top", "7")
    assert "do s" in run.out
    assert "… and 2 more" in run.out
    assert "nothing was written: add --out FILE" in run.out


def test_save_and_versions(cli: Any, store: Path) -> None:
    run = cli(*BEST, "--top", "3", "--save", "best", "--message", "first")
    assert "saved as selection:best@1" in run.out
    assert cli(*BEST, "--top", "4", "--save", "best", "--json").json["saved"] == "best@2"
    saved = nait_store.open(str(store)).selections
    assert saved.open("best@1").record.n_selected == 3
    assert saved.manifests("best")[0].message == "first"
    assert cli("sql", "SELECT count(*) AS n FROM selections", "--json").json == [{"n": 2}]


def test_ids_to_standard_output(cli: Any, store: Path) -> None:
    run = cli(*BEST, "--top", "3", "--out", "-", "--format", "ids")
    expected = cli(*BEST, "--top", "3", "--json").json["rows"]
    assert run.out.splitlines() == [row["sample_id"] for row in expected]
    assert "3 of 40 candidates" in run.err


def test_clean_parquet(cli: Any, store: Path, folder: Path) -> None:
    import pyarrow.parquet as pq

    cli(*BEST, "--top", "3", "--out", "new/top.parquet", "--clean")
    assert pq.read_table(folder / "new" / "top.parquet").column_names == ["instruction", "output", "kind"]


def test_export_to_a_url(cli: Any, store: Path) -> None:
    import fsspec

    assert cli(*BEST, "--top", "3", "--out", "memory://selected/top.ids").code == 0
    with fsspec.open("memory://selected/top.ids") as handle:
        assert len(handle.read().splitlines()) == 3


def test_overwriting_needs_force(cli: Any, store: Path, folder: Path) -> None:
    (folder / "top.jsonl").write_text("precious")
    run = cli(*BEST, "--out", "top.jsonl")
    assert run.code == 4
    assert "--force" in run.err
    assert (folder / "top.jsonl").read_text() == "precious"
    assert cli(*BEST, "--out", "top.jsonl", "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((*BEST, "--top", "0"), 7, "selects nothing"),
        ((*BEST, "--top", "200%"), 7, "more than all"),
        ((*BEST, "--top", "abc"), 7, "neither a count nor a percentage"),
        ((*BEST, "--top", "41"), 7, "has 40 candidates"),
        ((*BEST, "--top", "21", "--where", "kind = 'code'"), 7, "has 20 candidates"),
        ((*BEST, "--where", "kind = 'none'"), 7, "nothing to select"),
        ((*BEST, "--where", "knd = 'code'"), 3, "kind"),
        ((*BEST, "--where", "kind"), 7, "VARCHAR"),
        ((*BEST, "--where", "true) OR (true"), 7, "not one SQL expression"),
        ((*BEST, "--where", ""), 7, "not one SQL expression"),
        ((*BEST, "--lowest", "--random"), 7, "exclude each other"),
        ((*BEST, "--strategy", "embedding", "--random"), 7, "exclude each other"),
        ((*BEST, "--profile", "math@1"), 7, "named twice"),
        ((*BEST, "--profile", "maths:2"), 3, "'math'"),
        ((*BEST, "--quota", "kind=code:90%", "--top", "30"), 7, "kind=code is 27 samples, and there are 20"),
        ((*BEST, "--per", "knd"), 3, "kind"),
        ((*BEST, "--budget-tokens", "3"), 7, "more than 3 tokens"),
        (("select", "--from", "pool"), 7, "--profile"),
        (("select", "--from", "pol", "--profile", "math"), 3, "'pool'"),
        (("select", "--from", "pool@7", "--profile", "math"), 3, "pool@2"),
        (("select", "--from", "pool", "--profile", "maths"), 3, "'math'"),
        (("select", "--from", "profile:math", "--profile", "math"), 7, "where a set is expected"),
        (("select", "--from", "pool", "--profile", "foreign"), 6, "model_fingerprint"),
        ((*BEST, "--save", "../x"), 7, "not a valid selection name"),
        ((*BEST, "--out", "."), 7, "is a folder"),
        ((*BEST, "--out", "nosuch://x"), 7, "nosuch"),
    ],
)
def test_bad_input(
    cli: Any, store: Path, folder: Path, snapshot: Any, arguments: tuple[str, ...], code: int, says: str
) -> None:
    cli("score", "pool", "math")
    before, files = snapshot(store), sorted(folder.iterdir())
    run = cli(*arguments)
    assert run.code == code, run.err
    assert says in run.err
    assert "\n  → " in run.err
    assert run.out == ""
    assert snapshot(store) == before
    assert sorted(folder.iterdir()) == files
