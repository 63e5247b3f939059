"""What a quality card measures, against loops over the stored rows, scikit-learn and SciPy."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import nait_store
from nait_store.activations.versions import SetVersion
from nait_store.errors import CorruptChunkError, FormatError, IncompatibleError, InvalidInputError, NotFoundError
from nait_store.registry.cards import measuring
from nait_store.registry.cards.rank_statistics import area_under_curve, rank_correlation
from nait_store.registry.cards.subset_directions import SubsetDirections
from nait_store.registry.directions import contrastive_direction, mean_direction, principal_direction
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.quality import card_warnings
from nait_store.registry.recipes import choose_recipe
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Method, Metric, Recipe
from nait_store.schemas.quality_card import LayerQuality, QualityCard, Separation
from nait_store.schemas.record import document_bytes
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set, fake_identity

LAYERS, NEURONS, N = 3, 24, 40
BOTH = (Feature.MEAN, Feature.DRIFT)
RECIPES = {
    "default": choose_recipe("default"),
    "nait-paper": choose_recipe("nait-paper"),
    "second component": choose_recipe("default", component=2),
    "third centred component": choose_recipe("nait-paper", component=3),
    "mean": choose_recipe("default", method="mean", metric="dot"),
    "contrastive": choose_recipe("default", method="contrastive"),
    "contrastive of drift": choose_recipe("default", method="contrastive", profile_feature="drift", feature="mean"),
}


def in_domain(location: Location, n: int = N, name: str = "gsm8k", **options: Any) -> SetVersion:
    mean = 0.4 * np.random.default_rng(9).standard_normal((LAYERS, NEURONS)).astype(np.float32)
    options = {"n_segments": 2, "chunk_rows": 7, "seed": 1, "mean": mean, "features": BOTH, **options}
    return build_set(location, name, n, LAYERS, NEURONS, **options)


def pool(location: Location, n: int = 60, first: int = 1000, **options: Any) -> SetVersion:
    return build_set(
        location, "pool", n, LAYERS, NEURONS, first=first, **{"n_segments": 3, "seed": 2, "features": BOTH, **options}
    )


def built(
    location: Location, recipe: Recipe, source: SetVersion, against: SetVersion | None = None, **options: Any
) -> tuple[Profile, QualityCard]:
    if recipe.method is Method.CONTRASTIVE:
        options["background"] = against
    elif against is not None:
        options["card_against"] = against
    profile, _ = ProfileRegistry(location).build("math", source, recipe=recipe, **options)
    card = profile.quality_card()
    assert card is not None
    return profile, card


def stored(version: SetVersion, feature: Feature) -> NDArray[np.float64]:
    return np.concatenate([segment.read(feature) for segment in version.segments]).astype(np.float64)


def direction(recipe: Recipe, rows: NDArray[np.float64], away_from: NDArray[np.float64]) -> NDArray[np.float64]:
    """One layer's direction of rows [m, J] by the book."""
    mean = rows.mean(axis=0)
    if recipe.method is Method.CONTRASTIVE:
        v = mean - away_from
    elif recipe.method is Method.MEAN:
        v = mean
    else:
        v = np.linalg.svd(rows - mean if recipe.center else rows, full_matrices=False)[2][recipe.component - 1]
        v = v if mean @ v >= 0 else -v
    return v / np.linalg.norm(v)


def orders(version: SetVersion) -> list[list[int]]:
    """The rows in the order of each draw, as docs/design/010 defines it."""
    ids = version.sample_ids()

    def digest(draw: int, row: int) -> str:
        return hashlib.sha256(f"card {draw}:{ids[row]}".encode()).hexdigest()

    return [sorted(range(len(ids)), key=lambda row: digest(draw, row)) for draw in range(8)]


