"""``nait-store purge``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.cli.quantities import count
from nait_store.cli.tables import cell
from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    from nait_store.store.purge.purging import PurgeReport

_SHOWN = 10


def purge(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="SET", show_default=False, help="Name of the set; not with --everywhere.")
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Purge these: one id a line (- for standard input), or a .jsonl, .csv or .parquet file with a "
            "column sample_id.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL", help="Purge the samples of the latest version, or of pool@3, for which this holds."
        ),
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Purge them from all sets of the store.", show_default=False)
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: there is no way back.", show_default=False)] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be purged, and change nothing.", show_default=False)
    ] = False,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Recorded with the version; do not name the samples.")
    ] = "",
) -> None:
    """Take samples out of everything in the store, for good.

    They leave every version of the set, deleted ones included, with their activations, texts and scores, and they leave
    saved selections and lists of rejected records. Clean the source files too: the next ingest would bring them back.
    """
    console: Console = context.obj
    if not yes and not dry_run:
        raise InvalidInputError(
            "a purge cannot be undone", next_step="look first with --dry-run, then say --yes instead"
        )
    with console.progress() as progress:
        report = open_store(console, progress).purge(
            name, ids=None if ids is None else _ids(ids), where=where, everywhere=everywhere, reason=reason,
            dry_run=dry_run,
        )  # fmt: skip
    console.result(report, purge_report(report))


def purge_report(report: PurgeReport) -> Iterator[str]:
    """What went, what did not, and what is left to do."""
    would = "would be " if report.dry_run else ""
    sets = ", ".join(report.sets)
    yield (
        f"{count(report.n_found, 'sample')} of {report.n_asked:,} found in {sets}: "
        f"{count(report.n_rows, 'row')} {would}purged"
    )
    if report.versions:
        yield f"recorded as {', '.join(report.versions)}"
    if report.not_found:
        yield f"not there, or purged already: {_first(report.not_found)}"
    if report.rewritten:
        yield f"{would}rewritten:"
        yield from (f"  {path}" for path in report.rewritten)
    if report.deleted:
        yield f"{would}deleted:"
        yield from (f"  {path}" for path in report.deleted)
    if report.n_cached_files:
        yield f"{count(report.n_cached_files, 'file')} deleted from this machine's cache"
    if report.sources:
        yield "clean these too, else the next ingest brings the samples back:"
        yield from (f"  {source}" for source in report.sources)
    if report.remains:
        yield "not reached:"
        yield from (f"  {text}" for text in report.remains)


def _first(texts: tuple[str, ...]) -> str:
    shown = ", ".join(map(cell, texts[:_SHOWN]))
    return f"{shown}, … ({len(texts):,} in all)" if len(texts) > _SHOWN else shown


def _ids(file: str) -> Iterable[str]:
    from nait_store.store.id_files import read_id_lines, read_ids

    return read_id_lines(sys.stdin.buffer, "standard input") if file == "-" else read_ids(file)
