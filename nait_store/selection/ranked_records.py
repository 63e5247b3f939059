"""The user's own records of a selection, in rank order, with bounded memory.

Segments are read once in storage order; the chosen records are spooled to a temporary file and read back by
rank. What stays in memory is an offset and a length per chosen sample, never the records.
"""

from __future__ import annotations

import json
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

_SPOOL_IN_MEMORY_BYTES = 32 << 20
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
        # Closed by __exit__: the object is a context manager of its own.
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_SPOOL_IN_MEMORY_BYTES)  # noqa: SIM115

    def __enter__(self) -> RankedRecords:
        try:
            for segment in self._version.segments:
                self._spool_segment(segment)
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
        for start in range(0, self._rows.num_rows, _ROWS_PER_BATCH):
            batch = self._rows.slice(start, _ROWS_PER_BATCH).to_pydict()
            for i, (rank, sample_id, score) in enumerate(
                zip(batch["rank"], batch["sample_id"], batch["score"], strict=True)
            ):
                self._spool.seek(int(self._offsets[start + i]))
                record = json.loads(self._spool.read(int(self._lengths[start + i])))
                ordered = dict(sorted(record.items(), key=lambda item: order.get(item[0], len(order))))
                yield RankedRecord(rank, sample_id, score, ordered)

    def _spool_segment(self, segment: Any) -> None:
        visible = self._version.visible_rows(segment)
        path = f"{layout.segment_folder(self._version.name, segment.record.segment_id)}/samples.parquet"
        with self._location.open_read(path) as handle, pq.ParquetFile(handle) as file:
            # Columns stand in the order of the fields' first appearance; the record's JSON has them sorted.
            for name in file.schema_arrow.names:
                if name.startswith(USER_FIELD_PREFIX):
                    self._order.setdefault(name.removeprefix(USER_FIELD_PREFIX), len(self._order))
            row = 0
            for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, columns=["sample_id", "record"]):
                positions = pc.index_in(batch.column("sample_id"), value_set=self._ids)
                wanted = positions.is_valid().to_numpy(zero_copy_only=False)
                if visible is not None:
                    wanted &= visible[row : row + batch.num_rows]
                row += batch.num_rows
                indices = np.flatnonzero(wanted)
                if not len(indices):
                    continue
                taken = batch.column("record").take(pa.array(indices))
                for position, text in zip(positions.take(pa.array(indices)).to_pylist(), taken, strict=True):
                    data = text.as_buffer()
                    self._offsets[position] = self._spool.tell()
                    self._lengths[position] = len(data)
                    self._spool.write(data)
