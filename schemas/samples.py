"""Rows of ``samples.parquet``: one training record each, with how it was captured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

FieldType = Literal["bool", "int64", "double", "string", "json"]
"""Type of a user field within one segment; ``json`` is text holding a list or object."""

_ARROW_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
    "json": pa.string(),
}

SAMPLE_FIELDS: tuple[pa.Field, ...] = (
    pa.field("row_index", pa.int64(), nullable=False),
    pa.field("sample_id", pa.string(), nullable=False),
    pa.field("content_hash", pa.string(), nullable=False),
    pa.field("source_uri", pa.string(), nullable=False),
    pa.field("source_index", pa.int64(), nullable=False),
    pa.field("n_tokens", pa.int32(), nullable=False),
    pa.field("n_content_tokens", pa.int32(), nullable=False),
    pa.field("truncated", pa.bool_(), nullable=False),
    pa.field("record", pa.string(), nullable=False),
)
"""The columns every segment has. User fields follow, each prefixed ``user.`` so that none can clash on disk."""

USER_FIELD_PREFIX = "user."
MAX_USER_FIELDS = 256


@dataclass(frozen=True)
class SampleRow:
    """One captured sample, without its activations.

    Attributes
    ----------
    sample_id
        The user's id field if named, else the first 128 bits of the content hash.
    content_hash
        SHA-256 of the canonical source record after ``--map``; 64 hexadecimal digits.
    source_uri
        URL or path of the file it was read from.
    source_index
        Zero-based position of the record in that source.
    n_tokens
        Tokens that went through the model, scaffolding and special tokens included.
    n_content_tokens
        K, the tokens that the features reduce over. 1 makes ``drift`` zero.
    truncated
        Whether ``--max-length`` cut it.
    record
        Canonical JSON of the source record.
    fields
        The record's top-level fields (before ``--map``), as plain JSON values.
    """

    sample_id: str
    content_hash: str
    source_uri: str
    source_index: int
    n_tokens: int
    n_content_tokens: int
    truncated: bool
    record: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class FieldTypes:
    """Infers one column type per user field, record by record; mixed scalars become ``json``, null is any type."""

    def __init__(self) -> None:
        self._types: dict[str, FieldType] = {}
        self._names: dict[str, None] = {}

    def add(self, fields: Mapping[str, Any]) -> None:
        """Take one record's fields into account."""
        types = self._types
        for name, value in fields.items():
            self._names.setdefault(name)
            if value is None:
                continue
            seen = _value_type(value)
            known = types.get(name)
            if known is None:
                types[name] = seen
            elif known != seen:
                types[name] = "double" if {known, seen} == {"int64", "double"} else "json"

    def types(self) -> dict[str, FieldType]:
        """Types found so far; fields that were always null are strings."""
        return {**self._types, **{name: "string" for name in self._names if name not in self._types}}


def field_types(rows: Sequence[SampleRow]) -> dict[str, FieldType]:
    """:class:`FieldTypes` over a segment's rows."""
    found = FieldTypes()
    for row in rows:
        found.add(row.fields)
    return found.types()


def samples_schema(types: Mapping[str, FieldType]) -> pa.Schema:
    """Arrow schema of ``samples.parquet`` for these user fields."""
    user = [pa.field(USER_FIELD_PREFIX + name, _ARROW_TYPES[kind]) for name, kind in types.items()]
    return pa.schema([*SAMPLE_FIELDS, *user])


def beginning(record: Mapping[str, Any], length: int) -> str:
    """The record's texts for a list of samples: ``question | answer``, cut to ``length`` characters.

    Those of the record itself; where it has none, as a conversation, those within its fields.
    """
    texts = [value for value in record.values() if isinstance(value, str) and value] or list(_texts_within(record))
    joined = " | ".join(texts)
    return joined if len(joined) <= length else joined[: length - 1] + "…"


def _texts_within(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, Mapping)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_within(part)


def sql_column_name(user_field: str) -> str:
    """Name under which SQL shows a user field: as it is, or ``user_<name>`` where it would clash.

    DuckDB compares column names without regard to case, so ``Record`` clashes as ``record`` does.
    """
    return f"user_{user_field}" if user_field.lower() in _RESERVED else user_field


_RESERVED = frozenset({f.name for f in SAMPLE_FIELDS} | {"row_id", "score", "rank", "activation_set", "profile"})
_INT64 = range(-(2**63), 2**63)


def _value_type(value: Any) -> FieldType:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if value in _INT64 else "json"
    if isinstance(value, float):
        return "double"
    return "string" if isinstance(value, str) else "json"


def is_usable_field_name(name: str) -> bool:
    """Whether a user field can become a column: not blank, at most 128 characters, no NUL."""
    return bool(name.strip()) and len(name) <= 128 and "\x00" not in name
