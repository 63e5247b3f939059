"""``nait-store sql``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import open_store, parse_bytes, parse_parameters
from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    from nait_store.query.sandbox.limits import SandboxLimits


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
    sandbox: Annotated[
        bool,
        typer.Option("--sandbox", help="The query is not yours: let it read the store and nothing else (Linux)."),
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --sandbox: stop it then.", show_default="10")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="With --sandbox: what it may need.", show_default="1GiB")
    ] = None,
    max_output: Annotated[
        str | None, typer.Option(metavar="SIZE", help="With --sandbox: what it may give.", show_default="64MiB")
    ] = None,
    new_scores: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --sandbox: profiles that may be scored for it.", show_default="4"),
    ] = None,
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
    limits = _limits(sandbox, timeout, memory, max_output, new_scores)
    chosen = query_output.choose_form(form, out, as_json=console.as_json)
    target = query_output.open_target(out, overwrite=force)
    with console.progress() as progress:
        result = open_store(console, progress).sql(text, parse_parameters(param or []), sandbox=limits)
    console.warn(result.warnings)
    query_output.write(result.arrow(), chosen, target, console)


def _limits(
    sandbox: bool, timeout: float | None, memory: str | None, max_output: str | None, new_scores: int | None
) -> SandboxLimits | bool:
    given: dict[str, Any] = {"--timeout": timeout, "--memory": memory, "--max-output": max_output}
    given["--new-scores"] = new_scores
    if not sandbox:
        for option, value in given.items():
            if value is not None:
                raise InvalidInputError(
                    f"{option} is a limit of the sandbox", next_step="add --sandbox, or leave it out"
                )
        return False
    from nait_store.query.sandbox.limits import SandboxLimits

    limits: dict[str, Any] = {
        "wall_seconds": timeout,
        "memory_bytes": None if memory is None else parse_bytes("--memory", memory),
        "output_bytes": None if max_output is None else parse_bytes("--max-output", max_output),
        "new_scores": new_scores,
    }
    return SandboxLimits(**{name: value for name, value in limits.items() if value is not None})
