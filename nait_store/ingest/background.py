"""Writing beside the capture: one thread converts, hashes and writes while the model runs on."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence

from nait_store.activations.first_use import import_formats
from nait_store.activations.writer import RejectedSample
from nait_store.ingest.capture_source import Captured
from nait_store.ingest.segment_sink import SegmentSink

_WAITING_BATCHES = 2
_TICK_SECONDS = 0.5


class BackgroundWriter:
    """Feeds a :class:`SegmentSink` from a thread of its own, through a short queue that bounds memory.

    A thread also keeps Ctrl-C out of the middle of a write: Python raises it in the main thread only, so that what
    was handed over can always be flushed whole.

    Parameters
    ----------
    sink
        Used by the thread alone until :meth:`finish` or :meth:`abort` returns.
    rejected
        Called, in the thread, with what cannot be stored.
    """

    def __init__(self, sink: SegmentSink, rejected: Callable[[Sequence[RejectedSample]], None]) -> None:
        self._sink = sink
        self._rejected = rejected
        self._queue: queue.Queue[Captured | None] = queue.Queue(_WAITING_BATCHES)
        self._error: BaseException | None = None
        self._ending = threading.Event()
        self._aborted = threading.Event()
        self._thread = threading.Thread(target=self._work, name="segment-writer", daemon=True)
        self._thread.start()

    def put(self, batch: Captured) -> None:
        """Hand a batch over; waits while two are in the queue.

        Raises
        ------
        NaitStoreError
            Whatever went wrong in the thread.
        """
        while self._error is None:
            with contextlib.suppress(queue.Full):
                self._queue.put(batch, timeout=_TICK_SECONDS)
                return
        raise self._error

    def finish(self) -> None:
        """Wait until everything that was handed over is flushed; raises what went wrong in the thread."""
        self._end()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        """Drop what is not flushed yet."""
        self.abandon()
        self._thread.join()
        self._sink.discard()

    def abandon(self) -> None:
        """Return at once; the thread drops what is not flushed when it gets to it, unless the process ends first."""
        self._aborted.set()
        self._end()

    def _end(self) -> None:
        self._ending.set()
        with contextlib.suppress(queue.Full):  # with a full queue it is awake
            self._queue.put_nowait(None)

    def _work(self) -> None:
        try:
            import_formats()  # while the model runs, and not at the end, when everybody waits for the last segment
            while not self._aborted.is_set():
                try:
                    batch = self._queue.get(timeout=_TICK_SECONDS if not self._ending.is_set() else 0)
                except queue.Empty:
                    if self._ending.is_set():
                        self._sink.flush()
                        return
                    self._sink.flush_if_due()
                    continue
                if batch is None:  # the end, which the next look into the queue finds
                    continue
                rejected = self._sink.append([sample.row() for sample in batch.samples], batch.features)
                if rejected:
                    self._rejected(rejected)
            self._sink.discard()
        except BaseException as error:
            self._error = error
