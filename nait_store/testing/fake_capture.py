"""A capture without a model: features are a function of the sample's id, for tests of everything around it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.conversations import Sample
from nait_store.capture.rendering import PreparedSample, UnpreparedSample
from nait_store.capture.usage import CaptureUsage
from nait_store.schemas.capture import CaptureEnvironment, CaptureIdentity, CaptureSettings, Feature
from nait_store.testing.stores import ENVIRONMENT, SETTINGS, fake_identity


class FakeRenderer:
    """Every word is a token; a sample whose text holds ``<empty>`` has an empty span."""

    def prepare(self, samples: Sequence[Sample]) -> list[PreparedSample | UnpreparedSample]:
        """Prepare samples, see :meth:`nait_store.capture.rendering.Renderer.prepare`."""
        prepared: list[PreparedSample | UnpreparedSample] = []
        for sample in samples:
            text = " ".join(turn.content for turn in sample.turns)
            if "<empty>" in text:
                prepared.append(UnpreparedSample(sample, "its span is empty"))
                continue
            n = max(1, len(text.split()))
            tokens = np.arange(n, dtype=np.int32)
            prepared.append(PreparedSample(sample, tokens, ((0, n),), n, truncated=False))
        return prepared


@dataclass(frozen=True)
class FakeBatch:
    """One batch of samples with made-up activations."""

    samples: list[PreparedSample]
    features: dict[Feature, NDArray[np.float32]]
    n_tokens: int


@dataclass
class FakeCapture:
    """Stands in for a capture session.

    Attributes
    ----------
    n_model_layers, n_neurons, layers, features
        Geometry; ``layers`` are all by default.
    identity, settings, environment, warnings, unfit
        As of a capture session.
    batch_samples
        Samples in a batch.
    scale
        Factor on the activations.
    seconds_per_batch
        How long a batch takes.
    on_batch
        Called before each batch with the number of samples captured so far; may raise, or kill the process.
    poison
        Sample id → value that its activations take (NaN, infinity, huge).
    n_captured
        Samples captured so far.
    """

    n_model_layers: int = 2
    n_neurons: int = 8
    layers: tuple[int, ...] = ()
    features: tuple[Feature, ...] = (Feature.MEAN,)
    identity: CaptureIdentity = field(default_factory=fake_identity)
    settings: CaptureSettings = SETTINGS
    environment: CaptureEnvironment = ENVIRONMENT
    warnings: list[str] = field(default_factory=list)
    unfit: list[UnpreparedSample] = field(default_factory=list)
    renderer: FakeRenderer = field(default_factory=FakeRenderer)
    batch_samples: int = 8
    scale: float = 1.0
    seconds_per_batch: float = 0.0
    on_batch: Callable[[int], None] | None = None
    poison: dict[str, float] = field(default_factory=dict)
    n_captured: int = 0

    def __post_init__(self) -> None:
        self.layers = self.layers or tuple(range(self.n_model_layers))

    @property
    def usage(self) -> CaptureUsage:
        """What it would have taken: nothing."""
        return CaptureUsage(self.environment.device, self.environment.batch_layout, self.environment.token_budget, 0)

    def capture(self, samples: Iterable[PreparedSample]) -> Iterator[FakeBatch]:
        """Yield batches in the order of the samples."""
        batch: list[PreparedSample] = []
        for sample in samples:
            batch.append(sample)
            if len(batch) == self.batch_samples:
                yield self._captured(batch)
                batch = []
        if batch:
            yield self._captured(batch)

    def vector(self, sample_id: str, feature: Feature, layer: int) -> NDArray[np.float32]:
        """Return the activations [J] that a sample has, the same in every process."""
        seed = hashlib.blake2b(f"{sample_id}/{feature.value}/{layer}".encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(seed, "little"))
        values = self.scale * rng.standard_normal(self.n_neurons, dtype=np.float32)
        if sample_id in self.poison:
            values[self.n_neurons // 2] = self.poison[sample_id]
        return values.astype(np.float32)

    def _captured(self, batch: list[PreparedSample]) -> FakeBatch:
        if self.on_batch is not None:
            self.on_batch(self.n_captured)
        if self.seconds_per_batch:
            time.sleep(self.seconds_per_batch)
        arrays = {
            feature: np.stack(
                [np.stack([self.vector(p.sample.sample_id, feature, layer) for layer in self.layers]) for p in batch]
            )
            for feature in self.features
        }
        self.n_captured += len(batch)
        return FakeBatch(batch, arrays, sum(p.n_tokens for p in batch))
