"""Where the result of a query goes: a table for people, CSV, JSON, JSON lines or Parquet for programs."""

from __future__ import annotations

import io
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from nait_store.cli.console import Console, as_json
from nait_store.cli.quantities import count
from nait_store.cli.tables import Table
from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow as pa

    from nait_store.selection.export import Target

_ENDINGS = {"csv": "csv", "json": "json", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet"}
_MOST_ROWS_ON_TERMINAL = 500
_ROWS_PER_BATCH = 4096


def choose_form(asked: str | None, out: str | None, *, as_json: bool) -> str:
    """Return the asked format, else what the file's name ends in, else ``json`` or ``table``."""
    form = asked
    if form is None and out not in (None, "-"):
        form = _ENDINGS.get(str(out).rsplit(".", 1)[-1].lower())
    if form is None:
        form = "json" if as_json else "table"
    if form == "parquet" and out is None and sys.stdout.isatty():
        raise InvalidInputError("Parquet is not for a terminal", next_step="add --out FILE.parquet")
    return form


def open_target(out: str | None, *, overwrite: bool) -> Target | None:
    """Check where to write before anything is computed; None is standard output."""
    from nait_store.selection.destination import Destination

    return None if out in (None, "-") else Destination(str(out), overwrite=overwrite)


def write(table: pa.Table, form: str, target: Target | None, console: Console) -> None:
    """Write a result."""
    if target is None and form == "table":
        _show(table, console)
        return
    if target is None:
        write_form(table, form, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        with target.open() as stream:
            write_form(table, form, stream)
        console.summary(
            {"url": target.url, "format": form, "n_rows": table.num_rows},
            [f"{count(table.num_rows, 'row')} written to {target.url} ({form})"],
        )


def write_form(table: pa.Table, form: str, stream: Any) -> None:
    """Write a table to a binary stream in a format."""
    if form == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(_flat(table), stream)
    elif form == "parquet":
        import pyarrow.parquet

        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table, buffer)
        stream.write(buffer.getbuffer())
    elif form == "table":
        from nait_store.cli.tables import plain_table

        stream.write((plain_table(_rows(table)) + "\n").encode())
    else:
        _write_json(table, stream, lines=form == "jsonl")


def _write_json(table: pa.Table, stream: Any, *, lines: bool) -> None:
    first = True
    if not lines:
        stream.write(b"[")
    for batch in table.to_batches(max_chunksize=_ROWS_PER_BATCH):
        texts = [json.dumps(_finite(as_json(row)), ensure_ascii=False) for row in batch.to_pylist()]
        if lines:
            stream.write("".join(f"{text}\n" for text in texts).encode())
        elif texts:
            stream.write(("" if first else ",").encode() + ("\n " + ",\n ".join(texts)).encode())
            first = False
    if not lines:
        stream.write(b"]\n" if first else b"\n]\n")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null, as DuckDB's own JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _flat(table: pa.Table) -> pa.Table:
    """Lists, structs and other nested values as JSON text: CSV has no form for them."""
    import pyarrow as pa

    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_nested(field.type):
            texts = [None if v is None else json.dumps(as_json(v), ensure_ascii=False) for v in column.to_pylist()]
            column = pa.chunked_array([pa.array(texts, pa.string())])
        columns.append(column)
    return pa.Table.from_arrays(columns, names=table.column_names)


def _show(table: pa.Table, console: Console) -> None:
    shown = table.slice(0, _MOST_ROWS_ON_TERMINAL) if sys.stdout.isatty() else table
    console.result(None, [_rows(shown)])
    if shown.num_rows < table.num_rows:
        console.note(f"… {table.num_rows - shown.num_rows:,} more rows: add LIMIT, or --out FILE.csv for all of them")
    console.note(count(table.num_rows, "row"))


def _rows(table: pa.Table) -> Table:
    columns = [column.to_pylist() for column in table.columns]
    return Table(table.column_names, list(zip(*columns, strict=True)))
