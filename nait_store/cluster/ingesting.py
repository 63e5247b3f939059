"""An ingest whose samples are captured by the workers of a cluster: read, given out, acknowledged and committed here.

The driver reads the input, drops what the set holds, and gives the rest to workers in chunks. Workers write segments
of their own; the driver acknowledges each in the ingest's journal, once it has seen which samples are in it, and
commits all of them together. What a dead worker had and what is in no acknowledged segment is given to another, so a
sample is never added twice, and never lost.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

from nait_store.activations.reader import SegmentReader
from nait_store.activations.sample_keys import sample_key
from nait_store.capture.batches import WINDOW_CHARACTERS, WINDOW_SAMPLES
from nait_store.capture.conversations import Sample
from nait_store.capture.source_records import place
from nait_store.cluster.crew import Crew, CrewShape, CrewWorker, Message
from nait_store.cluster.ledger import Chunk, Ledger
from nait_store.cluster.ray_cluster import ProcessDiedError, RayCluster
from nait_store.cluster.shared_store import SharedStore
from nait_store.cluster.worker_messages import WorkerOrder, WorkerReport, WorkerStart
from nait_store.errors import StorageError
from nait_store.ingest.capture_source import CaptureSource
from nait_store.ingest.captured_stream import expected_samples
from nait_store.ingest.job import IngestJob
from nait_store.ingest.journal import IngestJournal
from nait_store.ingest.outset import IngestOutset
from nait_store.ingest.requests import EstimateListener, IngestReport, IngestRequest, ignore_estimate
from nait_store.progress import ProgressEvent, ProgressListener, ignore_progress
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage import layout
from nait_store.storage.heartbeat import HEARTBEAT_FILE
from nait_store.storage.location import Location

_CHUNKS_AHEAD = 2  # that a worker has: the one at hand, and one so that it need not wait
_SMALLEST_CHUNK = 32
_DEATHS_PER_CHUNK = 4


def ingest_on(
    cluster: RayCluster,
    location: Location,
    open_capture: Callable[[], CaptureSource],
    request: IngestRequest,
    progress: ProgressListener = ignore_progress,
    announce: EstimateListener = ignore_estimate,
    *,
    n_workers: int | None = None,
    gpus_per_worker: int | None = None,
) -> IngestReport:
    """As :func:`nait_store.ingest.job.ingest`, on the machines of a cluster.

    Parameters
    ----------
    cluster
        Where the workers run.
    location
        The store's root, which every machine reaches.
    open_capture
        Loads the model in a worker; must be picklable.
    request, progress, announce
        As there.
    n_workers, gpus_per_worker
        See :meth:`nait_store.cluster.crew.CrewShape.of`.

    Raises
    ------
    InvalidInputError
        The workers cannot reach the store; no machine has so many GPUs.
    StorageError
        Workers keep dying. What was acknowledged is kept for the next run.
    NaitStoreError
        As there, and what a worker raises.
    """
    with crew_for(
        cluster, location, open_capture, request, n_workers=n_workers, gpus_per_worker=gpus_per_worker
    ) as crew:
        return ingest_with(crew, location, request, progress, announce)


def crew_for(
    cluster: RayCluster,
    location: Location,
    open_capture: Callable[[], CaptureSource],
    request: IngestRequest,
    *,
    n_workers: int | None = None,
    gpus_per_worker: int | None = None,
) -> Crew:
    """Describe the workers of one ingest; parameters and errors as of :func:`ingest_on`."""
    location.require_writable()
    shape = CrewShape.of(cluster.machines, n_workers=n_workers, gpus_per_worker=gpus_per_worker)
    order = WorkerOrder(
        store=SharedStore.of(location),
        set_name=request.set_name,
        open_capture=open_capture,
        features=tuple(Feature(feature) for feature in request.features),
        flush=request.flush,
    )
    return Crew(cluster, order, shape)


def ingest_with(
    crew: Crew,
    location: Location,
    request: IngestRequest,
    progress: ProgressListener = ignore_progress,
    announce: EstimateListener = ignore_estimate,
) -> IngestReport:
    """Ingest with a crew, within its block; it serves one ingest. It begins as soon as one worker is ready."""
    crew.await_ready(1)
    return _ClusterJob(location, crew, request, progress, announce).carry_out()


class _ClusterJob(IngestJob):
    def __init__(
        self,
        location: Location,
        crew: Crew,
        request: IngestRequest,
        progress: ProgressListener,
        announce: EstimateListener,
    ) -> None:
        # everything but the capture itself, which only the method that is replaced here would ask for
        super().__init__(location, cast(CaptureSource, crew), request, progress, announce)
        self._crew = crew
        self._ledger = Ledger()
        self._returned: deque[Chunk] = deque()
        self._journal: IngestJournal | None = None
        self._prober: CrewWorker | None = None
        self._segments: list[SegmentRecord] = []
        self._n_tokens = 0
        self._n_buried_bytes = 0

    def _measure(self, outset: IngestOutset) -> IngestReport:
        with contextlib.ExitStack() as life:
            try:
                self._capture_all(outset, life)
                self._wind_up(outset)  # scores of a segment are written after it is reported
            except KeyboardInterrupt:
                if self._stopping:
                    raise
                self._stopping = True
                self._wind_up(outset)
            journal = self._journal if self._segments else None
            return self._commit(journal, self._segments, outset, self._n_tokens)

    def _capture_all(self, outset: IngestOutset, life: contextlib.ExitStack) -> None:
        chunks = self._chunks(outset)
        dtype = outset.known_dtype(self._request.dtype)
        if dtype is not None:
            self._open_journal(outset, dtype, life)
        while self._feed(outset, chunks) or len(self._ledger):
            for worker, message in self._crew.poll():
                self._take(worker, message, outset)
                if isinstance(message, WorkerReport) and message.chosen is not None:
                    dtype, warning = message.chosen
                    self._warnings += [warning] if warning is not None else []
                    self._open_journal(outset, dtype, life)
            self._show_all(outset)

    def _wind_up(self, outset: IngestOutset) -> None:
        """Have what was captured written to the end; nothing more is captured, and the dead are not replaced."""
        workers = [worker for worker in self._crew.ready if worker.is_started]
        for worker in workers:
            worker.stop()
        while any(worker.n_flushes for worker in workers):
            for worker, message in self._crew.poll():
                if isinstance(message, ProcessDiedError):
                    self._note_lost_scores(worker)
                    self._crew.workers.remove(worker)
                    workers = [one for one in workers if one is not worker]
                else:
                    self._take(worker, message, outset)
            self._show_all(outset)

    def _open_journal(self, outset: IngestOutset, dtype: StoredDtype, life: contextlib.ExitStack) -> None:
        self._journal = life.enter_context(IngestJournal(self._location, self._plan(outset, dtype)))

    def _feed(self, outset: IngestOutset, chunks: Iterator[Chunk]) -> bool:
        """Give workers what they have room for; returns whether there may be more to give."""
        if self._journal is None:  # one of them finds out the dtype while the others wait
            if self._prober is None and self._crew.ready:
                chunk = self._next(chunks)
                if chunk is None:
                    return False
                self._prober = self._crew.ready[0]
                self._give(self._prober, chunk, probe=True)
            return True
        more = True
        for worker in self._crew.ready:
            if not worker.is_started:
                worker.start(self._start(self._journal, outset))
            while more and worker.n_waiting < _CHUNKS_AHEAD:
                chunk = self._next(chunks)
                if chunk is None:
                    more = False
                else:
                    self._give(worker, chunk)
            if not more and not worker.n_flushes and self._ledger.n_pending(worker.number):
                worker.flush()
        return more

    def _start(self, journal: IngestJournal, outset: IngestOutset) -> WorkerStart:
        folder = layout.ingest_folder(outset.wanted.name, journal.ingest_id)
        rows = outset.expected_rows
        share = None if rows is None else -(-rows // self._crew.shape.n_workers)
        heartbeat = f"{folder}/{HEARTBEAT_FILE}"
        return WorkerStart(journal.plan.dtype, share, heartbeat, self._scored_profiles(), self._kept)

    def _next(self, chunks: Iterator[Chunk]) -> Chunk | None:
        return self._returned.popleft() if self._returned else next(chunks, None)

    def _give(self, worker: CrewWorker, chunk: Chunk, *, probe: bool = False) -> None:
        self._ledger.give(worker.number, chunk)
        worker.give(chunk.payload, None if chunk.is_whole else frozenset(chunk.pending), probe=probe)

    def _chunks(self, outset: IngestOutset) -> Iterator[Chunk]:
        """Cut the stream into chunks: as many samples as are sorted by length together, and fewer towards the end."""
        samples: list[Sample] = []
        n_characters = 0
        number = 0
        for batch in outset.stream.batches():
            for sample in batch:
                samples.append(sample)
                n_characters += len(sample.record_json)
                if len(samples) >= self._chunk_samples(outset, number) or n_characters >= WINDOW_CHARACTERS:
                    yield self._chunk(samples)
                    samples, n_characters, number = [], 0, number + 1
        if samples:
            yield self._chunk(samples)

    def _chunk_samples(self, outset: IngestOutset, number: int) -> int:
        n_workers = self._crew.shape.n_workers
        if outset.n_records is None:
            target = _SMALLEST_CHUNK << min(16, number // n_workers)
        else:  # the shares of what is left shrink, so that all workers end together
            target = (outset.n_records - outset.stream.n_read) // (2 * n_workers)
        return min(max(target, _SMALLEST_CHUNK), WINDOW_SAMPLES)

    def _chunk(self, samples: list[Sample]) -> Chunk:
        # the cluster keeps it, and spills it, until all of it is settled: here stay 16 bytes a sample
        return Chunk(self._crew.cluster.ray.put(samples), {sample_key(sample.sample_id) for sample in samples})

    def _take(self, worker: CrewWorker, message: Message, outset: IngestOutset) -> None:
        if isinstance(message, ProcessDiedError):
            self._bury(worker, message)
        elif isinstance(message, WorkerReport):
            for record in message.segments:
                self._take_segment(worker, record, outset)
            for item in message.unprepared:
                if self._settle(worker, item.sample_id):
                    self.rejects.add_unprepared(item)
            for rejected in message.rejected:
                if self._settle(worker, rejected.sample_id):
                    worker.n_unsettled -= 1
                    self.rejects.add_unstored([rejected])
            self._n_tokens += message.n_tokens
            self._scores_lost = self._scores_lost or message.scores_lost
            if worker is self._prober and message.n_chunks:  # to its end; or there was nothing to measure in it
                self._prober = None

    def _take_segment(self, worker: CrewWorker, record: SegmentRecord, outset: IngestOutset) -> None:
        journal = self._journal
        if journal is None:
            raise RuntimeError("a worker wrote a segment before it was started")
        # read once, here: the commit needs the same keys
        keys = self._sets.keys(SegmentReader(self._location, record)).ids
        n_settled = self._ledger.settle(worker.number, [key.ljust(16, b"\0") for key in keys.tolist()])
        if not n_settled:  # nothing that is not acknowledged already
            return
        self._acknowledge(journal, outset.wanted, record)
        self._segments.append(record)
        worker.n_unsettled -= n_settled
        worker.n_acknowledged_bytes += record.size_bytes
        self._crew.note_fruit()

    def _settle(self, worker: CrewWorker, sample_id: str) -> bool:
        return self._ledger.settle(worker.number, [sample_key(sample_id)]) == 1

    def _bury(self, worker: CrewWorker, death: ProcessDiedError) -> None:
        lost = self._ledger.lose(worker.number)
        for chunk in lost:
            if chunk.n_deaths >= _DEATHS_PER_CHUNK:
                raise self._lethal(chunk, death)
        self._returned.extendleft(reversed(lost))
        self._n_buried_bytes += worker.n_acknowledged_bytes
        self._note_lost_scores(worker)
        if worker is self._prober:
            self._prober = None
        self._crew.replace(worker, death)

    def _note_lost_scores(self, worker: CrewWorker) -> None:
        if self._scored_profiles().targets and worker.n_acknowledged_bytes:
            self._scores_lost = "scores of a worker that died may be missing, the first query computes them"

    def _lethal(self, chunk: Chunk, death: ProcessDiedError) -> StorageError:
        samples: list[Any] = self._crew.cluster.result(chunk.payload)
        left = [sample for sample in samples if sample_key(sample.sample_id) in chunk.pending]
        first, last = (place(sample.source_uri, sample.source_index, None) for sample in (left[0], left[-1]))
        return StorageError(
            f"{chunk.n_deaths} workers died over the {len(left):,} samples from {first} to {last}: {death.what}",
            next_step="see the cluster's logs, most often memory ran out: try a smaller --token-budget; what was "
            "acknowledged is kept",
        )

    def _show_all(self, outset: IngestOutset) -> None:
        workers = self._crew.workers
        n_done = self._n_flushed + sum(max(0, worker.n_unsettled) for worker in workers)
        total = expected_samples(outset.stream, self.rejects, outset.n_records, n_done)
        n_bytes = self._n_buried_bytes + sum(worker.size_bytes for worker in workers)
        elapsed = time.monotonic() - self._began
        self._progress(ProgressEvent("capture", n_done, total, self._n_tokens, n_bytes, elapsed_seconds=elapsed))
