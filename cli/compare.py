"""``nait-store compare``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nait_store.cli import query_output
from nait_store.cli.console import Console, as_json
from nait_store.cli.options import ReplaceOut, open_store
from nait_store.cli.quantities import count
from nait_store.cli.tables import Table
from nait_store.cli.views import Block

if TYPE_CHECKING:
    from nait_store.store.selection_comparison import SelectionComparison

_VALUES = 12


def compare(
    context: typer.Context,
    selections: Annotated[
        list[str], typer.Argument(metavar="SELECTION SELECTION…", show_default=False, help="best random@2 …")
    ],
    by: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the samples whose values are counted.")
    ] = "source_uri",
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write the ranks of every sample there, as the ending says.", show_default=False
        ),
    ] = None,
    force: ReplaceOut = False,
) -> None:
    """Compare saved selections: overlap, sources, lengths and scores."""
    console: Console = context.obj
    form = query_output.choose_form(None, out, as_json=False)
    target = query_output.open_target(out, overwrite=force)
    with console.progress() as progress:
        found = open_store(console, progress).selections.compare(*selections, by=by)
    console.warn(found.gone)
    if out == "-":
        query_output.write(found.rows, "csv", None, console)
        return
    if target is not None:
        with target.open() as stream:
            query_output.write_form(found.rows, form, stream)
    console.result(comparison_value(found, target.url if target else None), comparison_view(found))
    if target is not None:
        console.note(f"{count(found.rows.num_rows, 'sample')} written to {target.url} ({form})")


def comparison_value(found: SelectionComparison, url: str | None) -> dict[str, Any]:
    """JSON form; the rows stand in the file alone."""
    names = (each.name for each in dataclasses.fields(found) if each.name != "rows")
    return {name: as_json(getattr(found, name)) for name in names} | {
        "overlaps": as_json(found.overlaps),
        "written_to": url,
    }


def comparison_view(found: SelectionComparison) -> Iterator[Block]:
    """A row a selection, the matrix of overlaps, the values of the column, and who is in one alone."""
    rows = []
    for one in found.selections:
        low, high = one.score_range or (None, None)
        lengths = one.lengths
        mean, median = (None, None) if lengths is None else (round(lengths.mean, 1), lengths.median)
        rows.append((one.reference, one.n_samples, one.mean_score, low, high, mean, median, one.n_only))
    header = ("selection", "samples", "mean score", "lowest", "highest", "mean tokens", "median", "in it alone")
    yield Table(header, rows)
    names = [one.reference for one in found.selections]
    yield ""
    yield Table(
        ("in both, of either", *names),
        [
            (name, *(f"{n:,} ({100 * share:.1f} %)" for n, share in zip(common, shares, strict=True)))
            for name, common, shares in zip(names, found.n_common, found.overlaps, strict=True)
        ],
    )
    yield f"{count(found.n_in_any, 'sample')} in any of them, {found.n_in_all:,} in all"
    totals: dict[str, int] = {}
    for one in found.selections:
        for value, n in one.values.items():
            totals[value] = totals.get(value, 0) + n
    values = sorted(totals, key=lambda value: (-totals[value], value))
    yield ""
    yield Table(
        (found.by, *names), [(value, *(_share(one, value) for one in found.selections)) for value in values[:_VALUES]]
    )
    if len(values) > _VALUES:
        yield f"… and {count(len(values) - _VALUES, 'more value')}"
    for one in found.selections:
        if one.only_ids:
            more = ", …" if one.n_only > len(one.only_ids) else ""
            yield f"only in {one.reference}: {', '.join(one.only_ids)}{more}"


def _share(one: Any, value: str) -> str:
    n = one.values.get(value, 0)
    return f"{n:,} ({100 * n / one.n_samples:.1f} %)" if one.n_samples else "0"
