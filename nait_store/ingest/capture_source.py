"""What an ingest needs of a capture, whoever provides it: a model, or a fake in tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.conversations import Sample
from nait_store.capture.rendering import UnpreparedSample
from nait_store.capture.usage import CaptureUsage
from nait_store.schemas.capture import CaptureEnvironment, CaptureIdentity, CaptureSettings, Feature
from nait_store.schemas.samples import SampleRow


class Prepared(Protocol):
    """A sample as tokens; :class:`nait_store.capture.rendering.PreparedSample` is one."""

    @property
    def sample(self) -> Sample:
        """Where it came from."""

    def row(self) -> SampleRow:
        """Its row in ``samples.parquet``."""


class Preparer(Protocol):
    """Turns samples into tokens; :class:`nait_store.capture.rendering.Renderer` is one."""

    def prepare(self, samples: Sequence[Sample]) -> Sequence[Any]:
        """Return, for each sample in order, a :class:`Prepared`, or an object whose ``reason`` says why not."""


class Captured(Protocol):
    """One batch that went through the model."""

    @property
    def samples(self) -> Sequence[Any]:
        """S prepared samples, in any order."""

    @property
    def features(self) -> dict[Feature, NDArray[np.float32]]:
        """Feature → [S, L, J]."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the samples."""


class CaptureSource(Protocol):
    """Measures samples; :class:`nait_store.capture.session.CaptureSession` is one."""

    @property
    def identity(self) -> CaptureIdentity:
        """What is measured."""

    @property
    def settings(self) -> CaptureSettings:
        """What shifts the numbers a little."""

    @property
    def environment(self) -> CaptureEnvironment:
        """Where it runs."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Zero-based decoder layers that are captured, ascending."""

    @property
    def n_model_layers(self) -> int:
        """Decoder layers of the model."""

    @property
    def n_neurons(self) -> int:
        """J."""

    @property
    def renderer(self) -> Preparer:
        """Its text side."""

    @property
    def warnings(self) -> Sequence[str]:
        """What the user should know; may grow while it runs."""

    @property
    def unfit(self) -> Sequence[UnpreparedSample]:
        """Samples that the memory does not hold even alone, with the reason; may grow while it runs."""

    @property
    def usage(self) -> CaptureUsage:
        """How the model is run, and what it took so far."""

    def capture(self, samples: Iterable[Any]) -> Iterator[Any]:
        """Yield :class:`Captured` batches, pulling samples as it goes."""
