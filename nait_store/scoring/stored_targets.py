"""What of a segment's arrays gives a target's scores: activations, or a column of projections kept in their place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nait_store.errors import NotFoundError
from nait_store.schemas.activation_set import Projection, SegmentRecord
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.scoring.targets import ScoringTarget


def stored_feature(record: SegmentRecord, target: ScoringTarget) -> Feature:
    """The feature whose array is read for a target."""
    return Feature.PROJECTIONS if record.projections else target.feature


def stored_target(record: SegmentRecord, target: ScoringTarget) -> ScoringTarget:
    """What a segment's array is to be scored against to give a target's scores.

    Parameters
    ----------
    record
        The segment's.
    target
        A profile's.

    Returns
    -------
    ScoringTarget
        The target itself; where projections are kept, one with the same layers that takes its column.

    Raises
    ------
    NotFoundError
        Projections are kept, and none of this target.
    """
    if not record.projections:
        return target
    for column, projection in enumerate(record.projections):
        if projection.identity == target.identity:
            directions = np.zeros((len(target.layers), len(record.projections)), np.float32)
            directions[:, column] = 1
            return ScoringTarget(directions, None, target.layers, Feature.PROJECTIONS, Metric.DOT)
    raise NotFoundError(
        f"set {record.set_name!r} keeps no activations, only projections ({describe_projections(record.projections)}); "
        f"none with directions {target.directions_sha256[:12]}… on {target.feature.value} by {target.metric.value}",
        next_step="leave metric and feature as the profile has them, or capture the samples again into another set: "
        "'nait-store ingest', with the profile among those of --score-with",
    )


def describe_projections(projections: Sequence[Projection]) -> str:
    """``math@1 (mean, cosine), code@2 (drift, dot)``."""
    return ", ".join(f"{one.profile} ({one.feature.value}, {one.metric.value})" for one in projections)
