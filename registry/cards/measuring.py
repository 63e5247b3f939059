"""Measures a quality card: how stable directions are, what they separate, and what else drives the scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.versions import SetVersion
from nait_store.progress import ProgressEvent, ProgressListener
from nait_store.registry.cards.draws import DRAWS, DrawPlan
from nait_store.registry.cards.rank_statistics import rank_correlation
from nait_store.registry.cards.score_sums import Compared, ScoreSums, content_tokens
from nait_store.registry.cards.subset_directions import SubsetDirections
from nait_store.registry.in_domain import ChosenRows, choose_rows
from nait_store.registry.payload import ProfileArrays
from nait_store.schemas.profile import Method, Recipe
from nait_store.schemas.quality_card import CARD_REVISION, LayerQuality, QualityCard, RankedSample

MOST_SAMPLES = 1024
"""In-domain samples that a card is measured on: the cost grows with their square, and what they tell hardly does."""

RANKED = 5
"""Samples that a card names at either end."""


@dataclass(frozen=True)
class MeasuredProfile:
    """The profile that a card is about.

    Attributes
    ----------
    recipe, layers, arrays
        How it is made, and what it consists of.
    contrast
        The samples that a contrastive one leads away from; needed where ``arrays`` do not hold their mean, because
        candidates are scored on another feature than the directions are made of.
    """

    recipe: Recipe
    layers: tuple[int, ...]
    arrays: ProfileArrays
    contrast: ChosenRows | None = None


def measure_card(
    source: SetVersion,
    chosen: ChosenRows,
    profile: MeasuredProfile,
    compared: Compared | None,
    progress: ProgressListener,
) -> QualityCard:
    """Measure the card of a profile.

    Parameters
    ----------
    source, chosen
        The in-domain set version, and the samples of it that the profile is made of.
    profile
        The profile.
    compared
        Samples to tell the in-domain ones from, if there are any.
    progress
        Hears of every layer, stage ``"card"``.

    Returns
    -------
    QualityCard
        Of at most ``MOST_SAMPLES`` of the in-domain samples.
    """
    recipe, arrays, layers = profile.recipe, profile.arrays, profile.layers
    ids = chosen.sample_ids()
    places = {sample_id: i for i, sample_id in enumerate(sorted(ids))}
    rows = chosen
    if chosen.n_samples > MOST_SAMPLES:
        subset = {segment.ordinal: indices for segment, indices in chosen.rows}
        rows = choose_rows(source, subset=subset, limit=MOST_SAMPLES)
        if chosen.weights is not None:
            weight_of = dict(zip(ids, chosen.weights, strict=True))
            rows = replace(rows, weights=np.array([weight_of[sample_id] for sample_id in rows.sample_ids()]))
        ids = rows.sample_ids()
    plan = DrawPlan.of(ids)
    scores = ScoreSums(plan, recipe, compared)
    layer_qualities, curves = [], []
    for i, layer in enumerate(layers):
        X = rows.gather(recipe.profile_feature, layer)
        offset = None if arrays.offset is None else arrays.offset[i]
        away_from = _contrast_mean(profile, layer, offset)
        directions = SubsetDirections(X, recipe, away_from, arrays.directions[i], rows.relative_weights)
        drawn = np.stack([directions.coefficients(subset) for subset in plan.subsets]) if plan.subsets else None
        halves: list[float] = []
        if drawn is not None:
            curves.append(plan.curve(directions, drawn))
            first, second = plan.halves
            halves = directions.cosines(drawn[first], drawn[second]).tolist()
        candidates = X if recipe.feature is recipe.profile_feature else rows.gather(recipe.feature, layer)
        auc = scores.add(layer, arrays.directions[i], offset, directions, drawn, candidates)
        layer_qualities.append(
            LayerQuality(
                layer=layer,
                halves_cosine=float(np.mean(halves)) if halves else None,
                lowest_halves_cosine=min(halves) if halves else None,
                auc=auc,
            )
        )
        progress(ProgressEvent("card", i + 1, len(layers)))
    order = np.lexsort((np.array([places[sample_id] for sample_id in ids]), -scores.in_domain))  # best first
    ranked = [RankedSample(position=places[ids[row]], score=float(scores.in_domain[row])) for row in order]
    n_ranked = min(RANKED, len(ranked) // 2)
    return QualityCard(
        revision=CARD_REVISION,
        n_samples=len(ids),
        n_draws=DRAWS,
        layers=tuple(layer_qualities),
        learning_curve=plan.points(curves),
        length_correlation=rank_correlation(scores.in_domain, content_tokens(rows)),
        separation=scores.separation(),
        top=tuple(ranked[:n_ranked]),
        bottom=tuple(ranked[::-1][:n_ranked]),
    )


def _contrast_mean(
    profile: MeasuredProfile, layer: int, offset: NDArray[np.float32] | None
) -> NDArray[np.float64] | None:
    """Mean [J] that a contrastive direction leads away from; where the profile holds it, not read again."""
    recipe = profile.recipe
    if recipe.method is not Method.CONTRASTIVE:
        return None
    if offset is not None and recipe.feature is recipe.profile_feature:
        return offset.astype(np.float64)
    if profile.contrast is None:
        raise ValueError("measuring this contrastive profile needs the samples that it leads away from")
    return profile.contrast.mean(recipe.profile_feature, layer)
