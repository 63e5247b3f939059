"""``samples.parquet``: the sample rows of a segment, written and read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nait_store.errors import CorruptChunkError, NotFoundError
from nait_store.schemas.samples import (
    MAX_USER_FIELDS,
    USER_FIELD_PREFIX,
    FieldType,
    SampleRow,
    field_types,
    is_usable_field_name,
    samples_schema,
)
from nait_store.storage.location import Location

_ROW_GROUP_ROWS = 8192


def samples_parquet(rows: Sequence[SampleRow]) -> tuple[memoryview, dict[str, FieldType]]:
    """Encode sample rows as Parquet.

    Parameters
    ----------
    rows
        In the order of the arrays' first axis.

    Returns
    -------
    data, user_fields
        The file's bytes (zstd), and the type of each user field that became a column. Fields with unusable names,
        and those beyond the first 256, live on in ``record`` only.
    """
    types = {name: kind for name, kind in field_types(rows).items() if is_usable_field_name(name)}
    types = dict(list(types.items())[:MAX_USER_FIELDS])
    schema = samples_schema(types)
    columns: dict[str, list[Any]] = {
        "row_index": list(range(len(rows))),
        "sample_id": [row.sample_id for row in rows],
        "content_hash": [row.content_hash for row in rows],
        "source_uri": [row.source_uri for row in rows],
        "source_index": [row.source_index for row in rows],
        "n_tokens": [row.n_tokens for row in rows],
        "n_content_tokens": [row.n_content_tokens for row in rows],
        "truncated": [row.truncated for row in rows],
        "record": [row.record for row in rows],
    }
    for name, kind in types.items():
        columns[USER_FIELD_PREFIX + name] = [column_value(row.fields, name, kind) for row in rows]
    table = pa.Table.from_pydict(columns, schema=schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=_ROW_GROUP_ROWS)
    return memoryview(sink.getvalue()), types


def read_samples(
    location: Location, path: str, columns: Sequence[str] | None = None, *, data: NDArray[np.uint8] | None = None
) -> pa.Table:
    """Read sample rows.

    Parameters
    ----------
    location, path
        The Parquet file.
    columns
        Column names as stored; all of them if omitted.
    data
        The file's bytes, where they are at hand.

    Raises
    ------
    CorruptChunkError
        The file is missing or is not the Parquet that it should be.
    """
    with open_samples(location, path, data) as file:
        return file.read(columns=None if columns is None else list(columns))


def read_samples_schema(location: Location, path: str, *, data: NDArray[np.uint8] | None = None) -> pa.Schema:
    """Read the columns of a ``samples.parquet``; arguments and errors as for :func:`read_samples`."""
    with open_samples(location, path, data) as file:
        return file.schema_arrow


@contextlib.contextmanager
def open_samples(location: Location, path: str, data: NDArray[np.uint8] | None = None) -> Iterator[pq.ParquetFile]:
    """Open a ``samples.parquet``; arguments and errors as for :func:`read_samples`, also while the block reads."""
    try:
        source = location.open_read(path) if data is None else pa.BufferReader(pa.py_buffer(data))
        # Without Arrow's I/O threads: DuckDB's scans of our tables run on them, and eight that waited here for one more
        # would wait for ever.
        with source as handle, pq.ParquetFile(handle, pre_buffer=False) as file:
            yield file
    except NotFoundError as error:
        raise CorruptChunkError(f"{location.url_of(path)} is missing") from error
    except (pa.ArrowException, OSError) as error:
        raise CorruptChunkError(
            f"{location.url_of(path)} cannot be read as Parquet: {error}",
            next_step="run 'nait-store verify' to see what else is damaged",
        ) from error


def column_value(fields: Mapping[str, Any], name: str, kind: FieldType) -> Any:
    """Value of a record's field in a column of this type; None where the record has none."""
    value = fields.get(name)
    if value is None:
        return None
    if kind == "json":
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return float(value) if kind == "double" else value
