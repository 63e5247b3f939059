"""``nait-store score``."""

from __future__ import annotations

from typing import Annotated

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.options import ReplaceOut, open_store
from nait_store.errors import InvalidInputError


def score(
    context: typer.Context,
    set_ref: Annotated[str, typer.Argument(metavar="SET", show_default=False, help="pool, or pool@3.")],
    profiles: Annotated[
        list[str], typer.Argument(metavar="PROFILES", show_default=False, help="math, code@2 …: one pass for all.")
    ],
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL",
            help="Score only the samples for which this holds, and print their scores.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="With --where: write there, as the ending says.", show_default=False),
    ] = None,
    force: ReplaceOut = False,
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="Compute there: cpu, cuda, cuda:1.", show_default="cpu"),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Compute with the tasks of a Ray cluster: local, auto, host:port or ray://host:port.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compute the scores of a set under profiles, and keep them.

    One pass over the arrays serves all profiles. sql and select do the same when they need scores.

    With --where nothing is kept unless all of a segment was needed: scores that are not there already are computed from
    the chunks that hold these samples, and no others are read.
    """
    console: Console = context.obj
    if where is not None:
        for option, given in (("--ray", ray), ("--device", device)):
            if given is not None:
                raise InvalidInputError(f"--where and {option} exclude each other", next_step="leave one of them out")
        _score_samples(console, set_ref, profiles, where, out, force)
        return
    if out is not None:
        raise InvalidInputError("--out is for what --where chooses", next_step="add --where, or leave it out")
    with console.progress() as progress:
        work, warnings = open_store(console, progress).score(set_ref, *profiles, ray=ray, device=device)
    console.warn(warnings)
    console.summary({"work": work, "warnings": warnings}, views.score_work(set_ref, profiles, work, console))


def _score_samples(
    console: Console, set_ref: str, profiles: list[str], where: str, out: str | None, overwrite: bool
) -> None:
    from nait_store.cli import query_output

    form = query_output.choose_form(None, out, as_json=console.as_json)
    target = query_output.open_target(out, overwrite=overwrite)
    with console.progress() as progress:
        table, warnings = open_store(console, progress).score_samples(set_ref, *profiles, where=where)
    console.warn(warnings)
    query_output.write(table, form, target, console)
