from __future__ import annotations

import pytest

from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.registry.recipes import RECIPES, choose_recipe
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Method, Metric


def test_paper_recipe_is_the_letter_of_the_paper() -> None:
    paper = RECIPES["nait-paper"]
    assert (paper.method, paper.center, paper.profile_feature, paper.feature, paper.metric) == (
        Method.PCA,
        True,
        Feature.DRIFT,
        Feature.MEAN,
        Metric.DOT,
    )


def test_every_recipe_bears_its_key_as_name() -> None:
    assert {key: recipe.name for key, recipe in RECIPES.items()} == {key: key for key in RECIPES}


def test_named_recipe_without_overrides_is_itself() -> None:
    assert choose_recipe("nait-paper") is RECIPES["nait-paper"]


def test_override_that_changes_nothing_keeps_the_name() -> None:
    assert choose_recipe("default", metric="cosine", feature="mean").name == "default"


def test_override_that_changes_something_is_custom() -> None:
    changed = choose_recipe("nait-paper", metric="cosine")
    assert changed.name == "custom"
    assert (changed.metric, changed.center, changed.profile_feature) == (Metric.COSINE, True, Feature.DRIFT)


def test_overrides_that_amount_to_a_named_recipe_bear_its_name() -> None:
    assert choose_recipe("default", center=True, profile_feature="drift", feature="mean", metric="dot").name == (
        "nait-paper"
    )


def test_candidates_follow_the_profile_feature_unless_said_otherwise() -> None:
    assert choose_recipe("default", profile_feature="last").feature is Feature.LAST
    assert choose_recipe("default", profile_feature="last", feature="mean").feature is Feature.MEAN


def test_other_methods_centre_nothing() -> None:
    assert choose_recipe("nait-paper", method="mean").center is False


def test_unknown_recipe_suggests_near_names() -> None:
    with pytest.raises(NotFoundError, match="nait-paper"):
        choose_recipe("nait-papr")


@pytest.mark.parametrize("choice", [{"method": "ica"}, {"metric": "l2"}, {"feature": "max"}, {"profile_feature": "x"}])
def test_unknown_choice_lists_the_valid_ones(choice: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="use one of"):
        choose_recipe("default", **choice)


def test_centring_a_mean_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="centring"):
        choose_recipe("default", method="contrastive", center=True)


def test_description_names_every_choice() -> None:
    assert RECIPES["nait-paper"].in_words == "nait-paper: centred pca of drift, candidates' mean, dot"
