"""Tables that a caller hands to a query by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from nait_store.errors import InvalidInputError


def user_table(name: str, value: Any, *, reserved: Collection[str]) -> pa.Table:
    """Turn a table of the caller's into Arrow.

    Parameters
    ----------
    name
        Name that the query uses.
    value
        pandas, polars or Arrow table or record batches, or a dict of columns.
    reserved
        Names that mean something in every query.

    Raises
    ------
    InvalidInputError
        A name that is taken or empty, or a value that is not a table.
    """
    if not isinstance(name, str) or not name.strip() or "\x00" in name:
        raise InvalidInputError(f"{name!r} cannot name a table", next_step="use a word, e.g. tables={'mine': frame}")
    if name.lower() in reserved:
        raise InvalidInputError(f"the table name {name!r} is taken by the store", next_step="choose another name")
    try:
        if isinstance(value, pa.Table):
            table = value
        elif isinstance(value, Mapping):
            table = pa.table(dict(value))
        elif type(value).__module__.partition(".")[0] == "pandas":
            table = pa.Table.from_pandas(value, preserve_index=False)
        else:
            table = pa.table(value)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"the table {name!r} cannot be read: {error}",
            next_step="give a pandas, polars or Arrow table, or a dict of columns of equal length",
        ) from error
    for i, column in enumerate(table.schema):
        if pa.types.is_float16(column.type):  # DuckDB has no such type
            table = table.set_column(i, column.with_type(pa.float32()), table.column(i).cast(pa.float32()))
    return table
