"""``nait-store profile card``: a profile's quality as a page."""

from __future__ import annotations

from typing import Annotated

import typer

from nait_store.cli import card_views
from nait_store.cli.console import Console
from nait_store.cli.options import open_store


def card_page(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="math, or math@2.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Measure now, and tell the in-domain samples from this set's.",
            show_default="what the build measured",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Write CARD.md and its pictures here.", show_default="standard output"
        ),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option("--pictures/--no-pictures", help="Whether to draw pictures, with --out.", show_default="drawn"),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.", show_default=False)] = False,
) -> None:
    """Write a profile's quality card as a page: how far to trust it, and why."""
    console: Console = context.obj
    with console.progress() as progress:
        profiles = open_store(console, progress).profiles
        if output is None:
            card, written = profiles.card(reference, against=against), None
        else:
            written = profiles.write_card(reference, output, against=against, pictures=pictures, overwrite=force)
            card = written.card
    value = {"reference": card.reference, "warnings": list(card.warnings), **card_views.card_value(card)}
    if written is None:
        console.result(value, [card.markdown().rstrip("\n")])
        return
    console.warn(card.warnings)
    console.summary({**value, "written": list(written.urls)}, card_views.written_card(written))
