"""Several profiles as one order: against NumPy, and against the recorded query."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nait_store
from nait_store.errors import InvalidInputError
from nait_store.registry.in_domain import choose_rows
from nait_store.schemas.capture import Feature
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.strategies import parse_profile
from tests.selection.choices import PROFILES, Pool, build_pool, combined, ranks_of, share

Built = tuple[nait_store.Store, Pool]
COMBINATIONS = ("union", "sum", "min", "rrf", "norm")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_pool(tmp_path_factory.mktemp("combining"))


def ids(selection: Any) -> list[str]:
    return selection.rows.column("sample_id").to_pylist()


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(st.sampled_from(PROFILES), min_size=2, max_size=3, unique=True),
    weights=st.lists(st.sampled_from([1, 2, 0.5, 3]), min_size=3, max_size=3),
    combine=st.sampled_from(COMBINATIONS),
    lowest=st.booleans(),
    top=st.sampled_from(["1", "7", "10%", "55%", "100%"]),
    narrowed=st.booleans(),
)
def test_every_combination_is_what_numpy_says(
    built: Built, names: list[str], weights: list[float], combine: str, lowest: bool, top: str, narrowed: bool
) -> None:
    store, pool = built
    weights = [1.0] * len(names) if combine == "min" else weights[: len(names)]
    candidates = pool.where(pool.n_tokens > 8) if narrowed else pool
    selection = store.select(
        "pool",
        profile=dict(zip(names, weights, strict=True)),
        combine=combine,
        top=top,
        strategy="lowest" if lowest else "alignment",
        where="n_tokens > 8" if narrowed else None,
    )
    order, scores, _ = combined(candidates, names, weights, combine, lowest=lowest)
    expected = order[: share(top, len(candidates.ids))]
    assert ids(selection) == [candidates.ids[i] for i in expected]
    assert np.allclose(selection.rows.column("score").to_numpy(), scores[expected], rtol=1e-9, atol=1e-12)
    assert selection.rows.column("rank").to_pylist() == list(range(1, len(expected) + 1))
    assert selection.n_candidates == len(candidates.ids)
    again = store.sql(selection.query).arrow().select(["rank", "sample_id", "score"])
    assert again.to_pylist() == selection.rows.to_pylist()


def test_the_norm_under_components_is_the_length_on_their_subspace(built: Built) -> None:
    store, _ = built
    components = [
        store.profiles.build(f"part-{k}", source="pool", component=k, metric="dot", quality_card=False)[0]
        for k in (1, 2, 3)
    ]
    selection = store.select("pool", profile=[one.reference for one in components], combine="norm", top="100%")
    rows = choose_rows(store.sets.open("pool"))
    layers = components[0].record.layers
    A = np.concatenate([rows.gather(Feature.MEAN, layer).astype(np.float64) for layer in layers], axis=1)
    spanned = np.stack([one.directions().astype(np.float64).ravel() for one in components], axis=1)
    projected = spanned @ np.linalg.lstsq(spanned, A.T, rcond=None)[0]
    lengths = dict(zip(rows.sample_ids(), np.linalg.norm(projected, axis=0) * np.sqrt(len(layers)), strict=True))
    expected = [lengths[sample_id] for sample_id in ids(selection)]
    assert np.allclose(selection.rows.column("score").to_numpy(), expected, rtol=1e-4)
    assert expected == sorted(expected, reverse=True)


def test_profiles_take_turns_in_the_order_in_which_they_are_named(built: Built) -> None:
    store, pool = built
    firsts = [pool.ids[int(np.argmax(pool.of([name])[0]))] for name in ("code", "math")]
    assert len(set(firsts)) == 2
    assert ids(store.select("pool", profile=["code", "math"], top=2)) == firsts
    assert ids(store.select("pool", profile=["math", "code"], top=2)) == firsts[::-1]


def test_a_weight_of_two_has_two_turns_to_one(built: Built) -> None:
    store, _ = built
    shares = store.select("pool", profile=["math", "code:2"], top=30).shares
    assert sum(one.n_through or 0 for one in shares) == 30
    assert abs((shares[1].n_through or 0) - 20) <= 2


def test_shares_count_whose_turn_it_was_and_what_each_alone_would_take(built: Built) -> None:
    store, pool = built
    for combine in COMBINATIONS:
        selection = store.select("pool", profile=["math", "code", "chat"], combine=combine, top=20)
        chosen = np.isin(pool.ids.astype(str), ids(selection))
        own = [int((chosen & (row <= 20)).sum()) for row in ranks_of(pool, pool.scores)]
        assert [one.n_in_own_top for one in selection.shares] == own
        through = combined(pool, PROFILES, [1, 1, 1], combine)[2]
        expected = [None] * 3 if through is None else [Counter(through[:20])[p] for p in range(3)]
        assert [one.n_through for one in selection.shares] == expected
        assert [one.reference for one in selection.shares] == ["math@1", "code@1", "chat@1"]


def test_a_union_without_common_samples_is_each_profiles_top(built: Built) -> None:
    store, pool = built
    for top in range(2, 12, 2):
        own = [set(pool.ids[row <= top // 2]) for row in ranks_of(pool, pool.of(["math", "code"]))]
        if not own[0] & own[1]:
            assert set(ids(store.select("pool", profile=["math", "code"], top=top))) == own[0] | own[1]
            break
    else:
        pytest.fail("the profiles agree on everything")


def test_a_profile_whose_scores_are_all_equal_decides_nothing(tmp_path: Path, built: Built) -> None:
    store, pool = built
    where = f"sample_id = '{pool.ids[3]}'"
    selection = store.select("pool", profile=["math", "code"], combine="sum", where=where, top=1)
    assert selection.rows.to_pylist() == [{"rank": 1, "sample_id": pool.ids[3], "score": 0.0}]


def test_a_saved_selection_says_how_to_make_it_again(built: Built) -> None:
    store, _ = built
    first = store.select("pool", profile=["math", "code:2"], combine="rrf", top="20%", where="n_tokens > 7")
    saved = store.selections.save("mixed", first)
    request = SelectionRequest.from_record(store.selections.open(saved.reference).record)
    again = store.select_again(saved.reference)
    assert again.rows.equals(first.rows)
    assert again.request.recorded() == request.recorded() == first.request.recorded()
    assert store.selections.open(saved.reference).selection().shares == first.shares
    listed = store.sql("SELECT profile FROM selections WHERE selection = 'mixed'").fetchone()
    assert listed == ("math@1, code@1",)


def test_a_record_of_one_profile_has_no_later_fields(built: Built) -> None:
    store, _ = built
    record = store.selections.save("one", store.select("pool", profile="math", top=3)).record
    later = {"profiles", "combine", "budget_tokens", "quota", "per", "min_score", "knee", "shares"}
    assert not later & set(record.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("text", "reference", "weight"),
    [
        ("math", "math", 1),
        ("math@2", "math@2", 1),
        ("math:2", "math", 2),
        ("math@prod:0.5", "math@prod", 0.5),
        ("profile:math", "profile:math", 1),
        ("profile:math@2:3", "profile:math@2", 3),
        ("profile:2", "profile:2", 1),
        ("set:math", "set:math", 1),
    ],
)
def test_a_profile_and_its_weight_are_told_apart(text: str, reference: str, weight: float) -> None:
    assert (parse_profile(text).reference, parse_profile(text).weight) == (reference, weight)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"profile": ["math", "math@1"]}, "named twice"),
        ({"profile": ["math", "code:0"]}, "not a number above 0"),
        ({"profile": ["math", "code:nan"]}, "not a number above 0"),
        ({"profile": ["math", "code:two"]}, "not a number above 0"),
        ({"profile": {"math": 1, "code": float("inf")}}, "not a number above 0"),
        ({"profile": "math:2"}, "a weight says how much one of several"),
        ({"profile": "math", "combine": "sum"}, "for several profiles"),
        ({"profile": ["math", "code:2"], "combine": "min"}, "the minimum of the scores has no weights"),
        ({"profile": ["math", "code"], "combine": "max"}, "not a way to combine"),
        ({"profile": ["math", "code"], "strategy": "random"}, "no use for several profiles"),
        ({"profile": []}, "none was named"),
    ],
)
def test_what_cannot_be_meant_is_refused(built: Built, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        built[0].select("pool", **options)


def test_the_lowest_of_a_union_is_no_control_and_says_so(built: Built) -> None:
    store, _ = built
    (warning,) = store.select("pool", profile=["math", "code"], strategy="lowest", top=20).warnings
    assert "combine='sum'" in warning
    silent = (
        {"profile": ["math", "code"], "strategy": "lowest", "combine": "sum"},
        {"profile": ["math", "code"]},
        {"profile": "math", "strategy": "lowest"},
    )
    assert not any(store.select("pool", top=20, **one).warnings for one in silent)
