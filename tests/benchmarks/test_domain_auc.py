"""AUC of scores and of what is to be beaten, against definitions and against what the strategies choose."""

from __future__ import annotations

import numpy as np
import pytest

import nait_store
from benchmarks.domain_auc import EMBEDDING, LENGTH_MATCHED, AucDifference, Candidates, quality
from benchmarks.large_pool import build_pool
from nait_store.registry.profiles import ProfileRegistry
from nait_store.registry.recipes import RECIPES
from nait_store.store.facade import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A set of 400 samples, and a profile of 32 of them."""
    made = nait_store.open(str(tmp_path_factory.mktemp("auc") / "store"), create=True)
    version = build_pool(made.location, "pool", 400, 1)
    ProfileRegistry(made.location).build(
        "math",
        version,
        recipe=RECIPES["default"],
        rows={0: np.arange(32)},
        where=None,
        limit=None,
        seed=0,
        background=None,
        quality_card=False,
    )
    return made


def test_auc_is_the_chance_that_a_wanted_sample_is_ahead(store: Store) -> None:
    generator = np.random.default_rng(0)
    scores, wanted = generator.integers(0, 6, 50).astype(float), generator.random(50) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in scores[wanted] for b in scores[~wanted]]
    auc, _ = quality(scores, wanted, [f"{i:02}" for i in range(50)])
    assert auc == pytest.approx(np.mean(pairs))


def test_difference_of_two_aucs_is_theirs_and_its_interval_that_of_resampling() -> None:
    generator = np.random.default_rng(0)
    wanted = np.arange(400) < 120
    ours, theirs = (generator.normal(size=400) + strength * wanted for strength in (1.5, 0.8))
    found = AucDifference.of(ours, theirs, wanted)
    ids = [f"{i:03}" for i in range(400)]
    assert found.value == pytest.approx(quality(ours, wanted, ids)[0] - quality(theirs, wanted, ids)[0])
    resampled = []
    for _ in range(400):
        rows = np.concatenate(
            [generator.choice(np.flatnonzero(wanted == side), (wanted == side).sum()) for side in (0, 1)]
        )
        resampled.append(AucDifference.of(ours[rows], theirs[rows], wanted[rows]).value)
    assert found.half_width == pytest.approx(1.96 * np.std(resampled), rel=0.15)
    assert (found.low, found.high) == (found.value - found.half_width, found.value + found.half_width)


def test_scores_do_not_differ_from_themselves() -> None:
    scores, wanted = np.arange(10.0), np.arange(10) % 3 == 0
    assert str(AucDifference.of(scores, scores, wanted)) == "+0.0000 ± 0.0000"


def test_the_embedding_baseline_ranks_as_the_strategy_does(store: Store) -> None:
    candidates = Candidates.of(store, "pool", "instruction")
    scores = candidates.baselines(store, "math")[EMBEDDING]
    chosen = store.select("pool", profile="math", strategy="embedding", top=25).rows.column("sample_id").to_pylist()
    assert [candidates.ids[i] for i in np.lexsort((candidates.ids, -scores))[:25]] == chosen


def test_the_length_matched_baseline_is_the_chance_to_be_drawn(store: Store) -> None:
    candidates = Candidates.of(store, "pool", "instruction")
    chances = candidates.baselines(store, "math")[LENGTH_MATCHED]
    drawn = np.zeros(len(candidates.ids))
    n_draws = 30
    for seed in range(n_draws):
        rows = store.select("pool", profile="math", strategy="length-matched", seed=seed).rows
        drawn += np.isin(candidates.ids, rows.column("sample_id").to_pylist())
    assert chances.sum() == pytest.approx(40, abs=1e-3)
    assert np.abs(drawn / n_draws - chances).max() < 5 * np.sqrt(0.25 / n_draws)
    assert not drawn[chances < 1e-6].any()
