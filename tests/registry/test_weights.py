"""Weighted in-domain samples: one of weight 3 counts as three that are alike, whatever is made of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nait_store.errors import InvalidInputError
from nait_store.registry.cards.subset_directions import SubsetDirections
from nait_store.registry.directions import (
    LayerDirection,
    contrastive_direction,
    mean_direction,
    principal_direction,
)
from nait_store.registry.in_domain import choose_rows
from nait_store.registry.profiles import ProfileRegistry
from nait_store.registry.quality import warnings_for
from nait_store.registry.recipes import choose_recipe
from nait_store.registry.sample_weights import GivenWeights, recorded_weights, weights_by_id
from nait_store.schemas.profile import SampleSource, SampleWeights, effective_samples
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set

COUNTS = np.array([1, 2, 3, 1, 5, 1, 1, 4, 2, 1, 1, 6, 1, 2, 1, 1, 1, 3, 1, 2])
RELATIVE = COUNTS / COUNTS.mean()
BACKGROUND = np.full(30, 0.1)


@pytest.fixture(scope="module")
def samples() -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    scales = 0.8 ** np.arange(30)
    return (rng.standard_normal((len(COUNTS), 30)) * scales + 0.4 * rng.standard_normal(30)).astype(np.float32)


def direction(method: str, X: NDArray[np.float32], weights: NDArray[np.float64] | None = None) -> LayerDirection:
    if method == "mean":
        return mean_direction(X, weights=weights)
    if method == "contrastive":
        return contrastive_direction(X, BACKGROUND, weights=weights)
    return principal_direction(X, center=method[0] == "c", component=int(method[1]), weights=weights)


METHODS = ["mean", "contrastive", "c1", "u1", "c3", "u2"]


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_counts_as_repetitions(samples: NDArray[np.float32], method: str) -> None:
    X = samples
    weighted, repeated = direction(method, X, RELATIVE), direction(method, np.repeat(X, COUNTS, axis=0))
    assert np.abs(weighted.direction - repeated.direction).max() < 1e-5
    assert weighted.sign_margin == pytest.approx(repeated.sign_margin, rel=1e-4)
    if repeated.explained_variance_ratio is not None:
        assert weighted.explained_variance_ratio == pytest.approx(repeated.explained_variance_ratio, rel=1e-5)
        assert weighted.eigenvalue_gap == pytest.approx(repeated.eigenvalue_gap, rel=1e-4)


def test_a_component_is_that_of_numpy(samples: NDArray[np.float32]) -> None:
    X = samples
    wide = X.astype(np.float64)
    centred = wide - np.average(wide, axis=0, weights=COUNTS)
    _, vectors = np.linalg.eigh((centred.T * COUNTS) @ centred)
    found = principal_direction(X, center=True, weights=RELATIVE).direction
    assert abs(found @ vectors[:, -1]) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_equal_weights_are_none(samples: NDArray[np.float32], method: str) -> None:
    X = samples
    same, none = direction(method, X, np.ones(len(X))), direction(method, X)
    assert np.abs(same.direction - none.direction).max() < 1e-6
    assert same.sign_margin == pytest.approx(none.sign_margin, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_card_weighs_the_samples_of_its_draws(samples: NDArray[np.float32], method: str) -> None:
    X = samples
    choices = {"mean": {"method": "mean"}, "contrastive": {"method": "contrastive"}}.get(
        method, {"center": method[0] == "c", "component": int(method[-1]) if method[-1].isdigit() else None}
    )
    recipe = choose_recipe("default", **choices)  # type: ignore[arg-type]
    contrast = BACKGROUND if method == "contrastive" else None
    subset = np.array([0, 1, 2, 4, 7, 8, 11, 12, 13, 17])
    expected = direction(method, np.repeat(X[subset], COUNTS[subset], axis=0)).direction
    drawn = SubsetDirections(X, recipe, contrast, expected, COUNTS.astype(np.float64))
    found = drawn.vectors(drawn.coefficients(subset)[None])[0]
    assert found @ expected / np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)


def by_id(values: NDArray[np.float64], ids: list[str]) -> GivenWeights:
    return GivenWeights(dict(zip(ids, values.tolist(), strict=True)), expression="w")


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (None, "1 in-domain sample has no weight by w: s000003"),
        (0.0, "a weight that is not above 0 by w: s000003"),
        (-1.0, "a weight that is not above 0"),
        (float("nan"), "a weight that is not a finite number"),
        (float("inf"), "a weight that is not a finite number"),
    ],
)
def test_every_sample_has_a_weight_above_0(local: Location, weight: float | None, says: str) -> None:
    chosen = choose_rows(build_set(local, "maths", 20))
    ids = chosen.sample_ids()
    given = GivenWeights({**dict.fromkeys(ids, 1.0), ids[3]: weight}, expression="w")
    with pytest.raises(InvalidInputError, match=says.replace("s000003", ids[3])):
        given.weigh(chosen)


def test_weights_of_others_do_not_matter(local: Location) -> None:
    chosen = choose_rows(build_set(local, "maths", 20), limit=10)
    given = GivenWeights({**dict.fromkeys(chosen.sample_ids(), 2.0), "another": -1.0}, expression="w")
    weighed = given.weigh(chosen)
    assert weighed.relative_weights is not None
    assert weighed.relative_weights.tolist() == [1.0] * 10


def test_huge_and_tiny_weights_do_not_overflow(local: Location) -> None:
    chosen = choose_rows(build_set(local, "maths", 4))
    weighed = by_id(np.array([1e308, 1e308, 1e-300, 1e308]), chosen.sample_ids()).weigh(chosen)
    assert weighed.relative_weights is not None
    assert weighed.relative_weights.mean() == pytest.approx(1.0)
    assert effective_samples([1e308, 1e308, 1e-300, 1e308]) == pytest.approx(3.0)


def test_a_record_says_whose_weight_is_whose(local: Location) -> None:
    chosen = choose_rows(build_set(local, "maths", 20))
    weighed = by_id(COUNTS.astype(np.float64), chosen.sample_ids()).weigh(chosen)
    record = by_id(COUNTS.astype(np.float64), chosen.sample_ids()).record(weighed)
    again = recorded_weights(record, chosen.sample_ids()[::-1]).weigh(chosen)
    assert again.weights is not None
    assert again.weights.tolist() == COUNTS.tolist()
    assert weights_by_id(again) == list(record.values)


def test_a_build_keeps_its_weights_and_is_made_once(local: Location) -> None:
    source = build_set(local, "maths", 20)
    registry, recipe = ProfileRegistry(local), choose_recipe("default", method="mean")
    given = by_id(COUNTS.astype(np.float64), choose_rows(source).sample_ids())
    plain, _ = registry.build("math", source, recipe=recipe)
    weighted, created = registry.build("math", source, recipe=recipe, weights=given)
    assert created
    assert (weighted.number, registry.build("math", source, recipe=recipe, weights=given)[1]) == (2, False)
    kept = registry.open("math@2").record.source
    assert kept is not None
    assert kept.weights is not None
    assert kept.in_words == "20 samples of maths@1, weighted by w"
    X = choose_rows(source).gather(recipe.profile_feature, 1).astype(np.float64)
    mean = np.average(X, axis=0, weights=COUNTS)
    assert np.abs(weighted.directions()[1] - mean / np.linalg.norm(mean)).max() < 1e-6
    assert set(weighted.record.family_keys).isdisjoint(plain.record.family_keys)


def test_the_record_of_unweighted_samples_has_no_field_for_weights() -> None:
    source = SampleSource(set_name="maths", version=1, n_samples=2, sample_ids_sha256="0" * 64)
    assert b"weights" not in source.to_json_bytes()


def test_a_record_with_too_few_weights_is_refused() -> None:
    weights = SampleWeights(expression="w", values=(1.0, 2.0))
    with pytest.raises(ValueError, match="2 weights of 3 samples"):
        SampleSource(set_name="maths", version=1, n_samples=3, sample_ids_sha256="0" * 64, weights=weights)


def test_a_few_heavy_samples_are_warned_of(local: Location) -> None:
    chosen = choose_rows(build_set(local, "maths", 40))
    weights = np.where(np.arange(40) < 5, 1000.0, 1.0)
    weighed = by_id(weights, chosen.sample_ids()).weigh(chosen)
    (warning,) = warnings_for(choose_recipe("default", method="mean"), (), weighed, "maths@1")
    assert "the 40 count as 5.1 that weigh the same" in warning
