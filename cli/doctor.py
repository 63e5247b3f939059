"""``nait-store doctor``."""

from __future__ import annotations

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.errors import NaitStoreError

EXIT_PROBLEM = 1


def doctor(context: typer.Context) -> None:
    """Say what is wrong with installation, machine or store.

    The exit code is 1 if anything is.
    """
    from nait_store.store.doctor import examine

    console: Console = context.obj
    try:
        store = open_store(console)
    except NaitStoreError as error:
        report = examine(None, error)
    else:
        report = store.doctor()
    console.result({"ok": report.ok, **views.as_mapping(report)}, views.doctor_report(report))
    if not report.ok:
        raise typer.Exit(EXIT_PROBLEM)
