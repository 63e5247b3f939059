"""One pass over stored activations for any number of targets, chunk by chunk, on all cores."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.chunk_memory import ChunkMemory
from nait_store.activations.reader import SegmentReader
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.progress import ProgressEvent, ProgressListener, ignore_progress
from nait_store.schemas.capture import Feature
from nait_store.scoring.kernels import Kernels
from nait_store.scoring.layer_plans import LayerPlan, ScoringPlan, SegmentScores
from nait_store.scoring.scoring_devices import kernels_on
from nait_store.scoring.stored_targets import stored_target
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.object_cache import object_cache

THREADS_VARIABLE = "NAIT_STORE_THREADS"
_HANDED_OUT = 4  # chunks for each thread in advance, so that none waits while results are collected
_WAITING_THREADS = 4  # besides those that compute: they wait for the disk meanwhile
_PASSES_LOOKED_AT = 8  # their first and last chunks: whether the page cache has them
_TERMS_BYTES = 16 << 20  # of one range: chunks of few neurons have so many rows that they are scored in parts
_HELD_BYTES = 128 << 20  # of all ranges on their way, but for one
_CHUNKS_BYTES = 320 << 20  # of all threads together, which there are no more of than that allows
_KEPT_SHARE = 0.5  # of the local cache: larger passes leave it alone
_REMOTE_THREADS = 16  # each waits for the network most of the time

_NO_ROWS = np.empty(0, np.int64)

Pairs = Sequence[tuple[SegmentReader, Sequence[ScoringTarget]]]


@dataclass(frozen=True)
class ScoredRows:
    """What the scan yields: one target's scores of one range of rows of one segment."""

    segment: SegmentReader
    target: ScoringTarget
    rows: slice
    scores: SegmentScores

    @property
    def ends_segment(self) -> bool:
        """Whether this was the segment's last range for the target."""
        return bool(self.rows.stop == self.segment.n_rows)


def scan(
    pairs: Pairs,
    progress: ProgressListener = ignore_progress,
    *,
    n_threads: int | None = None,
    kernels: Kernels | None = None,
    rows: Mapping[str, NDArray[np.int64]] | None = None,
) -> Iterator[ScoredRows]:
    """Score segments range by range; every chunk is read once for all the targets of its segment.

    Memory depends on the size of a chunk, the number of threads and of targets, and not on the number of rows.

    Parameters
    ----------
    pairs
        Segments and what each is to be scored against.
    progress
        Told rows done (a row counts once per feature scanned) and bytes read.
    n_threads
        ``NAIT_STORE_THREADS`` or every core this process may use, if omitted.
    kernels
        The arithmetic; that of :func:`~nait_store.scoring.scoring_devices.kernels_on` if omitted.
    rows
        Segment id → ascending row indices: blocks that hold none of them are neither read nor given. All if omitted.

    Yields
    ------
    ScoredRows
        Segment by segment and within it feature by feature; a target's ranges ascend and leave no gap, but for blocks
        that ``rows`` leaves out.

    Raises
    ------
    NotFoundError
        A segment does not store a target's feature or one of its layers; nothing has been scored then.
    IncompatibleError
        A target's vectors are of another width than the segment's.
    CorruptChunkError
        A chunk is missing or truncated.
    """
    return _scan(_passes(pairs, rows), progress, n_threads or thread_count(), kernels)


def score_segments(
    pairs: Pairs, progress: ProgressListener = ignore_progress
) -> Iterator[tuple[SegmentReader, ScoringTarget, SegmentScores]]:
    """Score whole segments, as :func:`scan`, collecting each target's rows in memory.

    Yields
    ------
    segment, target, scores
        With scores [n] and projections [n, L] of all the segment's rows.
    """
    parts: dict[int, list[SegmentScores]] = {}
    for found in scan(pairs, progress):
        collected = parts.setdefault(id(found.target), [])
        collected.append(found.scores)
        if found.ends_segment:
            del parts[id(found.target)]
            yield found.segment, found.target, SegmentScores.joined(collected)


