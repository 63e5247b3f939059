"""``nait-store verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.errors import CorruptChunkError


def verify(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare sizes only, hash nothing.", show_default=False)
    ] = False,
) -> None:
    """Compare every file of the store with its record.

    The exit code is 9 if anything is damaged.
    """
    console: Console = context.obj
    with console.progress() as progress:
        report = open_store(console, progress).verify(quick=quick)
    console.result({"ok": report.ok, **views.as_mapping(report)}, views.verify_report(report, quiet=console.quiet))
    if not report.ok:
        raise typer.Exit(CorruptChunkError.exit_code)
