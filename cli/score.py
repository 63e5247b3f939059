"""``nait-store score``."""

from __future__ import annotations

from typing import Annotated

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.options import open_store


def score(
    context: typer.Context,
    set_ref: Annotated[str, typer.Argument(metavar="SET", show_default=False, help="pool, or pool@3.")],
    profiles: Annotated[
        list[str], typer.Argument(metavar="PROFILES", show_default=False, help="math, code@2 …: one pass for all.")
    ],
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
    """
    console: Console = context.obj
    with console.progress() as progress:
        work, warnings = open_store(console, progress).score(set_ref, *profiles, ray=ray)
    console.warn(warnings)
    console.summary({"work": work, "warnings": warnings}, views.score_work(set_ref, profiles, work, console))
