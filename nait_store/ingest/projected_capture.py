"""A capture whose activations are projected on profiles and let go of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.stored_values import row_norms
from nait_store.capture.rendering import UnpreparedSample
from nait_store.capture.usage import CaptureUsage
from nait_store.ingest.capture_source import Captured, CaptureSource, Preparer
from nait_store.schemas.capture import CaptureEnvironment, CaptureIdentity, CaptureSettings, Feature
from nait_store.scoring.kernels import Kernels, default_kernels
from nait_store.scoring.targets import ScoringTarget
from nait_store.scoring.written_scores import plan_features


class ProjectedBatch:
    """A batch whose one feature is ``projections``.

    They are computed when first asked for, which the writer's thread does, beside the next forward pass.

    Parameters
    ----------
    batch
        With the activations.
    projector
        Projects them.
    """

    def __init__(self, batch: Captured, projector: Projector) -> None:
        self.samples: Sequence[Any] = batch.samples
        self.n_tokens = batch.n_tokens
        self._batch: Captured | None = batch
        self._projector = projector

    @cached_property
    def features(self) -> dict[Feature, NDArray[np.float32]]:
        """``projections`` → [S, L, P]."""
        batch, self._batch = self._batch, None
        assert batch is not None
        return {Feature.PROJECTIONS: self._projector.project(batch.features)}


class Projector:
    """Projects features of samples on targets.

    Parameters
    ----------
    targets
        P distinct ones.
    layers
        Zero-based decoder layers of the features' L axis.
    kernels
        The arithmetic; the fastest that works here if omitted.
    """

    def __init__(self, targets: Sequence[ScoringTarget], layers: Sequence[int], kernels: Kernels | None = None) -> None:
        self._layers = tuple(layers)
        self._plans = plan_features(targets)
        self._columns = {target.identity: column for column, target in enumerate(targets)}
        self._kernels = kernels

    def project(self, features: Mapping[Feature, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Compute the term of every sample, layer and target.

        Parameters
        ----------
        features
            Each [S, L, J] float32.

        Returns
        -------
        ndarray, shape (S, L, P), float32
            0 for layers that a target does not read; not finite where a sample's activations are not.
        """
        kernels = self._kernels or default_kernels()
        n_samples = len(next(iter(features.values())))
        projections = np.zeros((n_samples, len(self._layers), len(self._columns)), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # the writer rejects such samples
            for feature, plan in self._plans.items():
                terms = plan.empty_terms(n_samples)
                for layer in plan.layers:
                    values = np.ascontiguousarray(features[feature][:, self._layers.index(layer.layer)])
                    norms = row_norms(values) if plan.needs_norms else None
                    layer.score(values, norms, None, terms, kernels)
                for target, found in zip(plan.targets, terms, strict=True):
                    positions = [self._layers.index(layer) for layer in target.layers]
                    projections[:, positions, self._columns[target.identity]] = found
        return projections


class ProjectedCapture:
    """Stands between a capture and an ingest; see :class:`~nait_store.ingest.capture_source.CaptureSource`.

    Parameters
    ----------
    capture
        Measures the features that the targets read.
    targets
        What to project on.
    """

    def __init__(self, capture: CaptureSource, targets: Sequence[ScoringTarget]) -> None:
        self._capture = capture
        self._n_targets = len(targets)
        self._projector = Projector(targets, capture.layers)

    @property
    def identity(self) -> CaptureIdentity:
        """What is measured, before it is projected."""
        return self._capture.identity

    @property
    def settings(self) -> CaptureSettings:
        """The capture's own."""
        return self._capture.settings

    @property
    def environment(self) -> CaptureEnvironment:
        """The capture's own."""
        return self._capture.environment

    @property
    def layers(self) -> tuple[int, ...]:
        """The capture's own."""
        return self._capture.layers

    @property
    def n_model_layers(self) -> int:
        """Decoder layers of the model."""
        return self._capture.n_model_layers

    @property
    def n_neurons(self) -> int:
        """P, the width of what is given."""
        return self._n_targets

    @property
    def renderer(self) -> Preparer:
        """The capture's own."""
        return self._capture.renderer

    @property
    def warnings(self) -> Sequence[str]:
        """The capture's own."""
        return self._capture.warnings

    @property
    def unfit(self) -> Sequence[UnpreparedSample]:
        """The capture's own."""
        return self._capture.unfit

    @property
    def usage(self) -> CaptureUsage:
        """The capture's own."""
        return self._capture.usage

    def capture(self, samples: Iterable[Any]) -> Iterator[ProjectedBatch]:
        """Yield the capture's batches, to be projected."""
        for batch in self._capture.capture(samples):
            yield self.project(batch)

    def project(self, batch: Captured) -> ProjectedBatch:
        """A batch of the capture, to be projected."""
        return ProjectedBatch(batch, self._projector)
