"""What a quality card says, in sentences."""

from __future__ import annotations

import math

from nait_store.schemas.quality_card import LearningPoint, QualityCard

NEAR = 0.95
"""Cosine from which two directions count as the same: their scores order samples nearly alike."""


def findings(card: QualityCard) -> list[tuple[str, str]]:
    """Topic and sentence: stability, learning curve, separation, length; what was not measured says so.

    Parameters
    ----------
    card
        What was measured.

    Returns
    -------
    list of (str, str)
        Plain text on one line each.
    """
    return [
        ("stability", _stability(card)),
        ("learning", _learning(card)),
        ("separation", _separation(card)),
        ("length", _length(card)),
    ]


def decimals(value: float | None) -> str:
    """``0.937``; what is not quite 1 does not look so, and what is unknown is empty."""
    if value is None:
        return ""
    rounded = round(value, 3)
    if abs(value) < 1 <= abs(rounded):
        rounded = math.copysign(0.999, value)
    return f"{rounded + 0.0:.3f}"  # + 0.0: no minus before zero


def _stability(card: QualityCard) -> str:
    known = [(layer.halves_cosine, layer.layer) for layer in card.layers if layer.halves_cosine is not None]
    if not known:
        return "not measured: too few samples to halve"
    mean = sum(cosine for cosine, _ in known) / len(known)
    lowest, layer = min(known)
    worst = f"; {decimals(lowest)} in layer {layer}, the lowest" if len(known) > 1 else ""
    return (
        f"cosine {decimals(mean)} between the directions of two halves of {card.n_samples:,} samples"
        f"{', mean over layers' if len(known) > 1 else ''}{worst}"
    )


def _learning(card: QualityCard) -> str:
    points = card.learning_curve
    if not points:
        return "not measured: too few samples to draw from"
    shown = ", ".join(f"{decimals(point.profile_cosine)} with {point.n_samples:,}" for point in points)
    enough = _enough(points)
    if enough is None:
        verdict = "more in-domain samples would still move it"
    else:
        verdict = f"{enough.n_samples:,} in-domain samples would have done"
    return f"cosine to the profile {shown} samples: {verdict}"


def _enough(points: tuple[LearningPoint, ...]) -> LearningPoint | None:
    """The fewest samples of which two draws, or where there are none a draw and the profile, agree from there on."""
    enough = None
    for point in reversed(points):
        cosine = point.profile_cosine if point.draws_cosine is None else point.draws_cosine
        if cosine < NEAR:
            break
        if point.draws_cosine is not None:
            enough = point
    return enough


def _separation(card: QualityCard) -> str:
    found = card.separation
    if found is None:
        return "not measured: no set to compare with was named, or too few samples"
    against = f"{found.against.set_name}@{found.against.version}"
    agreement = ""
    if found.ranking_agreement is not None:
        agreement = (
            f"; two halves of the in-domain samples rank them alike with a correlation of "
            f"{decimals(found.ranking_agreement)}"
        )
    return (
        f"area under the curve {decimals(found.auc)} for in-domain samples held out, against "
        f"{found.against.n_samples:,} samples of {against} (lowest of {found.n_folds} folds "
        f"{decimals(found.lowest_fold_auc)}){agreement}"
    )


def _length(card: QualityCard) -> str:
    parts = []
    if card.length_correlation is not None:
        parts.append(f"{decimals(card.length_correlation)} among in-domain samples")
    found = card.separation
    if found is not None and found.length_correlation is not None:
        against = f"{found.against.set_name}@{found.against.version}"
        parts.append(f"{decimals(found.length_correlation)} among samples of {against}")
    if not parts:
        return "not measured: the samples are all of one length, or too few"
    return f"rank correlation of score and content tokens {', '.join(parts)}"
