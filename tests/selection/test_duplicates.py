"""Duplicates by text that leave a selection: against comparing every text with every other one."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nait_store
from nait_store.activations.versions import ActivationSets
from nait_store.errors import InvalidInputError, MissingExtraError
from nait_store.refs import Kind, parse_reference
from nait_store.schemas.capture import Feature
from nait_store.schemas.record import json_digest
from nait_store.selection.redundancy import pruning
from nait_store.selection.redundancy.texts import SampleTexts
from nait_store.store.lineage.commands import select_arguments
from nait_store.testing.stores import build_segment, build_set, fake_row
from tests.selection.choices import N_SAMPLES, PROFILES, Pool, build_pool, combined, share, take, take_by_group
from tests.selection.test_limits import ids, options_of, order_of
from tests.selection.test_shingles import jaccard, shingles

Built = tuple[nait_store.Store, Pool, list[str]]


def make_texts() -> list[str]:
    """Texts of 4 to 40 words, and copies of some: as they are, in capitals, and with one to five words changed."""
    rng = np.random.default_rng(5)
    texts: list[str] = []
    for i in range(N_SAMPLES):
        if i % 3 == 0 or not texts:
            words = [f"w{rng.integers(400)}" for _ in range(rng.integers(4, 40))]
            words[1] += "\n" + words.pop(2)
        else:
            words = texts[rng.integers(len(texts))].split(" ")
            for _ in range(rng.integers(0, 6) if i % 3 == 1 else 0):
                words[rng.integers(2, len(words))] = f"w{rng.integers(400)}"
            if i % 5 == 2:
                words = [word.upper() for word in words]
        texts.append(" ".join(words))
    return texts


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    texts = make_texts()
    return *build_pool(tmp_path_factory.mktemp("duplicates"), texts), texts


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that selections of these few samples, too, have to look further down again and again."""
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "_LEAST_MORE", 1)
        patch.setattr(pruning, "_MORE", 1.0)
        yield


def kept(order: Sequence[int], texts: Sequence[str], threshold: float | None) -> tuple[list[int], dict[int, str]]:
    """What is left of an order, and of which kind the others are; every text is compared with every other one."""
    distinct: list[int] = []
    gone: dict[int, str] = {}
    for i in order:
        if any(texts[i] == texts[j] for j in distinct):
            gone[i] = "exact"
        else:
            distinct.append(i)
    left: list[int] = []
    of = [shingles(text) for text in texts]
    for i in distinct:
        if threshold is not None and any(jaccard(of[i], of[j]) >= threshold for j in left):
            gone[i] = "near"
        else:
            left.append(i)
    return left, gone


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["one", "union", "sum", "random"]),
    top=st.sampled_from(["1", "12", "40%", "100%"]),
    threshold=st.sampled_from([None, 0.5, 0.62, 0.8, 0.95, 1.0]),
)
def test_the_better_ranked_of_two_duplicates_stays(built: Built, kind: str, top: str, threshold: float | None) -> None:
    store, pool, texts = built
    rule = "exact" if threshold is None else f"near:{threshold}"
    selection = store.select("pool", top=top, drop_duplicates=rule, **options_of(kind))
    order, _ = order_of(pool, kind)
    left, gone = kept(order, texts, threshold)
    expected = left[: share(top, len(pool.ids))]
    assert ids(selection) == [pool.ids[i] for i in expected]
    above = [i for i in order[: order.index(expected[-1])] if i in gone]
    assert {one.kind: one.n_samples for one in selection.dropped} == Counter(gone[i] for i in above)
    assert selection.duplicates.column("sample_id").to_pylist() == [pool.ids[i] for i in above]
    by_id = dict(zip(pool.ids, texts, strict=True))
    for row in selection.duplicates.to_pylist():
        first, second = by_id[row["sample_id"]], by_id[row["duplicate_of"]]
        same = 1.0 if row["kind"] == "exact" else jaccard(shingles(first), shingles(second))
        assert row["similarity"] == pytest.approx(same)
        assert row["kind"] != "exact" or first == second
    assert store.sql(selection.query).arrow().column("sample_id").to_pylist() == [pool.ids[i] for i in order]


