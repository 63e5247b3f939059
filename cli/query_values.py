"""Values of a query's result in forms that have fewer types: JSON values, and text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Convert = Callable[[Any], Any]
_encode = json.JSONEncoder(ensure_ascii=False).encode


def json_values(name: str, column: pa.Array) -> list[Any]:
    """Values of a column as JSON has them.

    NaN and infinities are null, as in DuckDB's own JSON; decimals are numbers, times ISO 8601 text, maps objects, bytes
    text.

    Parameters
    ----------
    name
        Of the column.
    column
        Any array.

    Raises
    ------
    InvalidInputError
        A time that Python has no object for.
    """
    from nait_store.query.result import python_values

    values, convert = python_values(name, column), _json_form(column.type)
    return values if convert is None else [None if value is None else convert(value) for value in values]


def flat(table: pa.Table) -> pa.Table:
    """A table whose columns all have a form in CSV: lists, structs and maps become JSON text, bytes text."""
    import pyarrow as pa

    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_nested(column.type):
            texts = [None if value is None else _encode(value) for value in json_values(name, column)]
            column = pa.chunked_array([pa.array(texts, pa.string())])
        elif pa.types.is_binary(column.type):
            column = pa.chunked_array([pa.array(json_values(name, column), pa.string())])
        columns.append(column)
    return pa.Table.from_arrays(columns, names=table.column_names)


def _json_form(kind: pa.DataType) -> Convert | None:
    """How values of a type become JSON values; None where they are already."""
    from pyarrow import types

    if types.is_floating(kind):
        return lambda value: value if math.isfinite(value) else None
    if types.is_decimal(kind):
        return int if kind.scale == 0 else float
    if types.is_temporal(kind):
        return lambda value: str(value.isoformat())
    if types.is_binary(kind):
        return _bytes_text
    if types.is_dictionary(kind):
        return _json_form(kind.value_type)
    if types.is_map(kind):
        key, item = _or_same(_json_form(kind.key_type)), _or_same(_json_form(kind.item_type))
        return lambda pairs: {_key(key(k)): item(v) for k, v in pairs}
    if types.is_struct(kind):
        fields = {field.name: _or_same(_json_form(field.type)) for field in kind}
        return lambda value: {name: fields[name](part) for name, part in value.items()}
    if types.is_nested(kind):  # lists of every sort
        element = _or_same(_json_form(kind.value_type))
        return lambda value: [element(part) for part in value]
    return None


def _or_same(convert: Convert | None) -> Convert:
    return lambda value: value if convert is None or value is None else convert(value)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else _encode(key)


def _bytes_text(value: bytes) -> str:
    r"""Bytes as DuckDB prints them: ``ab\x00``."""
    return "".join(chr(b) if 32 <= b < 127 and b not in b"\\'\"" else f"\\x{b:02X}" for b in value)
