"""``nait-store sets``."""

from __future__ import annotations

from typing import Annotated

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.options import open_store

app = typer.Typer(help="List and describe activation sets.", no_args_is_help=True, rich_markup_mode=None)


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
    """List the versions of a set: when, by whom, how many samples."""
    console: Console = context.obj
    manifests = open_store(console).sets.history(name)
    console.result(manifests, views.set_history(manifests))
