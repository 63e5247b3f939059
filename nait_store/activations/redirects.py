"""Segments that stand for others: what a purge or a repair puts in the place of what it takes away.

A replacement has the same rows in the same places, some of them blank, so that ordinals, row ids and tombstones of
every version stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nait_store.refs import Kind
from nait_store.schemas.activation_set import Operation, RedirectRecord, SegmentRef
from nait_store.storage import layout
from nait_store.storage.location import Location


class Redirects:
    """The redirect records of one set; records are immutable, so each is read once.

    Parameters
    ----------
    location
        The store's root.
    set_name
        The set.

    Attributes
    ----------
    set_name
        As given.
    """

    def __init__(self, location: Location, set_name: str) -> None:
        self.set_name = set_name
        self._location = location
        self._folder = layout.redirects_folder(Kind.SET, set_name)
        self._records: dict[str, RedirectRecord] = {}

    @classmethod
    def of(cls, location: Location, set_name: str, records: Iterable[RedirectRecord]) -> Redirects:
        """These records, read already."""
        redirects = cls(location, set_name)
        redirects._records = {record.segment_id: record for record in records}
        return redirects

    def refresh(self) -> None:
        """Read the records that came since."""
        for name in self._location.names(self._folder):
            segment_id = name.removesuffix(".json")
            if segment_id not in self._records:
                self._records[segment_id] = self._read(segment_id)

    def add(self, record: RedirectRecord) -> None:
        """Put a replacement in its place, in all versions at once.

        Raises
        ------
        AlreadyExistsError
            Another replacement is in its place.
        """
        self._location.create_bytes(f"{self._folder}/{record.segment_id}.json", record.to_json_bytes())
        self._records[record.segment_id] = record

    @property
    def records(self) -> tuple[RedirectRecord, ...]:
        """All of them, by ascending id of the segment that is gone."""
        return tuple(self._records[segment_id] for segment_id in sorted(self._records))

    def follow(self, ref: SegmentRef) -> SegmentRef:
        """The segment that stands for this one now: itself, or the end of a chain of replacements."""
        last = self._last(ref.segment_id)
        if last is None:
            return ref
        return ref.model_copy(update={"segment_id": last.replacement, "record_sha256": last.record_sha256})

    def blank_rows(self, segment_id: str) -> NDArray[np.int64] | None:
        """Ascending rows that are blank in what stands for this segment, or in itself if it is a replacement."""
        last = self._last(segment_id)
        if last is None:
            last = next((record for record in self._records.values() if record.replacement == segment_id), None)
        return None if last is None else np.array(last.blank_rows, dtype=np.int64)

    def purged_rows(self, segment_id: str) -> frozenset[int]:
        """Rows of a segment that purges have blanked, in it or in what stands for it; damaged rows are none."""
        purged: set[int] = set()
        known: frozenset[int] = frozenset()
        while (record := self._records.get(segment_id)) is not None:
            if record.operation is Operation.PURGE:
                purged |= set(record.blank_rows) - known
            known = frozenset(record.blank_rows)
            segment_id = record.replacement
        return frozenset(purged)

    def follow_all(self, refs: Iterable[SegmentRef]) -> tuple[SegmentRef, ...]:
        """:meth:`follow` each."""
        return tuple(self.follow(ref) for ref in refs) if self._records else tuple(refs)

    def _last(self, segment_id: str) -> RedirectRecord | None:
        last = None
        while (record := self._records.get(segment_id)) is not None:
            last, segment_id = record, record.replacement
        return last

    def _read(self, segment_id: str) -> RedirectRecord:
        path = f"{self._folder}/{segment_id}.json"
        return RedirectRecord.from_json_bytes(self._location.read_bytes(path), self._location.url_of(path))
