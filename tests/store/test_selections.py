"""Saved selections: listed, described, compared, made again, deleted and brought back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import nait_store
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.schemas.capture import Feature
from nait_store.selection.choosing import Selection
from nait_store.store.selections import Selections
from nait_store.testing.stores import build_set
from tests.store.gc_stores import collect

SHIFT = np.ones((2, 8), dtype=np.float32)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("selections") / "store"
    store = nait_store.open(str(root), create=True)
    build_set(store.location, "pool", 40, user_fields={"kind": [("code", "chat")[i % 2] for i in range(40)]})
    build_set(store.location, "maths", 16, features=(Feature.MEAN, Feature.DRIFT), first=500, seed=3, mean=SHIFT)
    store.profiles.build("math", source="maths")
    store.profiles.build("paper", source="maths", recipe="nait-paper")
    store.selections.save("best", store.select("pool", profile="math", top="25%"), message="the first")
    return root


@pytest.fixture
def store(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nait_store.Store:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    return nait_store.open(str(shutil.copytree(built, tmp_path / "store")))


def ids(selections: Selections, reference: str) -> list[str]:
    found: list[str] = selections.open(reference).rows().column("sample_id").to_pylist()
    return found


def resaved(store: nait_store.Store, change: Any) -> str:
    """Save best@1 with other rows under the same record, as a later release with a fault would have."""
    selection = store.selections.open("best@1").selection()
    return store.selections.save("best", dataclasses.replace(selection, rows=change(selection.rows))).reference


def test_list_shows_every_selection_at_its_latest_version(store: nait_store.Store) -> None:
    store.selections.save("best", store.select("pool", profile="math", top=4))
    store.selections.save("chance", store.select("pool", strategy="random", seed=7, top=3, where="kind = 'code'"))
    store.selections.tag("best", "paper")
    store.selections.describe("chance", "the control")
    best, chance = store.selections.list()
    assert (best.reference, best.n_selected, best.n_candidates, best.tags) == ("best@2", 4, 40, ("paper",))
    assert (best.set_ref, best.profile_ref, best.strategy, best.seed) == ("pool@1", "math@1", "alignment", None)
    assert (chance.reference, chance.n_candidates, chance.profile_ref, chance.seed) == ("chance@1", 20, None, 7)
    assert (chance.where, chance.note) == ("kind = 'code'", "the control")


def test_show_says_how_it_was_made_and_what_its_samples_are_like(store: nait_store.Store) -> None:
    details = store.selections.show("best")
    rows = store.selections.open("best").rows()
    samples = store.sets.open("pool").segments[0].samples(["sample_id", "n_content_tokens"])
    lengths = dict(zip(samples.column(0).to_pylist(), samples.column(1).to_pylist(), strict=True))
    chosen = [lengths[one] for one in rows.column("sample_id").to_pylist()]
    assert details.summary == store.selections.list()[0]
    assert details.summary.message == "the first"
    assert details.query == store.selections.open("best").record.query
    assert details.score_range == (min(rows.column("score").to_pylist()), max(rows.column("score").to_pylist()))
    assert details.sources == {"memory:synthetic.jsonl": 10}
    assert details.lengths is not None
    assert (details.lengths.mean, details.lengths.least) == (np.mean(chosen), min(chosen))
    assert (details.lengths.median, details.lengths.most) == (np.median(chosen), max(chosen))
    assert details.lengths_of_set is not None
    assert details.lengths_of_set.mean == np.mean(list(lengths.values()))
    first = details.first[0]
    assert (first.rank, first.sample_id, first.score) == tuple(rows.slice(0, 1).to_pylist()[0].values())
    assert first.text.startswith(f"do {first.sample_id} | done {first.sample_id} | ")
    assert details.gone == ()


def test_show_of_a_selection_whose_set_is_deleted_says_so_and_keeps_the_rest(store: nait_store.Store) -> None:
    store.sets.delete("pool", force=True)
    details = store.selections.show("best")
    assert details.gone[0].startswith("set pool@1 was deleted on ")
    assert "undelete pool" in details.gone[0]
    assert (details.sources, details.lengths) == ({}, None)
    assert [one.sample_id for one in details.first] == ids(store.selections, "best")[:5]


def test_diff_counts_what_both_and_what_one_alone_has(store: nait_store.Store) -> None:
    store.selections.save("low", store.select("pool", profile="math", top=35, strategy="lowest"))
    diff = store.selections.diff("best@1", "low@1")
    first, second = ids(store.selections, "best@1"), ids(store.selections, "low@1")
    both, only_first, only_second = {*first} & {*second}, {*first} - {*second}, {*second} - {*first}
    assert (diff.both.n_samples, diff.only_first.n_samples, diff.only_second.n_samples) == (5, 5, 30)
    assert {*first} & {*second} == both
    assert diff.overlap == len(both) / 40
    assert diff.first_ids == tuple(one for one in first if one in only_first)[:5]
    rows = diff.rows.to_pylist()
    assert [row["sample_id"] for row in rows if row["only_in"] == "best@1"] == [x for x in first if x in only_first]
    assert [row["sample_id"] for row in rows if row["only_in"] == "low@1"] == [x for x in second if x in only_second]
    assert diff.settings["strategy"] == ("alignment", "lowest")
    assert "profile" not in diff.settings
    assert diff.largest_score_difference == 0


def test_diff_gives_mean_scores_and_lengths_of_each_part(store: nait_store.Store) -> None:
    store.selections.save("chance", store.select("pool", profile="math", strategy="random", top=20))
    diff = store.selections.diff("best", "chance")
    tables = [store.selections.open(name).rows().to_pylist() for name in ("best", "chance")]
    scores = [{row["sample_id"]: row["score"] for row in rows} for rows in tables]
    samples = store.sets.open("pool").segments[0].samples(["sample_id", "n_content_tokens"])
    lengths = dict(zip(samples.column(0).to_pylist(), samples.column(1).to_pylist(), strict=True))
    both = scores[0].keys() & scores[1].keys()
    alone = scores[1].keys() - both
    assert diff.both.mean_score_second == pytest.approx(np.mean([scores[1][one] for one in both]))
    assert diff.only_second.mean_score_second == pytest.approx(np.mean([scores[1][one] for one in alone]))
    assert diff.only_second.mean_score_first is None
    assert diff.only_second.mean_tokens == pytest.approx(np.mean([lengths[one] for one in alone]))


def test_a_selection_differs_in_nothing_from_itself(store: nait_store.Store) -> None:
    diff = store.selections.diff("best@1", "best@1")
    assert (diff.overlap, diff.n_moved, diff.rows.num_rows, diff.settings) == (1.0, 0, 0, {})


def test_several_profiles_and_limits_are_told(store: nait_store.Store, tmp_path: Path) -> None:
    several = store.select("pool", profile=["math", "paper"], combine="sum", quota="kind=code:50%,chat:50%", top=10)
    store.selections.save("several", several)
    details = store.selections.show("several")
    assert details.summary.profile_ref == "math@1, paper@1"
    assert details.controls == {"combine": "sum", "quota": "kind=code:50%,chat:50%"}
    settings = store.selections.diff("best", "several").settings
    assert settings["profile"] == ("math@1", "math@1, paper@1")
    assert settings["quota"] == (None, "kind=code:50%,chat:50%")
    report = store.selections.export("several", str(tmp_path / "train"), to="trl")
    origin = json.loads(Path(report.provenance).read_text())["selection"]
    for named, name in zip(origin["profiles"], ("math", "paper"), strict=True):
        profile = store.profiles.open(name)
        assert named == {
            "reference": f"{name}@1",
            "weight": 1.0,
            "record_sha256": profile.manifest.record_sha256,
            "directions_sha256": profile.record.directions_sha256,
        }
    assert origin["request"]["combine"] == "sum"


def grow_and_compact(store: nait_store.Store) -> None:
    for seed, first in ((5, 100), (6, 200), (7, 300)):
        build_set(store.location, "pool", 30, seed=seed, first=first, mean=SHIFT)
    report = store.sets.compact("pool")
    assert report.reference == "pool@5"


@pytest.mark.parametrize("scores", ["stored", "computed anew"])
def test_a_selection_made_before_three_appends_and_a_compaction_is_identical(
    store: nait_store.Store, tmp_path: Path, scores: str
) -> None:
    for name, options in (
        ("matching", {"profile": "math", "top": 6, "where": "kind = 'code'"}),
        ("lowest", {"profile": "math", "strategy": "lowest"}),
        ("chance", {"strategy": "random", "seed": 3, "top": "50%"}),
        ("several", {"profile": ["math", "paper"], "combine": "sum", "quota": "kind=code:50%,chat:50%", "top": 12}),
    ):
        store.selections.save(name, store.select("pool", **options))
    grow_and_compact(store)
    if scores == "computed anew":
        shutil.rmtree(tmp_path / "store" / "scores")
    store = nait_store.open(store.url)
    for name in ("best", "matching", "lowest", "chance", "several"):
        report = store.selections.verify(f"{name}@1")
        assert report.ok, report.checks
        assert report.identical
        assert report.n_compared == store.selections.open(name).record.n_selected
    assert ids(store.selections, "best") != store.select("pool", profile="math", top=10).rows.column(1).to_pylist()


def test_a_sample_that_does_not_belong_is_found(store: nait_store.Store) -> None:
    def put_in(rows: pa.Table) -> pa.Table:
        names = rows.column("sample_id").to_pylist()
        stranger = next(f"s{i:06d}" for i in range(40) if f"s{i:06d}" not in names)
        return rows.set_column(1, rows.schema.field(1), pa.array([stranger, *names[1:]]))

    report = store.selections.verify(resaved(store, put_in))
    assert not report.ok
    assert [(check.what, check.ok) for check in report.checks][:2] == [("candidates", True), ("sample ids", False)]
    assert "1 missing, 1 too many" in report.checks[1].detail


def test_a_score_that_is_another_is_found(store: nait_store.Store) -> None:
    def change(rows: pa.Table) -> pa.Table:
        scores = rows.column("score").to_pylist()
        return rows.set_column(2, rows.schema.field(2), pa.array([*scores[:-1], scores[-1] - np.std(scores)]))

    report = store.selections.verify(resaved(store, change))
    assert [(check.what, check.ok) for check in report.checks] == [
        ("candidates", True),
        ("sample ids", True),
        ("scores", False),
    ]


def test_an_order_that_no_scores_explain_is_found(store: nait_store.Store) -> None:
    store.selections.save("best", store.select("pool", strategy="random", seed=1, top=10))
    selection = store.selections.open("best@2").selection()
    names = selection.rows.column("sample_id").to_pylist()
    rows = selection.rows.set_column(1, selection.rows.schema.field(1), pa.array(names[::-1]))
    saved = store.selections.save("turned", dataclasses.replace(selection, rows=rows))
    report = store.selections.verify(saved.reference)
    assert not report.ok
    assert "10 at another rank" in report.checks[1].detail


def test_scores_that_differ_by_rounding_are_the_same_but_not_identical(store: nait_store.Store) -> None:
    def round_off(rows: pa.Table) -> pa.Table:
        scores = np.array(rows.column("score").to_pylist())
        return rows.set_column(2, rows.schema.field(2), pa.array(scores + 1e-6 * scores.std()))

    report = store.selections.verify(resaved(store, round_off))
    assert report.ok
    assert not report.identical


@pytest.mark.parametrize(("group", "name"), [("sets", "pool"), ("profiles", "math")])
def test_a_deleted_parent_is_said_in_words(store: nait_store.Store, group: str, name: str) -> None:
    getattr(store, group).delete(name, force=True, reason="a slip")
    report = store.selections.verify("best")
    assert not report.ok
    [check] = report.checks
    assert check.what == "existence"
    assert f"{name}@1 was deleted on " in check.detail
    assert f"undelete {name}" in check.detail
    getattr(store, group).undelete(name)
    assert store.selections.verify("best").identical


def test_a_parent_that_gc_took_is_said_in_words(store: nait_store.Store) -> None:
    store.profiles.delete("math", force=True)
    store.profiles.registry.log.collect("math", 1)
    [check] = store.selections.verify("best").checks
    assert "profile math@1 was deleted, and collected by gc" in check.detail


def test_samples_that_were_purged_leave_the_rest_comparable(store: nait_store.Store) -> None:
    chosen = ids(store.selections, "best")
    store.purge("pool", ids=[chosen[2], chosen[6]])
    store.refresh()
    report = store.selections.verify("best")
    assert report.ok, report.checks
    assert report.identical
    assert (report.n_compared, "2 of its samples were purged since" in report.notes[0]) == (8, True)
    assert store.selections.show("best").n_purged == 2


def test_candidates_that_were_purged_are_mentioned(store: nait_store.Store) -> None:
    others = {f"s{i:06d}" for i in range(40)} - {*ids(store.selections, "best")}
    store.purge("pool", ids=sorted(others)[:4])
    store.refresh()
    report = store.selections.verify("best")
    assert report.identical
    assert report.notes[0].startswith("4 samples of pool@1, none of them selected, were purged")


def test_a_selection_without_a_sample_left_is_no_failure(store: nait_store.Store) -> None:
    store.purge("pool", ids=ids(store.selections, "best"))
    store.refresh()
    report = store.selections.verify("best")
    assert (report.ok, report.identical, report.n_compared) == (True, False, 0)


def test_a_deleted_version_is_hidden_and_comes_back(store: nait_store.Store) -> None:
    store.selections.save("best", store.select("pool", profile="math", top=4))
    assert store.selections.delete("best@2", reason="a slip").left == ("best@1",)
    assert store.selections.open("best").reference == "best@1"
    with pytest.raises(NotFoundError, match="was deleted") as caught:
        store.selections.open("best@2")
    assert "nait-store selection undelete best@2" in str(caught.value.next_step)
    assert store.selections.undelete("best@2") == ("best@2",)
    assert store.selections.open("best").reference == "best@2"


def test_a_tag_keeps_a_selection_from_deletion(store: nait_store.Store) -> None:
    store.selections.tag("best@1", "paper", reason="table 3")
    assert store.selections.open("best@paper").reference == "best@1"
    with pytest.raises(InvalidInputError, match="table 3") as caught:
        store.selections.delete("best")
    assert "nait-store selection untag best paper" in str(caught.value.next_step)
    store.selections.untag("best", "paper")
    store.selections.delete("best")
    assert store.selections.names() == []


def test_gc_takes_a_deleted_selection_and_not_a_tagged_one(store: nait_store.Store) -> None:
    store.selections.save("kept", store.select("pool", profile="math", top=2))
    store.selections.tag("kept", "paper")
    store.selections.delete("best")
    collect(store)
    assert store.selections.names() == ["kept"]
    assert store.selections.open("kept").rows().num_rows == 2
    with pytest.raises(NotFoundError, match="collected by gc"):
        store.selections.undelete("best@1")


def test_a_deleted_selection_no_longer_protects_its_set(store: nait_store.Store) -> None:
    with pytest.raises(InvalidInputError, match="was selected from it"):
        store.sets.delete("pool")
    store.selections.delete("best")
    assert store.sets.delete("pool").deleted == ("pool@1",)


def test_what_is_saved_can_be_read_as_before(store: nait_store.Store) -> None:
    selection = store.selections.open("best").selection()
    assert isinstance(selection, Selection)
    assert store.selections.manifests("best")[0].message == "the first"
    with pytest.raises(NotFoundError, match="'best'"):
        store.selections.open("bst")
