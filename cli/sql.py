"""``nait-store sql``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nait_store.cli.console import Console
from nait_store.cli.main import EXIT_USAGE
from nait_store.cli.options import ReplaceOut, open_store, parse_bytes, parse_parameters, parse_tables
from nait_store.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from nait_store.query.sandbox.limits import SandboxLimits


def sql(
    context: typer.Context,
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", show_default=False, help="SQL, or - for standard input.")
    ] = None,
    file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Read the query from a file instead; - for standard input.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Value of $NAME in the query; may be repeated.")
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Parquet, CSV, JSON, JSON Lines or Arrow file, glob or URL that the query reads as NAME; "
            "may be repeated.",
        ),
    ] = None,
    form: Annotated[
        Literal["table", "csv", "json", "jsonl", "parquet", "markdown"] | None,
        typer.Option("--format", help="Of the result.", show_default="by the ending of --out, else table"),
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Write the result here, whole or not at all.")] = None,
    force: ReplaceOut = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Say which activations would be scanned, how many bytes, and which scores are stored; run nothing.",
            show_default=False,
        ),
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
    """Query samples, scores and metadata with DuckDB's SQL.

    Tables: samples('SET'), alignment('SET', 'PROFILE'), alignment_all('SET'), alignment_layers('SET', 'PROFILE'),
    neuron('SET', LAYER, INDEX), activation('SET', LAYER), top_neurons('SET', 'ID'), similar('SET', 'ID'),
    profile_similarity(). "DESCRIBE FROM samples('pool')" lists the columns of one.

    Views: activation_sets, versions, segments, profiles, profile_layers, aliases, tags, notes, selections, all_samples,
    selected_samples. "DESCRIBE profiles" lists the columns of one.
    """
    console: Console = context.obj
    text = _read_query(query, file)
    if text is None:
        sys.stderr.write(context.get_help() + "\n")
        raise typer.Exit(EXIT_USAGE)
    if not text.strip():
        raise InvalidInputError("the query is empty", next_step='give SQL, e.g. "SELECT * FROM activation_sets"')
    limits = _limits(sandbox, timeout, memory, max_output, new_scores)
    parameters, tables = parse_parameters(param or []), parse_tables(table or [])
    if explain and sandbox:
        raise InvalidInputError(
            "--explain and --sandbox exclude each other: a query is explained by this process",
            next_step="leave one of them out",
        )
    if explain:
        from nait_store.cli.plan_view import plan_blocks, plan_value

        plan = open_store(console).explain(text, parameters, tables=tables)
        console.result(plan_value(plan), plan_blocks(plan))
        return
    from nait_store.cli import query_output

    chosen = query_output.choose_form(form, out, as_json=console.as_json)
    target = query_output.open_target(out, overwrite=force)
    with console.progress() as progress:
        result = open_store(console, progress).sql(text, parameters, tables=tables, sandbox=limits)
    console.warn(result.warnings)
    query_output.write(result.arrow(), chosen, target, console)


def _read_query(query: str | None, file: str | None) -> str | None:
    """The query's text; None where there is none, and nobody pipes one in."""
    if query is not None and file is not None:
        raise InvalidInputError("QUERY and --file exclude each other", next_step="leave one of them out")
    given = query if query is not None else file
    if given is None and (sys.stdin is None or sys.stdin.isatty()):
        return None
    try:
        if given is None or given == "-":
            return sys.stdin.read()
        return given if file is None else _read_file(file)
    except UnicodeDecodeError as error:
        where = "standard input" if given in (None, "-") else file
        raise InvalidInputError(f"the query in {where} is not UTF-8 text: {error}", next_step="convert it") from error


def _read_file(file: str) -> str:
    path = Path(file).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"there is no file {path.absolute()}", next_step="check the path of --file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(
            f"the query cannot be read from {file!r}: {reason}", next_step="name a text file with one SELECT"
        ) from error


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
