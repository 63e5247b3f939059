"""Rows on their way out of a process that ran untrusted SQL: written there as an Arrow IPC stream, read here.

Arrow's format can say much in few bytes: compressed buffers, dictionaries and views whose entries all mean the same
long text, columns of nothing but NULL of any length. So only plain types may pass, uncompressed, and each value counts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.types as kinds

from nait_store.errors import InvalidInputError
from nait_store.query.sandbox.limits import over_output

_EXTENSION_KEY = b"ARROW:extension"
_RECORD_BATCH_HEADER = 3  # of the union MessageHeader in Arrow's Message.fbs
_HEADER_TYPE_SLOT, _HEADER_SLOT = 1, 2  # of Message
_LENGTH_SLOT, _NODES_SLOT, _BUFFERS_SLOT, _COMPRESSION_SLOT = 0, 1, 2, 3  # of RecordBatch
_CAST = "cast it to VARCHAR"
_MOST_NESTED = 32  # Arrow's own limit is 64, counted in another way

_PLAIN: tuple[Callable[[pa.DataType], bool], ...] = (
    kinds.is_null,
    kinds.is_boolean,
    kinds.is_integer,
    kinds.is_floating,
    kinds.is_decimal,
    kinds.is_temporal,
    kinds.is_binary,
    kinds.is_large_binary,
    kinds.is_fixed_size_binary,
    kinds.is_string,
    kinds.is_large_string,
)


class HostileAnswerError(Exception):
    """What arrived is no answer that our own code would have written."""


def plain_schema(schema: pa.Schema, duckdb_types: Sequence[str]) -> pa.Schema:
    """The schema in which rows may leave: enumerations become texts.

    Parameters
    ----------
    schema
        As DuckDB gives it.
    duckdb_types
        DuckDB's type of each column, for messages.

    Raises
    ------
    InvalidInputError
        A column of a type that has no plain form.
    """
    fields = []
    for field, shown in zip(schema, duckdb_types, strict=True):
        plain = _without_dictionaries(field.type)
        if _depth(plain) > _MOST_NESTED:
            raise InvalidInputError(
                f"the column {field.name!r} is nested too deeply to leave the sandbox",
                next_step=f"unnest it, or {_CAST}",
            )
        if not _is_plain(plain):
            raise InvalidInputError(
                f"the column {field.name!r} of type {shown} cannot leave the sandbox", next_step=_CAST
            )
        fields.append(pa.field(field.name, plain))
    return pa.schema(fields)


def n_values(array: pa.Array) -> int:
    """Number of values in an array, those in lists, structs and maps included."""
    kind = array.type
    inner: Iterator[pa.Array] = iter(())
    if kinds.is_map(kind):
        inner = iter((array.keys, array.items))
    elif kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        inner = iter((array.values,))
    elif kinds.is_struct(kind) or kinds.is_union(kind):
        inner = (array.field(i) for i in range(kind.num_fields))
    return len(array) + sum(n_values(part) for part in inner)


def batch_values(batch: pa.RecordBatch) -> int:
    """Number of values in a batch."""
    return sum(n_values(column) for column in batch.columns)


def read_answer(data: bytes | bytearray, limit_bytes: int) -> pa.Table:
    """Read rows that somebody hostile may have written.

    Parameters
    ----------
    data
        An Arrow IPC stream; the table refers to it.
    limit_bytes
        Most bytes and values in all.

    Returns
    -------
    pyarrow.Table
        Validated in full.

    Raises
    ------
    LimitExceededError
        There are more values than the limit allows.
    HostileAnswerError
        It is no such stream, or uses what plain rows do not need.
    """
    try:
        reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(pa.py_buffer(data)))
        first = reader.read_next_message()
        if first.type != "schema" or _EXTENSION_KEY in first.metadata.to_pybytes():
            raise HostileAnswerError("the answer has no plain schema")
        schema = _plain_names(pa.ipc.read_schema(first))
        batches, taken = [], len(data)
        for message in _messages(reader):
            if message.type != "record batch":
                raise HostileAnswerError(f"the answer has a message of type {message.type}")
            taken += _declared_values(message.metadata.to_pybytes(), message.body.size)
            if taken > limit_bytes:
                raise over_output(limit_bytes)
            batch = pa.ipc.read_record_batch(message, schema)
            batch.validate(full=True)
            batches.append(batch)
        table = pa.Table.from_batches(batches, schema)
    except (pa.ArrowException, OSError, EOFError, StopIteration, struct.error, OverflowError, ValueError) as error:
        raise HostileAnswerError(f"the answer is no Arrow stream: {error}") from error
    return table


def _plain_names(schema: pa.Schema) -> pa.Schema:
    """The schema without metadata, which pandas would act upon; its names are text and its types are plain."""
    shown = str(schema)
    if not all(_is_plain(field.type) for field in schema):
        raise HostileAnswerError(f"the answer has columns of other types: {shown[:200]}")
    return pa.schema([pa.field(field.name, field.type, field.nullable) for field in schema])


def _messages(reader: pa.ipc.MessageReader) -> Iterator[pa.Message]:
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _without_dictionaries(kind: pa.DataType) -> pa.DataType:
    if kinds.is_dictionary(kind):
        return kind.value_type
    if kinds.is_map(kind):
        return pa.map_(_without_dictionaries(kind.key_type), _without_dictionaries(kind.item_type))
    if kinds.is_large_list(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if kinds.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if kinds.is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    if kinds.is_struct(kind):
        return pa.struct([_plain_field(kind.field(i)) for i in range(kind.num_fields)])
    return kind


def _depth(kind: pa.DataType) -> int:
    if not kinds.is_nested(kind):
        return 0
    return 1 + max((_depth(kind.field(i).type) for i in range(kind.num_fields)), default=0)


def _plain_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, _without_dictionaries(field.type), field.nullable)


def _is_plain(kind: pa.DataType) -> bool:
    if kinds.is_nested(kind):
        if kinds.is_union(kind) and kind.mode != "sparse":
            return False
        known = (kinds.is_map, kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list, kinds.is_struct)
        if not (kinds.is_union(kind) or any(is_kind(kind) for is_kind in known)):
            return False
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    return not isinstance(kind, pa.BaseExtensionType) and any(is_kind(kind) for is_kind in _PLAIN)


def _declared_values(metadata: bytes, body_bytes: int) -> int:
    """Number of values in a record batch, by its metadata: Arrow trusts some of it so far as to abort the process.

    The metadata is a flatbuffer. Only what is used here is looked at; all the rest Arrow checks itself.
    """
    (root,) = struct.unpack_from("<I", metadata, 0)
    kind = _slot(metadata, root, _HEADER_TYPE_SLOT)
    header = _slot(metadata, root, _HEADER_SLOT)
    if kind is None or header is None or metadata[kind] != _RECORD_BATCH_HEADER:
        raise HostileAnswerError("the answer has a message that says two things of its type")
    (offset,) = struct.unpack_from("<I", metadata, header)
    batch = header + offset
    if _slot(metadata, batch, _COMPRESSION_SLOT) is not None:
        raise HostileAnswerError("the answer is compressed")
    length = _slot(metadata, batch, _LENGTH_SLOT)
    (n_rows,) = struct.unpack_from("<q", metadata, length) if length is not None else (0,)
    nodes = _pairs(metadata, _slot(metadata, batch, _NODES_SLOT))  # (length, number of NULLs) of each array
    buffers = _pairs(metadata, _slot(metadata, batch, _BUFFERS_SLOT))  # (offset, length) of each buffer
    if n_rows < 0 or any(not 0 <= n_nulls <= n for n, n_nulls in nodes):
        raise HostileAnswerError("the answer has columns of impossible lengths")
    if any(start < 0 or n_bytes < 0 or start + n_bytes > body_bytes for start, n_bytes in buffers):
        raise HostileAnswerError("the answer has buffers outside of its bytes")
    return int(max(n_rows, sum(n for n, _ in nodes)))


def _pairs(metadata: bytes, vector: int | None) -> list[tuple[int, int]]:
    """A flatbuffer vector of pairs of 64-bit integers."""
    if vector is None:
        return []
    (offset,) = struct.unpack_from("<I", metadata, vector)
    (count,) = struct.unpack_from("<I", metadata, vector + offset)
    start = vector + offset + 4
    if start + 16 * count > len(metadata):
        raise struct.error("a vector lies outside of its message")
    return list(struct.iter_unpack("<qq", metadata[start : start + 16 * count]))


def _slot(metadata: bytes, table: int, slot: int) -> int | None:
    """Position of a field of a flatbuffer table, or None where the table leaves it out."""
    (back,) = struct.unpack_from("<i", metadata, table)
    vtable = table - back
    if not 0 <= vtable < len(metadata):
        raise struct.error("a table points outside of its message")
    (size,) = struct.unpack_from("<H", metadata, vtable)
    entry = 4 + 2 * slot
    if entry + 2 > size:
        return None
    (position,) = struct.unpack_from("<H", metadata, vtable + entry)
    if position and table + position >= len(metadata):
        raise struct.error("a field lies outside of its message")
    return table + position if position else None
