"""Scores of a set version, computed where they are missing: one pass over the arrays for all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from nait_store.activations.reader import SegmentReader
from nait_store.activations.set_version import SetVersion
from nait_store.errors import CorruptChunkError, NotFoundError
from nait_store.progress import ProgressEvent, ProgressListener, ignore_progress
from nait_store.scoring.kernels import Kernels
from nait_store.scoring.memory_sidecars import MemorySidecars, MemoryWriter
from nait_store.scoring.scan import Pairs, scan
from nait_store.scoring.sidecar_files import SidecarWriter
from nait_store.scoring.sidecars import SCORE_COLUMNS, RecordedSegment, ScoreSidecars, check_columns
from nait_store.scoring.targets import ScoringTarget, distinct_targets
from nait_store.storage.location import Location

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=RecordedSegment)

_TARGETS_AT_ONCE = 64  # more would hold that many files open and gain nothing: such a pass is bound by arithmetic


@dataclass(frozen=True)
class ScoreWork:
    """What :func:`ensure_scores` did.

    Attributes
    ----------
    n_computed, n_cached
        (segment, target) pairs that were scanned, and that had their scores already.
    bytes_read
        Of activations.
    elapsed_seconds
        In all.
    """

    n_computed: int
    n_cached: int
    bytes_read: int
    elapsed_seconds: float


def ensure_scores(
    location: Location,
    version: SetVersion,
    targets: Sequence[ScoringTarget],
    progress: ProgressListener = ignore_progress,
    *,
    sidecars: ScoreSidecars | None = None,
    kernels: Kernels | None = None,
) -> ScoreWork:
    """Compute the scores that are missing, in one pass over the arrays for all of them.

    Interrupted, it leaves the sidecars of the segments that were finished and nothing else.

    Parameters
    ----------
    location
        The store's root.
    version
        The set version whose segments to score; rows it leaves out are scored all the same.
    targets
        Equal ones are computed once.
    progress
        Told rows and bytes.
    sidecars
        Where the scores are to be read from afterwards; needed on a store that cannot be written.
    kernels
        As for :func:`nait_store.scoring.scan.scan`.

    Returns
    -------
    ScoreWork
        What was done.

    Raises
    ------
    NotFoundError
        A segment lacks a target's feature or layer; nothing was computed.
    IncompatibleError
        A target's vectors are of another width than the set's.
    ReadOnlyError
        The store cannot be written, there is something to compute, and ``sidecars`` was not given.
    StorageError
        A sidecar could not be written.
    """
    started = time.monotonic()
    kept = sidecars if sidecars is not None else ScoreSidecars(location, in_memory=False)
    pairs = missing_scores(kept, version.segments, targets)
    n_missing = sum(len(wanted) for _, wanted in pairs)
    n_all = len(version.refs) * len(distinct_targets(targets))
    bytes_read = 0

    def listen(event: ProgressEvent) -> None:
        nonlocal bytes_read
        bytes_read = event.bytes_done
        progress(event)

    compute_scores(kept, pairs, listen, kernels=kernels)
    return ScoreWork(n_missing, n_all - n_missing, bytes_read, time.monotonic() - started)


def read_scores(
    sidecars: ScoreSidecars,
    segment: SegmentReader,
    target: ScoringTarget,
    columns: Sequence[str] = SCORE_COLUMNS,
) -> pa.Table:
    """As :meth:`ScoreSidecars.read`, computing scores that are missing or damaged on the way.

    So a sidecar may be deleted at any moment, also between a query's first look at it and its reading.
    """
    check_columns(columns)
    if sidecars.exists(segment, target):
        try:
            return sidecars.read(segment, target, columns)
        except NotFoundError as error:  # deleted by somebody; in memory, dropped
            logger.info("computing scores again: %s", error)
        except CorruptChunkError as error:
            logger.warning("computing scores again: %s", error)
    # Kept, and yet not read from there: whoever deleted it may do so again in this moment.
    here, key = MemorySidecars(), sidecars.key(segment, target).key
    copy = here.open_writer(key, segment.n_rows, len(target.layers))
    with sidecars.writing(segment, target) as writer:
        for found in scan([(segment, [target])]):
            writer.append(found.scores)
            copy.append(found.scores)
    copy.close()
    return here.read(key, columns)


def missing_scores(
    sidecars: ScoreSidecars, segments: Sequence[S], targets: Sequence[ScoringTarget]
) -> list[tuple[S, list[ScoringTarget]]]:
    """Find out which scores are not kept.

    Parameters
    ----------
    sidecars
        Where they would be.
    segments
        Readers, or how a manifest names segments: no more than their records' digests is asked for.
    targets
        Equal ones count once.

    Returns
    -------
    list of (segment, targets)
        A segment comes once for every 64 targets, and not at all where it has all its scores.
    """
    distinct = distinct_targets(targets)
    pairs = []
    for first in range(0, len(distinct), _TARGETS_AT_ONCE):
        group = distinct[first : first + _TARGETS_AT_ONCE]
        there = iter(sidecars.existing([(segment, target) for segment in segments for target in group]))
        for segment in segments:
            wanted = [target for target in group if not next(there)]
            if wanted:
                pairs.append((segment, wanted))
    return pairs


def compute_scores(
    sidecars: ScoreSidecars,
    pairs: Pairs,
    progress: ProgressListener,
    *,
    n_threads: int | None = None,
    kernels: Kernels | None = None,
) -> None:
    """Scan segments and keep the scores, segment by segment.

    Parameters
    ----------
    sidecars
        Where they are kept.
    pairs, progress, n_threads, kernels
        As for :func:`nait_store.scoring.scan.scan`.
    """
    writers: dict[int, SidecarWriter | MemoryWriter] = {}
    try:
        for found in scan(pairs, progress, n_threads=n_threads, kernels=kernels):
            key = id(found.target)
            if key not in writers:
                writers[key] = sidecars.open_writer(found.segment, found.target)
            writers[key].append(found.scores)
            if found.ends_segment:
                writers[key].close()
                del writers[key]
    finally:
        for writer in writers.values():
            writer.discard()
