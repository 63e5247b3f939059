"""Samples spread over the best: against plain greedy loops over all distances and similarities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nait_store
from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.refs import Kind, parse_reference
from nait_store.schemas.capture import Feature
from nait_store.selection.redundancy import diversity
from nait_store.selection.redundancy.diversity import Diversity, spread
from nait_store.store.lineage.commands import select_arguments
from nait_store.testing.stores import build_set
from tests.selection.choices import PROFILES, Pool, build_pool, share, take, take_by_group
from tests.selection.test_cosine_duplicates import kept, units
from tests.selection.test_limits import ids, order_of

HOW = [Diversity.K_CENTER, Diversity.FACILITY_LOCATION]
Built = tuple[nait_store.Store, Pool]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_pool(tmp_path_factory.mktemp("diversity"))


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(diversity, "_CENTERS_AT_ONCE", 5)
        patch.setattr(diversity, "_LEAST_LEADERS", 4)
        patch.setattr(diversity, "_MOST_LEADERS", 16)
        yield


def greedy(points: NDArray[np.float64], n: int, how: Diversity) -> list[int]:
    """One step after the other over all pairs, in float64; of those that are equal but for rounding the first."""
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    similarities = (1 + points @ points.T) / 2
    chosen: list[int] = [0] if how is Diversity.K_CENTER else []
    while len(chosen) < n:
        if how is Diversity.K_CENTER:
            value = distances[:, chosen].min(axis=1)
        else:
            covered = similarities[chosen].max(axis=0) if chosen else np.zeros(len(points))
            value = np.maximum(similarities, covered).sum(axis=1)
        value[chosen] = -1
        chosen.append(int(np.argmax(value > value.max() - 1e-6)))
    return chosen[:n]


def cloud(m: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    """Unit vectors in heaps of different sizes."""
    rng = np.random.default_rng(seed)
    heaps = rng.standard_normal((5, width))
    points = heaps[rng.integers(0, 5, m) * rng.integers(0, 2, m)] + 0.7 * rng.standard_normal((m, width))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (7, 7), (90, 30), (150, 150)])
def test_orders_are_those_of_plain_greedy_loops(how: Diversity, m: int, n: int) -> None:
    points = cloud(m, 12, seed=m)
    assert spread(points.astype(np.float32), n, how).tolist() == greedy(points, n, how)


def test_of_equal_points_the_better_ranked_come_first() -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)  # three places, four samples in each
    assert spread(points, 12, Diversity.K_CENTER).tolist() == [0, 4, 8, 1, 2, 3, 5, 6, 7, 9, 10, 11]
    order = spread(points, 12, Diversity.FACILITY_LOCATION).tolist()
    assert order[:3] == [0, 4, 8]
    assert sorted(order) == list(range(12))


def test_no_other_first_point_leaves_fewer_far_away() -> None:
    points = cloud(200, 6)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    radius = {
        name: distances[:, rows].min(axis=1).max()
        for name, rows in {
            "k-center": spread(points.astype(np.float32), 20, Diversity.K_CENTER),
            "first": np.arange(20),
        }.items()
    }
    assert radius["k-center"] < radius["first"]


def test_facilities_of_many_points_are_chosen_in_blocks_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "_BLOCK_ROWS", 40)
    points = cloud(100, 8)
    order = spread(points.astype(np.float32), 50, Diversity.FACILITY_LOCATION).tolist()
    blocks = [np.arange(first, 100, 3) for first in range(3)]
    turns = [rows[greedy(points[rows], 17, Diversity.FACILITY_LOCATION)] for rows in blocks]
    assert order == [int(one) for turn in zip(*turns, strict=True) for one in turn][:50]


def expected(store: nait_store.Store, pool: Pool, best: Sequence[int], n: int, how: Diversity) -> list[int]:
    of = units(store)
    return [best[i] for i in greedy(np.array([of[pool.ids[i]] for i in best]), n, how)]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("top", "among"), [(10, None), (10, 25), (8, "50%"), ("10%", 400)])
def test_a_selection_is_spread_over_the_best(built: Built, how: Diversity, top: Any, among: Any) -> None:
    store, pool = built
    selection = store.select("pool", profile="math", top=top, diversity=how.value, among=among)
    n = share(str(top), len(pool.ids))
    m = min(len(pool.ids), 3 * n if among is None else share(str(among), len(pool.ids)))
    order, scores = order_of(pool, "one")
    chosen = expected(store, pool, order[:m], n, how)
    assert ids(selection) == [pool.ids[i] for i in chosen]
    assert np.allclose(selection.rows.column("score").to_numpy(), scores[chosen])
    assert selection.rows.column("rank").to_pylist() == list(range(1, n + 1))
    assert selection.request.among == str(m)


def test_limits_take_from_the_diverse_order(built: Built) -> None:
    store, pool = built
    order, _ = order_of(pool, "union")
    diverse = expected(store, pool, order[:60], 60, Diversity.K_CENTER)
    options = {"profile": PROFILES, "diversity": "k-center", "among": 60}
    quota = store.select("pool", quota="source=orca:6,code:2", **options)
    fits = {"orca": lambda taken, _: len(taken) < 6, "code": lambda taken, _: len(taken) < 2}
    assert ids(quota) == [pool.ids[i] for i in take_by_group(diverse, pool.sources, fits)]
    budget = store.select("pool", budget_tokens=120, **options)
    tokens = pool.n_tokens
    fitting = take(diverse, lambda taken, i: int(tokens[taken].sum() + tokens[i]) <= 120)
    assert ids(budget) == [pool.ids[i] for i in fitting]
    assert sum(share.n_through or 0 for share in quota.shares) == quota.n_selected


def test_duplicates_are_dropped_before_samples_are_spread(built: Built) -> None:
    store, pool = built
    rules = {"drop_duplicates": "cosine:0.6"}
    selection = store.select("pool", profile="math", top=6, diversity="facility-location", among=20, **rules)
    order, _ = order_of(pool, "one")
    of = units(store)
    numbers = {one: i for i, one in enumerate(pool.ids)}
    left = [numbers[one] for one in kept([pool.ids[i] for i in order], of, 0.6)]
    assert ids(selection) == [pool.ids[i] for i in expected(store, pool, left[:20], 6, Diversity.FACILITY_LOCATION)]
    above = order.index(left[19])
    assert sum(one.n_samples for one in selection.dropped) == above - 19


def test_diversity_is_recorded_and_the_selection_is_made_again(built: Built) -> None:
    store, _ = built
    first = store.select("pool", profile="math", top=12, diversity="k-center")
    saved = store.selections.save("diverse", first)
    assert (saved.record.diversity, saved.record.among, saved.record.drop_duplicates) == ("k-center", "36", ())
    assert store.selections.verify("diverse").identical
    words = select_arguments(
        saved.record, "", parse_reference("pool@1", Kind.SET), [parse_reference("math@1", Kind.PROFILE)]
    )
    assert words[words.index("--diversity") + 1] == "k-center"
    assert words[words.index("--among") + 1] == "36"


def test_none_is_no_diversity(built: Built) -> None:
    store, _ = built
    plain = store.select("pool", profile="math", top=5)
    assert store.select("pool", profile="math", top=5, diversity="none").query == plain.query


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diversity": "dpp"}, "'dpp' is no kind of diversity"),
        ({"diversity": "k-center", "among": 4, "top": 5}, "--among 4 is 4 samples, and 5 are to be chosen"),
        ({"diversity": "k-center", "among": "many"}, "--among many is no number or share"),
        ({"diversity": "k-center", "among": "0"}, "--among 0 is no number or share"),
        ({"diversity": "k-center", "among": "nan%"}, "is no number or share"),
        ({"among": 4}, "--among is for --diversity"),
        ({"diversity": "k-center", "quota": "source=orca:3"}, "does not follow from --quota"),
        ({"diversity": "k-center", "budget_tokens": 30}, "does not follow from --quota"),
        ({"diversity": "k-center", "profile": PROFILES, "min_profiles": 2}, "does not follow from --quota"),
        ({"diversity": "k-center", "strategy": "length-matched"}, "draws by chance"),
        ({"diversity": "k-center", "top": 91}, "asks for more than there is"),
        ({"diversity": "k-center", "among": 5, "quota": "source=orca:5"}, "the quota of source=orca is 5 samples"),
    ],
)
def test_what_cannot_be_meant_is_refused(built: Built, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        built[0].select("pool", **{"profile": "math", **options})


def test_a_set_without_mean_activations_is_refused(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    build_set(store.location, "pool", 6, features=(Feature.DRIFT,))
    with pytest.raises(IncompatibleError, match="does not store the mean of activations that --diversity compares"):
        store.select("pool", strategy="random", top=2, diversity="k-center")