@settings(max_examples=12, deadline=None)
@given(kind=st.sampled_from(["one", "union", "random"]), budget=st.integers(15, 500), top=st.sampled_from([None, "9"]))
def test_a_budget_of_tokens_is_filled_with_what_is_left(built: Built, kind: str, budget: int, top: str | None) -> None:
    store, pool, texts = built
    selection = store.select("pool", top=top, budget_tokens=budget, drop_duplicates="near", **options_of(kind))
    left, _ = kept(order_of(pool, kind)[0], texts, 0.8)
    most = math.inf if top is None else int(top)
    tokens = pool.n_tokens
    expected = take(left, lambda taken, i: len(taken) < most and int(tokens[taken].sum() + tokens[i]) <= budget)
    assert ids(selection) == [pool.ids[i] for i in expected]
    assert selection.n_tokens == int(tokens[expected].sum())


@settings(max_examples=8, deadline=None)
@given(kind=st.sampled_from(["one", "union", "sum"]), orca=st.integers(1, 8), code=st.integers(1, 8))
def test_quotas_are_filled_with_what_is_left(built: Built, kind: str, orca: int, code: int) -> None:
    store, pool, texts = built
    quota = f"source=orca:{orca},code:{code}"
    selection = store.select("pool", quota=quota, drop_duplicates="near", **options_of(kind))
    left, _ = kept(order_of(pool, kind)[0], texts, 0.8)
    fits = {"orca": lambda taken, _: len(taken) < orca, "code": lambda taken, _: len(taken) < code}
    assert ids(selection) == [pool.ids[i] for i in take_by_group(left, pool.sources, fits)]


@pytest.mark.parametrize("budget", [None, 40])
def test_every_group_gives_its_own_top_of_what_is_left(built: Built, budget: int | None) -> None:
    store, pool, texts = built
    options = {"per": "source", "top": "30%", "budget_tokens": budget}
    selection = store.select("pool", profile="math", drop_duplicates="near", **options)
    left, _ = kept(order_of(pool, "one")[0], texts, 0.8)
    sizes, tokens = pool.sources_of(pool.ids), pool.n_tokens
    most = math.inf if budget is None else budget
    tops = {value: share("30%", n) for value, n in sizes.items()}
    fits = {
        value: lambda taken, i, n=n: len(taken) < n and int(tokens[taken].sum() + tokens[i]) <= most
        for value, n in tops.items()
    }
    assert ids(selection) == [pool.ids[i] for i in take_by_group(left, pool.sources, fits)]


def test_only_scores_of_the_least_and_more_have_duplicates(built: Built) -> None:
    store, pool, texts = built
    selection = store.select("pool", profile=PROFILES, combine="sum", min_score=0.2, drop_duplicates="near")
    order, scores, _ = combined(pool, PROFILES, [1.0] * 3, "sum")
    left, _ = kept([i for i in order if scores[i] >= 0.2], texts, 0.8)
    assert ids(selection) == [pool.ids[i] for i in left]


def test_what_was_dropped_is_recorded_and_the_selection_is_made_again(built: Built) -> None:
    store, _, _ = built
    first = store.select("pool", profile=PROFILES, top=20, drop_duplicates=["near:0.6", "exact"], quota="source=orca:5")
    saved = store.selections.save("unique", first)
    assert saved.record.drop_duplicates == ("exact", "near:0.6")
    assert saved.record.dropped == first.dropped != ()
    assert store.selections.verify("unique").identical
    assert store.select_again("unique").rows.equals(first.rows)
    assert saved.selection().dropped == first.dropped
    assert store.selections.show("unique").controls["drop_duplicates"] == ("exact", "near:0.6")
    profiles = [parse_reference(f"{name}@1", Kind.PROFILE) for name in PROFILES]
    words = select_arguments(saved.record, "", parse_reference("pool@1", Kind.SET), profiles)
    assert [words[i + 1] for i, word in enumerate(words) if word == "--drop-duplicates"] == ["exact", "near:0.6"]