def term(recipe: Recipe, A: NDArray[np.float64], offset: NDArray[np.float64], v: NDArray[np.float64]) -> Any:
    centred = A - offset
    return centred @ v / (np.linalg.norm(centred, axis=-1) if recipe.metric is Metric.COSINE else 1.0)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_directions_of_subsets_equal_those_built_from_their_rows(recipe: Recipe, shift: float) -> None:
    rng = np.random.default_rng(3)
    X = (rng.standard_normal((300, 40)) * np.linspace(3, 0.2, 40) + shift + rng.standard_normal(40)).astype(np.float32)
    away_from = rng.standard_normal(40) + shift
    subsets = [np.arange(16), np.arange(17, 90), rng.permutation(300)[:240]]  # dense, dense and iterated
    contrast = away_from if recipe.method is Method.CONTRASTIVE else None
    found = SubsetDirections(X, recipe, contrast, rng.standard_normal(40).astype(np.float32))
    coefficients = np.stack([found.coefficients(subset) for subset in subsets])
    expected = []
    for subset in subsets:
        if contrast is not None:
            expected.append(contrastive_direction(X[subset], contrast).direction)
        elif recipe.method is Method.MEAN:
            expected.append(mean_direction(X[subset]).direction)
        else:
            expected.append(principal_direction(X[subset], center=recipe.center, component=recipe.component).direction)
    np.testing.assert_allclose(found.vectors(coefficients), expected, atol=2e-4)
    np.testing.assert_allclose(
        found.cosines(coefficients[[0, 1]], coefficients[[1, 2]]),
        [expected[0] @ expected[1], expected[1] @ expected[2]],
        atol=2e-4,
    )


def test_subset_without_so_many_components_agrees_with_nothing() -> None:
    X = np.random.default_rng(5).standard_normal((6, 12)).astype(np.float32)
    found = SubsetDirections(X, choose_recipe("nait-paper", component=3), None, X[0])
    few, enough = (found.coefficients(np.arange(n))[None] for n in (2, 6))
    assert found.cosines(few, enough).tolist() == [0.0]
    assert found.cosines(enough, enough) == pytest.approx([1.0])


