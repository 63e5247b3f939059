"""The samples of an ingest on their way through the model, while the next ones are read and rendered."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Any

from nait_store.capture.batches import WINDOW_CHARACTERS, WINDOW_SAMPLES
from nait_store.capture.rendering import UnpreparedSample
from nait_store.ingest.capture_source import Captured, CaptureSource, Prepared
from nait_store.ingest.read_ahead import ReadAhead
from nait_store.ingest.rejects import RejectLog
from nait_store.ingest.sample_stream import SampleStream
from nait_store.progress import ProgressEvent, ProgressListener


class CapturedStream:
    """Reads, renders and captures the samples of a stream.

    Reading and rendering have a thread of their own, which keeps up to one window of samples ready. A context manager
    that ends the thread; iterate over it once.

    Parameters
    ----------
    capture
        What measures.
    stream
        What is to be measured.
    rejects
        Told what gives nothing to measure.
    n_records
        Records of the input, where that is known.
    progress
        Told after each batch.
    n_written_bytes
        Gives the bytes that were written so far, for the progress.
    began
        When the ingest began, by ``time.monotonic``.

    Attributes
    ----------
    stream
        As given; its counters run ahead of what is captured.
    n_tokens
        Tokens that went through the model so far.
    """

    def __init__(
        self,
        capture: CaptureSource,
        stream: SampleStream,
        rejects: RejectLog,
        *,
        n_records: int | None,
        progress: ProgressListener,
        n_written_bytes: Callable[[], int],
        began: float,
    ) -> None:
        self.n_tokens = 0
        self._capture = capture
        self.stream = stream
        self._rejects = rejects
        self._n_records = n_records
        self._progress = progress
        self._n_written_bytes = n_written_bytes
        self._began = began
        self._ahead = ReadAhead(self._prepared(), weigh=_weight, capacity=WINDOW_CHARACTERS, name="sample-reader")
        self._batches = self._captured()

    def __enter__(self) -> CapturedStream:
        self._ahead.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._batches.close()
        finally:
            self._ahead.__exit__(kind, error, traceback)

    def __iter__(self) -> Generator[Captured, None, None]:
        return self._batches

    def stop_reading(self) -> None:
        """Read no further than the records at hand; returns at once."""
        self._ahead.stop()

    def _prepared(self) -> Generator[list[Prepared], None, None]:
        """Yield samples as tokens; runs in the thread."""
        for samples in self.stream.batches():
            ready: list[Prepared] = []
            for item in self._capture.renderer.prepare(samples):
                if isinstance(item, UnpreparedSample):
                    self._rejects.add_unprepared(item)
                else:
                    ready.append(item)
            yield ready

    def _captured(self) -> Generator[Captured, None, None]:
        n_done = 0
        n_unfit = len(self._capture.unfit)  # a session may have served another ingest before
        for batch in self._capture.capture(sample for samples in self._ahead for sample in samples):
            n_done += len(batch.samples)
            self.n_tokens += batch.n_tokens
            n_unfit = self._reject_unfit(n_unfit)
            total = expected_samples(self.stream, self._rejects, self._n_records, n_done)
            elapsed = time.monotonic() - self._began
            self._progress(
                ProgressEvent("capture", n_done, total, self.n_tokens, self._n_written_bytes(), elapsed_seconds=elapsed)
            )
            yield batch
        self._reject_unfit(n_unfit)

    def _reject_unfit(self, n_known: int) -> int:
        """Reject what the memory did not hold, beyond the first ``n_known``; returns how many there are now."""
        unfit = self._capture.unfit
        for item in unfit[n_known:]:
            self._rejects.add_unprepared(item)
        return len(unfit)


def expected_samples(stream: SampleStream, rejects: RejectLog, n_records: int | None, n_done: int) -> int | None:
    """How many samples there will be in all, as far as can be told while ``n_done`` are captured."""
    if n_records is None:
        return None
    return max(n_done, n_records - stream.n_known - stream.n_duplicates - len(rejects))


def _weight(samples: Sequence[Any]) -> int:
    """Characters that samples take of a buffer that shall hold neither more text nor more samples than a window."""
    per_sample = WINDOW_CHARACTERS // WINDOW_SAMPLES
    return sum(max(per_sample, len(sample.sample.record_json)) for sample in samples)
