"""``nait-store profile combine``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.options import Message, open_store


def combine(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Name of the new profile.")],
    parts: Annotated[
        list[str],
        typer.Argument(
            metavar="PROFILE[:WEIGHT]...",
            show_default=False,
            help="What is added up: math@3:1.0 code@2:0.5; 1 if not said.",
        ),
    ],
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROFILE", help="Make the sum orthogonal to this one; may be repeated.", show_default=False
        ),
    ] = None,
    offset: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE|none",
            help="Whose background candidates are centred on.",
            show_default="that of all the profiles",
        ),
    ] = None,
    feature: Annotated[
        Literal["mean", "drift", "last"] | None,
        typer.Option(help="Feature that candidates are scored on.", show_default="that of all the profiles"),
    ] = None,
    metric: Annotated[
        Literal["dot", "cosine"] | None,
        typer.Option(help="How activation and direction meet.", show_default="that of all the profiles"),
    ] = None,
    message: Message = "",
    card: Annotated[str, typer.Option(metavar="TEXT", help="Free text kept in the profile.", show_default=False)] = "",
) -> None:
    """Make a profile of others: a weighted sum, without what yet others have."""
    console: Console = context.obj
    profile, created = open_store(console).profiles.combine(
        name,
        parts,
        without=without or (),
        offset=offset,
        feature=feature,
        metric=metric,
        message=message,
        card=card,
    )
    console.warn(profile.record.warnings)
    value = {"reference": profile.reference, "created": created, "profile": profile.record}
    console.summary(value, views.built_profile(profile, created, console))
