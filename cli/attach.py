"""``nait-store attach``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.cli.quantities import count, size

if TYPE_CHECKING:
    from nait_store.store.attached_file import AttachReport


def attach(
    context: typer.Context,
    out: Annotated[str, typer.Option(metavar="FILE", show_default=False, help="DuckDB file to write.")],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SET", help="pool, pool@3, or a pattern: 'math-*', 'pool@*'.", show_default="all"
        ),
    ] = None,
    profiles: Annotated[
        list[str] | None,
        typer.Option("--profile", metavar="PROFILE", help="math, math@2, or a pattern: 'math@*'.", show_default="all"),
    ] = None,
    compute: Annotated[
        bool, typer.Option("--compute", help="Compute scores that are missing first.", show_default=False)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "--overwrite", help="Replace the file if it exists.", show_default=False)
    ] = False,
) -> None:
    """Write a DuckDB file of views, for other programs.

    Its views read the samples and the stored scores from the store's files, so that the duckdb command, DBeaver,
    Superset or a notebook can query them without this package. --set and --profile may be repeated.
    """
    console: Console = context.obj
    with console.progress() as progress:
        report = open_store(console, progress).attach(
            out, sets=sets or (), profiles=profiles or (), compute=compute, overwrite=force
        )
    console.warn([*report.warnings, *_left_out(report)])
    console.summary(report, _summary(report))


def _left_out(report: AttachReport) -> Iterator[str]:
    for missing in report.missing:
        yield (
            f"left out: {missing.set_ref} under {', '.join(missing.profile_refs)}, whose scores are not stored; "
            f"run {missing.command} and attach again, or attach with --compute"
        )


def _summary(report: AttachReport) -> list[str]:
    n_samples = sum(view.profile_ref is None for view in report.views)
    n_scores = len(report.views) - n_samples
    return [
        f"{report.url}: {count(n_samples, 'view')} of samples, {n_scores:,} of scores, {size(report.size_bytes)}",
        f'next: duckdb -readonly {shlex.quote(report.url)} "FROM attached_views"',
    ]
