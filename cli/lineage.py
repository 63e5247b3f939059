"""``nait-store lineage``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nait_store.cli import lineage_views
from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    from nait_store.store.lineage.tracing import Direction


def lineage(
    context: typer.Context,
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF", show_default=False, help="Any set, profile or selection: best, math@3, set:pool@1."
        ),
    ],
    up: Annotated[bool, typer.Option("--up", help="What it was made from.", show_default=False)] = False,
    down: Annotated[bool, typer.Option("--down", help="What was made from it.", show_default=False)] = False,
    both: Annotated[bool, typer.Option("--both", help="Both, the default.", show_default=False)] = False,
    form: Annotated[
        Literal["text", "mermaid", "dot", "json"],
        typer.Option("--format", help="Text, a drawing in Mermaid's or Graphviz's language, or nodes and edges."),
    ] = "text",
) -> None:
    """Show what a version was made from, and what was made from it.

    Back to files with their SHA-256 and models with their fingerprints, through deleted versions too. What is not
    recorded any more is said.
    """
    console: Console = context.obj
    if up + down + both > 1 and not (up and down and not both):
        raise InvalidInputError("--both is --up and --down already", next_step="leave the others out")
    direction: Direction = "both" if up == down or both else "up" if up else "down"
    found = open_store(console).lineage(reference, direction)
    if form in ("mermaid", "dot") and not console.as_json:
        sys.stdout.write(found.mermaid() if form == "mermaid" else found.dot())
        console.warn(found.gaps)
    elif form == "json" or console.as_json:
        console.json(found)
    else:
        console.result(found, lineage_views.lineage(found, direction))
