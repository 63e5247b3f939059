"""Targets with random directions, and scores computed the plain way to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.scoring.targets import ScoringTarget


def random_target(
    seed: int = 0,
    *,
    layers: Sequence[int] = (0, 1),
    n_neurons: int = 8,
    metric: Metric = Metric.DOT,
    feature: Feature = Feature.MEAN,
    offset: float | None = None,
) -> ScoringTarget:
    """Return a target with random unit directions.

    Parameters
    ----------
    seed
        Of the directions.
    layers, n_neurons
        L and J; the defaults fit :func:`~nait_store.testing.stores.build_set`.
    metric, feature
        As in :class:`ScoringTarget`.
    offset
        Mean of a random offset with standard deviation 1; none if omitted.
    """
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((len(layers), n_neurons))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    offsets = None if offset is None else (offset + rng.standard_normal(directions.shape)).astype(np.float32)
    return ScoringTarget(directions.astype(np.float32), offsets, tuple(layers), feature, metric)


def plain_projections(segment: SegmentReader, target: ScoringTarget) -> NDArray[np.float64]:
    """Each layer's term of the scores from the stored arrays in float64 (arXiv 2603.13201, Eq. 5), [n, L].

    Cosine without an offset divides by the stored norms, which are rounded to float32. Reads the whole segment into
    memory.
    """
    A = segment.read(target.feature, layers=target.layers).astype(np.float64)
    if target.offset is not None:
        A = A - target.offset.astype(np.float64)
    terms: NDArray[np.float64] = np.einsum("nlj,lj->nl", A, target.directions.astype(np.float64))
    if target.metric == Metric.COSINE:
        stored = target.offset is None
        norms = segment.norms(target.feature, target.layers) if stored else np.sqrt(np.square(A).sum(axis=2))
        terms = np.divide(terms, norms.astype(np.float64), out=np.zeros_like(terms), where=norms > 0)
    return terms
