"""``nait-store analyze ratio``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nait_store.cli import query_output
from nait_store.cli.analysis_views import CountedColumn, Picture, findings_view, open_picture, percent
from nait_store.cli.console import Console, as_json
from nait_store.cli.options import ReplaceOut, open_store, parse_list
from nait_store.cli.quantities import count
from nait_store.cli.tables import Table
from nait_store.cli.views import Block
from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow as pa

    from nait_store.analysis.ratio import RatioCurve, RatioPoint, RatioReport

_SHOWN = "1,2,5,10,20,30,50,80,100"
_SOURCES = 6


def ratio(
    context: typer.Context,
    set_ref: Annotated[str, typer.Argument(metavar="SET", show_default=False, help="pool, or pool@3.")],
    profile: Annotated[
        list[str],
        typer.Option(
            metavar="PROFILE[:WEIGHT]", show_default=False, help="Profile to rank by; several, each has a curve."
        ),
    ],
    combine: Annotated[
        Literal["union", "sum", "min", "rrf", "norm"] | None,
        typer.Option(help="One curve for all profiles, in the order that select makes of them.", show_default=False),
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Only the samples for which this holds are candidates.")
    ] = None,
    by: CountedColumn = "source_uri",
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="SQL",
            help="Candidates that should come first, e.g. \"source = 'gsm8k'\".",
            show_default="those that the profile was built from",
        ),
    ] = None,
    show: Annotated[
        str, typer.Option(metavar="LIST", help="Ratios of the table, in per cent; --json and --out have all.")
    ] = _SHOWN,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write a row a ratio and curve there, as the ending says.", show_default=False
        ),
    ] = None,
    picture: Picture = None,
    force: ReplaceOut = False,
) -> None:
    """Say what the best 1 to 100 % of a set are like.

    Threshold, mean score, tokens, sources and targets at each ratio, and the knee of the curve. Scores that are missing
    are computed, and kept.
    """
    console: Console = context.obj
    shown = _parse_percents(show)
    form = query_output.choose_form(None, out, as_json=False)
    target, drawn = query_output.open_target(out, overwrite=force), open_picture(picture, overwrite=force)
    with console.progress() as progress:
        report = open_store(console, progress).analyses.ratio(
            set_ref, profile=profile, combine=combine, where=where, by=by, targets=targets
        )
    console.warn(report.warnings)
    if drawn is not None:
        drawn.write(report.picture(drawn.form))
        console.note(f"curves drawn to {drawn.url}")
    if out == "-":
        query_output.write(ratio_rows(report), "csv", None, console)
        return
    if target is not None:
        with target.open() as stream:
            query_output.write_form(ratio_rows(report), form, stream)
    written = {"written_to": target.url if target else None, "picture": drawn.url if drawn else None}
    console.result({**as_json(report), "findings": report.findings, **written}, ratio_view(report, shown))
    if target is not None:
        console.note(f"{count(100 * len(report.curves), 'row')} written to {target.url} ({form})")


def ratio_rows(report: RatioReport) -> pa.Table:
    """A row for each curve and per cent; the sources as a JSON object of counts."""
    import json

    import pyarrow as pa

    rows: list[dict[str, Any]] = [
        {"ranked_by": curve.ranked_by, **as_json(point), "sources": json.dumps(point.sources, ensure_ascii=False)}
        for curve in report.curves
        for point in curve.points
    ]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["recall"] = pa.array(columns["recall"], pa.float64())  # also where all are null
    return pa.table(columns)


def ratio_view(report: RatioReport, shown: Sequence[int]) -> Iterator[Block]:
    """Each curve as a table of the chosen ratios with its knee among them, then what is found of all of them."""
    where = f" where {report.where}" if report.where else ""
    yield f"{report.set_ref}{where}: {count(report.n_candidates, 'candidate')}, {count(report.n_tokens, 'token')}"
    for curve in report.curves:
        yield ""
        yield _table(report, curve, shown)
    n_hidden = len(report.sources) - _SOURCES + report.n_other_sources
    if n_hidden > 0:
        yield f"… and {count(n_hidden, 'more value')} of {report.by}"
    yield ""
    yield from findings_view(report.findings)


def _table(report: RatioReport, curve: RatioCurve, shown: Sequence[int]) -> Table:
    points = [(f"{one}%", curve.at(one)) for one in shown]
    if curve.at_knee is not None:
        points.append((f"{curve.at_knee.percent:.1f}% (knee)", curve.at_knee))
        points.sort(key=lambda named: named[1].n_samples)
    sources = list(report.sources)[:_SOURCES] if len(report.sources) > 1 else []
    rows = [
        (
            name,
            point.n_samples,
            point.threshold,
            point.mean_score,
            point.n_tokens,
            percent(point.token_share),
            round(point.mean_tokens, 1),
            *((percent(point.recall),) if curve.n_targets else ()),
            *(_share(point, source) for source in sources),
        )
        for name, point in points
    ]
    recall = ("targets found",) if curve.n_targets else ()
    header = ("ratio", "samples", "threshold", "mean score", "tokens", "of all", "mean tokens", *recall)
    return Table((*header, *(source or "(none)" for source in sources)), rows, f"ranked by {curve.ranked_by}")


def _share(point: RatioPoint, source: str) -> str | None:
    return percent(point.sources[source] / point.n_samples)


def _parse_percents(text: str) -> list[int]:
    found = [part.removesuffix("%").strip() for part in parse_list(text)]
    if not found or any(not part.isdecimal() or not 1 <= int(part[:4]) <= 100 for part in found):
        raise InvalidInputError(
            f"--show {text!r} is no list of whole per cents from 1 to 100", next_step=f"write e.g. --show {_SHOWN}"
        )
    return sorted({int(part) for part in found})
