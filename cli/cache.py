"""``nait-store cache list|prune``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli.console import Console
from nait_store.cli.gc import parse_duration
from nait_store.cli.options import open_store, parse_bytes
from nait_store.cli.quantities import count, size
from nait_store.cli.tables import Table
from nait_store.cli.views import Block, as_mapping

if TYPE_CHECKING:
    from datetime import datetime

    from nait_store.store.garbage.items import Garbage
    from nait_store.store.garbage.roots import Held
    from nait_store.store.score_cache import CachedScores, CacheListing, PruneReport

app = typer.Typer(
    help="The scores that a store keeps: what there is, and taking some away.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_SHOWN_PROFILES = 3

_Set = Annotated[
    str | None,
    typer.Option("--set", metavar="SET", help="Scores of this set only, or of pool@3.", show_default=False),
]
_Profile = Annotated[
    str | None,
    typer.Option("--profile", metavar="PROFILE", help="Scores under this profile only, or math@2.", show_default=False),
]


@app.command("list")
def list_(context: typer.Context, set_name: _Set = None, profile: _Profile = None) -> None:
    """Show which scores are kept, for which sets and profiles."""
    console: Console = context.obj
    listing = open_store(console).score_cache.list(set=set_name, profile=profile)
    value = {**as_mapping(listing), "n_sidecars": listing.n_sidecars, "size_bytes": listing.size_bytes}
    console.result(value, cache_listing(listing, console))


@app.command("prune")
def prune(
    context: typer.Context,
    set_name: _Set = None,
    profile: _Profile = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Take what was written longer ago, e.g. 30d.", show_default=False),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Take more until this much is left, e.g. 10GB: the oldest first.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Take all scores.", show_default=False)] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would go.", show_default=False)
    ] = False,
) -> None:
    """Take away scores that nothing can ask for any more, and those that you choose.

    With --set or --profile alone, all of those go. Scores are a cache: what a query misses it computes again.
    """
    console: Console = context.obj
    age = None if older_than is None else parse_duration("--older-than", older_than)
    max_bytes = None if max_size is None else parse_bytes("--max-size", max_size)
    with console.progress() as progress:
        report = open_store(console, progress).score_cache.prune(
            set=set_name,
            profile=profile,
            older_than=age,
            max_bytes=max_bytes,
            everything=everything,
            dry_run=dry_run,
        )
    value = {**as_mapping(report), "freed_bytes": report.freed_bytes}
    console.result(value, prune_report(report, quiet=console.quiet))


def cache_listing(listing: CacheListing, console: Console) -> Iterator[Block]:
    """One line for each set and profile, then what is of no use, then totals."""
    if listing.scores:
        columns = ("set", "profile", "feature", "metric", "segments", "rows", "size", "written (UTC)")
        yield Table(columns, [_line(one) for one in listing.scores])
    yield from _unknown(listing.unknown)
    if console.quiet:
        return
    if listing.unusable:
        n_bytes = sum(item.size_bytes for item in listing.unusable)
        what = f"{count(len(listing.unusable), 'sidecar')} of no use, {size(n_bytes)}"
        yield f"{what}: damaged, unfinished, or of an earlier release; 'nait-store cache prune' takes them"
    yield f"{count(listing.n_sidecars, 'sidecar')}, {size(listing.size_bytes)}"


def prune_report(report: PruneReport, *, quiet: bool) -> Iterator[Block]:
    """What went, by reason, and what is left."""
    if report.pruned:
        by_reason: dict[str, list[Garbage]] = {}
        for item in report.pruned:
            by_reason.setdefault(item.reason, []).append(item)
        rows = [
            (len(items), size(sum(item.size_bytes for item in items)), reason) for reason, items in by_reason.items()
        ]
        yield Table(("sidecars", "size", "why"), rows)
    yield from _unknown(report.unknown)
    if quiet:
        return
    verb = "would free" if report.dry_run else "freed"
    stays = "would stay" if report.dry_run else "left"
    yield (
        f"{verb} {size(report.freed_bytes)} ({report.freed_bytes:,} bytes) in {count(len(report.pruned), 'sidecar')}; "
        f"{count(report.n_left, 'sidecar')} {stays}, {size(report.left_bytes)}"
    )


def _line(one: CachedScores) -> tuple[object, ...]:
    covered = f"{one.n_covered} of {one.n_segments}" if one.set_ref else "0 of 0"
    more = one.n_sidecars - one.n_covered
    return (
        one.set_ref or one.set or "unknown",
        _profiles(one.profiles),
        one.feature,
        one.metric,
        f"{covered}, and {more} older" if more else covered,
        one.n_rows,
        size(one.size_bytes),
        _span(one.oldest_at, one.newest_at),
    )


def _profiles(references: Sequence[str]) -> str:
    if not references:
        return "unknown"
    shown = ", ".join(references[:_SHOWN_PROFILES])
    more = len(references) - _SHOWN_PROFILES
    return f"{shown} and {more} more" if more > 0 else shown


def _span(oldest: datetime | None, newest: datetime | None) -> str:
    if oldest is None or newest is None:
        return "unknown"
    days = [f"{time:%Y-%m-%d}" for time in (oldest, newest)]
    return f"{newest:%Y-%m-%d %H:%M}" if days[0] == days[1] else " – ".join(days)


def _unknown(held: Sequence[Held]) -> Iterator[Block]:
    if held:
        yield Table(("cannot be read", "why"), [(one.what, one.reason) for one in held])
