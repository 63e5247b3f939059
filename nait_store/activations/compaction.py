"""Compaction: many small segments of a set become few, without the rows that are hidden.

What a sample stores is copied bit by bit, and so are its scores. The result is a new version; old ones keep reading
the old segments until gc takes both.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.assembly import SegmentAssembly
from nait_store.activations.changes import Change, Contents
from nait_store.activations.compaction_plan import DEFAULT_TARGET_BYTES, Merge, plan_compaction
from nait_store.activations.reader import read_segment_record
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.errors import ConflictError, NaitStoreError, StorageError
from nait_store.progress import ProgressEvent, ProgressListener, ignore_progress
from nait_store.refs import Kind, Reference, check_name
from nait_store.schemas.activation_set import Operation, SegmentRecord, SegmentRef
from nait_store.schemas.scores import SidecarRecord
from nait_store.scoring.carrying import CarriedRows, carry_over, sidecar_records
from nait_store.scoring.sidecar_files import delete_sidecar
from nait_store.storage import layout
from nait_store.storage.heartbeat import sole_job
from nait_store.storage.provenance import new_ulid


@dataclass(frozen=True)
class CompactionReport:
    """What a compaction did, or would do.

    Attributes
    ----------
    source
        The version that it began with, ``pool@7``.
    reference
        The version that holds the result; None where there was nothing to do, or nothing was to be done.
    n_segments_before, n_segments_after
        Of the version.
    n_merged, n_written
        Segments that are replaced, and that replace them.
    n_dropped_rows
        Hidden rows that were left behind.
    n_bytes
        Of the new segments; an estimate where nothing was written.
    n_scores
        Score sidecars carried over.
    elapsed_seconds
        In all.
    """

    source: str
    reference: str | None
    n_segments_before: int
    n_segments_after: int
    n_merged: int
    n_written: int
    n_dropped_rows: int
    n_bytes: int
    n_scores: int
    elapsed_seconds: float


def compact(
    sets: ActivationSets,
    name: str,
    *,
    target_bytes: int = DEFAULT_TARGET_BYTES,
    dry_run: bool = False,
    message: str = "",
    progress: ProgressListener = ignore_progress,
) -> CompactionReport:
    """Merge the small segments of a set's latest version, and write again those with many hidden rows.

    Parameters
    ----------
    sets
        The store's sets.
    name
        Which one.
    target_bytes
        Size of a new segment. Segments of at least half of that are left alone.
    dry_run
        Only say what would be done.
    message
        For the history.
    progress
        Told rows and bytes written.

    Raises
    ------
    NotFoundError
        There is no such set.
    CorruptChunkError
        Something that was to be copied is damaged; nothing was changed.
    ConflictError
        A segment was purged, repaired or compacted meanwhile, or samples came back; or another such job is at work.
    StorageError
        There is not enough room, or writing failed; nothing was changed.
    """
    started = time.monotonic()
    reference = Reference(Kind.SET, check_name(name, Kind.SET))
    if dry_run:
        version = sets.open(reference)
        merges = plan_compaction(sets.location, version, target_bytes)
        return _report(version, None, merges, sum(merge.size_bytes for merge in merges), 0, started)
    sets.location.require_writable()
    sets.open(reference)  # an unknown name is told before anything is written
    with sole_job(sets.location, layout.job_folder(name), new_ulid(), f"set {name!r}"):
        version = sets.open(reference)
        merges = plan_compaction(sets.location, version, target_bytes)
        if not merges:
            return _report(version, None, merges, 0, 0, started)
        work = _Compaction(sets, version, merges, progress)
        try:
            work.write()
        except BaseException:
            work.discard()
            raise
        committed = work.commit(message)
        return _report(version, committed, merges, work.n_bytes, work.n_scores, started)


def _report(
    version: SetVersion,
    committed: SetVersion | None,
    merges: Sequence[Merge],
    n_bytes: int,
    n_scores: int,
    began: float,
) -> CompactionReport:
    n_merged = sum(len(merge.sources) for merge in merges)
    n_written = sum(merge.n_rows > 0 for merge in merges)
    return CompactionReport(
        source=version.reference,
        reference=committed.reference if committed is not None else None,
        n_segments_before=len(version.refs),
        n_segments_after=len(version.refs) - n_merged + n_written,
        n_merged=n_merged,
        n_written=n_written,
        n_dropped_rows=sum(merge.n_dropped for merge in merges),
        n_bytes=n_bytes,
        n_scores=n_scores,
        elapsed_seconds=time.monotonic() - began,
    )


class _Compaction:
    """New segments being written, and the change that puts them in the place of the old ones."""

    def __init__(
        self, sets: ActivationSets, version: SetVersion, merges: Sequence[Merge], progress: ProgressListener
    ) -> None:
        self.n_bytes = 0
        self._sets = sets
        self._location = sets.location
        self._version = version
        self._merges = merges
        self._progress = progress
        self._assemblies: list[SegmentAssembly] = []
        self._records: list[SegmentRecord | None] = []
        self._sidecars: list[SidecarRecord] = []

    @property
    def n_scores(self) -> int:
        """Sidecars written."""
        return len(self._sidecars)

    def write(self) -> None:
        """Write the new segments and their scores; nothing refers to them yet."""
        wanted = {source.reader.record_sha256 for merge in self._merges for source in merge.sources}
        known = [record for record in sidecar_records(self._location) if record.segment_sha256 in wanted]
        self._require_room(known)
        written = self._listener()
        hook_point = self._version.record.identity.hook_point
        for merge in self._merges:
            if not merge.n_rows:
                self._records.append(None)
                continue
            assembly = SegmentAssembly(self._location, self._version.name, hook_point, merge.sources)
            self._assemblies.append(assembly)
            record = assembly.write(written)
            self._records.append(record)
            self.n_bytes += record.size_bytes
            carried = [
                CarriedRows(source.reader.record_sha256, source.rows) for source in merge.sources if len(source.rows)
            ]
            self._sidecars += carry_over(self._location, carried, record, known)

    def commit(self, message: str) -> SetVersion:
        """Put the new segments in the place of the old ones, on top of whatever happened meanwhile."""

        def propose(current: SetVersion | None, next_ordinal: int) -> Change:
            return self._change(current, next_ordinal, message)

        try:
            version = self._sets.advance(self._version.name, propose)
        except ConflictError:
            self.discard()
            raise
        except BaseException:
            self._discard_unless_committed()
            raise
        assert version is not None
        return version

    def discard(self) -> None:
        """Delete what was written, as far as that is possible; gc finds the rest."""
        with contextlib.suppress(NaitStoreError):
            for sidecar in self._sidecars:
                delete_sidecar(self._location, sidecar.key)
        for assembly in self._assemblies:
            with contextlib.suppress(NaitStoreError):
                assembly.discard()

    def _discard_unless_committed(self) -> None:
        # Over a network a commit may still arrive after its error did: then only gc, much later, can tell.
        if not self._location.is_local:
            return
        name, ours = self._version.name, {assembly.segment_id for assembly in self._assemblies}
        try:
            later = [n for n in self._sets.log.listing(name).documents if n > self._version.number]
            found = {ref.segment_id for n in later for ref in self._sets.manifest(name, n).segments}
        except NaitStoreError:
            return
        if not ours & found:
            self.discard()

    def _change(self, current: SetVersion | None, next_ordinal: int, message: str) -> Change:
        refs = {ref.ordinal: ref for ref in current.refs} if current is not None else {}
        hidden = dict(current.tombstones()) if current is not None else {}
        added: list[SegmentRef] = []
        for merge, record in zip(self._merges, self._records, strict=True):
            gone: list[NDArray[np.int64]] = []  # rows of the new segment that were hidden since
            start = 0
            for source in merge.sources:
                ref = source.reader.ref
                assert ref is not None
                if current is None or refs.pop(ref.ordinal, None) != ref:
                    raise self._superseded(ref)
                rows = self._hidden_since(current, ref, source.rows)
                hidden.pop(ref.ordinal, None)
                gone.append(start + rows)
                start += len(source.rows)
            if record is None:
                continue
            ordinal = next_ordinal + len(added)
            added.append(
                SegmentRef(
                    segment_id=record.segment_id, ordinal=ordinal, n_rows=record.n_rows, record_sha256=record.digest()
                )
            )
            if any(map(len, gone)):
                hidden[ordinal] = np.concatenate(gone)
        assert current is not None
        everything = (*(refs[ordinal] for ordinal in sorted(refs)), *added)
        return Change(
            operation=Operation.COMPACT,
            contents=self._contents(current, everything),
            message=message,
            details={
                "segments": sum(len(merge.sources) for merge in self._merges),
                "into": len(added),
                "dropped_rows": sum(merge.n_dropped for merge in self._merges),
            },
            refs=everything,
            tombstones={ordinal: hidden[ordinal] for ordinal in sorted(hidden)},
        )

    def _hidden_since(self, current: SetVersion, ref: SegmentRef, taken: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the rows that were taken, by position, the current version hides."""
        visible = current.visible_mask(ref)
        mask = np.ones(ref.n_rows, dtype=bool) if visible is None else visible
        still = mask[taken]
        if np.count_nonzero(still) != np.count_nonzero(mask):
            raise ConflictError(
                f"samples that had been deleted from set {self._version.name!r} came back while it was compacted",
                next_step=f"run 'nait-store sets compact {self._version.name}' again",
            )
        return np.flatnonzero(~still).astype(np.int64)

    def _contents(self, current: SetVersion, refs: Sequence[SegmentRef]) -> Contents:
        if not refs:
            return Contents(current.features, current.layers)
        known = {record.segment_id: record for record in self._records if record is not None}
        known.update({segment.segment_id: segment.record for segment in self._version.segments})
        records = [
            known.get(ref.segment_id) or read_segment_record(self._location, self._version.name, ref) for ref in refs
        ]
        return Contents.of(records)

    def _superseded(self, ref: SegmentRef) -> ConflictError:
        name = self._version.name
        return ConflictError(
            f"segment {ref.segment_id} is no longer part of set {name!r}: the set was purged, repaired, compacted or "
            "restored meanwhile",
            next_step=f"run 'nait-store sets compact {name}' again",
        )

    def _require_room(self, sidecars: Sequence[SidecarRecord]) -> None:
        free_bytes = self._location.free_bytes()
        needed_bytes = sum(merge.size_bytes for merge in self._merges) + sum(record.size_bytes for record in sidecars)
        if free_bytes is not None and needed_bytes > free_bytes:
            raise StorageError(
                f"the new segments of set {self._version.name!r} take about {needed_bytes / 1e9:,.1f} GB, and "
                f"{self._location.url} has {free_bytes / 1e9:,.1f} GB free",
                next_step="free some space: the old segments can go only when no version needs them ('nait-store gc')",
            )

    def _listener(self) -> Callable[[int], None]:
        began = time.monotonic()
        total_bytes = sum(merge.size_bytes for merge in self._merges)
        n_rows = sum(merge.n_rows for merge in self._merges)
        done_bytes = 0

        def written(n_bytes: int) -> None:
            nonlocal done_bytes
            done_bytes += n_bytes
            done = min(n_rows, n_rows * done_bytes // max(1, total_bytes))
            self._progress(
                ProgressEvent(
                    "compact",
                    done,
                    n_rows,
                    bytes_done=done_bytes,
                    bytes_total=total_bytes,
                    elapsed_seconds=time.monotonic() - began,
                )
            )

        return written


__all__ = ["DEFAULT_TARGET_BYTES", "CompactionReport", "compact"]
