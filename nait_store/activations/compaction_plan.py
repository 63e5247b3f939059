"""What a compaction would do: which segments of a version are merged into which new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nait_store.activations.assembly import TakenRows
from nait_store.activations.reader import SegmentReader
from nait_store.activations.set_version import SetVersion
from nait_store.errors import InvalidInputError
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.storage.location import Location

DEFAULT_TARGET_BYTES = 1_000_000_000
MANY_TOMBSTONES = 0.2
"""Share of hidden rows from which on a segment of any size is written again."""


@dataclass(frozen=True)
class Merge:
    """Segments that become one, or none where all their rows are hidden.

    Attributes
    ----------
    sources
        By ascending ordinal; rows are the visible ones.
    """

    sources: tuple[TakenRows, ...]

    @property
    def n_rows(self) -> int:
        """Rows of the new segment."""
        return sum(len(source.rows) for source in self.sources)

    @property
    def n_dropped(self) -> int:
        """Hidden rows that are left behind."""
        return sum(source.reader.n_rows for source in self.sources) - self.n_rows

    @property
    def size_bytes(self) -> int:
        """About the bytes of the new segment."""
        return sum(map(_live_bytes, self.sources))


@dataclass
class _Open:
    sources: list[TakenRows] = field(default_factory=list)
    size_bytes: int = 0


def plan_compaction(location: Location, version: SetVersion, target_bytes: int) -> list[Merge]:
    """Choose what to merge.

    Segments smaller than half the target are gathered, in the order of their ordinals, with others that agree in
    features, layers, stored types and settings, until the target is reached; so are segments with more than a fifth
    of their rows hidden, whatever their size. A single small segment without hidden rows stays as it is.

    Parameters
    ----------
    location, version
        What to compact.
    target_bytes
        Of a new segment.

    Returns
    -------
    list of Merge
        Sources verify what is read of them.
    """
    if target_bytes < 1:
        raise InvalidInputError(f"a target size of {target_bytes} bytes", next_step="give --target-size 1GB, or more")
    groups: dict[str, _Open] = {}
    merges = []
    for source in taken_rows(location, version):
        size_bytes = _live_bytes(source)
        if not _is_worn(source) and 2 * size_bytes >= target_bytes:
            continue
        group = groups.setdefault(_kind(source.reader.record), _Open())
        if group.sources and group.size_bytes + size_bytes > target_bytes:
            merges.append(Merge(tuple(group.sources)))
            group.sources, group.size_bytes = [], 0
        group.sources.append(source)
        group.size_bytes += size_bytes
    merges += [Merge(tuple(group.sources)) for group in groups.values()]
    return [merge for merge in merges if _gains(merge.sources)]


def taken_rows(location: Location, version: SetVersion) -> Iterator[TakenRows]:
    """Yield the visible rows of every segment of a version, to be read with verification."""
    for segment in version.segments:
        visible = version.visible_rows(segment)
        rows = np.arange(segment.n_rows) if visible is None else np.flatnonzero(visible)
        reader = SegmentReader(location, segment.record, segment.ref, verify=True)
        yield TakenRows(reader, rows.astype(np.int64))


def _gains(sources: Sequence[TakenRows]) -> bool:
    return len(sources) > 1 or any(map(_is_worn, sources))


def _is_worn(source: TakenRows) -> bool:
    return len(source.rows) < (1 - MANY_TOMBSTONES) * source.reader.n_rows


def _live_bytes(source: TakenRows) -> int:
    return source.reader.record.size_bytes * len(source.rows) // source.reader.n_rows


def _kind(record: SegmentRecord) -> str:
    """What segments must have in common to become one."""
    arrays = [(array.feature.value, array.dtype.value) for array in record.arrays]
    return repr((sorted(arrays), record.layers, record.n_neurons, record.capture_id, record.settings.digest()))
