"""The quality card of a profile: what the build measured of it, beside the statistics of every layer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nait_store.schemas.profile import SampleSource
from nait_store.schemas.record import Document, Record

CARD_REVISION = 1
"""Of how cards are measured; rises when the numbers of a new card can no longer be compared with those of old ones."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Cosine = Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class LayerQuality(Record):
    """What was measured of one layer's direction."""

    layer: int = Field(ge=0)
    halves_cosine: Cosine | None
    """Cosine between the directions of two halves of the in-domain samples, mean over the draws; None if too few."""
    lowest_halves_cosine: Cosine | None
    """Of the draw in which the halves agreed least."""
    auc: Share | None
    """As that of the card's ``separation``, by this layer's term of the score alone."""


class LearningPoint(Record):
    """How far a direction of fewer samples is from the profile; means over layers and draws."""

    n_samples: int = Field(ge=1)
    profile_cosine: Cosine
    """Cosine to the profile's direction."""
    draws_cosine: Cosine | None
    """Cosine between two draws of so many samples without a sample in common; None where there are not enough."""


class Separation(Record):
    """How well a profile tells in-domain samples that it has not seen from the samples of another set."""

    against: SampleSource
    """The samples compared with; without those that are in-domain samples too."""
    n_folds: int = Field(ge=2)
    auc: Share
    """Probability that an in-domain sample, held out of the directions, scores higher; mean over the folds."""
    lowest_fold_auc: Share
    ranking_agreement: Cosine | None
    """Spearman's correlation of the scores that two halves of the in-domain samples give to the other set."""
    length_correlation: Cosine | None
    """Spearman's correlation of score and content tokens among the samples compared with."""


class RankedSample(Record):
    """An in-domain sample and its score under the profile."""

    position: int = Field(ge=0)
    """Place among the in-domain samples ordered by id: names it to whoever has the samples, and to nobody else."""
    score: Finite


class QualityCard(Document):
    """``card.json`` of a payload. Immutable, and a function of the profile and the samples it was measured on."""

    revision: int = Field(ge=1)
    n_samples: int = Field(ge=1)
    """In-domain samples that it was measured on: all of them, or as many as a card takes, drawn by their ids."""
    n_draws: int = Field(ge=1)
    """Random draws behind every mean."""
    layers: tuple[LayerQuality, ...]
    learning_curve: tuple[LearningPoint, ...]
    length_correlation: Cosine | None
    """Spearman's correlation of score and content tokens among the in-domain samples; None where one is constant."""
    separation: Separation | None
    """None where no set was named to compare with."""
    top: tuple[RankedSample, ...]
    """In-domain samples with the highest scores, best first."""
    bottom: tuple[RankedSample, ...]
    """Those with the lowest, lowest first."""
