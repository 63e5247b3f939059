"""``nait-store sets``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from nait_store.cli import history_views, views
from nait_store.cli.console import Console
from nait_store.cli.options import Message, open_store
from nait_store.cli.version_commands import add_version_commands
from nait_store.refs import Kind

app = typer.Typer(help="List, describe and change activation sets.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_sets(context: typer.Context) -> None:
    """List the sets of the store, each at its latest version."""
    console: Console = context.obj
    summaries = open_store(console).sets.list()
    console.result(summaries, views.set_list(summaries, console))


@app.command("show")
def show(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="SET", show_default=False, help="pool, or pool@3.")],
) -> None:
    """Describe a set: counts, features, layers, model, template, fields."""
    console: Console = context.obj
    details = open_store(console).sets.show(reference)
    console.warn(details.warnings)
    console.result(details, views.set_details(details))


@app.command("history")
def history(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", show_default=False, help="Name of the set.")],
) -> None:
    """List the versions of a set and what made each, and the texts of their notes."""
    console: Console = context.obj
    sets = open_store(console).sets
    versions, notes = sets.history(name), sets.notes(name)
    console.result(versions, history_views.set_history(versions, notes))


@app.command("diff")
def diff(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="FIRST", show_default=False, help="pool@1.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", show_default=False, help="pool@2, or another set.")],
    ids: Annotated[
        bool,
        typer.Option("--ids", help="Write every id: CSV, or with --json JSON lines.", show_default=False),
    ] = False,
) -> None:
    """Say in which samples two versions differ."""
    console: Console = context.obj
    found = open_store(console).sets.diff(first, second)
    if ids:
        for line in history_views.diff_ids(found, as_json=console.as_json):
            sys.stdout.write(f"{line}\n")
    else:
        console.result(history_views.diff_value(found), history_views.set_diff(found))


@app.command("delete-samples")
def delete_samples(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", show_default=False, help="Name of the set.")],
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Delete the samples for which this holds, e.g. \"source = 'x'\".")
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Delete these: one id a line (- for standard input), or a .jsonl, .csv or .parquet file with a "
            "column sample_id.",
        ),
    ] = None,
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-missing", help="Pass over ids that the set does not have.", show_default=False)
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Go ahead even if no sample is left.", show_default=False)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.", show_default=False)
    ] = False,
    message: Message = "",
) -> None:
    """Commit a version without some of the samples."""
    console: Console = context.obj
    store = open_store(console)
    report = store.sets.delete_samples(
        name,
        where=where,
        ids=None if ids is None else _ids(ids),
        ignore_missing=ignore_missing,
        allow_empty=everything,
        message=message,
        dry_run=dry_run,
    )
    lines = history_views.deleted_samples(report, console)
    if dry_run:
        console.result(report, lines)
    else:
        console.summary(report, lines)


@app.command("restore")
def restore(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="VERSION", show_default=False, help="pool@3; a deleted one too.")],
    message: Message = "",
) -> None:
    """Commit a version that equals an old one."""
    console: Console = context.obj
    report = open_store(console).sets.restore(reference, message=message)
    console.summary(report, history_views.restored_version(report))


add_version_commands(app, Kind.SET, "pool")


def _ids(file: str) -> Iterable[str]:
    from nait_store.store.id_files import read_id_lines, read_ids

    return read_id_lines(sys.stdin.buffer, "standard input") if file == "-" else read_ids(file)
