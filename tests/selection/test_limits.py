"""Budgets of tokens, quotas, tops per group, thresholds and knees: against NumPy, alone and together."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nait_store
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.selection.knee import find_knee
from nait_store.selection.quotas import parse_quota
from tests.selection.choices import PROFILES, Pool, build_pool, combined, share, take, take_by_group

Built = tuple[nait_store.Store, Pool]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_pool(tmp_path_factory.mktemp("limits"))


def ids(selection: Any) -> list[str]:
    return selection.rows.column("sample_id").to_pylist()


def order_of(pool: Pool, kind: str) -> tuple[list[int], np.ndarray | None]:
    """Order and scores under one profile, the union or sum of all three, or by chance with seed 4."""
    if kind == "random":
        keys = [hashlib.sha256(f"4:{one}".encode()).hexdigest() for one in pool.ids]
        return sorted(range(len(keys)), key=keys.__getitem__), None
    names = ["math"] if kind == "one" else list(PROFILES)
    order, scores, _ = combined(pool, names, [1.0] * len(names), kind)
    return order, scores


def options_of(kind: str) -> dict[str, Any]:
    if kind == "random":
        return {"strategy": "random", "seed": 4}
    return {"profile": "math"} if kind == "one" else {"profile": PROFILES, "combine": kind}


KINDS = st.sampled_from(["one", "union", "sum", "random"])


@settings(max_examples=12, deadline=None)
@given(kind=KINDS, top=st.sampled_from([None, "3", "20%"]), budget=st.integers(12, 900))
def test_a_budget_of_tokens_is_filled_in_order(built: Built, kind: str, top: str | None, budget: int) -> None:
    store, pool = built
    selection = store.select("pool", top=top, budget_tokens=budget, **options_of(kind))
    most = len(pool.ids) if top is None else share(top, len(pool.ids))
    order, _ = order_of(pool, kind)
    tokens = pool.n_tokens
    expected = take(order[:most], lambda taken, i: int(tokens[taken].sum() + tokens[i]) <= budget)
    assert ids(selection) == [pool.ids[i] for i in expected]
    assert selection.n_tokens == int(tokens[expected].sum()) <= budget
    assert store.sql(selection.query).arrow().column("sample_id").to_pylist() == ids(selection)


@settings(max_examples=12, deadline=None)
@given(
    kind=KINDS,
    top=st.integers(1, 40),
    shares=st.dictionaries(st.sampled_from(["orca", "code"]), st.integers(1, 30), min_size=1),
)
def test_quotas_are_met_exactly_by_the_best_of_each(built: Built, kind: str, top: int, shares: dict[str, int]) -> None:
    store, pool = built
    quota = "source=" + ",".join(f"{value}:{percent}%" for value, percent in shares.items())
    selection = store.select("pool", top=top, quota=quota, **options_of(kind))
    chosen = ids(selection)
    assert len(chosen) == len(set(chosen)) == top
    found = pool.sources_of(chosen)
    for value, percent in shares.items():
        assert abs(found[value] - percent * top / 100) < 1
    named = [source if source in shares else None for source in pool.sources]
    wanted = {value: found[value] for value in shares}
    wanted[None] = top - sum(wanted.values())
    order, _ = order_of(pool, kind)
    fits = {value: (lambda taken, _, n=n: len(taken) < n) for value, n in wanted.items()}
    assert chosen == [pool.ids[i] for i in take_by_group(order, named, fits)]
    assert store.sql(selection.query).arrow().column("sample_id").to_pylist() == chosen


@settings(max_examples=12, deadline=None)
@given(kind=KINDS, top=st.sampled_from(["1", "10%", "40", "33%"]), budget=st.none() | st.integers(30, 200))
def test_every_group_gives_its_own_top(built: Built, kind: str, top: str, budget: int | None) -> None:
    store, pool = built
    selection = store.select("pool", top=top, per="source", budget_tokens=budget, **options_of(kind))
    order, _ = order_of(pool, kind)
    tokens, sizes = pool.n_tokens, pool.sources_of(pool.ids)

    def fits(n: int) -> Any:
        most = math.inf if budget is None else budget
        return lambda taken, i: len(taken) < n and int(tokens[taken].sum() + tokens[i]) <= most

    expected = take_by_group(order, pool.sources, {value: fits(share(top, sizes[value])) for value in sizes})
    assert ids(selection) == [pool.ids[i] for i in expected]
    assert store.sql(selection.query).arrow().column("sample_id").to_pylist() == ids(selection)


@settings(max_examples=8, deadline=None)
@given(
    kind=st.sampled_from(["one", "union", "sum"]),
    least=st.floats(-1, 1),
    top=st.sampled_from([None, "5", "30%"]),
    budget=st.none() | st.just(100),
)
def test_no_score_is_below_the_least(
    built: Built, kind: str, least: float, top: str | None, budget: int | None
) -> None:
    store, pool = built
    selection = store.select("pool", top=top, min_score=least, budget_tokens=budget, **options_of(kind))
    order, scores = order_of(pool, kind)
    assert scores is not None
    kept = [i for i in order if scores[i] >= least][: share(top or "100%", len(pool.ids))]
    tokens = pool.n_tokens
    if budget is not None:
        kept = take(kept, lambda taken, i: int(tokens[taken].sum() + tokens[i]) <= budget)
    assert ids(selection) == [pool.ids[i] for i in kept]
    assert selection.rows.column("score").to_numpy().min() >= least


def test_quotas_divide_a_budget_of_tokens(built: Built) -> None:
    store, pool = built
    selection = store.select("pool", profile="math", budget_tokens=300, quota="source=orca:50%,code:20%")
    named = [source if source in ("orca", "code") else None for source in pool.sources]
    tokens = pool.n_tokens

    def fits(most: int) -> Any:
        return lambda taken, i: int(tokens[taken].sum() + tokens[i]) <= most

    order, _ = order_of(pool, "one")
    expected = take_by_group(order, named, {"orca": fits(150), "code": fits(60), None: fits(90)})
    assert ids(selection) == [pool.ids[i] for i in expected]


def test_quotas_in_numbers_say_how_many_there_are(built: Built) -> None:
    store, pool = built
    selection = store.select("pool", profile="math", quota="it's=orca:5,code:3")
    assert pool.sources_of(ids(selection)) == {"orca": 5, "code": 3}


def test_the_knee_decides_the_number_and_says_why(built: Built) -> None:
    store, pool = built
    selection = store.select("pool", profile="math", knee=True)
    knee = find_knee(pool.of(["math"])[0])
    assert selection.n_selected == knee.n_before
    assert selection.knee == knee
    assert f"after {knee.n_before:,} of 90 candidates" in knee.in_words
    assert store.select("pool", profile="math", knee=True, top=3).n_selected == min(3, knee.n_before)


@pytest.mark.parametrize("n_high", [30, 200, 900])
def test_the_knee_of_two_plateaus_is_between_them(n_high: int) -> None:
    rng = np.random.default_rng(0)
    high, low = 10 + 0.01 * rng.random(n_high), 0.01 * rng.random(1000 - n_high)
    knee = find_knee(rng.permutation(np.concatenate([low, high])))
    assert knee.n_before == n_high
    assert knee.score == high.min()
    assert knee.is_clear


def test_the_knee_is_farthest_from_the_line_between_the_ends() -> None:
    scores = np.exp(-np.arange(500) / 40.0)
    knee = find_knee(scores[::-1])
    line = scores[0] + (scores[-1] - scores[0]) * np.arange(500) / 499
    distances = (line - scores) / (scores[0] - scores[-1])
    assert knee.n_before == int(distances.argmax())
    assert knee.deviation == pytest.approx(distances.max())


def test_a_straight_curve_has_no_clear_knee() -> None:
    knee = find_knee(np.linspace(0, 1, 100))
    assert not knee.is_clear
    assert "hardly a knee" in knee.in_words


@pytest.mark.parametrize("scores", [[1.0, 2.0], [3.0] * 10])
def test_no_knee_without_a_curve(scores: list[float]) -> None:
    with pytest.raises(InvalidInputError, match="have no knee"):
        find_knee(np.array(scores))


@settings(max_examples=60, deadline=None)
@given(
    percents=st.lists(st.integers(1, 100), min_size=1, max_size=6).filter(lambda one: sum(one) <= 100),
    total=st.integers(1, 10_000),
)
def test_shares_divide_a_number_without_remainder(percents: list[int], total: int) -> None:
    division = parse_quota("c=" + ",".join(f"v{i}:{percent}%" for i, percent in enumerate(percents))).divide(total)
    assert sum(division.named.values()) + division.others == total
    for i, percent in enumerate(percents):
        assert abs(division.named[f"v{i}"] - percent * total / 100) < 1
    if sum(percents) == 100:
        assert division.others == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"quota": "source"}, "has no COLUMN=VALUE:SHARE"),
        ({"quota": "source=alpaca"}, "not VALUE:SHARE"),
        ({"quota": "source=alpaca:x"}, "no share or number"),
        ({"quota": "source=alpaca:0"}, "no share or number"),
        ({"quota": "source=alpaca:5,alpaca:6"}, "twice"),
        ({"quota": "source=alpaca:60%,code:50%"}, "more than 100%"),
        ({"quota": "source=alpaca:5", "top": 4}, "add up to more than the 4"),
        ({"quota": "source=nowhere:50%", "top": 4}, r"source=nowhere is 2 samples, and there are 0; .*orca \("),
        ({"quota": "source=alpaca:10%", "top": "100%"}, "other values of source"),
        ({"quota": "source=orca:100%", "top": 5, "min_score": 1e9}, "no candidate has a score of 1e"),
        ({"quota": "source=orca:5", "budget_tokens": 90}, "divides either"),
        ({"quota": "source=orca:5%", "budget_tokens": 90, "top": 5}, "divides either"),
        ({"quota": "source=orca:5%", "budget_tokens": 90, "min_score": 0.0}, "leave one of them out"),
        ({"quota": "source=orca:90%", "budget_tokens": 900}, r"source=orca is 810 tokens, and there are"),
        ({"quota": "source=orca:5%", "per": "source"}, "exclude each other"),
        ({"per": "source", "knee": True}, "--knee reads one curve"),
        ({"strategy": "lowest", "knee": True}, "--knee reads one curve"),
        ({"profile": PROFILES, "knee": True}, "--knee reads one curve"),
        ({"strategy": "random", "knee": True}, "no use for --knee"),
        ({"budget_tokens": 0}, "buys nothing"),
        ({"budget_tokens": 2}, "more than 2 tokens"),
        ({"min_score": float("nan")}, "no number to compare with"),
        ({"min_score": 1e9}, "no candidate has a score"),
        ({"profile": None, "strategy": "random", "min_score": 0.0}, "needs scores"),
    ],
)
def test_what_cannot_be_had_is_refused(built: Built, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        built[0].select("pool", **({"profile": "math"} | options))


@pytest.mark.parametrize("options", [{"per": "sorce"}, {"quota": "sorce=a:5%"}])
def test_an_unknown_column_is_named_before_anything_is_scored(built: Built, options: dict[str, Any]) -> None:
    with pytest.raises(NotFoundError, match="sorce") as caught:
        built[0].select("pool", profile="math", **options)
    assert "source" in (caught.value.next_step or "")


def test_limits_are_recorded_and_make_the_selection_again(built: Built) -> None:
    store, _ = built
    for name, options in {
        "tokens": {"budget_tokens": 200, "min_score": 0.0},
        "quota": {"quota": "source=orca:50%", "top": 10},
        "per": {"per": "source", "top": 2},
        "knee": {"knee": True},
    }.items():
        first = store.select("pool", profile="math", **options)
        saved = store.selections.save(name, first)
        assert store.select_again(saved.reference).rows.equals(first.rows)
        assert store.selections.open(name).selection().request.recorded() == first.request.recorded()
