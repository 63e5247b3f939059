"""What the driver of an ingest and its workers tell each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nait_store.activations.writer import RejectedSample
from nait_store.capture.rendering import UnpreparedSample
from nait_store.capture.usage import CaptureUsage
from nait_store.cluster.shared_store import SharedStore
from nait_store.ingest.capture_source import CaptureSource
from nait_store.ingest.kept_projections import KeptProjections
from nait_store.ingest.requests import FlushPolicy
from nait_store.ingest.scored_profiles import ScoredProfiles
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import CaptureEnvironment, CaptureIdentity, CaptureSettings, Feature, StoredDtype


@dataclass(frozen=True)
class WorkerOrder:
    """What a worker is to do, as far as it is known before the model is.

    Attributes
    ----------
    store, set_name
        Where the segments go.
    open_capture
        Loads the model; must be picklable.
    features
        What is stored.
    flush
        When a segment is closed.
    """

    store: SharedStore
    set_name: str
    open_capture: Callable[[], CaptureSource]
    features: tuple[Feature, ...]
    flush: FlushPolicy


@dataclass(frozen=True)
class WorkerStart:
    """What the driver knows once the model is known.

    Attributes
    ----------
    dtype
        Stored element type.
    expected_rows
        Rows that will probably come to one worker.
    heartbeat_path
        File of the ingest that the driver has written: a worker that does not see it has another store.
    profiles
        What the samples are scored against while they are written.
    kept
        What is kept in the place of activations; None where they are kept.
    """

    dtype: StoredDtype
    expected_rows: int | None
    heartbeat_path: str
    profiles: ScoredProfiles
    kept: KeptProjections | None


@dataclass(frozen=True)
class WorkerMeasurement:
    """What one worker measures: what a :class:`~nait_store.ingest.capture_source.CaptureSource` says of itself."""

    identity: CaptureIdentity
    settings: CaptureSettings
    environment: CaptureEnvironment
    layers: tuple[int, ...]
    n_model_layers: int
    n_neurons: int
    warnings: tuple[str, ...]
    usage: CaptureUsage

    @classmethod
    def of(cls, capture: CaptureSource) -> WorkerMeasurement:
        """Take from a capture what can travel."""
        return cls(
            capture.identity,
            capture.settings,
            capture.environment,
            tuple(capture.layers),
            capture.n_model_layers,
            capture.n_neurons,
            tuple(capture.warnings),
            capture.usage,
        )


@dataclass(frozen=True)
class WorkerReport:
    """What happened in a worker since its last report.

    Attributes
    ----------
    segments
        Whole segments; their samples are to be acknowledged.
    unprepared, rejected
        Samples that give nothing to measure, and those whose activations cannot be stored.
    n_captured, n_tokens
        Samples that went through the model, and their tokens.
    size_bytes
        Activations and text accepted since the worker began, in flushed segments or not.
    n_chunks, n_flushes
        Chunks that were captured to their end, and calls of ``flush`` that were answered.
    chosen
        The dtype that the first samples ask for, with a warning; once, where it was to be found out.
    warnings, usage
        Of the capture, so far.
    scores_lost
        Why not all scores of the segments so far were kept; None if they were.
    """

    segments: Sequence[SegmentRecord]
    unprepared: Sequence[UnpreparedSample]
    rejected: Sequence[RejectedSample]
    n_captured: int
    n_tokens: int
    size_bytes: int
    n_chunks: int
    n_flushes: int
    chosen: tuple[StoredDtype, str | None] | None
    warnings: tuple[str, ...]
    usage: CaptureUsage
    scores_lost: str | None
