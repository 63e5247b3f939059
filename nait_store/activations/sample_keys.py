"""Which samples segments hold: 32 bytes a sample instead of ids and hashes as text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader

_KEY = np.dtype("S16")
_BATCH_ROWS = 65_536


def sample_key(sample_id: str) -> bytes:
    """128-bit key of a sample id; two ids share one with negligible probability."""
    return hashlib.blake2b(sample_id.encode("utf-8"), digest_size=16).digest()


def content_key(content_hash: str) -> bytes:
    """First 128 bits of a content hash."""
    return bytes.fromhex(content_hash[:32])


def keys_of(sample_ids: Iterable[str]) -> NDArray[np.bytes_]:
    """Keys of sample ids as an array, 16 bytes each."""
    return np.array([sample_key(i) for i in sample_ids], dtype=_KEY)


@dataclass(frozen=True)
class SegmentKeys:
    """Keys of one segment's rows, sorted by id.

    Attributes
    ----------
    ids, contents
        [n] S16.
    rows
        [n] row index of each entry.
    """

    ids: NDArray[np.bytes_]
    contents: NDArray[np.bytes_]
    rows: NDArray[np.int32]

    @classmethod
    def read(cls, reader: SegmentReader) -> SegmentKeys:
        """Read the two columns that it takes."""
        table = reader.samples(["sample_id", "content_hash"])
        ids = np.concatenate([keys_of(_strings(batch, "sample_id")) for batch in _batches(table)])
        contents = np.concatenate(
            [
                np.array([content_key(h) for h in _strings(batch, "content_hash")], dtype=_KEY)
                for batch in _batches(table)
            ]
        )
        order = np.argsort(ids, kind="stable").astype(np.int32)
        return cls(ids[order], contents[order], order)

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, visible: NDArray[np.bool_] | None) -> SegmentKeys:
        """Leave out rows; ``visible`` is a mask over the segment's rows, None for all."""
        if visible is None:
            return self
        keep = visible[self.rows]
        return SegmentKeys(self.ids[keep], self.contents[keep], self.rows[keep])

    def find(self, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Position of each key among the entries, -1 where absent."""
        return find_sorted(self.ids, ids)


def find_sorted(entries: NDArray[np.bytes_], wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Position of each wanted key in a sorted array of keys, -1 where absent."""
    if not len(entries) or not len(wanted):
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(entries, wanted), len(entries) - 1)
    return np.where(entries[at] == wanted, at, -1).astype(np.int64)


@dataclass(frozen=True)
class KnownSample:
    """Where a stored sample lies.

    Attributes
    ----------
    content
        Key of its content hash.
    source
        Position, among the segments that were given, of the one that holds it.
    row
        Row within that segment.
    """

    content: bytes
    source: int
    row: int


class KnownSamples:
    """The samples of many segments, for look-ups by id.

    Parameters
    ----------
    segments
        Keys of the visible rows of each segment. Of an id that several hold, the first one's counts.
    """

    def __init__(self, segments: Sequence[SegmentKeys]) -> None:
        ids = [np.empty(0, _KEY), *(s.ids for s in segments)]
        self._ids = np.concatenate(ids)
        order = np.argsort(self._ids, kind="stable")
        self._ids = self._ids[order]
        self._contents = np.concatenate([np.empty(0, _KEY), *(s.contents for s in segments)])[order]
        self._rows = np.concatenate([np.empty(0, np.int32), *(s.rows for s in segments)])[order]
        lengths = [len(s) for s in segments]
        self._sources = np.repeat(np.arange(len(segments), dtype=np.int32), lengths)[order]

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, sample_ids: Sequence[str]) -> list[KnownSample | None]:
        """Look up samples by id; None where a sample is not known."""
        found = find_sorted(self._ids, keys_of(sample_ids))
        return [
            None
            if at < 0
            # an S16 scalar loses trailing zero bytes
            else KnownSample(self._contents[at].ljust(16, b"\0"), int(self._sources[at]), int(self._rows[at]))
            for at in found
        ]


def _batches(table: pa.Table) -> list[pa.Table]:
    return [table.slice(start, _BATCH_ROWS) for start in range(0, max(1, table.num_rows), _BATCH_ROWS)]


def _strings(table: pa.Table, column: str) -> list[Any]:
    values: list[Any] = table.column(column).to_pylist()
    return values
