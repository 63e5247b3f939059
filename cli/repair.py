"""``nait-store repair``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import parse_pairs
from nait_store.cli.quantities import count
from nait_store.cli.tables import Table
from nait_store.cli.views import Block, as_mapping
from nait_store.errors import CorruptChunkError

if TYPE_CHECKING:
    from nait_store.store.options import IngestOptions
    from nait_store.store.repair.repair_log import Note
    from nait_store.store.repair.repairing import RepairReport


def repair(
    context: typer.Context,
    set_name: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="Mend this set only.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be mended and lost, and change nothing.", show_default=False),
    ] = False,
    rejects: Annotated[
        str, typer.Option(metavar="FILE", help="Append the dropped rows to this JSON Lines file.")
    ] = "repair-rejects.jsonl",
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Capture the dropped samples again from here; may be given several times."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Folder or hub id of the set's model, for --source.")
    ] = None,
    id_field: Annotated[
        str | None, typer.Option("--id-field", metavar="FIELD", help="As given to the ingest, for --source.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=NAME", help="As given to the ingest, for --source."),
    ] = None,
) -> None:
    """Verify everything, mend what can be mended, and leave out what is lost.

    Flipped bits in small files, metadata, norms, documents and caches are made again as they were. The rows of damaged
    chunks become blank in all versions and are listed; all sound rows are kept. The exit code is 9 if damage is left.
    """
    from nait_store.store.repair.repairing import open_damaged

    console: Console = context.obj
    options: IngestOptions = {"rejects": rejects, "id_field": id_field}
    if mapping:
        options["map"] = parse_pairs("--map", mapping, "instruction=question")
    with console.progress() as progress:
        store = open_damaged(console.store_url, progress)
        report = store.repair(set=set_name, sources=source or (), model=model, dry_run=dry_run, **options)
    console.result({"ok": report.ok, **as_mapping(report)}, repair_report(report))
    if not report.ok:
        raise typer.Exit(CorruptChunkError.exit_code)


def repair_report(report: RepairReport) -> Iterator[Block]:
    """What was mended, what is lost, and what is left."""
    if not report.found:
        yield "the store is sound: nothing to repair"
        return
    would = "would be " if report.dry_run else ""
    yield f"{count(len({finding.path for finding in report.found}), 'file')} damaged"
    yield from _notes(f"{would}mended", "how", report.mended)
    yield from _notes(f"{would}deleted", "why", report.deleted)
    yield from _notes("cannot be saved", "what", report.lost)
    if report.n_dropped:
        yield f"{count(report.n_dropped, 'row')} {would}dropped, listed in {report.rejects}"
    if report.n_recaptured:
        yield f"{count(report.n_recaptured, 'sample')} captured again"
    if report.versions:
        yield f"committed {', '.join(report.versions)}"
    if report.dry_run:
        return
    if report.ok:
        yield "the store is sound now"
        return
    rows = [(finding.path, finding.problem) for finding in report.remaining]
    yield Table(("still damaged", "finding"), rows)
    yield "  → put these files back from a copy of the store, or make again what they hold"


def _notes(title: str, what: str, notes: Sequence[Note]) -> Iterator[Block]:
    if notes:
        yield Table((title, what), [(note.path, note.text) for note in notes])
