"""Where the result of a query goes: tables for people, CSV, JSON, JSON lines or Parquet for programs."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

from nait_store.cli.console import Console
from nait_store.cli.quantities import count
from nait_store.cli.query_values import flat, json_values
from nait_store.cli.tables import Table, cell, markdown_table, plain_table
from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow as pa

    from nait_store.selection.export import Target

_ENDINGS = {
    "csv": "csv",
    "json": "json",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "parquet": "parquet",
    "pq": "parquet",
    "md": "markdown",
    "markdown": "markdown",
    "txt": "table",
}
_MOST_ROWS_ON_TERMINAL = 500
_ROWS_PER_BATCH = 4096
_PLAN_COLUMNS = ["explain_key", "explain_value"]


def choose_form(asked: str | None, out: str | None, *, as_json: bool) -> str:
    """Return the asked format, else what the file's name ends in, else ``json`` or ``table``.

    Raises
    ------
    InvalidInputError
        An ending that stands for no format; Parquet for a terminal.
    """
    form = asked
    if form is None and out not in (None, "-"):
        _, dot, ending = str(out).rsplit("/", 1)[-1].rpartition(".")
        form = _ENDINGS.get(ending.lower())
        if dot and form is None:
            raise InvalidInputError(
                f"--out {out!r}: the ending .{ending} stands for no format",
                next_step=f"use one of {', '.join('.' + known for known in _ENDINGS)}, or add --format",
            )
    if form is None:
        form = "json" if as_json else "table"
    if form == "parquet" and out in (None, "-") and sys.stdout.isatty():
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

        pyarrow.csv.write_csv(flat(_distinct(table)), stream)
    elif form == "parquet":
        _write_parquet(_distinct(table), stream)
    elif form in ("table", "markdown"):
        draw = plain_table if form == "table" else markdown_table
        stream.write((draw(_rows(table)) + "\n").encode())
    else:
        _write_json(_distinct(table), stream, lines=form == "jsonl")


def _write_parquet(table: pa.Table, stream: Any) -> None:
    import pyarrow.parquet

    if stream.seekable():
        pyarrow.parquet.write_table(table, stream)
        return
    buffer = io.BytesIO()  # the writer asks a stream where it is, and a pipe does not know
    pyarrow.parquet.write_table(table, buffer)
    stream.write(buffer.getbuffer())


def _write_json(table: pa.Table, stream: Any, *, lines: bool) -> None:
    names = table.column_names
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    first = True
    if not lines:
        stream.write(b"[")
    for batch in table.to_batches(max_chunksize=_ROWS_PER_BATCH):
        columns = [json_values(name, column) for name, column in zip(names, batch.columns, strict=True)]
        texts = [encode(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
        if lines:
            stream.write("".join(f"{text}\n" for text in texts).encode())
        elif texts:
            stream.write(("" if first else ",").encode() + ("\n " + ",\n ".join(texts)).encode())
            first = False
    if not lines:
        stream.write(b"]\n" if first else b"\n]\n")


def _distinct(table: pa.Table) -> pa.Table:
    """With names that programs can tell apart: what reads JSON or CSV keeps one column of a name."""
    from nait_store.query.result import distinct_names

    return table.rename_columns(distinct_names(table.column_names))


def _show(table: pa.Table, console: Console) -> None:
    if table.column_names == _PLAN_COLUMNS:  # of EXPLAIN: a drawing, which a table would put on one line
        plan = "\n".join(table.column("explain_value").to_pylist())
        console.result(None, ["\n".join(cell(line) for line in plan.splitlines())])
        return
    shown = table.slice(0, _MOST_ROWS_ON_TERMINAL) if sys.stdout.isatty() else table
    console.result(None, [_rows(shown)])
    if shown.num_rows < table.num_rows:
        console.note(f"… {table.num_rows - shown.num_rows:,} more rows: add LIMIT, or --out FILE.csv for all of them")
    console.note(count(table.num_rows, "row"))


def _rows(table: pa.Table) -> Table:
    from nait_store.query.result import python_values

    plain = flat(table)
    columns = [python_values(name, column) for name, column in zip(plain.column_names, plain.columns, strict=True)]
    return Table(plain.column_names, list(zip(*columns, strict=True)))
