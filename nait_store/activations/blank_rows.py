"""``samples.parquet`` with blank rows: what stands where a sample was purged, or lost.

A blank row says nothing of the sample that was there: its id is empty, its content hash is 64 zeros, its source is
empty and its position -1, its counts are 0, its record is ``{}``, its user fields are null. A user field that no
other row has a value for is no column any more, because its name may have come from the sample as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nait_store.activations.sample_rows import open_samples
from nait_store.errors import CorruptChunkError
from nait_store.schemas.record import FileDigest
from nait_store.schemas.samples import SAMPLE_FIELDS, USER_FIELD_PREFIX
from nait_store.storage.digests import HashedFile
from nait_store.storage.location import Location
from nait_store.storage.pending import PendingFile

BLANK_CONTENT_HASH = "0" * 64
_ROW_GROUP_ROWS = 8192
_BLANK_VALUES = {
    "sample_id": "",
    "content_hash": BLANK_CONTENT_HASH,
    "source_uri": "",
    "source_index": -1,
    "n_tokens": 0,
    "n_content_tokens": 0,
    "truncated": False,
    "record": "{}",
}


@dataclass(frozen=True)
class BlankedSamples:
    """What was written.

    Attributes
    ----------
    file
        Digest of the file, its path relative to the segment's folder.
    user_fields
        The user fields that are still columns, in their order.
    n_tokens, n_truncated
        Over the rows that are not blank.
    """

    file: FileDigest
    user_fields: tuple[str, ...]
    n_tokens: int
    n_truncated: int


def write_blanked_samples(
    location: Location, source: str | None, folder: str, path: str, n_rows: int, blank: NDArray[np.bool_]
) -> BlankedSamples:
    """Write sample rows again, some of them blank, a row group at a time.

    Parameters
    ----------
    location
        The store's root.
    source
        The Parquet file to take the other rows from; None where all rows are blank.
    folder, path
        Where to write: the segment's folder, and the file's path within it.
    n_rows
        Rows of the segment.
    blank
        Mask of the blank rows, [n].

    Raises
    ------
    CorruptChunkError
        The source is missing or cannot be read.
    StorageError
        The file could not be written.
    """
    n_tokens = n_truncated = 0
    kept: tuple[str, ...] = ()
    if source is not None:
        with open_samples(location, source) as file:
            kept = _columns_in_use(file, blank)
    schema: pa.Schema | None = None
    with PendingFile(location, f"{folder}/{path}") as target, target.errors(), contextlib.ExitStack() as stack:
        hashed = HashedFile(target.handle)
        writer: pq.ParquetWriter | None = None
        for begin, table in _batches(location, source, n_rows, kept):
            if schema is None:
                schema = pa.schema([*SAMPLE_FIELDS, *(table.schema.field(name) for name in kept)])
                writer = stack.enter_context(pq.ParquetWriter(hashed, schema, compression="zstd"))
            mask = blank[begin : begin + table.num_rows]
            table = _blanked(table, mask, begin, schema)
            n_tokens += int(table.column("n_tokens").to_numpy().sum(dtype=np.int64))
            n_truncated += int(table.column("truncated").to_numpy(zero_copy_only=False).sum())
            assert writer is not None
            writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
        stack.close()
        target.publish()
        digest = FileDigest(path=path, size_bytes=hashed.size_bytes, sha256=hashed.sha256)
    fields = tuple(name.removeprefix(USER_FIELD_PREFIX) for name in kept)
    return BlankedSamples(digest, fields, n_tokens, n_truncated)


def _columns_in_use(file: pq.ParquetFile, blank: NDArray[np.bool_]) -> tuple[str, ...]:
    """User columns without those that only blank rows have a value for."""
    columns = [name for name in file.schema_arrow.names if name.startswith(USER_FIELD_PREFIX)]
    lost: set[str] = set()
    held: set[str] = set()
    begin = 0
    for batch in file.iter_batches(_ROW_GROUP_ROWS, columns=columns) if columns else ():
        mask = blank[begin : begin + batch.num_rows]
        begin += batch.num_rows
        for name in columns:
            there = batch.column(name).is_valid().to_numpy(zero_copy_only=False)
            if (there & ~mask).any():
                held.add(name)
            if (there & mask).any():
                lost.add(name)
    return tuple(name for name in columns if name in held or name not in lost)


def _batches(
    location: Location, source: str | None, n_rows: int, user_columns: tuple[str, ...]
) -> Iterator[tuple[int, pa.Table]]:
    """Yield (first row, rows) of the source, or blank rows."""
    if source is None:
        for begin in range(0, n_rows, _ROW_GROUP_ROWS):
            n = min(_ROW_GROUP_ROWS, n_rows - begin)
            yield begin, pa.table({field.name: pa.nulls(n, field.type) for field in SAMPLE_FIELDS})
        return
    begin = 0
    with open_samples(location, source) as file:
        for batch in file.iter_batches(_ROW_GROUP_ROWS, columns=[*(f.name for f in SAMPLE_FIELDS), *user_columns]):
            yield begin, pa.Table.from_batches([batch])
            begin += batch.num_rows
    if begin != n_rows:
        raise CorruptChunkError(f"{location.url_of(source)} has {begin:,} rows, its segment has {n_rows:,}")


def _blanked(table: pa.Table, mask: NDArray[np.bool_], begin: int, schema: pa.Schema) -> pa.Table:
    # pyarrow's own if_else leaves nothing of the replaced strings behind: it copies what it keeps.
    import pyarrow.compute as pc

    condition = pa.array(mask)
    columns = []
    for field in schema:
        if field.name == "row_index":
            columns.append(pa.array(np.arange(begin, begin + table.num_rows, dtype=np.int64)))
            continue
        blank = pa.scalar(_BLANK_VALUES.get(field.name), field.type)
        columns.append(pc.if_else(condition, blank, table.column(field.name)))
    return pa.table(columns, schema=schema)
