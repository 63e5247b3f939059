"""Columns of scores and sample ids: from memory, else from sidecars and segments, else computed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.activations.versions import SetVersion
from nait_store.errors import StorageError
from nait_store.progress import ProgressListener
from nait_store.scoring.completion import ensure_scores, read_scores
from nait_store.scoring.row_scores import score_rows
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location

T = TypeVar("T")

DEFAULT_MEMORY_BYTES = 1 << 30
"""Ten million samples take 80 MB for each profile and 360 MB for ids of 32 characters."""


class StoredScores:
    """Scores of whole segments, kept in memory up to a limit; all of it is immutable. Thread-safe.

    Parameters
    ----------
    location
        The store's root.
    progress
        Told about scans.
    memory_bytes
        How much to keep in memory for the next query. Ids make room for scores, which are read more often.
    """

    def __init__(
        self, location: Location, progress: ProgressListener, memory_bytes: int = DEFAULT_MEMORY_BYTES
    ) -> None:
        self._location = location
        self._progress = progress
        self._sidecars = ScoreSidecars(location)
        self._memory_bytes = memory_bytes
        self._columns: OrderedDict[tuple[str, str], pa.Array] = OrderedDict()
        self._held_bytes = 0
        self._warnings: list[str] = []
        self._lock = threading.RLock()

    def take_warnings(self) -> list[str]:
        """What went wrong without harm since the last call: scores that could not be kept."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def is_stored(self, version: SetVersion, target: ScoringTarget) -> bool:
        """Whether every segment of the version has its scores already."""
        return not self.missing(version, target)

    def compute(self, pairs: Sequence[tuple[SetVersion, ScoringTarget]]) -> None:
        """Compute and keep what is missing, with one pass over each set's arrays for all its targets.

        A store that cannot be written gets its answer all the same; the scores then live as long as this object.
        """
        with self._lock:
            by_set: dict[str, tuple[SetVersion, list[ScoringTarget]]] = {}
            for version, target in pairs:
                by_set.setdefault(version.reference, (version, []))[1].append(target)
            for version, targets in by_set.values():
                self._keeping(version, partial(self._complete, version, targets))

    def _complete(self, version: SetVersion, targets: Sequence[ScoringTarget], kept: ScoreSidecars) -> None:
        ensure_scores(self._location, version, targets, self._progress, sidecars=kept)

    def of_rows(
        self, version: SetVersion, targets: Sequence[ScoringTarget], rows: Mapping[int, NDArray[np.int64]]
    ) -> dict[int, NDArray[np.float64]]:
        """Scores of some rows of a set version; see :func:`~nait_store.scoring.row_scores.score_rows`."""
        with self._lock:
            return self._keeping(
                version, lambda kept: score_rows(kept, version.segments, targets, rows, self._progress)
            )

    def _keeping(self, version: SetVersion, run: Callable[[ScoreSidecars], T]) -> T:
        """Run what computes scores and keeps them; a full disk must not cost the answer."""
        try:
            return run(self._sidecars)
        except StorageError as error:
            # From here on, what is computed stays in memory.
            self._warnings.append(f"the scores of {version.reference} could not be kept: {error.what}")
            frozen = self._location.read_only("scores could not be written earlier", "free some disk space")
            self._sidecars = ScoreSidecars(frozen)
            return run(self._sidecars)

    def key(self, segment: SegmentReader, target: ScoringTarget) -> str:
        """Name of the sidecar with the scores of a segment under a target."""
        return self._sidecars.key(segment, target).key

    def scores(self, segment: SegmentReader, target: ScoringTarget) -> pa.Array:
        """Scores of a segment's rows, [n] float64; computed if they vanished since :meth:`compute`."""
        key = self.key(segment, target)
        with self._lock:
            return self._column(
                ("score", key), lambda: _whole(read_scores(self._sidecars, segment, target, ["score"]).column("score"))
            )

    def projections(self, segment: SegmentReader, target: ScoringTarget) -> NDArray[np.float32]:
        """The terms of the scores of a segment's rows, [n, L] in the order of the target's layers; not remembered."""
        with self._lock:
            lists = _whole(read_scores(self._sidecars, segment, target, ["projections"]).column("projections"))
        values: NDArray[np.float32] = lists.flatten().to_numpy(zero_copy_only=False)
        return values.reshape(segment.n_rows, len(target.layers))

    def missing(self, version: SetVersion, target: ScoringTarget) -> list[SegmentReader]:
        """Segments of the version whose scores are not kept."""
        with self._lock:
            there = self._sidecars.existing([(segment, target) for segment in version.segments])
        return [segment for segment, known in zip(version.segments, there, strict=True) if not known]

    def sample_ids(self, segment: SegmentReader) -> pa.Array:
        """Sample ids of a segment's rows, [n] string."""
        with self._lock:
            return self._column(
                ("sample_id", segment.record_sha256), lambda: _whole(segment.samples(["sample_id"]).column("sample_id"))
            )

    def _column(self, key: tuple[str, str], read: Callable[[], pa.Array]) -> pa.Array:
        known = self._columns.get(key)
        if known is not None:
            self._columns.move_to_end(key)
            return known
        column = read()
        self._columns[key] = column
        self._held_bytes += column.nbytes
        while self._held_bytes > self._memory_bytes and len(self._columns) > 1:
            oldest = next(iter(self._columns))
            ids = next((kept for kept in self._columns if kept[0] == "sample_id"), oldest)
            self._held_bytes -= self._columns.pop(ids).nbytes
        return column


def _whole(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)
