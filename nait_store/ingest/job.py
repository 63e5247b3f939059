"""One ingest from its input to the committed version."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from nait_store.activations.versions import SetVersion
from nait_store.capture.rendering import UnpreparedSample
from nait_store.ingest.background import BackgroundWriter
from nait_store.ingest.capture_source import Captured, CaptureSource
from nait_store.ingest.frame import IngestFrame, IngestOutset
from nait_store.ingest.journal import IngestJournal
from nait_store.ingest.probe import choose_dtype, hold_back
from nait_store.ingest.requests import (
    EstimateListener,
    IngestReport,
    IngestRequest,
    ignore_estimate,
)
from nait_store.ingest.sample_stream import SampleStream
from nait_store.ingest.segment_sink import SegmentSink
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import StoredDtype
from nait_store.storage.location import Location

__all__ = ["CaptureSource", "IngestReport", "IngestRequest", "ingest"]


def ingest(
    location: Location,
    capture: CaptureSource,
    request: IngestRequest,
    progress: ProgressListener = ignore_progress,
    announce: EstimateListener = ignore_estimate,
) -> IngestReport:
    """Capture the samples that a set does not hold yet and append them as its next version.

    Running the same request again adds nothing; running it after a crash goes on from the last flushed segment.
    Ctrl-C stops it in good order: what was captured by then is flushed and committed. A second Ctrl-C stops it at
    once, and what was flushed is kept for the next run. Several ingests may run into one set at once.

    Parameters
    ----------
    location
        The store's root.
    capture
        An open capture session.
    request
        What to ingest.
    progress
        Told after each batch: samples, tokens and bytes so far.
    announce
        Told what is expected, before anything is captured.

    Returns
    -------
    IngestReport
        What was done; ``set_ref`` names the version that holds everything.

    Raises
    ------
    InvalidInputError
        The set's name, or a record under ``on_error="stop"``, or all records. Nothing is committed; segments that
        were flushed by then are kept for the next run.
    NotFoundError
        A source does not exist. What interrupted ingests had captured from it is committed, and the message says so.
    ConflictError
        A sample id stands for two contents.
    IncompatibleError
        The set was captured differently, or lacks features or layers of samples that it holds.
    StorageError
        The disk cannot hold what is expected, or was full; what was flushed is kept.
    IngestInterrupted
        Ctrl-C; says which version holds what was captured.
    """
    return _Job(location, capture, request, progress, announce).carry_out()


class _Job(IngestFrame):
    """An ingest whose samples are captured in this process."""

    def __init__(
        self,
        location: Location,
        capture: CaptureSource,
        request: IngestRequest,
        progress: ProgressListener,
        announce: EstimateListener,
    ) -> None:
        super().__init__(location, capture, request, progress, announce)
        self._capture = capture
        self._sink: SegmentSink | None = None

    def _measure(self, outset: IngestOutset) -> IngestReport:
        batches = self._captured(outset)
        with contextlib.closing(batches):
            held, self._stopping = hold_back(batches)
            if not held:
                return self._commit(None, [], outset)
            journal = IngestJournal(self._location, self._plan(outset, self._dtype(held, outset.version)))
            with contextlib.ExitStack() as life:
                self._insist(lambda: life.enter_context(journal))
                rest = iter(()) if self._stopping else batches
                segments = self._write(journal, held, rest, outset)
                return self._commit(journal, segments, outset)

    def _prepared(self, stream: SampleStream) -> Iterator[Any]:
        for samples in stream.batches():
            for item in self._capture.renderer.prepare(samples):
                if isinstance(item, UnpreparedSample):
                    self.rejects.add_unprepared(item)
                else:
                    yield item

    def _captured(self, outset: IngestOutset) -> Generator[Captured, None, None]:
        n_done = 0
        n_unfit = len(self._capture.unfit)  # a session may have served another ingest before
        for batch in self._capture.capture(self._prepared(outset.stream)):
            n_done += len(batch.samples)
            self._n_tokens += batch.n_tokens
            n_unfit = self._reject_unfit(n_unfit)
            self._show(outset, n_done, self._sink.size_bytes if self._sink else 0)
            yield batch
        self._reject_unfit(n_unfit)

    def _reject_unfit(self, n_known: int) -> int:
        """Reject what the memory did not hold, beyond the first ``n_known``; returns how many there are now."""
        unfit = self._capture.unfit
        for item in unfit[n_known:]:
            self.rejects.add_unprepared(item)
        return len(unfit)

    def _dtype(self, held: Sequence[Captured], version: SetVersion | None) -> StoredDtype:
        known = self._known_dtype(version)
        if known is not None:
            return known
        dtype, warning = choose_dtype(held, self._features)
        if warning is not None:
            self._warnings.append(warning)
        return dtype

    def _write(
        self, journal: IngestJournal, held: list[Captured], batches: Iterator[Captured], outset: IngestOutset
    ) -> list[SegmentRecord]:
        self._sink = sink = SegmentSink(
            self._location,
            outset.wanted.name,
            self._capture,
            features=self._features,
            dtype=journal.plan.dtype,
            policy=self._request.flush,
            flushed=lambda record: self._acknowledge(journal, outset.wanted, record),
            expected_rows=outset.expected_rows,
        )
        writer = BackgroundWriter(sink, self._reject_stored)
        try:
            try:
                for batch in _draining(held, batches):
                    writer.put(batch)
            except KeyboardInterrupt:
                if self._stopping:
                    raise
                self._stopping = True
            self._insist(writer.finish)
        except KeyboardInterrupt:
            writer.abandon()
            raise
        except BaseException:
            writer.abort()
            raise
        return sink.segments


def _draining(held: list[Captured], batches: Iterator[Captured]) -> Iterator[Captured]:
    """Yield the held batches, letting go of each, then the others."""
    held.reverse()
    while held:
        yield held.pop()
    yield from batches
