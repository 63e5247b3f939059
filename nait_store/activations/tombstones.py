"""Rows that a version leaves out: one Parquet of (segment_ordinal, row_index) per version that adds some."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nait_store.errors import CorruptChunkError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.activation_set import TombstoneRef
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid

Tombstones = Mapping[int, NDArray[np.int64]]
"""Segment ordinal → ascending row indices."""

_SCHEMA = pa.schema(
    [
        pa.field("segment_ordinal", pa.int64(), nullable=False),
        pa.field("row_index", pa.int64(), nullable=False),
    ]
)


def merge_tombstones(first: Tombstones, second: Tombstones) -> dict[int, NDArray[np.int64]]:
    """Union of two sets of tombstones."""
    merged = dict(first)
    for ordinal, rows in second.items():
        known = merged.get(ordinal)
        merged[ordinal] = np.unique(rows if known is None else np.concatenate([known, rows])).astype(np.int64)
    return {ordinal: rows for ordinal, rows in sorted(merged.items()) if len(rows)}


def write_tombstones(location: Location, name: str, tombstones: Tombstones) -> TombstoneRef | None:
    """Write all tombstones of a version to a fresh file; None where there are none."""
    if not tombstones:
        return None
    ordinals = np.concatenate([np.full(len(rows), ordinal, np.int64) for ordinal, rows in tombstones.items()])
    table = pa.Table.from_arrays(
        [pa.array(ordinals), pa.array(np.concatenate(list(tombstones.values())))], schema=_SCHEMA
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = memoryview(sink.getvalue())
    path = f"{layout.tombstone_folder(name)}/{new_ulid()}.parquet"
    location.write_bytes(path, data)
    relative = path.removeprefix(layout.item_folder(Kind.SET, name) + "/")
    return TombstoneRef(path=relative, n_rows=table.num_rows, sha256=sha256_bytes(data))


def read_tombstones(location: Location, name: str, ref: TombstoneRef | None) -> dict[int, NDArray[np.int64]]:
    """Read a version's tombstones; the file is small, so its digest is always checked.

    Raises
    ------
    CorruptChunkError
        Missing, or different from its digest.
    """
    if ref is None:
        return {}
    path = f"{layout.item_folder(Kind.SET, name)}/{ref.path}"
    try:
        data = location.read_bytes(path)
    except NotFoundError as error:
        raise CorruptChunkError(f"{location.url_of(path)} is missing") from error
    if sha256_bytes(data) != ref.sha256:
        raise CorruptChunkError(f"{location.url_of(path)} differs from the SHA-256 in the set's manifest")
    return tombstones_of(data)


def tombstones_of(data: bytes) -> dict[int, NDArray[np.int64]]:
    """Parse the bytes of a tombstone file."""
    table = pq.read_table(pa.BufferReader(data))
    ordinals = table.column("segment_ordinal").to_numpy()
    rows = table.column("row_index").to_numpy()
    return {int(o): np.sort(rows[ordinals == o]).astype(np.int64) for o in np.unique(ordinals)}
