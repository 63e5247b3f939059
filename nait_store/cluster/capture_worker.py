"""One replica of the model in a process of its own: captures the samples it is given and writes its own segments."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from nait_store.activations.sample_keys import sample_key
from nait_store.activations.writer import RejectedSample
from nait_store.capture.conversations import Sample
from nait_store.capture.rendering import UnpreparedSample
from nait_store.cluster.worker_messages import WorkerMeasurement, WorkerOrder, WorkerReport, WorkerStart
from nait_store.errors import NaitStoreError
from nait_store.ingest.background import BackgroundWriter
from nait_store.ingest.capture_source import Captured, CaptureSource
from nait_store.ingest.live_scores import LiveScores
from nait_store.ingest.probe import choose_dtype, draining, hold_back
from nait_store.ingest.projected_capture import ProjectedCapture
from nait_store.ingest.segment_sink import SegmentSink
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage.location import Location


class CaptureWorker:
    """Captures chunks of samples one after the other; an ordinary class that Ray makes an actor of.

    Its methods return at once, except :meth:`open` and :meth:`report`; the work is done by a thread. Nothing that it
    writes counts until the driver has acknowledged it: a worker may die, or be given up, at any moment.
    """

    def __init__(self) -> None:
        self._order: WorkerOrder
        self._capture: CaptureSource
        self._location: Location
        self._start: WorkerStart | None = None
        self._started = threading.Event()
        self._stopping = threading.Event()
        self._tasks: queue.SimpleQueue[tuple[Sequence[Sample], bool] | None] = queue.SimpleQueue()
        self._sink: SegmentSink | None = None
        self._scores: LiveScores | None = None
        self._projected: ProjectedCapture | None = None
        self._writer: BackgroundWriter | None = None
        self._news = threading.Condition()
        self._forget()
        self._error: BaseException | None = None

    def open(self, order: WorkerOrder) -> WorkerMeasurement:
        """Open the store and load the model.

        Raises
        ------
        NotFoundError, IncompatibleError
            This machine cannot see the store, or has another release.
        NaitStoreError
            The model cannot be loaded.
        """
        self._order = order
        self._location = order.store.open()
        self._capture = order.open_capture()
        threading.Thread(target=self._work, name="capture-worker", daemon=True).start()
        return WorkerMeasurement.of(self._capture)

    def start(self, start: WorkerStart) -> None:
        """Say what the segments are like; a probing chunk waits for it.

        Where this machine has a copy of the store, not the store, :meth:`report` says so.
        """
        try:
            self._order.store.require_file(self._location, start.heartbeat_path)
        except NaitStoreError as error:
            self._fail(error)
            return
        self._start = start
        self._started.set()

    def give(self, samples: Sequence[Sample], wanted: Collection[bytes] | None = None, probe: bool = False) -> None:
        """Hand a chunk over.

        Parameters
        ----------
        samples
            To be captured.
        wanted
            Keys of the ids of those of them that are; all by default.
        probe
            Whether to find out the dtype with the first of them and wait for :meth:`start` then.
        """
        chosen = [one for one in samples if wanted is None or sample_key(one.sample_id) in wanted]
        self._tasks.put((chosen, probe))

    def flush(self) -> None:
        """Close the current segment once everything given so far is captured."""
        self._tasks.put(None)

    def stop(self) -> None:
        """Capture nothing beyond the batch at hand, and flush."""
        self._stopping.set()
        self._started.set()
        self.flush()

    def discard(self) -> None:
        """Drop what is not flushed; the worker cannot be used afterwards."""
        self._stopping.set()
        if self._writer is not None:
            self._writer.abort()

    def report(self, wait_seconds: float) -> WorkerReport:
        """Tell what happened since the last call; waits for something to tell.

        Raises
        ------
        NaitStoreError
            Whatever went wrong; nothing is captured any more.
        """
        deadline = time.monotonic() + wait_seconds
        with self._news:
            while self._error is None and not self._has_news() and (left := deadline - time.monotonic()) > 0:
                self._news.wait(left)
            if self._error is not None:
                raise self._error
            return self._told()

    def _has_news(self) -> bool:
        lists = self._segments or self._unprepared or self._rejected
        return bool(lists or self._n_chunks or self._n_flushes or self._chosen)

    def _told(self) -> WorkerReport:
        report = WorkerReport(
            segments=tuple(self._segments),
            unprepared=tuple(self._unprepared),
            rejected=tuple(self._rejected),
            n_captured=self._n_captured,
            n_tokens=self._n_tokens,
            size_bytes=self._sink.size_bytes if self._sink else 0,
            n_chunks=self._n_chunks,
            n_flushes=self._n_flushes,
            chosen=self._chosen,
            warnings=tuple(self._capture.warnings),
            usage=self._capture.usage,
            scores_lost=self._scores.warning if self._scores is not None else None,
        )
        self._forget()
        return report

    def _forget(self) -> None:
        self._segments: list[SegmentRecord] = []
        self._unprepared: list[UnpreparedSample] = []
        self._rejected: list[RejectedSample] = []
        self._n_captured = 0
        self._n_tokens = 0
        self._n_chunks = 0
        self._n_flushes = 0
        self._chosen: tuple[StoredDtype, str | None] | None = None

    def _work(self) -> None:
        try:
            while True:
                task = self._tasks.get()
                if task is None:
                    self._flush()
                else:
                    self._capture_chunk(*task)
        except BaseException as error:
            if self._writer is not None:
                self._writer.abort()
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._news:
            self._error = error
            self._news.notify_all()

    def _capture_chunk(self, samples: Sequence[Sample], probe: bool) -> None:
        n_unfit = len(self._capture.unfit)
        if not probe:
            self._started.wait()  # calls of an actor may overtake each other
        if not self._stopping.is_set():
            batches = self._capture.capture(self._prepared(samples))
            held = self._probe(batches) if probe else []
            for batch in draining(held, batches):
                self._keep(batch)
                if self._stopping.is_set():
                    break
        with self._news:
            self._unprepared += self._capture.unfit[n_unfit:]
            self._n_chunks += 1
            self._news.notify_all()

    def _probe(self, batches: Iterator[Captured]) -> list[Captured]:
        held, _ = hold_back(batches)
        if held:
            with self._news:
                self._chosen = choose_dtype(held, self._order.features)
                self._news.notify_all()
            self._started.wait()
        return held

    def _prepared(self, samples: Sequence[Sample]) -> Iterator[Any]:
        for item in self._capture.renderer.prepare(samples):
            if isinstance(item, UnpreparedSample):
                with self._news:
                    self._unprepared.append(item)
            else:
                yield item

    def _keep(self, batch: Captured) -> None:
        if self._start is None:  # stopped before it was said what segments are like
            return
        if self._writer is None:
            self._sink = self._sink or self._open_sink(self._start)
            self._writer = BackgroundWriter(self._sink, self._note_rejected)
        self._writer.put(batch if self._projected is None else self._projected.project(batch))
        with self._news:
            self._n_captured += len(batch.samples)
            self._n_tokens += batch.n_tokens

    def _open_sink(self, start: WorkerStart) -> SegmentSink:
        self._scores = LiveScores.of(self._location, start.profiles)
        self._projected = None if start.kept is None else ProjectedCapture(self._capture, start.kept.targets)
        return SegmentSink(
            self._location,
            self._order.set_name,
            self._projected or self._capture,
            features=self._order.features if start.kept is None else (Feature.PROJECTIONS,),
            dtype=start.dtype,
            policy=self._order.flush,
            flushed=self._note_segment,
            expected_rows=start.expected_rows,
            scores=self._scores,
            projections=start.kept.columns if start.kept is not None else (),
        )

    def _flush(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.finish()
        with self._news:
            self._n_flushes += 1
            self._news.notify_all()

    def _note_segment(self, record: SegmentRecord) -> None:
        with self._news:
            self._segments.append(record)
            self._news.notify_all()

    def _note_rejected(self, rejected: Sequence[RejectedSample]) -> None:
        with self._news:
            self._rejected += rejected
            self._news.notify_all()
