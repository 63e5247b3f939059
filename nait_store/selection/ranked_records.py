"""The user's own records of a selection, in rank order, with bounded memory.

Segments are read once in storage order; the chosen records are spooled to a temporary file and read back by
rank. What stays in memory is an offset and a length per chosen sample, never the records.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nait_store.activations.versions import SetVersion
from nait_store.errors import FormatError
from nait_store.schemas.samples import USER_FIELD_PREFIX
from nait_store.storage import layout
from nait_store.storage.location import Location

_ROWS_PER_BATCH = 4096


@dataclass(frozen=True)
class RankedRecord:
    """One chosen sample.

    Attributes
    ----------
    rank
        From 1.
    sample_id
        Its id.
    score
        Its score, or None without a profile.
    record
        The user's original record.
    """

    rank: int
    sample_id: str
    score: float | None
    record: dict[str, Any]


class StoredRecords:
    """Records of some samples of a set version as they lie: JSON texts, in the order of storage.

    Parameters
    ----------
    location
        The store's root.
    version
        The set version.
    sample_ids
        Whose.
    """

    def __init__(self, location: Location, version: SetVersion, sample_ids: pa.Array) -> None:
        self._location = location
        self._version = version
        self._ids = sample_ids

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
        """Some samples at a time: their places among the ids, and their records."""
        for segment in self._version.segments:
            visible = self._version.visible_rows(segment)
            path = f"{layout.segment_folder(self._version.name, segment.record.segment_id)}/samples.parquet"
            with self._location.open_read(path) as handle, pq.ParquetFile(handle) as file:
                # Once for the segment: every call builds a hash table of all chosen ids.
                found = pc.index_in(file.read(columns=["sample_id"]).column("sample_id"), value_set=self._ids)
                positions = found.combine_chunks().fill_null(-1).to_numpy()
                if visible is not None:
                    positions = np.where(visible, positions, -1)
                row = 0
                for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, columns=["record"]):
                    here = positions[row : row + batch.num_rows]
                    row += batch.num_rows
                    indices = np.flatnonzero(here >= 0)
                    if len(indices):
                        yield here[indices], batch.column("record").take(pa.array(indices))


class RankedRecords:
    """Records of ``rows`` out of one set version; a context manager that removes its spool file.

    Parameters
    ----------
    location
        The store's root.
    version
        The set version the samples are in.
    rows
        Table of ``rank``, ``sample_id``, ``score`` in rank order.

    Attributes
    ----------
    user_fields
        Names of the set's user fields.
    """

    def __init__(self, location: Location, version: SetVersion, rows: pa.Table) -> None:
        self._location = location
        self._version = version
        self._rows = rows
        self._ids = rows.column("sample_id").combine_chunks()
        self._offsets: NDArray[np.int64] = np.full(rows.num_rows, -1, dtype=np.int64)
        self._lengths: NDArray[np.int64] = np.zeros(rows.num_rows, dtype=np.int64)
        self.user_fields = frozenset(name for segment in version.segments for name in segment.record.user_fields)
        self._order: dict[str, int] = {}
        self._n_spooled = 0
        # Closed by __exit__: the object is a context manager of its own.
        self._spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> RankedRecords:
        try:
            for segment in self._version.segments:
                # Columns stand in the order of the fields' first appearance; the record's JSON has them sorted.
                for name in segment.samples_schema().names:
                    if name.startswith(USER_FIELD_PREFIX):
                        self._order.setdefault(name.removeprefix(USER_FIELD_PREFIX), len(self._order))
            for ranks, records in StoredRecords(self._location, self._version, self._ids):
                self._spool_records(ranks, records)
            self._spool.flush()
            missing = int((self._offsets < 0).sum())
            if missing:
                raise FormatError(
                    f"{missing:,} of the {self._rows.num_rows:,} selected samples are not in {self._version.reference}",
                    next_step="run 'nait-store verify'",
                )
        except BaseException:
            self._spool.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._spool.close()

    def __iter__(self) -> Iterator[RankedRecord]:
        order = self._order
        descriptor = self._spool.fileno()
        for start in range(0, self._rows.num_rows, _ROWS_PER_BATCH):
            batch = self._rows.slice(start, _ROWS_PER_BATCH).to_pydict()
            for i, (rank, sample_id, score) in enumerate(
                zip(batch["rank"], batch["sample_id"], batch["score"], strict=True)
            ):
                # Not seek and read: every seek would throw away and fill the file's buffer.
                data = os.pread(descriptor, int(self._lengths[start + i]), int(self._offsets[start + i]))
                record = json.loads(data)
                names = sorted(record, key=lambda name: order.get(name, len(order)))
                yield RankedRecord(rank, sample_id, score, {name: record[name] for name in names})

    def _spool_records(self, ranks: NDArray[np.int64], records: pa.Array) -> None:
        records = records.cast(pa.large_string())
        _, bounds_buffer, text = records.buffers()
        bounds = np.frombuffer(bounds_buffer, dtype=np.int64, count=len(records) + 1)
        self._offsets[ranks] = self._n_spooled + bounds[:-1] - bounds[0]
        self._lengths[ranks] = np.diff(bounds)
        size = int(bounds[-1] - bounds[0])
        if size:
            self._spool.write(text.slice(int(bounds[0]), size))
        self._n_spooled += size
