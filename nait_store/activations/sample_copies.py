"""``samples.parquet`` of a segment made of rows of others: copied column by column, a few rows in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nait_store.activations.chunks import SAMPLES_FILE
from nait_store.activations.sample_rows import column_value, open_samples
from nait_store.errors import CorruptChunkError
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.record import FileDigest
from nait_store.schemas.samples import (
    MAX_USER_FIELDS,
    SAMPLE_FIELDS,
    USER_FIELD_PREFIX,
    FieldType,
    FieldTypes,
    is_usable_field_name,
    samples_schema,
)
from nait_store.storage import layout
from nait_store.storage.digests import HashedFile, check_file
from nait_store.storage.location import Location
from nait_store.storage.pending import PendingFile

_ROW_GROUP_ROWS = 8192
_ROW_GROUP_BYTES = 64 << 20
_BATCH_ROWS = 1024
_BASE_COLUMNS = tuple(field.name for field in SAMPLE_FIELDS)


@dataclass(frozen=True)
class CopiedSamples:
    """What was written.

    Attributes
    ----------
    file
        Its path is relative to the new segment's folder.
    user_fields
        Type of each user field that is a column.
    n_tokens, n_truncated
        Over the rows.
    """

    file: FileDigest
    user_fields: dict[str, FieldType]
    n_tokens: int
    n_truncated: int


def copy_samples(
    location: Location, folder: str, sources: Sequence[tuple[SegmentRecord, NDArray[np.int64]]]
) -> CopiedSamples:
    """Write the sample rows of a segment that takes over rows of others.

    User fields that have the same type in all sources are copied. Where they differ, types and values are made from
    the records again, as if one ingest had written all of them.

    Parameters
    ----------
    location
        The store's root.
    folder
        Of the new segment.
    sources
        Segments and the ascending indices of the rows to take, in order.

    Raises
    ------
    CorruptChunkError
        A source is missing, damaged, or not as long as its segment.
    StorageError
        Writing failed.
    """
    for record, _ in sources:
        digest = next(file for file in record.files if file.path == SAMPLES_FILE)
        check_file(location, layout.segment_folder(record.set_name, record.segment_id), digest, hashed=True)
    first = sources[0][0]
    alike = all(record.user_fields == first.user_fields for record, _ in sources)
    types = _stored_types(location, first) if alike else _inferred_types(location, sources)
    schema = samples_schema(types)
    n_rows = n_tokens = n_truncated = 0
    with PendingFile(location, f"{folder}/{SAMPLES_FILE}") as file:
        hashed = HashedFile(file.handle)
        with file.errors():
            writer = pq.ParquetWriter(hashed, schema, compression="zstd")
            try:
                for table in _row_groups(location, sources, schema, types, alike=alike):
                    index = pa.array(np.arange(n_rows, n_rows + table.num_rows, dtype=np.int64))
                    writer.write_table(table.set_column(0, schema.field(0), index), row_group_size=table.num_rows)
                    n_rows += table.num_rows
                    n_tokens += pc.sum(table.column("n_tokens")).as_py()
                    n_truncated += pc.sum(table.column("truncated")).as_py()
            finally:
                writer.close()
        file.publish()
    written = FileDigest(path=SAMPLES_FILE, size_bytes=hashed.size_bytes, sha256=hashed.sha256)
    return CopiedSamples(written, types, n_tokens, n_truncated)


def _row_groups(
    location: Location,
    sources: Sequence[tuple[SegmentRecord, NDArray[np.int64]]],
    schema: pa.Schema,
    types: dict[str, FieldType],
    *,
    alike: bool,
) -> Iterator[pa.Table]:
    columns = schema.names if alike else list(_BASE_COLUMNS)
    waiting: list[pa.Table] = []
    for record, rows in sources:
        for batch in _batches(location, record, rows, columns):
            waiting.append((batch if alike else _with_user_columns(batch, types)).select(schema.names).cast(schema))
            enough = sum(table.num_rows for table in waiting) >= _ROW_GROUP_ROWS
            if enough or sum(table.nbytes for table in waiting) >= _ROW_GROUP_BYTES:
                yield pa.concat_tables(waiting)
                waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _with_user_columns(table: pa.Table, types: dict[str, FieldType]) -> pa.Table:
    records = [json.loads(record) for record in table.column("record").to_pylist()]
    user_schema = samples_schema(types)
    for name, kind in types.items():
        field = user_schema.field(USER_FIELD_PREFIX + name)
        values = [column_value(record, name, kind) for record in records]
        table = table.append_column(field, pa.array(values, field.type))
    return table


def _stored_types(location: Location, record: SegmentRecord) -> dict[str, FieldType]:
    """User fields of one segment in the order of their columns."""
    with open_samples(location, _path(record)) as file:
        names = _user_names(file)
    return {name: record.user_fields[name] for name in names}


def _inferred_types(
    location: Location, sources: Sequence[tuple[SegmentRecord, NDArray[np.int64]]]
) -> dict[str, FieldType]:
    """As one ingest of all these records would infer them; columns that there are come first, in their order."""
    order: dict[str, None] = {}
    found = FieldTypes()
    for record, rows in sources:
        with open_samples(location, _path(record)) as file:
            order.update(dict.fromkeys(_user_names(file)))
        for batch in _batches(location, record, rows, ["record"]):
            for text in batch.column("record").to_pylist():
                found.add(json.loads(text))
    types = {name: kind for name, kind in found.types().items() if is_usable_field_name(name)}
    names = [name for name in order if name in types] + [name for name in types if name not in order]
    return {name: types[name] for name in names[:MAX_USER_FIELDS]}


def _user_names(file: pq.ParquetFile) -> list[str]:
    return [name.removeprefix(USER_FIELD_PREFIX) for name in file.schema_arrow.names if name not in _BASE_COLUMNS]


def _batches(
    location: Location, record: SegmentRecord, rows: NDArray[np.int64], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """The chosen rows of one segment."""
    begin = 0
    with open_samples(location, _path(record)) as file:
        if file.metadata.num_rows != record.n_rows:
            raise CorruptChunkError(
                f"{location.url_of(_path(record))} has {file.metadata.num_rows:,} rows, "
                f"its segment has {record.n_rows:,}"
            )
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
            low, high = np.searchsorted(rows, [begin, begin + batch.num_rows])
            table = pa.Table.from_batches([batch])
            if high - low == batch.num_rows:
                yield table
            elif low < high:
                yield table.take(pa.array(rows[low:high] - begin))
            begin += batch.num_rows


def _path(record: SegmentRecord) -> str:
    return f"{layout.segment_folder(record.set_name, record.segment_id)}/{SAMPLES_FILE}"
