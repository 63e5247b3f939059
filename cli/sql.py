"""``nait-store sql``."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import open_store, parse_parameters
from nait_store.errors import InvalidInputError


def sql(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", show_default=False, help="SQL, or - for standard input.")],
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Value of $NAME in the query; may be repeated.")
    ] = None,
    form: Annotated[
        Literal["table", "csv", "json", "jsonl", "parquet"] | None,
        typer.Option("--format", help="Of the result.", show_default="by the ending of --out, else table"),
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Write the result here, whole or not at all.")] = None,
    force: Annotated[
        bool, typer.Option("--force", "--overwrite", help="Replace the file of --out if it exists.", show_default=False)
    ] = False,
) -> None:
    """Query samples, scores and metadata with SQL.

    samples('SET') is a table of records, alignment('SET', 'PROFILE') one of scores; activation_sets, versions,
    segments, profiles, profile_layers, aliases, tags and selections are views of what the store holds.
    """
    from nait_store.cli import query_output

    console: Console = context.obj
    text = sys.stdin.read() if query == "-" else query
    if not text.strip():
        raise InvalidInputError("the query is empty", next_step='give SQL, e.g. "SELECT * FROM activation_sets"')
    chosen = query_output.choose_form(form, out, as_json=console.as_json)
    target = query_output.open_target(out, overwrite=force)
    with console.progress() as progress:
        result = open_store(console, progress).sql(text, parse_parameters(param or []))
    console.warn(result.warnings)
    query_output.write(result.arrow(), chosen, target, console)
