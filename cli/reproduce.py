"""``nait-store reproduce``."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.cli.quantities import count
from nait_store.cli.tables import Table, cell
from nait_store.errors import InvalidInputError, NaitStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nait_store.store.lineage.reproduction import ReproductionReport

EXIT_DIFFERENT = 1


def reproduce(
    context: typer.Context,
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF", show_default=False, help="Any set, profile or selection: best, math@3, set:pool@1."
        ),
    ],
    run: Annotated[
        bool, typer.Option("--run", help="Run the commands in a new store and compare.", show_default=False)
    ] = False,
    folder: Annotated[
        str | None,
        typer.Option("--in", metavar="FOLDER", help="Of the new store, which stays.", show_default="a temporary one"),
    ] = None,
    moved: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="OLD=NEW", help="Where a recorded file or model is now.", show_default=False),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(metavar="X", help="Largest relative error of a sample's vector.", show_default="by the dtypes"),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that models bring along.", show_default=False)
    ] = False,
) -> None:
    """Print the commands that make a version again, or run them.

    With --run they run in a new store, and what they make is compared: ids and input digests must be equal, numbers
    within the tolerance. The exit code is 1 if anything differs.
    """
    console: Console = context.obj
    if not run and (folder is not None or tolerance is not None):
        raise InvalidInputError("--in and --tolerance are about running", next_step="add --run")
    planned = open_store(console).reproduce(reference, moved=_moved(moved or []))
    if not run:
        if console.as_json:
            console.json({"reference": planned.steps.root.qualified, "steps": planned.steps})
        else:
            sys.stdout.write(planned.script())
        console.warn(planned.steps.obstacles)
        return
    report = planned.run(
        folder,
        tolerance=tolerance,
        trust_remote_code=trust_remote_code,
        execute=_execute,
        announce=lambda step: console.note(cell(step.command.splitlines()[0])),
    )
    console.result({"ok": report.ok, "report": report}, _report(report))
    if not report.ok:
        raise typer.Exit(EXIT_DIFFERENT)


def _moved(texts: Sequence[str]) -> dict[str, str]:
    moved = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise InvalidInputError(f"--at {text!r} is not of the form OLD=NEW", next_step="write --at ./old=./new")
        moved[old] = new
    return moved


def _execute(arguments: Sequence[str], lines: str) -> None:
    """Run a command in this process, which has loaded by then what models need."""
    from nait_store.cli.app import invoke

    with _standard_input(lines):
        code = invoke(arguments)
    if code:
        raise NaitStoreError(f"nait-store {' '.join(arguments[3:5])} … ended with exit code {code}")


@contextmanager
def _standard_input(lines: str) -> Iterator[None]:
    before: Any = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(lines.encode()), encoding="utf-8")
    try:
        yield
    finally:
        sys.stdin = before


def _report(report: ReproductionReport) -> Iterator[str | Table]:
    """A line for each comparison, and the verdict."""
    rows = [(check.subject, check.what, "same" if check.ok else "DIFFERS", check.detail) for check in report.checks]
    yield Table(("of", "what", "verdict", "found"), rows)
    failed = sum(not check.ok for check in report.checks)
    yield ""
    if report.ok:
        yield f"{report.reference} was made again: {count(len(report.checks), 'comparison')}, all the same"
    elif not report.n_commands:
        yield f"{report.reference} was not made again: its inputs are not what they were, so nothing was run"
    else:
        yield f"{report.reference} was not made again: {failed:,} of {count(len(report.checks), 'comparison')} differ"
    if report.folder is not None:
        yield f"the new store is {report.folder}"
