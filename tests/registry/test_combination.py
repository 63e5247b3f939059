"""Combinations of profiles, against plain NumPy in float64."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.registry.combination import WeightedProfile, combine_profiles, parse_part
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.recipes import choose_recipe
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Method
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set, fake_identity

LAYERS, NEURONS = 3, 12


@pytest.fixture
def registry(local: Location) -> ProfileRegistry:
    return ProfileRegistry(local)


def profile(registry: ProfileRegistry, name: str, seed: int, **options: Any) -> Profile:
    """A profile whose directions are about a random mean of its own."""
    mean = 3 * np.random.default_rng(seed).standard_normal((LAYERS, NEURONS)).astype(np.float32)
    location = registry.location
    identity = options.pop("identity", None)
    both = (Feature.MEAN, Feature.DRIFT)
    source = build_set(
        location, f"set-{name}", 16, LAYERS, NEURONS, features=both, seed=seed, mean=mean, identity=identity
    )
    recipe = choose_recipe(**options.pop("recipe", {"name": "default", "method": "mean"}))
    return registry.build(name, source, recipe=recipe, **options)[0]


@pytest.fixture
def three(registry: ProfileRegistry) -> tuple[Profile, Profile, Profile]:
    return (profile(registry, "math", 1), profile(registry, "code", 2), profile(registry, "chat", 3))


def weighted(*pairs: tuple[Profile, float]) -> list[WeightedProfile]:
    return [WeightedProfile(*pair) for pair in pairs]


def rows(one: Profile) -> NDArray[np.float64]:
    return one.directions().astype(np.float64)


def normalised(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("weights", [(1.0, 0.5), (1.0, -0.5), (-1.0, 3.0), (1e-3, 2e-3), (1e30, 1e30)])
def test_the_weighted_sum_is_normalised_layer_by_layer(
    registry: ProfileRegistry, three: tuple[Profile, ...], weights: tuple[float, float]
) -> None:
    math, code, _ = three
    found, created = combine_profiles(registry, "both", weighted((math, weights[0]), (code, weights[1])))
    assert created
    scale = max(map(abs, weights))
    expected = normalised(weights[0] / scale * rows(math) + weights[1] / scale * rows(code))
    np.testing.assert_allclose(found.directions(), expected, atol=1e-7)


@pytest.mark.parametrize("n_without", [1, 2])
def test_what_is_left_out_has_no_part_in_the_direction(
    registry: ProfileRegistry, three: tuple[Profile, ...], n_without: int
) -> None:
    math, *others = three
    found, _ = combine_profiles(registry, "only", weighted((math, 2.0)), without=others[:n_without])
    for layer in range(LAYERS):
        span = np.stack([rows(other)[layer] for other in others[:n_without]], axis=1)
        # least squares: what the others cannot explain of the direction
        residual = rows(math)[layer] - span @ np.linalg.lstsq(span, rows(math)[layer], rcond=None)[0]
        np.testing.assert_allclose(found.directions()[layer], normalised(residual), atol=1e-6)
        assert np.abs(span.T @ rows(found)[layer]).max() < 1e-7


def test_the_order_of_those_left_out_does_not_matter(registry: ProfileRegistry, three: tuple[Profile, ...]) -> None:
    math, code, chat = three
    first, _ = combine_profiles(registry, "one", weighted((math, 1.0)), without=[code, chat])
    second, _ = combine_profiles(registry, "two", weighted((math, 1.0)), without=[chat, code])
    np.testing.assert_allclose(first.directions(), second.directions(), atol=1e-7)
    assert first.record.recipe_sha256 == second.record.recipe_sha256


def test_two_of_one_direction_are_left_out_like_one(registry: ProfileRegistry, three: tuple[Profile, ...]) -> None:
    math, code, _ = three
    twin, _ = combine_profiles(registry, "twin", weighted((code, 1.0)))
    once, _ = combine_profiles(registry, "once", weighted((math, 1.0)), without=[code])
    twice, _ = combine_profiles(registry, "twice", weighted((math, 1.0)), without=[code, twin])
    np.testing.assert_allclose(once.directions(), twice.directions(), atol=1e-7)


def test_a_score_is_the_weighted_sum_of_scores(registry: ProfileRegistry, three: tuple[Profile, ...]) -> None:
    """With the dot product, up to one factor a layer: what makes a combination more than a formula."""
    math, code, _ = three
    found, _ = combine_profiles(registry, "both", weighted((math, 1.0), (code, 2.0)), metric="dot")
    samples = np.random.default_rng(9).standard_normal((5, NEURONS))
    for layer in range(LAYERS):
        together = samples @ rows(math)[layer] + 2.0 * samples @ rows(code)[layer]
        ratios = together / (samples @ rows(found)[layer])
        assert ratios == pytest.approx(ratios[0], rel=1e-4)


def test_the_parts_are_recorded(registry: ProfileRegistry, three: tuple[Profile, ...]) -> None:
    math, code, chat = three
    record = combine_profiles(registry, "both", weighted((math, 1.0), (code, -0.5)), without=[chat])[0].record
    assert record.parts is not None
    assert [(part.reference, part.weight) for part in record.parts] == [
        ("math@1", 1.0), ("code@1", -0.5), ("chat@1", None),
    ]  # fmt: skip
    assert [part.directions_sha256 for part in record.parts] == [one.record.directions_sha256 for one in three]
    assert record.made_from == "1 × math@1 - 0.5 × code@1, without chat@1"
    assert (record.recipe.method, record.source, record.statistics) == (Method.COMBINED, None, ())
    assert record.model == "./fake-model"


def test_the_same_combination_makes_no_second_version(registry: ProfileRegistry, three: tuple[Profile, ...]) -> None:
    math, code, chat = three
    combine_profiles(registry, "both", weighted((math, 1.0), (code, 0.5)), without=[chat])
    again, created = combine_profiles(registry, "both", weighted((code, 0.5), (math, 1.0)), without=[chat])
    assert (again.reference, created) == ("both@1", False)
    assert combine_profiles(registry, "both", weighted((math, 1.0), (code, 0.6)), without=[chat])[0].number == 2
    assert combine_profiles(registry, "both", weighted((math, 1.0), (code, 0.5)))[0].number == 3


def test_only_common_layers_are_combined_and_the_others_named(registry: ProfileRegistry) -> None:
    math, code = profile(registry, "math", 1), profile(registry, "code", 2, layers=[0, 2])
    found, _ = combine_profiles(registry, "both", weighted((math, 1.0), (code, 1.0)))
    assert found.record.layers == (0, 2)
    np.testing.assert_allclose(found.directions(), normalised(rows(math)[[0, 2]] + rows(code)), atol=1e-7)
    assert found.record.warnings == (
        "1 of 3 layers of math@1 are not used: another profile has not got them",
    )  # fmt: skip


def test_profiles_without_a_common_layer_are_refused(registry: ProfileRegistry) -> None:
    math, code = profile(registry, "math", 1, layers=[1]), profile(registry, "code", 2, layers=[0, 2])
    with pytest.raises(IncompatibleError, match="no layer in common"):
        combine_profiles(registry, "both", weighted((math, 1.0), (code, 1.0)))


def test_profiles_of_other_models_are_refused(registry: ProfileRegistry) -> None:
    math, far = profile(registry, "math", 1), profile(registry, "far", 2, identity=fake_identity("other"))
    for parts, without in ((weighted((math, 1.0), (far, 1.0)), []), (weighted((math, 1.0)), [far])):
        with pytest.raises(IncompatibleError, match="model_fingerprint"):
            combine_profiles(registry, "both", parts, without=without)


def test_a_direction_without_itself_is_nothing(registry: ProfileRegistry, three: tuple[Profile, ...]) -> None:
    math, code, _ = three
    twin, _ = combine_profiles(registry, "twin", weighted((math, 1.0)))
    with pytest.raises(InvalidInputError, match=r"layer 0: .*math@1 lies in the span"):
        combine_profiles(registry, "none", weighted((math, 1.0)), without=[twin])
    with pytest.raises(InvalidInputError, match="cancels out"):
        combine_profiles(registry, "none", weighted((math, 1.0), (twin, -1.0)))
    both, _ = combine_profiles(registry, "both", weighted((math, 1.0), (code, 0.3)))
    with pytest.raises(InvalidInputError, match="lies in the span"):
        combine_profiles(registry, "none", weighted((both, 1.0)), without=[math, code])
    assert "none" not in registry.names()


def test_little_that_is_left_is_said(registry: ProfileRegistry, three: tuple[Profile, ...]) -> None:
    math, code, _ = three
    near, _ = combine_profiles(registry, "near", weighted((math, 1.0), (code, 0.01)))
    found, _ = combine_profiles(registry, "rest", weighted((near, 1.0)), without=[math])
    (warning,) = found.record.warnings
    assert warning.startswith("little is left of what was added up in 3 of 3 layers (least ")
    np.testing.assert_allclose(np.linalg.norm(rows(found), axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, float("nan"), float("inf"), float("-inf")])
def test_impossible_weights_are_refused(registry: ProfileRegistry, three: tuple[Profile, ...], weight: float) -> None:
    with pytest.raises(InvalidInputError, match="math@1 has the weight"):
        combine_profiles(registry, "both", weighted((three[0], weight)))


def test_nothing_and_repetitions_are_refused(registry: ProfileRegistry, three: tuple[Profile, ...]) -> None:
    math, code, _ = three
    with pytest.raises(InvalidInputError, match="no profile to combine"):
        combine_profiles(registry, "both", [], without=[math])
    with pytest.raises(InvalidInputError, match="math@1 is named twice"):
        combine_profiles(registry, "both", weighted((math, 1.0), (math, 1.0)))
    with pytest.raises(InvalidInputError, match="code@1 is named twice"):
        combine_profiles(registry, "both", weighted((code, 1.0)), without=[code])


@pytest.mark.parametrize("option", ["feature", "metric"])
def test_parts_that_differ_in_use_ask_which_holds(registry: ProfileRegistry, option: str) -> None:
    math = profile(registry, "math", 1)
    choice = {"feature": "drift", "metric": "dot"}[option]
    code = profile(registry, "code", 2, recipe={"name": "default", "method": "mean", option: choice})
    parts = weighted((math, 1.0), (code, 1.0))
    with pytest.raises(IncompatibleError, match=f"different {option}s: math@1 by .*code@1 by {choice}") as caught:
        combine_profiles(registry, "both", parts)
    assert f"--{option}" in str(caught.value.next_step)
    found, _ = combine_profiles(registry, "both", parts, **{option: choice})  # type: ignore[arg-type]
    assert getattr(found.record.recipe, option) == choice


@pytest.fixture
def centred(registry: ProfileRegistry) -> dict[str, Profile]:
    """Two profiles against one background, one against another, one against none."""
    location = registry.location
    behind = [
        build_set(location, f"behind-{i}", 10, LAYERS, NEURONS, seed=20 + i, first=5_000 + 100 * i) for i in (0, 1)
    ]
    contrast = {"recipe": {"name": "default", "method": "contrastive"}}
    return {
        "math": profile(registry, "math", 1, background=behind[0], **contrast),
        "code": profile(registry, "code", 2, background=behind[0], **contrast),
        "chat": profile(registry, "chat", 3, background=behind[1], **contrast),
        "plain": profile(registry, "plain", 4),
    }


def test_one_offset_of_all_parts_is_kept(registry: ProfileRegistry, centred: dict[str, Profile]) -> None:
    parts = weighted((centred["math"], 1.0), (centred["code"], 1.0))
    found, _ = combine_profiles(registry, "both", parts, without=[centred["plain"], centred["chat"]])
    expected, offset = centred["math"].offset(), found.offset()
    assert expected is not None
    assert offset is not None
    assert offset.tobytes() == expected.tobytes()


@pytest.mark.parametrize("other", ["chat", "plain"])
def test_different_offsets_ask_which_holds(registry: ProfileRegistry, centred: dict[str, Profile], other: str) -> None:
    for pair in itertools.permutations((centred["math"], centred[other])):
        parts = weighted(*((one, 1.0) for one in pair))
        with pytest.raises(IncompatibleError, match="centre candidates differently") as caught:
            combine_profiles(registry, "both", parts)
        assert "--offset" in str(caught.value.next_step)
        assert combine_profiles(registry, "both", parts, no_offset=True)[0].offset() is None
        chosen = combine_profiles(registry, "both", parts, offset=centred["math"])[0].offset()
        expected = centred["math"].offset()
        assert chosen is not None
        assert expected is not None
        assert chosen.tobytes() == expected.tobytes()
    assert registry.numbers("both") == [1, 2]


def test_an_offset_is_of_the_feature_that_is_scored(registry: ProfileRegistry, centred: dict[str, Profile]) -> None:
    with pytest.raises(IncompatibleError, match="a mean of mean, which says nothing about drift"):
        combine_profiles(registry, "both", weighted((centred["math"], 1.0)), feature="drift")
    with pytest.raises(InvalidInputError, match="no offset to give"):
        combine_profiles(registry, "both", weighted((centred["plain"], 1.0)), offset=centred["plain"])
    with pytest.raises(InvalidInputError, match="plain@1 is not among the profiles that are added up"):
        combine_profiles(registry, "both", weighted((centred["math"], 1.0)), offset=centred["plain"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("math", ("math", 1.0)),
        ("math@3:0.5", ("math@3", 0.5)),
        ("math@prod:-2e-1", ("math@prod", -0.2)),
        ("profile:math@3", ("profile:math@3", 1.0)),
        ("profile:math@3:4", ("profile:math@3", 4.0)),
        ("profile:5", ("profile:5", 1.0)),
    ],
)
def test_parts_are_written_with_their_weights(text: str, expected: tuple[str, float]) -> None:
    assert parse_part(text) == expected


@pytest.mark.parametrize("text", ["math@3:", "math:much", "math:1,5"])
def test_a_weight_is_a_number(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a weight"):
        parse_part(text)
