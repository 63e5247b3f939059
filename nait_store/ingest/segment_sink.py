"""Where captured batches go: segment after segment, each flushed and acknowledged when it is due."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.writer import RejectedSample, SegmentWriter
from nait_store.errors import NaitStoreError
from nait_store.ingest.capture_source import CaptureSource
from nait_store.ingest.live_scores import LiveScores
from nait_store.ingest.requests import FlushPolicy
from nait_store.schemas.activation_set import Projection, SegmentRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.samples import SampleRow
from nait_store.storage.location import Location


class SegmentSink:
    """Writes batches into segments and closes each when the policy says so.

    Parameters
    ----------
    location, set_name
        Where the segments go.
    source
        What is being captured.
    features, dtype
        What is stored, and as what.
    policy
        When a segment is due.
    flushed
        Called with each whole segment; once it returns the segment's samples are acknowledged.
    expected_rows
        Rows that will probably come in all.
    scores
        Scores the segments as they are written; None if nothing is to be scored.
    projections
        What the last axis is, where projections are stored.

    Attributes
    ----------
    segments
        Records of the flushed segments.
    """

    def __init__(
        self,
        location: Location,
        set_name: str,
        source: CaptureSource,
        *,
        features: Sequence[Feature],
        dtype: StoredDtype,
        policy: FlushPolicy,
        flushed: Callable[[SegmentRecord], None],
        expected_rows: int | None,
        scores: LiveScores | None = None,
        projections: Sequence[Projection] = (),
    ) -> None:
        self._location = location
        self._set_name = set_name
        self._source = source
        self._features = features
        self._dtype = dtype
        self._policy = policy
        self._flushed = flushed
        self._expected_rows = expected_rows
        self._scores = scores
        self._projections = projections
        self._writer: SegmentWriter | None = None
        self._began = 0.0
        self._n_flushed_rows = 0
        self._n_flushed_bytes = 0
        self.segments: list[SegmentRecord] = []

    @property
    def n_rows(self) -> int:
        """Rows accepted so far, flushed or not."""
        return self._n_flushed_rows + (self._writer.n_rows if self._writer else 0)

    @property
    def size_bytes(self) -> int:
        """Bytes accepted so far, flushed or not."""
        return self._n_flushed_bytes + (self._writer.size_bytes if self._writer else 0)

    def prepare(self) -> None:
        """Load what the first segment will need."""
        if self._scores is not None:
            self._scores.prepare()

    def append(
        self, rows: Sequence[SampleRow], features: Mapping[Feature, NDArray[np.float32]]
    ) -> list[RejectedSample]:
        """Add a batch; returns what cannot be stored."""
        if self._writer is None:
            self._writer = self._open()
            self._began = time.monotonic()
        rejected = self._writer.append(rows, features)
        self.flush_if_due()
        return rejected

    def flush_if_due(self) -> None:
        """Flush where the policy says so."""
        if self._writer is None:
            return
        held_bytes = self._scores.held_bytes if self._scores is not None else 0
        if self._policy.is_due(self._writer, time.monotonic() - self._began, held_bytes):
            self.flush()

    def flush(self) -> None:
        """Close the current segment, if it has rows, and have it acknowledged."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            record = writer.close()
        except BaseException:
            self._writer = writer  # so that discard() finds what it left
            raise
        if record is None:
            return
        self._flushed(record)
        if self._scores is not None:
            self._scores.keep(record)
        self.segments.append(record)
        self._n_flushed_rows += record.n_rows
        self._n_flushed_bytes += record.size_bytes

    def discard(self) -> None:
        """Drop the current segment."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(NaitStoreError):  # the error that brought us here is the one to report
                writer.discard()
            if self._scores is not None:
                self._scores.drop()

    def _open(self) -> SegmentWriter:
        left = None if self._expected_rows is None else max(0, self._expected_rows - self._n_flushed_rows)
        return SegmentWriter(
            self._location,
            self._set_name,
            identity=self._source.identity,
            layers=self._source.layers,
            n_neurons=self._source.n_neurons,
            features=self._features,
            dtype=self._dtype,
            settings=self._source.settings,
            environment=self._source.environment,
            expected_rows=left,
            listener=self._scores,
            projections=self._projections,
        )
