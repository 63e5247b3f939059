"""``nait-store analyze core``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nait_store.cli import query_output
from nait_store.cli.analysis_views import CountedColumn
from nait_store.cli.console import Console, as_json
from nait_store.cli.options import ReplaceOut, open_store
from nait_store.cli.quantities import count
from nait_store.cli.tables import Table, pairs
from nait_store.cli.views import Block

if TYPE_CHECKING:
    from nait_store.analysis.core_set import CoreSet
    from nait_store.store.facade import Store

_VALUES = 12


def core(
    context: typer.Context,
    on: Annotated[str, typer.Option(metavar="SET", show_default=False, help="Set to choose from, pool or pool@3.")],
    profiles: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROFILES", help="math code@2 …", show_default="every one that applies"),
    ] = None,
    top: Annotated[str, typer.Option(metavar="N|N%", help="How many are the best of each profile.")] = "10%",
    min_profiles: Annotated[
        int | None,
        typer.Option(metavar="M", min=1, help="The core is in the top of at least M of them.", show_default="all"),
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Choose among the samples for which this holds only.")
    ] = None,
    by: CountedColumn = "source_uri",
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the core's samples and their ranks there, as the ending says.",
            show_default=False,
        ),
    ] = None,
    force: ReplaceOut = False,
    save: Annotated[
        str | None, typer.Option(metavar="NAME", help="Save the core as the next version of this selection.")
    ] = None,
    message: Annotated[str, typer.Option(metavar="TEXT", help="Recorded with --save.", show_default=False)] = "",
) -> None:
    """Find the samples that several profiles have among their best.

    What is saved is a selection like any other: selection export writes it for a trainer.
    """
    from nait_store.refs import Kind, check_name

    console: Console = context.obj
    if save is not None:
        check_name(save, Kind.SELECTION)
    form = query_output.choose_form(None, out, as_json=False)
    target = query_output.open_target(out, overwrite=force)
    with console.progress() as progress:
        store = open_store(console, progress)
        found = store.analyses.core(*profiles or (), on=on, top=top, min_profiles=min_profiles, where=where, by=by)
        console.warn(found.warnings)
        saved = None
        if save is not None:
            saved = store.selections.save(save, found.require_selection(), message=message).reference
    if out == "-":
        query_output.write(found.rows, "csv", None, console)
    else:
        if target is not None:
            with target.open() as stream:
                query_output.write_form(found.rows, form, stream)
        value = core_value(found, with_rows=target is None and saved is None)
        console.result({**value, "written_to": target.url if target else None, "saved": saved}, core_view(store, found))
        if target is not None:
            console.note(f"{count(found.n_samples, 'row')} written to {target.url} ({form})")
    if saved is not None:
        console.note(f"saved as selection:{saved}")
        console.note(console.hint(f"selection export {saved} --to llama-factory --out FOLDER"))


def core_value(found: CoreSet, *, with_rows: bool) -> dict[str, Any]:
    """JSON form; the rows stand in it only where they went nowhere else."""
    names = (each.name for each in dataclasses.fields(found) if each.name not in ("rows", "selection"))
    value = {name: as_json(getattr(found, name)) for name in names} | {"n_samples": found.n_samples}
    return value | {"rows": found.rows.to_pylist()} if with_rows else value


def core_view(store: Store, found: CoreSet) -> Iterator[Block]:
    """How far the profiles agree, what the core is like, and its first samples."""
    n_profiles = len(found.profiles)
    yield pairs(
        [
            ("set", f"{found.set_ref}, {count(found.n_candidates, 'candidate')}"),
            ("where", found.where),
            ("profiles", ", ".join(found.profiles)),
            ("best", f"{found.top}: {count(found.n_best, 'sample')} of each profile"),
        ]
    )
    yield ""
    rows = [
        (
            f"all {n_profiles}" if one.min_profiles == n_profiles else f"at least {one.min_profiles}",
            one.n_samples,
            _percent(one.n_samples, found.n_candidates),
            round(one.n_by_chance, 1),
        )
        for one in found.agreements
    ]
    yield Table(("in the top of", "samples", "of the candidates", "by chance"), rows)
    yield ""
    least = "all" if found.min_profiles == n_profiles else f"at least {found.min_profiles} of"
    yield f"the core: {count(found.n_samples, 'sample')} in the top of {least} {n_profiles}"
    if not found.n_samples:
        yield "a larger --top, or fewer --min-profiles, would give one"
        return
    yield ""
    columns = (found.by, "core", "of the core", "candidates", "of the candidates")
    values = [
        (
            one.value, one.n_core, _percent(one.n_core, found.n_samples),
            one.n_candidates, _percent(one.n_candidates, found.n_candidates),
        )
        for one in found.values[:_VALUES]
    ]  # fmt: skip
    yield Table(columns, values)
    if len(found.values) > _VALUES:
        yield f"… and {count(len(found.values) - _VALUES, 'more value')}"
    yield ""
    yield from _first(store, found)


def _first(store: Store, found: CoreSet) -> Iterator[Block]:
    from nait_store.store.selection_details import first_samples

    first = first_samples(store, found.set_ref, found.rows)
    n_profiles = found.rows.column("n_profiles").slice(0, len(first)).to_pylist()
    rows = [(one.rank, one.sample_id, one.score, n, one.text) for one, n in zip(first, n_profiles, strict=True)]
    yield Table(("rank", "sample_id", "score", "profiles", "text"), rows)
    if found.n_samples > len(first):
        yield f"… and {found.n_samples - len(first):,} more"


def _percent(n: int, total: int) -> str:
    return f"{100 * n / total:.1f} %"
