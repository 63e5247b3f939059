"""``nait-store selection``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nait_store.cli import query_output, selection_views
from nait_store.cli.console import Console
from nait_store.cli.options import ReplaceOut, open_store
from nait_store.cli.quantities import count
from nait_store.cli.version_commands import add_version_commands
from nait_store.refs import Kind

EXIT_DIFFERENT = 1

app = typer.Typer(
    help="List, describe, check and export saved selections.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_selections(context: typer.Context) -> None:
    """List the saved selections, each at its latest version."""
    console: Console = context.obj
    summaries = open_store(console).selections.list()
    console.result(summaries, selection_views.selection_list(summaries, console))


@app.command("show")
def show(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="SELECTION", show_default=False, help="best, or best@1.")],
) -> None:
    """Describe a selection: how it was made, sources, scores, lengths, first samples."""
    console: Console = context.obj
    with console.progress() as progress:
        details = open_store(console, progress).selections.show(reference)
    console.warn(details.gone)
    console.result(details, selection_views.selection_details(details))


@app.command("diff")
def diff(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="FIRST", show_default=False, help="best@1.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", show_default=False, help="best@2, or another selection.")],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write every sample that only one of them has there, as the ending says.",
            show_default=False,
        ),
    ] = None,
    force: ReplaceOut = False,
) -> None:
    """Say in which samples, scores and lengths two selections differ."""
    console: Console = context.obj
    form = query_output.choose_form(None, out, as_json=False)
    target = query_output.open_target(out, overwrite=force)
    with console.progress() as progress:
        found = open_store(console, progress).selections.diff(first, second)
    console.warn(found.gone)
    if out == "-":
        query_output.write(found.rows, "csv", None, console)
        return
    if target is not None:
        with target.open() as stream:
            query_output.write_form(found.rows, form, stream)
    console.result(
        selection_views.diff_value(found, target.url if target else None), selection_views.selection_diff(found)
    )
    if target is not None:
        console.note(f"{count(found.rows.num_rows, 'row')} written to {target.url} ({form})")


@app.command("verify")
def verify(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="SELECTION", show_default=False, help="best, or best@1.")],
) -> None:
    """Make a selection again from what is recorded of it, and compare.

    Set version, profile version, condition, number and seed are those of the record. The exit code is 1 if ids or
    scores differ, or if a version that it was made from is deleted.
    """
    console: Console = context.obj
    with console.progress() as progress:
        report = open_store(console, progress).selections.verify(reference)
    console.result({"ok": report.ok, "report": report}, selection_views.verification(report))
    if not report.ok:
        raise typer.Exit(EXIT_DIFFERENT)


@app.command("export")
def export(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="SELECTION", show_default=False, help="best, or best@1.")],
    to: Annotated[
        Literal["llama-factory", "axolotl", "trl", "hf-datasets", "jsonl", "parquet", "ids"],
        typer.Option("--to", show_default=False, help="Who reads it."),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|FILE",
            show_default=False,
            help="Folder, or for jsonl, parquet and ids the file; path or URL.",
        ),
    ],
    layout: Annotated[
        Literal["alpaca", "sharegpt", "messages", "prompt-completion", "text"] | None,
        typer.Option(help="Of the rows.", show_default="the first that holds every sample, or the records as they are"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the data set and its files.", show_default="best-1")
    ] = None,
    shuffle: Annotated[
        int | None, typer.Option(metavar="SEED", min=0, help="Order by chance.", show_default="by rank")
    ] = None,
    field_map: Annotated[
        str | None,
        typer.Option(
            "--map", metavar="LIST", help="instruction=FIELD,output=FIELD …", show_default="as recorded by ingest"
        ),
    ] = None,
    on_error: Annotated[
        Literal["stop", "skip"], typer.Option(help="What to do about a sample that the layout has no place for.")
    ] = "stop",
    force: Annotated[
        bool,
        typer.Option(
            "--force", "--overwrite", help="Replace files, and an entry of dataset_info.json.", show_default=False
        ),
    ] = False,
) -> None:
    """Write a selection as the files that a trainer reads.

    Clean columns only; where they come from is said in a side file. A layout that would lose something of a sample is
    refused.
    """
    from nait_store.capture.field_maps import FieldMap

    console: Console = context.obj
    columns = None if field_map is None else dict(FieldMap.parse(field_map).columns)
    with console.progress() as progress:
        report = open_store(console, progress).selections.export(
            reference,
            out,
            to=to,
            layout=layout,
            name=name,
            shuffle=shuffle,
            map=columns,
            on_error=on_error,
            overwrite=force,
        )
    console.summary(report, selection_views.export_report(report, shuffle))


add_version_commands(app, Kind.SELECTION, "best")
