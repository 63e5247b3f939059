"""Results as Arrow tables that every consumer of Arrow can take, with the values that DuckDB means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from nait_store.errors import InvalidInputError
from nait_store.query.spelling import identifier

_AS_TEXT = frozenset(
    {"uhugeint", "bignum", "bit", "interval", "time with time zone", "union", "variant", "geometry"}  # ids of types
)
"""Types that Arrow cannot hold, or holds in a form that pandas, polars or Parquet refuse."""


def fetch_arrow(relation: duckdb.DuckDBPyRelation) -> pa.Table:
    """Run a query.

    Parameters
    ----------
    relation
        The query, bound and not run.

    Returns
    -------
    pyarrow.Table
        Columns as the query names and orders them. 128-bit integers (``sum`` of integers) are 64-bit ones where every
        value fits, else decimal(38, 0). Values of types without a portable Arrow form are text, as DuckDB spells them:
        UHUGEINT, BIGNUM, BIT, INTERVAL, TIME WITH TIME ZONE, UNION, VARIANT, GEOMETRY.

    Raises
    ------
    InvalidInputError
        Arrow cannot hold the result, such as lists in more than sixty lists.
    """
    types = [str(kind) for kind in relation.types]
    try:
        return with_plain_integers(portable(relation).to_arrow_table(), types)
    except pa.ArrowInvalid as error:
        raise InvalidInputError(
            f"the result does not fit into Arrow: {error}", next_step="select plainer columns, or cast them to VARCHAR"
        ) from error


def portable(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The query with text in place of types without a portable Arrow form."""
    replaced = [_with_text(kind) for kind in relation.types]
    if all(text is None for text in replaced):
        return relation
    return relation.project(
        ", ".join(
            f"{f'#{i}' if text is None else f'CAST(#{i} AS {text})'} AS {identifier(name)}"
            for i, (name, text) in enumerate(zip(relation.columns, replaced, strict=True), start=1)
        )
    )


def with_plain_integers(table: pa.Table, types: Sequence[str]) -> pa.Table:
    """The rows with 64-bit integers in place of 128-bit ones where every value of a column fits.

    Parameters
    ----------
    table
        Rows of a query; 128-bit integers arrive as decimal(38, 0).
    types
        DuckDB's type of each column.
    """
    for i, kind in enumerate(types):
        if kind == "HUGEINT":
            try:
                column = pc.cast(table.column(i), pa.int64())
            except pa.ArrowInvalid:
                continue
            table = table.set_column(i, table.field(i).with_type(pa.int64()), column)
    return table


def _with_text(kind: Any) -> str | None:
    """The type with text in place of what Arrow cannot carry, inside lists, structs and maps too; None if unchanged."""
    if kind.id in _AS_TEXT:
        return "VARCHAR"
    if kind.id not in ("list", "array", "struct", "map"):
        return None
    inner = [(name, child) for name, child in kind.children if name != "size"] if kind.id == "array" else kind.children
    texts = [_with_text(child) for _, child in inner]
    if all(text is None for text in texts):
        return None
    spelled = [text or str(child) for text, (_, child) in zip(texts, inner, strict=True)]
    if kind.id == "struct":
        return f"STRUCT({', '.join(f'{identifier(n)} {t}' for (n, _), t in zip(inner, spelled, strict=True))})"
    if kind.id == "map":
        return f"MAP({', '.join(spelled)})"
    return f"{spelled[0]}[{dict(kind.children)['size'] if kind.id == 'array' else ''}]"
