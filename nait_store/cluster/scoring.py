"""Scores of a set version, computed by the tasks of a cluster: a task takes a few segments and writes their sidecars.

Sidecars are written once and whole, and whoever finds one there leaves it: so a task whose process died is simply run
again, and what it had finished is not computed twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nait_store.activations.reader import SegmentReader, read_segment_record
from nait_store.activations.set_version import SetVersion
from nait_store.cluster.ray_cluster import ProcessDiedError, RayCluster
from nait_store.cluster.shared_store import SHARE_IT, SharedStore
from nait_store.errors import StorageError
from nait_store.progress import ProgressEvent, ProgressListener, ignore_progress
from nait_store.schemas.activation_set import SegmentRef
from nait_store.scoring.completion import ScoreWork, compute_scores, missing_scores
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.scoring.targets import ScoringTarget, distinct_targets
from nait_store.storage.location import Location

_SMALLEST_GROUP_BYTES, _LARGEST_GROUP_BYTES = 64 << 20, 4 << 30
_GROUPS_PER_CPU = 4  # so that machines of different speed end together
_RETRIES = 4
_TICK_SECONDS = 0.5
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class SegmentGroup:
    """What one task scores.

    Attributes
    ----------
    set_name
        Of the segments.
    segments
        Each with the positions of its targets.
    size_bytes
        To be read, about.
    """

    set_name: str
    segments: tuple[tuple[SegmentRef, tuple[int, ...]], ...]
    size_bytes: int


@dataclass(frozen=True)
class GroupWork:
    """What one task did.

    Attributes
    ----------
    n_rows
        Rows scanned; one counts once per feature.
    bytes_read
        Of activations.
    """

    n_rows: int
    bytes_read: int


def ensure_scores_on(
    cluster: RayCluster,
    location: Location,
    version: SetVersion,
    targets: Sequence[ScoringTarget],
    progress: ProgressListener = ignore_progress,
    *,
    watch: ProgressListener = ignore_progress,
) -> ScoreWork:
    """As :func:`nait_store.scoring.completion.ensure_scores`, on the machines of a cluster.

    Parameters
    ----------
    cluster
        Whose tasks; each takes one CPU.
    location, version, targets
        As there; the store must be one that every machine reaches.
    progress
        Told rows and bytes after each task.
    watch
        Told the same within each task, in its process; it must be picklable.

    Raises
    ------
    InvalidInputError
        The workers cannot reach the store.
    StorageError
        A task's process died five times.
    NaitStoreError
        What a task raised; the sidecars of segments that were finished by then are kept.
    """
    location.require_writable()
    started = time.monotonic()
    shared = SharedStore.of(location)
    distinct = distinct_targets(targets)
    sidecars = ScoreSidecars(location, in_memory=False)
    pairs = missing_scores(sidecars, version.refs, distinct)
    n_missing = sum(len(wanted) for _, wanted in pairs)
    n_all = len(version.refs) * len(distinct)
    n_cpus = max(1, int(sum(machine.n_cpus for machine in cluster.machines)))
    groups = _groups(version, pairs, distinct, n_cpus)
    total_rows = sum(ref.n_rows * len({target.feature for target in wanted}) for ref, wanted in pairs)
    n_rows = bytes_read = 0
    for work in _run(cluster, shared, groups, distinct, watch, n_at_once=2 * n_cpus):
        n_rows += work.n_rows
        bytes_read += work.bytes_read
        elapsed = time.monotonic() - started
        progress(ProgressEvent("score", min(n_rows, total_rows), total_rows, 0, bytes_read, None, elapsed))
    if missing_scores(ScoreSidecars(location, in_memory=False), version.refs, distinct):
        raise StorageError(
            f"scores that the cluster computed are not to be seen at {location.url}",
            next_step=SHARE_IT,
        )
    return ScoreWork(n_missing, n_all - n_missing, bytes_read, time.monotonic() - started)


def score_group(
    shared: SharedStore, group: SegmentGroup, targets: Sequence[ScoringTarget], watch: ProgressListener
) -> GroupWork:
    """Compute the scores of some segments that are not kept yet; runs in a task."""
    location = shared.open()
    sidecars = ScoreSidecars(location, in_memory=False)
    pairs = []
    for ref, positions in group.segments:
        # a task that is run again finds what it had finished
        for _, missing in missing_scores(sidecars, [ref], [targets[i] for i in positions]):
            reader = SegmentReader(location, read_segment_record(location, group.set_name, ref), ref)
            pairs.append((reader, missing))
    last = ProgressEvent("score", 0)

    def listen(event: ProgressEvent) -> None:
        nonlocal last
        last = event
        watch(event)

    # one CPU is what the task was given; over a network one thread would only wait
    n_threads = None if location.is_remote else 1
    compute_scores(sidecars, pairs, listen, n_threads=n_threads)
    return GroupWork(last.done, last.bytes_done)


def _groups(
    version: SetVersion,
    pairs: Sequence[tuple[SegmentRef, Sequence[ScoringTarget]]],
    targets: Sequence[ScoringTarget],
    n_cpus: int,
) -> list[SegmentGroup]:
    position = {id(target): i for i, target in enumerate(targets)}
    width_bytes = 2 * version.record.n_neurons

    def size_bytes(ref: SegmentRef, wanted: Sequence[ScoringTarget]) -> int:
        layers = {(target.feature, layer) for target in wanted for layer in target.layers}
        return ref.n_rows * len(layers) * width_bytes

    sized = [(ref, tuple(position[id(target)] for target in wanted), size_bytes(ref, wanted)) for ref, wanted in pairs]
    share = sum(size for _, _, size in sized) // (_GROUPS_PER_CPU * n_cpus)
    limit = min(max(share, _SMALLEST_GROUP_BYTES), _LARGEST_GROUP_BYTES)
    groups: list[SegmentGroup] = []
    segments: list[tuple[SegmentRef, tuple[int, ...]]] = []
    n_bytes = 0
    for ref, positions, size in sized:
        if segments and n_bytes + size > limit:
            groups.append(SegmentGroup(version.name, tuple(segments), n_bytes))
            segments, n_bytes = [], 0
        segments.append((ref, positions))
        n_bytes += size
    if segments:
        groups.append(SegmentGroup(version.name, tuple(segments), n_bytes))
    return groups


def _run(
    cluster: RayCluster,
    shared: SharedStore,
    groups: Sequence[SegmentGroup],
    targets: Sequence[ScoringTarget],
    watch: ProgressListener,
    *,
    n_at_once: int,
) -> Iterator[GroupWork]:
    """Run the tasks, a bounded number at once, and yield their results as they come."""
    if not groups:
        return
    ray = cluster.ray
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(score_group)
    sent = ray.put(list(targets))
    waiting = deque(groups)
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < n_at_once:
                running.append(task.remote(shared, waiting.popleft(), sent, watch))
            done, running = ray.wait(running, num_returns=1, timeout=_TICK_SECONDS)
            for reference in done:
                try:
                    yield cluster.result(reference)
                except ProcessDiedError as error:
                    raise StorageError(
                        f"processes of the cluster died {_RETRIES + 1} times while they scored: {error.what}",
                        next_step="see the cluster's logs, most often memory ran out, and run the command again: "
                        "it goes on from there",
                    ) from error
    finally:
        for reference in running:
            ray.cancel(reference)
        if running:  # they put away what they had begun
            ray.wait(running, num_returns=len(running), timeout=_PATIENCE_SECONDS)
