"""``nait-store sets compact``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import Message, open_store, parse_bytes
from nait_store.cli.quantities import count, duration, size

if TYPE_CHECKING:
    from nait_store.activations.compaction import CompactionReport


def compact(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", show_default=False, help="Name of the set.")],
    target_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Of a new segment; those of half of it and more are left alone.")
    ] = "1GB",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.", show_default=False)
    ] = False,
    message: Message = "",
) -> None:
    """Merge the small segments of a set into few, without the rows that are hidden.

    The result is a new version with the same samples and scores. Earlier versions keep the old segments until gc.
    """
    console: Console = context.obj
    target_bytes = parse_bytes("--target-size", target_size)
    with console.progress() as progress:
        sets = open_store(console, progress).sets
        report = sets.compact(name, target_bytes=target_bytes, dry_run=dry_run, message=message)
    console.summary(report, [_line(report, dry_run=dry_run)])


def _line(report: CompactionReport, *, dry_run: bool) -> str:
    if not report.n_merged:
        return f"{report.source}: nothing to gain from its {count(report.n_segments_before, 'segment')}"
    about = "about " if dry_run else ""
    merged = f"{count(report.n_merged, 'segment')} into {report.n_written:,}, {about}{size(report.n_bytes)}"
    dropped = f", {count(report.n_dropped_rows, 'hidden row')} left behind" if report.n_dropped_rows else ""
    if dry_run:
        return f"{report.source}: would merge {merged}{dropped}"
    scores = f", {count(report.n_scores, 'score sidecar')} carried over" if report.n_scores else ""
    return f"{report.reference}: merged {merged}{dropped}{scores}, {duration(report.elapsed_seconds)}"