def test_a_saved_selection_is_identical_after_appends_and_a_compaction(tmp_path: Any) -> None:
    store, _ = build_pool(tmp_path, make_texts())
    store.selections.save("unique", store.select("pool", profile="math", top=30, drop_duplicates="near"))
    for first in (500, 520):
        build_set(store.location, "pool", 10, first=first)
    store.sets.compact("pool")
    assert store.selections.verify("unique").identical


def test_quotas_that_duplicates_leave_unfilled_are_refused(built: Built) -> None:
    store, pool, texts = built
    left, _ = kept(order_of(pool, "one")[0], texts, 0.5)
    n_left, n_all = (sum(pool.sources[i] == "code" for i in some) for some in (left, range(len(texts))))
    assert n_left < n_all
    with pytest.raises(InvalidInputError, match=f"there are {n_left} and have no better-ranked duplicate"):
        store.select("pool", profile="math", quota=f"source=code:{n_all}", drop_duplicates="near:0.5")


def test_fewer_than_asked_for_are_told_of(built: Built) -> None:
    store, pool, texts = built
    n_left = len(kept(order_of(pool, "one")[0], texts, 0.8)[0])
    selection = store.select("pool", profile="math", top=n_left + 1, drop_duplicates="near")
    assert selection.n_selected == n_left
    assert selection.warnings == (f"{n_left + 1} samples were asked for; without duplicates {n_left} are left",)
    assert store.select("pool", profile="math", top="100%", drop_duplicates="near").warnings == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_duplicates": "same"}, "'same' is no kind of duplicates"),
        ({"drop_duplicates": "near:0.3"}, "not from 0.5 to 1"),
        ({"drop_duplicates": "near:nan"}, "not from 0.5 to 1"),
        ({"drop_duplicates": "near:1.01"}, "not from 0.5 to 1"),
        ({"drop_duplicates": "near:"}, "'' is no similarity"),
        ({"drop_duplicates": "exact:1"}, "exact has no threshold"),
        ({"drop_duplicates": ["near", "near:0.9"]}, "near is named twice"),
        ({"drop_duplicates": "near", "strategy": "length-matched"}, "draws by chance"),
    ],
)
def test_what_cannot_be_meant_is_refused(built: Built, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        built[0].select("pool", profile="math", **options)


def test_without_rensa_the_extra_is_named_and_equal_texts_are_found(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(MissingExtraError, match="rensa") as caught:
        built[0].select("pool", profile="math", drop_duplicates="near")
    assert "nait-store[dedup]" in (caught.value.next_step or "")
    assert built[0].select("pool", profile="math", top="100%", drop_duplicates="exact").dropped


def test_a_sample_without_text_is_named(tmp_path: Any) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    build_set(store.location, "pool", 3, user_fields={"instruction": [None] * 3})
    with pytest.raises(
        InvalidInputError, match=r"sample 's00000.' of pool@1 has no text to compare: its record: the record has"
    ):
        store.select("pool", strategy="random", top=2, drop_duplicates="exact")


def test_texts_are_those_of_mapped_fields_without_system_prompts(tmp_path: Any) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    build_set(store.location, "pool", 1)
    plain = {"messages": [{"role": r, "content": f"by {r}"} for r in ("system", "user", "assistant")]}
    mapped = {"instruction": "not this", "q": "by user", "a": "by assistant"}
    renamed = {"instruction": "by user", "output": "by assistant"}
    rows = [
        dataclasses.replace(fake_row("plain", 0, plain), source_uri="plain.jsonl"),
        dataclasses.replace(fake_row("mapped", 1, mapped), source_uri="m.jsonl", content_hash=json_digest(renamed)),
    ]
    segment = build_segment(store.location, "pool", rows, {Feature.MEAN: np.ones((2, 2, 8), np.float32)})
    version = ActivationSets(store.location).commit("pool", [segment], ingest_ids=())
    texts = SampleTexts(store.location, store.session, version)
    text = "by user\x1eby assistant"
    assert list(texts.of(pa.chunked_array([["mapped", "plain"]]))) == [(1, text), (0, text)]
