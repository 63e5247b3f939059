"""What differs between two versions: which samples came, went, or stand for another content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.sample_keys import find_sorted
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.schemas.activation_set import SegmentRef


class SampleChange(StrEnum):
    """What became of a sample from the first version to the second."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    """The same id with another content: it was deleted, and something else was ingested under its id."""


@dataclass(frozen=True)
class DifferingSamples:
    """Samples by their places, so that ids are read of those only that are asked for.

    Attributes
    ----------
    version
        The version that they are in.
    segments, rows
        [n] place of each among the version's ``refs``, and its row there; both ascend.
    """

    version: SetVersion
    segments: NDArray[np.int32]
    rows: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.rows)

    def ids(self) -> Iterator[str]:
        """Their ids, segment by segment, in the order of storage."""
        for segment in np.unique(self.segments):
            rows = self.rows[self.segments == segment]
            table = self.version.segment(self.version.refs[segment]).samples(["sample_id"])
            yield from table.column("sample_id").take(rows).to_pylist()


@dataclass(frozen=True)
class SampleDifference:
    """The samples in which two versions differ.

    Attributes
    ----------
    added, changed
        Places in the second version.
    removed
        Places in the first.
    n_kept
        Samples that are the same in both.
    """

    added: DifferingSamples
    removed: DifferingSamples
    changed: DifferingSamples
    n_kept: int

    def of(self, change: SampleChange) -> DifferingSamples:
        """The samples of one kind of change."""
        return {
            SampleChange.ADDED: self.added,
            SampleChange.REMOVED: self.removed,
            SampleChange.CHANGED: self.changed,
        }[change]


def compare_samples(sets: ActivationSets, first: SetVersion, second: SetVersion) -> SampleDifference:
    """Compare two versions, of one set or of two, by sample id and content.

    What both have in one segment is not looked at; of the rest 32 bytes a sample are compared.

    Parameters
    ----------
    sets
        Of the store that holds both.
    first, second
        The versions.

    Raises
    ------
    CorruptChunkError
        A segment in which they differ cannot be read.
    """
    before = _Entries.of(sets, first, _unshared(first, second))
    after = _Entries.of(sets, second, _unshared(second, first))
    at = find_sorted(before.ids, after.ids)
    found = at >= 0
    differs = found.copy()
    differs[found] = before.contents[at[found]] != after.contents[found]
    gone = np.ones(len(before.ids), dtype=bool)
    gone[at[found]] = False
    return SampleDifference(
        added=after.only(~found),
        removed=before.only(gone),
        changed=after.only(differs),
        n_kept=second.n_samples - int(np.count_nonzero(~found)) - int(np.count_nonzero(differs)),
    )


def _unshared(version: SetVersion, other: SetVersion) -> dict[int, NDArray[np.bool_]]:
    """Place of a segment → mask of the rows that ``version`` shows and ``other`` does not show in that segment."""
    others = {ref.segment_id: ref for ref in other.refs}
    found = {}
    for place, ref in enumerate(version.refs):
        shown = _mask(version, ref)
        if (same := others.get(ref.segment_id)) is not None:
            shown = shown & ~_mask(other, same)
        if shown.any():
            found[place] = shown
    return found


def _mask(version: SetVersion, ref: SegmentRef) -> NDArray[np.bool_]:
    mask = version.visible_mask(ref)
    return np.ones(ref.n_rows, dtype=bool) if mask is None else mask


@dataclass(frozen=True)
class _Entries:
    """Keys of some samples of a version, sorted by id, and where the samples are."""

    version: SetVersion
    ids: NDArray[np.bytes_]
    contents: NDArray[np.bytes_]
    segments: NDArray[np.int32]
    rows: NDArray[np.int32]

    @classmethod
    def of(cls, sets: ActivationSets, version: SetVersion, masks: dict[int, NDArray[np.bool_]]) -> _Entries:
        keys = {
            place: sets.segment_keys(version, version.refs[place]).only(None if mask.all() else mask)
            for place, mask in masks.items()
        }
        ids = _joined([own.ids for own in keys.values()], "S16")
        order = np.argsort(ids, kind="stable")
        places = [np.full(len(own), place, dtype=np.int32) for place, own in keys.items()]
        return cls(
            version,
            ids[order],
            _joined([own.contents for own in keys.values()], "S16")[order],
            _joined(places, "i4")[order],
            _joined([own.rows for own in keys.values()], "i4")[order],
        )

    def only(self, mask: NDArray[np.bool_]) -> DifferingSamples:
        segments, rows = self.segments[mask], self.rows[mask]
        order = np.lexsort((rows, segments))
        return DifferingSamples(self.version, segments[order], rows[order])


def _joined(parts: Sequence[NDArray[Any]], dtype: str) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype=dtype), *parts])