def test_subset_without_a_direction_agrees_with_nothing() -> None:
    X = np.array([[1, 2], [-1, -2], [3, 1], [3, 2]], dtype=np.float32)
    found = SubsetDirections(X, RECIPES["mean"], None, np.array([1, 0], dtype=np.float32))
    coefficients = np.stack([found.coefficients(np.array([0, 1])), found.coefficients(np.array([2, 3]))])
    assert found.cosines(coefficients[:1], coefficients[1:]).tolist() == [0.0]
    assert found.vectors(coefficients)[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("exponent", [-60, 50])
def test_size_of_the_activations_changes_no_cosine(exponent: int) -> None:
    X = np.random.default_rng(4).standard_normal((40, 12)).astype(np.float32) + 1
    halves = [np.arange(20), np.arange(20, 40)]
    cosines = []
    for scale in (1.0, 2.0**exponent):
        found = SubsetDirections(np.float32(scale) * X, RECIPES["default"], None, X[0])
        first, second = (found.coefficients(half)[None] for half in halves)
        cosines.append(found.cosines(first, second)[0])
    assert cosines[0] == pytest.approx(cosines[1], abs=1e-6)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_halves_and_learning_curve_equal_directions_rebuilt_from_the_drawn_rows(
    location: Location, recipe: Recipe
) -> None:
    source, against = in_domain(location), pool(location)
    profile, card = built(location, recipe, source, against)
    rows, others = stored(source, recipe.profile_feature), stored(against, recipe.profile_feature).mean(axis=0)
    for size in (16, 20, 32):
        between, to_profile = [], []
        for layer in range(LAYERS):
            pairs = []
            for order in orders(source):
                draws = [order[:size], order[-size:]] if 2 * size <= N else [order[:size]]
                found = [direction(recipe, rows[draw, layer], others[layer]) for draw in draws]
                to_profile += [v @ profile.directions()[layer] for v in found]
                if len(found) == 2:
                    pairs.append(found[0] @ found[1])
            between += pairs
            if size == N // 2:
                assert card.layers[layer].halves_cosine == pytest.approx(np.mean(pairs), abs=1e-5)
                assert card.layers[layer].lowest_halves_cosine == pytest.approx(min(pairs), abs=1e-5)
        (point,) = [point for point in card.learning_curve if point.n_samples == size]
        assert point.profile_cosine == pytest.approx(np.mean(to_profile), abs=1e-5)
        if between:
            assert point.draws_cosine == pytest.approx(np.mean(between), abs=1e-5)
        else:
            assert point.draws_cosine is None
    assert [point.n_samples for point in card.learning_curve] == [16, 20, 32]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_separation_equals_roc_auc_of_samples_held_out(location: Location, recipe: Recipe) -> None:
    source, against = in_domain(location), pool(location)
    _, card = built(location, recipe, source, against)
    made_of, background = stored(source, recipe.profile_feature), stored(against, recipe.profile_feature)
    scored, others = stored(source, recipe.feature), stored(against, recipe.feature)
    offset = others.mean(axis=0) if recipe.method is Method.CONTRASTIVE else np.zeros((LAYERS, NEURONS))
    order = orders(source)[0]
    by_layer = np.zeros((LAYERS, 5))
    whole = []
    for fold in range(5):
        held_out = order[fold::5]
        rest = [row for row in order if row not in held_out]
        labels = [1] * len(held_out) + [0] * len(others)
        total = np.zeros(len(labels))
        for layer in range(LAYERS):
            v = direction(recipe, made_of[rest, layer], background[:, layer].mean(axis=0))
            both = np.concatenate([scored[held_out, layer], others[:, layer]])
            terms = term(recipe, both, offset[layer], v)
            by_layer[layer, fold] = roc_auc_score(labels, terms)
            total += terms
        whole.append(roc_auc_score(labels, total))
    assert card.separation is not None
    assert card.separation.auc == pytest.approx(np.mean(whole), abs=2e-3)
    assert card.separation.lowest_fold_auc == pytest.approx(min(whole), abs=5e-3)
    np.testing.assert_allclose([layer.auc for layer in card.layers], by_layer.mean(axis=1), atol=2e-3)


def test_ranking_agreement_equals_spearman_of_the_scores_by_two_halves(location: Location) -> None:
    recipe = RECIPES["default"]
    source, against = in_domain(location), pool(location)
    _, card = built(location, recipe, source, against)
    rows, others = stored(source, Feature.MEAN), stored(against, Feature.MEAN)
    found = []
    for order in orders(source):
        scores = []
        for half in (order[: N // 2], order[-(N // 2) :]):
            directions = np.stack([direction(recipe, rows[half, layer], rows[0, layer]) for layer in range(LAYERS)])
            scores.append(
                sum(term(recipe, others[:, layer], 0.0 * rows[0, layer], directions[layer]) for layer in range(LAYERS))
            )
        found.append(spearmanr(*scores).statistic)
    assert card.separation is not None
    assert card.separation.ranking_agreement == pytest.approx(np.mean(found), abs=1e-3)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_length_correlations_and_ends_of_the_ranking_are_those_of_the_scores(
    location: Location, recipe: Recipe
) -> None:
    source, against = in_domain(location), pool(location)
    profile, card = built(location, recipe, source, against)

    def scores(version: SetVersion) -> NDArray[np.float64]:
        offset = profile.offset()
        shape = (LAYERS, NEURONS)
        centre = np.zeros(shape) if offset is None else offset.astype(np.float64)
        A = stored(version, recipe.feature)
        return sum(  # type: ignore[return-value]
            term(recipe, A[:, layer], centre[layer], profile.directions()[layer].astype(np.float64))
            for layer in range(LAYERS)
        )

    def tokens(version: SetVersion) -> Any:
        return version.samples(["n_content_tokens"]).column("n_content_tokens").to_numpy()

    own = scores(source)
    ids = source.sample_ids()
    ranked = sorted(range(N), key=lambda row: -own[row])
    names = sorted(ids)
    assert [names[one.position] for one in card.top] == [ids[row] for row in ranked[:5]]
    assert [names[one.position] for one in card.bottom] == [ids[row] for row in ranked[::-1][:5]]
    np.testing.assert_allclose([one.score for one in card.top], own[ranked[:5]], atol=1e-4)
    assert card.length_correlation == pytest.approx(spearmanr(own, tokens(source)).statistic, abs=1e-3)
    assert card.separation is not None
    expected = spearmanr(scores(against), tokens(against)).statistic
    assert card.separation.length_correlation == pytest.approx(expected, abs=1e-3)


def test_same_samples_in_other_segments_give_the_same_card(location: Location) -> None:
    one = in_domain(location, name="one", n_segments=1, features=(Feature.MEAN,))
    other = in_domain(location, name="other", n_segments=4, chunk_rows=3, features=(Feature.MEAN,))
    assert np.array_equal(stored(one, Feature.MEAN), stored(other, Feature.MEAN))
    first, _ = ProfileRegistry(location).build("one", one, recipe=RECIPES["default"])
    second, _ = ProfileRegistry(location).build("other", other, recipe=RECIPES["default"])
    assert first.quality_card() == second.quality_card()


def test_in_domain_samples_of_the_other_set_are_not_compared_with(local: Location) -> None:
    source = in_domain(local)
    against = pool(local, n=60, first=20)  # its first twenty bear the ids of in-domain samples
    _, card = built(local, RECIPES["default"], source, against)
    assert card.separation is not None
    assert card.separation.against.n_samples == 40
    ids = sorted(f"s{i:06d}" for i in range(40, 80))
    assert card.separation.against.sample_ids_sha256 == hashlib.sha256("\n".join(ids).encode()).hexdigest()


def test_large_in_domain_set_is_measured_on_a_part(local: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MOST_SAMPLES", 24)
    source = in_domain(local)
    _, card = built(local, RECIPES["default"], source)
    assert card.n_samples == 24
    assert [point.n_samples for point in card.learning_curve] == [12, 16]
    assert max(one.position for one in (*card.top, *card.bottom)) >= 24  # places among all of them


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_samples_leave_the_card_without_what_needs_more(local: Location, n: int) -> None:
    _, card = built(local, RECIPES["default"], in_domain(local, n, n_segments=1), pool(local))
    assert card.learning_curve == ()
    assert card.separation is None
    assert {(layer.halves_cosine, layer.auc) for layer in card.layers} == {(None, None)}
    assert len(card.top) == len(card.bottom) == n // 2


def test_card_without_a_set_to_compare_with_has_no_separation(local: Location) -> None:
    _, card = built(local, RECIPES["default"], in_domain(local))
    assert card.separation is None
    assert all(layer.auc is None for layer in card.layers)


def test_build_without_a_card_writes_none(local: Location) -> None:
    profile, _ = ProfileRegistry(local).build("math", in_domain(local), recipe=RECIPES["default"], quality_card=False)
    assert profile.quality_card() is None
    assert all(file.path != "card.json" for file in profile.record.files)


def test_naming_another_set_to_compare_with_makes_no_other_version(local: Location) -> None:
    source, against = in_domain(local), pool(local)
    registry = ProfileRegistry(local)
    registry.build("math", source, recipe=RECIPES["default"])
    profile, created = registry.build("math", source, recipe=RECIPES["default"], card_against=against)
    assert (profile.reference, created) == ("math@1", False)


def test_set_of_in_domain_samples_alone_is_refused(local: Location) -> None:
    source = in_domain(local)
    with pytest.raises(InvalidInputError, match="every sample of gsm8k@1 is an in-domain sample"):
        ProfileRegistry(local).build("math", source, recipe=RECIPES["default"], card_against=source)
    assert ProfileRegistry(local).names() == []


def test_set_of_another_model_is_refused(local: Location) -> None:
    against = pool(local, identity=fake_identity("other"))
    with pytest.raises(IncompatibleError, match="captured differently"):
        ProfileRegistry(local).build("math", in_domain(local), recipe=RECIPES["default"], card_against=against)


def test_contrastive_profile_is_compared_with_its_background(local: Location) -> None:
    _, card = built(local, RECIPES["contrastive"], in_domain(local), pool(local))
    assert card.separation is not None
    assert card.separation.against.set_name == "pool"


def rewritten(local: Location, profile: Profile, change: Any) -> Profile:
    """The profile with another card, whose digest its record has."""
    path = f"{profile.folder}/card.json"
    card = json.loads(local.read_bytes(path))
    change(card)
    data = document_bytes(card)
    local.write_bytes(path, data)
    files = tuple(
        file.model_copy(update={"sha256": sha256_bytes(data), "size_bytes": len(data)})
        if file.path == "card.json"
        else file
        for file in profile.record.files
    )
    return Profile(local, profile.manifest, profile.record.model_copy(update={"files": files}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card["layers"].pop(), "other layers"),
        (lambda card: card["layers"][0].update(auc=2.0), "layers.0.auc"),
        (lambda card: card["layers"][0].update(halves_cosine="high"), "halves_cosine"),
        (lambda card: card.update(n_samples=10_000), "more samples"),
        (lambda card: card["top"][0].update(position=10_000), "more samples"),
        (lambda card: card["top"][0].update(position=-1), "position"),
        (lambda card: card["top"][0].update(score="Infinity"), "top.0.score"),
    ],
)
def test_card_that_cannot_be_is_refused(local: Location, change: Any, message: str) -> None:
    profile, _ = built(local, RECIPES["default"], in_domain(local))
    with pytest.raises(FormatError, match=message):
        rewritten(local, profile, change).quality_card()


def test_changed_card_is_refused(local: Location) -> None:
    profile, _ = built(local, RECIPES["default"], in_domain(local))
    path = f"{profile.folder}/card.json"
    data = local.read_bytes(path)
    local.write_bytes(path, data.replace(b'"n_draws":8', b'"n_draws":9'))
    with pytest.raises(CorruptChunkError, match=r"card\.json differs from its recorded SHA-256"):
        profile.quality_card()


def card_with(auc: float = 1.0, halves: float = 1.0, length: float | None = 0.0, n_layers: int = 2) -> QualityCard:
    source = {"set_name": "pool", "version": 3, "n_samples": 9, "sample_ids_sha256": "0" * 64}
    separation = Separation.model_validate(
        {"against": source, "n_folds": 5, "auc": auc, "lowest_fold_auc": auc, "ranking_agreement": 1.0,
         "length_correlation": length}
    )  # fmt: skip
    return QualityCard(
        revision=1,
        n_samples=40,
        n_draws=8,
        layers=tuple(
            LayerQuality(layer=layer, halves_cosine=halves, lowest_halves_cosine=halves, auc=auc)
            for layer in range(n_layers)
        ),
        learning_curve=(),
        length_correlation=0.9,
        separation=separation,
        top=(),
        bottom=(),
    )


def test_length_within_the_in_domain_samples_is_no_warning() -> None:
    card = card_with().model_copy(update={"separation": None})
    assert card.length_correlation == 0.9
    assert card_warnings(card, RECIPES["default"]) == ()


def test_good_card_has_no_warnings() -> None:
    assert card_warnings(card_with(), RECIPES["default"]) == ()


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (card_with(halves=0.4), "depends on which samples were drawn in all 2 layers"),
        (
            card_with(auc=0.6),
            r"hardly tells in-domain samples from the others \(area under the curve 0.60 against pool@3",
        ),
        (card_with(auc=0.3), "high scores mean the opposite of in-domain"),
        (card_with(length=0.8), r"high ones go to long samples of pool@3 \(rank correlation \+0.80"),
        (card_with(length=-0.8), r"high ones go to short samples"),
    ],
)
def test_card_warns_in_words(card: QualityCard, words: str) -> None:
    (warning,) = card_warnings(card, RECIPES["default"])
    assert re.search(words, warning)


def test_warnings_of_the_card_are_in_the_record(local: Location) -> None:
    source = in_domain(local, mean=np.zeros((LAYERS, NEURONS), dtype=np.float32))  # noise without a direction
    profile, card = built(local, RECIPES["nait-paper"], source)
    expected = card_warnings(card, RECIPES["nait-paper"])
    assert expected
    assert set(expected) <= set(profile.record.warnings)


def test_area_under_the_curve_equals_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(6)
    for _ in range(20):
        positives, negatives = rng.integers(0, 6, 9).astype(float), rng.integers(0, 5, 13).astype(float)
        expected = roc_auc_score([1] * 9 + [0] * 13, np.concatenate([positives, negatives]))
        assert area_under_curve(positives, negatives) == pytest.approx(expected)


def test_rank_correlation_equals_scipy_with_ties() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        x, y = rng.integers(0, 6, 15), rng.standard_normal(15).round(1)
        assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)


def test_rank_correlation_with_a_constant_is_unknown() -> None:
    assert rank_correlation(np.ones(5), np.arange(5)) is None
    assert rank_correlation(np.arange(2), np.arange(2)) is None


def test_a_set_without_the_candidates_feature_gives_a_profile_without_a_card(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path), create=True)
    build_set(store.location, "maths", 30, 2, 16, seed=3, features=[Feature.DRIFT], mean=np.ones(16, np.float32))
    profile, _ = store.profiles.build("math", source="maths", recipe="nait-paper")
    assert profile.quality_card() is None
    assert any("no quality card was measured: maths@1 does not store mean" in one for one in profile.record.warnings)
    with pytest.raises(NotFoundError, match="does not store the feature mean"):
        store.profiles.build("other", source="maths", recipe="nait-paper", card_against="maths")
