"""``nait-store verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.errors import CorruptChunkError, FormatError, UnsupportedVersionError

if TYPE_CHECKING:
    from nait_store.progress import ProgressListener
    from nait_store.storage.location import Location


def verify(
    context: typer.Context,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Read the documents and compare sizes only; hash nothing else.", show_default=False
        ),
    ] = False,
    set_name: Annotated[str | None, typer.Option("--set", metavar="NAME", help="Verify this set only.")] = None,
) -> None:
    """Compare every byte of the store with its records.

    The exit code is 9 if anything is damaged or lost.
    """
    from nait_store.store.integrity import verify as verify_store

    console: Console = context.obj
    with console.progress() as progress:
        report = verify_store(_root(console, progress), quick=quick, set_name=set_name, progress=progress)
    console.result({"ok": report.ok, **views.as_mapping(report)}, views.verify_report(report, quiet=console.quiet))
    if not report.ok:
        raise typer.Exit(CorruptChunkError.exit_code)


def _root(console: Console, progress: ProgressListener) -> Location:
    """Root of the store that the command line names; a damaged ``store.json`` is a finding like any other."""
    from nait_store.store.facade import store_location

    try:
        return open_store(console, progress).location
    except UnsupportedVersionError:
        raise
    except FormatError:
        return store_location(console.store_url)
