"""``nait-store gc``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.cli.quantities import count, size
from nait_store.cli.tables import Table
from nait_store.cli.views import Block, as_mapping
from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    from nait_store.store.garbage.collection import GcReport

_DURATION = re.compile(r"(?P<number>[0-9]{1,7})(?P<unit>[smhdw]?)\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def gc(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would go.", show_default=False)
    ] = False,
    grace: Annotated[
        str,
        typer.Option(metavar="DURATION", help="How long deleted versions can be brought back, e.g. 12h, 7d, 2w, 0."),
    ] = "7d",
    keep_last: Annotated[
        int | None,
        typer.Option(metavar="N", help="Delete versions of sets that are not among the last N.", show_default=False),
    ] = None,
    expire_older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Delete versions of sets that are older.", show_default=False),
    ] = None,
    set_name: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="This set only.", show_default=False)
    ] = None,
) -> None:
    """Free the space of deleted versions and of what crashes left.

    With --keep-last or --expire-older-than it also deletes old versions of sets, which can be brought back until a
    later run takes them; where both are given a version must be old and not among the last.
    """
    console: Console = context.obj
    kept = parse_duration("--grace", grace)
    older_than = None if expire_older_than is None else parse_duration("--expire-older-than", expire_older_than)
    with console.progress() as progress:
        report = open_store(console, progress).gc(
            dry_run=dry_run, grace=kept, keep_last=keep_last, expire_older_than=older_than, set=set_name
        )
    value = {**as_mapping(report), "n_files": report.n_files, "freed_bytes": report.freed_bytes}
    console.result(value, gc_report(report, quiet=console.quiet))


def parse_duration(option: str, text: str) -> timedelta:
    """``7d`` → a week; a number needs its unit, except 0."""
    match = _DURATION.match(text.strip())
    if match is None or not (match["unit"] or int(match["number"]) == 0):
        raise InvalidInputError(
            f"{option} {text!r} is not a duration", next_step=f"write a number and s, m, h, d or w, e.g. {option} 7d"
        )
    return timedelta(seconds=int(match["number"]) * _SECONDS.get(match["unit"], 0))


def gc_report(report: GcReport, *, quiet: bool) -> Iterator[Block]:
    """What went, and what stays although it is deleted."""
    if report.garbage:
        rows = [
            (str(item.kind), item.path, item.reason, item.n_files, size(item.size_bytes)) for item in report.garbage
        ]
        yield Table(("what", "path", "why", "files", "size"), rows)
    if report.expired:
        verb = "would be deleted" if report.dry_run else "deleted"
        yield Table((verb, "why"), [(expired.reference, expired.reason) for expired in report.expired])
    if quiet:
        return
    if report.held:
        yield Table(("stays", "why"), [(held.what, held.reason) for held in report.held])
    verb = "would free" if report.dry_run else "freed"
    yield f"{verb} {size(report.freed_bytes)} ({report.freed_bytes:,} bytes) in {count(report.n_files, 'file')}"
