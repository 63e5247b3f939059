"""``nait-store sets convert``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import Message, open_store
from nait_store.cli.quantities import count, duration, size

if TYPE_CHECKING:
    from nait_store.activations.conversion import ConversionReport


def convert(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", show_default=False, help="Name of the set.")],
    dtype: Annotated[
        Literal["float16", "bfloat16", "int8", "float32"],
        typer.Option(help="What to store; int8 has a scale for each sample and layer.", show_default=False),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.", show_default=False)
    ] = False,
    message: Message = "",
) -> None:
    """Store a set's activations in another dtype, as its next version.

    Values are rounded, and scores computed anew when asked for. Earlier versions keep what they have until they are
    deleted and gc takes it. Releases of nait-store that do not know bfloat16 and int8 refuse the store from then on.
    """
    console: Console = context.obj
    with console.progress() as progress:
        report = open_store(console, progress).sets.convert(name, dtype, dry_run=dry_run, message=message)
    console.summary(report, [_line(report, dry_run=dry_run)])


def _line(report: ConversionReport, *, dry_run: bool) -> str:
    if not report.n_converted:
        return f"{report.source}: all of it is {report.dtype.value} already"
    segments = count(report.n_converted, "segment")
    sizes = f"{size(report.n_bytes_before)} into {'about ' if dry_run else ''}{size(report.n_bytes)}"
    dropped = f", {count(report.n_dropped_rows, 'hidden row')} left behind" if report.n_dropped_rows else ""
    if dry_run:
        return f"{report.source}: would convert {segments} to {report.dtype.value}, {sizes}{dropped}"
    took = duration(report.elapsed_seconds)
    return f"{report.reference}: converted {segments} to {report.dtype.value}, {sizes}{dropped}, {took}"