def thread_count(*, remote: bool = False) -> int:
    """Threads to scan with: ``NAIT_STORE_THREADS``, else the cores this process may run on; 16 or more if remote."""
    if remote:
        return max(thread_count(), _REMOTE_THREADS)
    chosen = os.environ.get(THREADS_VARIABLE)
    if chosen:
        if not chosen.isdecimal() or int(chosen) < 1:
            raise InvalidInputError(f"{THREADS_VARIABLE} is {chosen!r}", next_step="set it to a positive number")
        return int(chosen)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class _Pass:
    """All the targets of one segment that read the same feature."""

    segment: SegmentReader
    feature: Feature
    plan: ScoringPlan
    keep: bool
    """Whether chunks of a remote store go into the local cache."""
    blocks: tuple[tuple[int, slice], ...]
    """Numbers and rows of those that are read."""

    def parts(self) -> Iterator[tuple[int, int, slice]]:
        """Ranges to compute, a block or a part of one whose terms are many: the block's number, its first row, rows."""
        row_bytes = 8 * sum(len(target.layers) for target in self.plan.targets)
        most = max(1, _TERMS_BYTES // row_bytes)
        for number, span in self.blocks:
            for start in range(span.start, span.stop, most):
                yield number, span.start, slice(start, min(start + most, span.stop))


@dataclass(frozen=True)
class _Range:
    """A block of rows, or a part of one, on its way through the threads."""

    work: _Pass
    rows: slice
    projections: list[NDArray[np.float64]]
    """Of each target, [rows, L]; filled layer by layer."""
    layers: list[Future[int]]
    """Bytes read of each."""

    @property
    def size_bytes(self) -> int:
        return sum(terms.nbytes for terms in self.projections)


class _Threads:
    """Threads that have a chunk each, of which no more than there are to be compute at a time.

    So the disk, or the network, is kept busy while kernels run, and memory does not depend on what is scanned.

    Parameters
    ----------
    passes
        What they are for.
    n_computing
        How many may compute.
    kernels
        The arithmetic.
    """

    def __init__(self, passes: Sequence[_Pass], n_computing: int, kernels: Kernels) -> None:
        largest_bytes = max(work.segment.chunk_bytes(work.feature) for work in passes)
        waiting = _waiting_threads(passes)
        n_threads = max(1, min(n_computing + waiting, _CHUNKS_BYTES // largest_bytes))
        self.n_ahead = n_computing * _HANDED_OUT + waiting
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="nait-score")
        self._computing = threading.BoundedSemaphore(n_computing)
        self._memory = ChunkMemory()
        self._kernels = kernels

    def begin(
        self,
        work: _Pass,
        block: int,
        first: int,
        rows: slice,
        norms: NDArray[np.float32] | None,
        scales: NDArray[np.float32] | None,
    ) -> _Range:
        """Hand out the chunks of some rows of a block, which begins with ``first``; norms and scales are [n, L]."""
        projections = work.plan.empty_terms(rows.stop - rows.start)

        def score(plan: LayerPlan) -> int:
            whole = work.segment.chunk(work.feature, plan.layer, block, keep=work.keep, memory=self._memory)
            chunk = whole[rows.start - first : rows.stop - first]  # [rows, J]
            index = work.segment.layers.index(plan.layer)
            with self._computing:
                plan.score(
                    chunk,
                    None if norms is None else norms[rows, index],
                    None if scales is None else scales[rows, index],
                    projections,
                    self._kernels,
                )
            return int(chunk.nbytes)

        return _Range(work, rows, projections, [self._pool.submit(score, plan) for plan in work.plan.layers])

    def end(self) -> None:
        """Drop what has not begun, and wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _waiting_threads(passes: Sequence[_Pass]) -> int:
    """Threads besides those that compute; none where nothing is waited for, since they would only be in the way.

    Whether the page cache has the chunks is judged by a few, from the first to the last one. Where that is wrong, no
    more than the disk's idle time while kernels run is lost.
    """
    if any(work.segment.is_remote for work in passes):
        return _REMOTE_THREADS
    read = [work for work in passes if work.blocks]
    chosen = np.linspace(0, len(read) - 1, min(len(read), _PASSES_LOOKED_AT)).astype(int)
    for work in (read[index] for index in chosen):
        for layer, (block, _) in ((work.plan.layers[0], work.blocks[0]), (work.plan.layers[-1], work.blocks[-1])):
            if not work.segment.is_in_page_cache(work.feature, layer.layer, block):
                return _WAITING_THREADS
    return 0


def _passes(pairs: Pairs, rows: Mapping[str, NDArray[np.int64]] | None) -> list[_Pass]:
    plans: dict[tuple[Any, ...], ScoringPlan] = {}
    keep = _fits_cache(pairs)
    passes = []
    for segment, targets in pairs:
        by_feature: dict[Feature, dict[ScoringTarget, ScoringTarget]] = {}
        for target in targets:
            stored = stored_target(segment.record, target)
            _check(segment, stored)
            by_feature.setdefault(stored.feature, {})[target] = stored
        for feature, group in by_feature.items():
            key = (segment.record.projections, *map(id, group))
            if key not in plans:  # segments of a set share it: it holds a copy of every direction
                plans[key] = ScoringPlan.of(list(group.values())).on_behalf_of(list(group))
            blocks = wanted_blocks(segment, feature, None if rows is None else rows.get(segment.segment_id, _NO_ROWS))
            passes.append(_Pass(segment, feature, plans[key], keep, blocks))
    return passes


def wanted_blocks(
    segment: SegmentReader, feature: Feature, rows: NDArray[np.int64] | None
) -> tuple[tuple[int, slice], ...]:
    """Numbers and row ranges of the blocks that hold any of some rows, given as ascending indices; None is all rows."""
    blocks = tuple(enumerate(segment.blocks(feature)))
    if rows is None:
        return blocks
    return tuple((number, span) for number, span in blocks if np.diff(np.searchsorted(rows, (span.start, span.stop))))


def _fits_cache(pairs: Pairs) -> bool:
    n_bytes = sum(segment.record.size_bytes for segment, _ in pairs if segment.is_remote)
    return not n_bytes or n_bytes <= _KEPT_SHARE * object_cache().limit_bytes


def _check(segment: SegmentReader, target: ScoringTarget) -> None:
    name = f"segment {segment.record.segment_id} of set {segment.record.set_name!r}"
    if target.feature not in segment.features:
        raise NotFoundError(
            f"{name} does not store the feature {target.feature.value}",
            next_step=f"it stores: {', '.join(f.value for f in segment.features)}",
        )
    absent = sorted(set(target.layers) - set(segment.layers))
    if absent:
        raise NotFoundError(
            f"{name} does not store layer {', '.join(map(str, absent))}",
            next_step=f"it stores the layers {', '.join(map(str, segment.layers))}",
        )
    if segment.record.n_neurons != target.n_neurons:
        raise IncompatibleError(
            f"directions over {target.n_neurons:,} neurons cannot meet {name}, "
            f"whose layers have {segment.record.n_neurons:,}",
            next_step="score with a profile that was built on the same model and hook point",
        )


def _scan(
    passes: Sequence[_Pass], progress: ProgressListener, n_threads: int, kernels: Kernels | None
) -> Iterator[ScoredRows]:
    total = sum(span.stop - span.start for work in passes for _, span in work.blocks)
    started = time.monotonic()
    done = bytes_done = 0
    if not passes:
        return
    threads = _Threads(passes, n_threads, kernels or kernels_on())
    try:
        for ready in _ranges(passes, threads):
            bytes_done += sum(layer.result() for layer in ready.layers)
            done += ready.rows.stop - ready.rows.start
            for target, projections in zip(ready.work.plan.targets, ready.projections, strict=True):
                yield ScoredRows(ready.work.segment, target, ready.rows, SegmentScores.of_terms(projections))
            elapsed = time.monotonic() - started
            progress(ProgressEvent("score", done, total, bytes_done=bytes_done, elapsed_seconds=elapsed))
    finally:
        threads.end()


def _ranges(passes: Iterable[_Pass], threads: _Threads) -> Iterator[_Range]:
    """Hand out ranges to the threads in order, a bounded number of chunks ahead, and yield them in that order."""
    waiting: deque[_Range] = deque()
    n_waiting = held_bytes = 0
    for work in passes:
        norms = work.segment.norms(work.feature) if work.plan.needs_norms else None  # [n, L]
        scales = work.segment.scales(work.feature)  # [n, L]
        for block, first, rows in work.parts():
            waiting.append(threads.begin(work, block, first, rows, norms, scales))
            n_waiting += len(waiting[-1].layers)
            held_bytes += waiting[-1].size_bytes
            # At least one range stays behind the one that is yielded, to keep the threads busy meanwhile.
            while len(waiting) > 1 and (
                n_waiting - len(waiting[0].layers) >= threads.n_ahead or held_bytes > _HELD_BYTES
            ):
                n_waiting -= len(waiting[0].layers)
                held_bytes -= waiting[0].size_bytes
                yield waiting.popleft()
    yield from waiting
