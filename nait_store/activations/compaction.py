"""Compaction: many small segments of a set become few, without the rows that are hidden.

What a sample stores is copied bit by bit, and so are its scores. The result is a new version; old ones keep reading
the old segments until gc takes both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from nait_store.activations.assembly import SegmentAssembly
from nait_store.activations.compaction_plan import DEFAULT_TARGET_BYTES, Merge, plan_compaction
from nait_store.activations.rewriting import RewritePlan, Rewriting
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.refs import Kind, Reference, check_name
from nait_store.schemas.activation_set import Operation
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
        work = Rewriting(sets, version, _plan(sets, version, merges), progress)
        committed = work.run(message)
        return _report(version, committed, merges, work.n_bytes, work.n_scores, started)


def _plan(sets: ActivationSets, version: SetVersion, merges: Sequence[Merge]) -> RewritePlan:
    hook_point = version.record.identity.hook_point
    return RewritePlan(
        operation=Operation.COMPACT,
        command=f"nait-store sets compact {version.name}",
        merges=merges,
        size_bytes=sum(merge.size_bytes for merge in merges),
        assemble=lambda merge: SegmentAssembly(sets.location, version.name, hook_point, merge.sources),
        same_numbers=True,
        details={},
    )


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


__all__ = ["DEFAULT_TARGET_BYTES", "CompactionReport", "compact"]
