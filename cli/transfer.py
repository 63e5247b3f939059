"""``nait-store transfer-report``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nait_store.cli import query_output
from nait_store.cli.console import Console, as_json
from nait_store.cli.options import ReplaceOut, open_store, parse_list
from nait_store.cli.quantities import count
from nait_store.cli.tables import Table, pairs
from nait_store.cli.views import Block

if TYPE_CHECKING:
    from nait_store.store.transfer import TransferReport


def transfer_report(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="FIRST", show_default=False, help="Profile, math or math@3.")],
    second: Annotated[
        str, typer.Argument(metavar="SECOND", show_default=False, help="Its sister of another model, math-qwen.")
    ],
    on: Annotated[
        tuple[str, str],
        typer.Option(metavar="SET SET", show_default=False, help="What each of them ranks: pool pool-qwen."),
    ],
    top: Annotated[str, typer.Option(metavar="LIST", help="How many are the best: shares or numbers.")] = "10%,30%",
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write both ranks and scores of every sample there, as the ending says.",
            show_default=False,
        ),
    ] = None,
    force: ReplaceOut = False,
) -> None:
    """Say how alike two models rank the same candidates.

    Samples are matched by id. Scores that are missing are computed, and kept.
    """
    console: Console = context.obj
    form = query_output.choose_form(None, out, as_json=False)
    target = query_output.open_target(out, overwrite=force)
    with console.progress() as progress:
        report = open_store(console, progress).transfer_report(first, second, on=on, top=parse_list(top))
    console.warn(report.warnings)
    if out == "-":
        query_output.write(report.rows, "csv", None, console)
        return
    if target is not None:
        with target.open() as stream:
            query_output.write_form(report.rows, form, stream)
    console.result(report_value(report, target.url if target else None), report_view(report))
    if target is not None:
        console.note(f"{count(report.n_common, 'row')} written to {target.url} ({form})")


def report_value(report: TransferReport, url: str | None) -> dict[str, Any]:
    """JSON form; the rows stand in the file alone."""
    fields = (field.name for field in dataclasses.fields(report) if field.name not in ("rows", "overlaps"))
    overlaps = [{**as_json(one), "share": one.share, "share_by_chance": one.share_by_chance} for one in report.overlaps]
    return {name: as_json(getattr(report, name)) for name in fields} | {"overlaps": overlaps, "written_to": url}


def report_view(report: TransferReport) -> Iterator[Block]:
    """Who ranks what, what they have in common, and how alike the rankings are."""
    others = [
        f"{n:,} {what}"
        for n, what in (
            (report.n_only_first, f"only in {report.first_set}"),
            (report.n_only_second, f"only in {report.second_set}"),
            (report.n_changed, "with another record under the same id"),
        )
        if n
    ]
    yield pairs(
        [
            ("first", f"{report.first} on {report.first_set}{_of(report.first_model)}"),
            ("second", f"{report.second} on {report.second_set}{_of(report.second_model)}"),
            ("compared", count(report.n_common, "sample")),
            ("left out", ", ".join(others) or None),
            (
                "spearman",
                "undefined: the scores of one side are all equal"
                if report.spearman is None
                else f"{report.spearman:.4f}",
            ),
        ]
    )
    yield ""
    rows = [
        (one.top, one.n_best, one.n_common, _percent(one.share), _percent(one.share_by_chance))
        for one in report.overlaps
    ]
    yield Table(("top", "samples", "in both", "overlap", "by chance"), rows)


def _of(model: str | None) -> str:
    return f" ({model})" if model else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
