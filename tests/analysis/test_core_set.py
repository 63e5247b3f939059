"""The core of a set: what profiles agree on, against plain loops over their scores."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.analysis.core_set import CoreSet
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.testing.stores import build_set, fake_identity
from tests.selection.choices import N_SAMPLES, PROFILES, Pool, build_pool, combined, ranks_of

Built = tuple[nait_store.Store, Pool]
TOP, N_BEST = "40%", 36


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    store, pool = build_pool(tmp_path_factory.mktemp("core"))
    build_set(store.location, "elsewhere", 20, seed=9, identity=fake_identity("other"))
    store.profiles.build("foreign", source="elsewhere")
    return store, pool


@pytest.fixture(scope="module")
def found(built: Built) -> CoreSet:
    store, _ = built
    return store.analyses.core(*PROFILES, on="pool", top=TOP, min_profiles=2, by="source")


def tops_of(pool: Pool) -> list[int]:
    """In the top of how many profiles each candidate is."""
    n_best = math.ceil(len(pool.ids) * 0.4)
    return (ranks_of(pool, pool.scores) <= n_best).sum(axis=0).tolist()


def test_it_says_what_was_asked(found: CoreSet) -> None:
    assert (found.set_ref, found.where, found.n_candidates) == ("pool@1", None, N_SAMPLES)
    assert found.profiles == ("math@1", "code@1", "chat@1")
    assert (found.top, found.n_best, found.min_profiles, found.by) == (TOP, N_BEST, 2, "source")


def test_the_core_is_in_the_order_of_the_summed_scores(built: Built, found: CoreSet) -> None:
    _, pool = built
    tops = tops_of(pool)
    order, scores, _ = combined(pool, PROFILES, [1.0] * 3, "sum")
    expected = [i for i in order if tops[i] >= 2]
    assert found.rows.column("sample_id").to_pylist() == [pool.ids[i] for i in expected]
    assert np.allclose(found.rows.column("score").to_numpy(), scores[expected])
    assert found.rows.column("rank").to_pylist() == list(range(1, len(expected) + 1))
    assert found.rows.column("n_profiles").to_pylist() == [tops[i] for i in expected]
    assert found.n_samples == len(expected)


def test_rows_hold_the_rank_under_each_profile(built: Built, found: CoreSet) -> None:
    _, pool = built
    ranks = ranks_of(pool, pool.scores)
    place = {sample_id: i for i, sample_id in enumerate(pool.ids)}
    for row in found.rows.to_pylist():
        here = ranks[:, place[row["sample_id"]]].tolist()
        assert [row["math@1"], row["code@1"], row["chat@1"]] == here


def test_every_agreement_is_counted(built: Built, found: CoreSet) -> None:
    tops = tops_of(built[1])
    assert [(one.min_profiles, one.n_samples) for one in found.agreements] == [
        (least, sum(n >= least for n in tops)) for least in (1, 2, 3)
    ]


def test_what_chance_would_give_is_the_mean_over_all_outcomes(found: CoreSet) -> None:
    """Each profile has a sample among its best or not: eight outcomes, added up one after the other."""
    share = N_BEST / N_SAMPLES
    for one in found.agreements:
        expected = 0.0
        for outcome in itertools.product([False, True], repeat=3):
            if sum(outcome) >= one.min_profiles:
                expected += N_SAMPLES * math.prod(share if is_best else 1 - share for is_best in outcome)
        assert one.n_by_chance == pytest.approx(expected)


def test_values_are_counted_in_the_core_and_among_the_candidates(built: Built, found: CoreSet) -> None:
    _, pool = built
    core = Counter(source or "" for source in pool.sources_of(found.rows.column("sample_id").to_pylist()).elements())
    everyone = Counter(source or "" for source in pool.sources)
    assert {one.value: (one.n_core, one.n_candidates) for one in found.values} == {
        value: (core[value], n) for value, n in everyone.items()
    }
    assert [one.n_core for one in found.values] == sorted(core.values(), reverse=True)


def test_a_condition_leaves_fewer_candidates_and_its_own_tops(built: Built) -> None:
    store, pool = built
    kept = pool.where(pool.n_tokens > 8)
    found = store.analyses.core(*PROFILES, on="pool", top=TOP, where="n_tokens > 8", min_profiles=3)
    expected = {kept.ids[i] for i, n in enumerate(tops_of(kept)) if n == 3}
    assert set(found.rows.column("sample_id").to_pylist()) == expected
    assert found.n_candidates == len(kept.ids) == sum(one.n_candidates for one in found.values)


def test_without_a_number_all_profiles_must_agree(built: Built, found: CoreSet) -> None:
    store, _ = built
    everyone = store.analyses.core(*PROFILES, on="pool", top=TOP)
    assert everyone.min_profiles == 3
    assert everyone.n_samples == found.agreements[2].n_samples


def test_without_names_every_profile_that_applies_takes_part(built: Built) -> None:
    store, _ = built
    assert store.analyses.core(on="pool", top=TOP).profiles == ("chat@1", "code@1", "math@1")


def test_the_core_is_saved_as_a_selection_that_is_made_again(built: Built, found: CoreSet) -> None:
    store, _ = built
    saved = store.selections.save("core", found.require_selection(), message="what two agree on")
    assert saved.rows().column("sample_id").equals(found.rows.column("sample_id"))
    assert (saved.record.min_profiles, saved.record.combine, saved.record.top) == (2, "sum", TOP)
    assert store.selections.verify("core").identical


def test_an_empty_core_is_an_answer_and_no_selection(built: Built) -> None:
    store, _ = built
    found = store.analyses.core(*PROFILES, on="pool", top=1)
    assert (found.n_samples, found.selection, found.rows.num_rows) == (0, None, 0)
    assert found.rows.column_names == ["rank", "sample_id", "score", "n_profiles", "math@1", "code@1", "chat@1"]
    assert [one.n_core for one in found.values] == [0] * len(found.values)
    with pytest.raises(InvalidInputError, match="no candidate is in the top 1 of 3 profiles or more") as caught:
        found.require_selection()
    assert "--min-profiles" in str(caught.value.next_step)


@pytest.mark.parametrize(
    ("profiles", "options", "error", "says"),
    [
        (("math",), {}, InvalidInputError, "there is only math@1"),
        (("math", "math@1"), {}, InvalidInputError, "named twice"),
        (("math", "code"), {"min_profiles": 3}, InvalidInputError, "not between 1 and the number of profiles, 2"),
        (("math", "code"), {"min_profiles": 0}, InvalidInputError, "not between 1 and the number of profiles, 2"),
        (("math", "code"), {"top": 91}, InvalidInputError, "90 candidates"),
        (("math", "code"), {"by": "sorce"}, NotFoundError, "source"),
        (("math", "code"), {"where": "sorce = 'code'"}, NotFoundError, "source"),
        (("math", "foreign"), {}, IncompatibleError, "foreign@1 does not apply"),
        (("math", "cod"), {}, NotFoundError, "code"),
    ],
)
def test_slips(
    built: Built, profiles: tuple[str, ...], options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        built[0].analyses.core(*profiles, **{"on": "pool", **options})
