"""Warnings about a profile, in words that say what they mean for its user.

Thresholds are rules of thumb, stated with each constant; the numbers themselves are in every profile's record.
"""

from __future__ import annotations

from collections.abc import Sequence

from nait_store.registry.in_domain import ChosenRows
from nait_store.schemas.profile import LayerStatistics, Method, Metric, Recipe, effective_samples
from nait_store.schemas.quality_card import QualityCard

FEW_SAMPLES = 16
"""The paper finds 16 to 64 in-domain samples sufficient on most tasks, and tries no fewer."""

SMALL_EXPLAINED_VARIANCE = 0.10
"""Below a tenth, nine tenths of what the samples do goes elsewhere: the component is one among many."""

SMALL_LATER_VARIANCE = 0.01
"""The same for a later component, which never carries most of it: a hundredth is hardly there."""

SMALL_EIGENVALUE_GAP = 0.05
"""Eigenvalues differ by the square root of 2/M from draw to draw: by 10 % even with M = 200 samples."""

SMALL_SIGN_MARGIN = 0.25
"""At 0.25 standard deviations 40 % of the in-domain samples themselves lie on the negative side."""

SMALL_HALVES_COSINE = 0.7
"""Two halves of the samples share less than half of their directions' squared length: the rest is who was drawn."""

SMALL_AUC = 0.7
"""Of ten in-domain samples beside one of another kind each, three or more come second."""

LARGE_LENGTH_CORRELATION = 0.5
"""A quarter of the ranking is known from the number of tokens alone."""


def warnings_for(
    recipe: Recipe, statistics: Sequence[LayerStatistics], chosen: ChosenRows, reference: str
) -> tuple[str, ...]:
    """Say what a user should know before trusting a profile.

    Parameters
    ----------
    recipe, statistics
        Of the profile.
    chosen
        The in-domain samples.
    reference
        The set version they are from.

    Returns
    -------
    tuple of str
        One sentence each; empty where nothing stands out.
    """
    found = []
    n_samples = chosen.n_samples
    if n_samples < FEW_SAMPLES:
        found.append(
            f"built from {n_samples} sample{'s' if n_samples > 1 else ''}: fewer than {FEW_SAMPLES} describe "
            "themselves rather than a capability; add in-domain samples"
        )
    elif chosen.weights is not None and (n_effective := effective_samples(chosen.weights.tolist())) < FEW_SAMPLES:
        found.append(
            f"a few heavy samples decide: with these weights the {n_samples:,} count as {n_effective:.1f} that weigh "
            f"the same, and fewer than {FEW_SAMPLES} describe themselves rather than a capability; weigh more evenly"
        )
    small = SMALL_EXPLAINED_VARIANCE if recipe.component == 1 else SMALL_LATER_VARIANCE
    weak = [
        s.layer for s in statistics if s.explained_variance_ratio is not None and s.explained_variance_ratio < small
    ]
    if weak:
        lowest = min(s.explained_variance_ratio or 0.0 for s in statistics if s.layer in weak)
        meaning = "the samples have no single main direction there"
        if recipe.component > 1:
            meaning = "it says little of what the samples do there"
        found.append(
            f"the component carries less than {small:.0%} of the "
            f"{'variance' if recipe.center else 'second moment'} in {_layers(weak, len(statistics))} "
            f"(lowest {lowest:.1%}): {meaning}"
        )
    close = [s.layer for s in statistics if s.eigenvalue_gap is not None and s.eigenvalue_gap < SMALL_EIGENVALUE_GAP]
    if close:
        found.append(
            f"another component carries nearly as much as component {recipe.component} in "
            f"{_layers(close, len(statistics))}: which of the two, or what mixture, was found is chance; add in-domain "
            "samples, or leave these layers out"
        )
    unsure = [s.layer for s in statistics if s.sign_margin < SMALL_SIGN_MARGIN]
    if unsure:
        lowest = min(s.sign_margin for s in statistics)
        advice = "; the in-domain samples may not have one capability in common"
        if recipe.component > 1:
            advice = "; a later component seldom has all samples on one side, so look at both ends of its ranking"
        elif recipe.method is Method.PCA and recipe.center:
            advice = "; --no-center, --method mean or --recipe default give a direction that the samples share"
        found.append(
            f"the sign is close to a coin toss in {_layers(unsure, len(statistics))} (sign margin below "
            f"{SMALL_SIGN_MARGIN}, lowest {lowest:.2f}): high scores may mean the opposite of in-domain{advice}"
        )
    if len(chosen.settings) > 1:
        found.append(
            f"the samples of {reference} were captured with {len(chosen.settings)} different settings (maximum "
            "length, truncation or compute dtype); compatibility is checked against one of them"
        )
    return tuple(found)


def card_warnings(card: QualityCard, recipe: Recipe) -> tuple[str, ...]:
    """Say what a user should know of what the card of a profile measured: one sentence each, most often none."""
    found = []
    unstable = [
        layer for layer in card.layers if layer.halves_cosine is not None and layer.halves_cosine < SMALL_HALVES_COSINE
    ]
    if unstable:
        lowest = min(layer.halves_cosine or 0.0 for layer in unstable)
        found.append(
            f"the direction depends on which samples were drawn in "
            f"{_layers([layer.layer for layer in unstable], len(card.layers))}: two halves of them disagree (cosine "
            f"below {SMALL_HALVES_COSINE}, lowest {lowest:.2f}); add in-domain samples, or build with --recipe default "
            "or --method mean"
        )
    separation = card.separation
    if separation is not None and separation.auc < SMALL_AUC:
        against = f"{separation.against.set_name}@{separation.against.version}"
        if separation.auc < 0.5:
            result = "it ranks in-domain samples below the others: high scores mean the opposite of in-domain"
        else:
            result = "it hardly tells in-domain samples from the others"
        found.append(
            f"{result} (area under the curve {separation.auc:.2f} against {against}, 0.5 is chance); try another "
            "recipe, or --method contrastive --against SET"
        )
    correlation = None if separation is None else separation.length_correlation
    # Among in-domain samples it says little: their longer ones may simply have more of what they have in common.
    if separation is not None and correlation is not None and abs(correlation) >= LARGE_LENGTH_CORRELATION:
        where = f"{separation.against.set_name}@{separation.against.version}"
        kind = "long" if correlation > 0 else "short"
        found.append(
            f"scores follow length: high ones go to {kind} samples of {where} (rank correlation {correlation:+.2f} "
            "with content tokens); "
            + ("try --metric cosine, or " if recipe.metric is Metric.DOT else "")
            + "compare like with like: select with a --where on n_content_tokens"
        )
    return tuple(found)


def _layers(layers: Sequence[int], n_layers: int) -> str:
    if len(layers) == n_layers:
        return f"all {n_layers} layers" if n_layers > 1 else f"layer {layers[0]}"
    shown = ", ".join(map(str, layers[:8])) + (" …" if len(layers) > 8 else "")
    return f"{'layer' if len(layers) == 1 else 'layers'} {shown} of {n_layers}"
