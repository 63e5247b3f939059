"""``nait-store profile export|import``: profiles in files of their own."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.options import Message, open_store, parse_layers
from nait_store.cli.quantities import size


def export(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="math, or math@2.")],
    out: Annotated[
        str,
        typer.Argument(metavar="FILE", show_default=False, help="Path or URL that ends in .safetensors or .npz."),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.", show_default=False)] = False,
) -> None:
    """Write a version into a safetensors or npz file."""
    console: Console = context.obj
    exported = open_store(console).profiles.export(reference, out, overwrite=force)
    console.summary(exported, [f"{exported.reference} written to {exported.url}, {size(exported.size_bytes)}"])


def import_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Name of the profile.")],
    source: Annotated[
        str, typer.Argument(metavar="FILE", show_default=False, help="Path or URL of a .safetensors or .npz file.")
    ],
    like: Annotated[
        str | None,
        typer.Option(
            metavar="SET|PROFILE",
            help="What was captured as the directions were: pool, or profile:math@2.",
            show_default="as the file says",
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Layers of the rows, from 0, e.g. 0,2,5-7.", show_default="as the file says, or all"
        ),
    ] = None,
    feature: Annotated[
        Literal["mean", "drift", "last"] | None,
        typer.Option(help="Feature that candidates are scored on.", show_default="as the file says, or mean"),
    ] = None,
    metric: Annotated[
        Literal["dot", "cosine"] | None,
        typer.Option(help="How activation and direction meet.", show_default="as the file says, or cosine"),
    ] = None,
    message: Message = "",
    card: Annotated[
        str, typer.Option(metavar="TEXT", help="Free text kept in the profile.", show_default="as the file says")
    ] = "",
) -> None:
    """Make a profile of directions in a file."""
    console: Console = context.obj
    profile, created = open_store(console).profiles.import_(
        name,
        source,
        like=like,
        layers=parse_layers(layers),
        feature=feature,
        metric=metric,
        message=message,
        card=card,
    )
    console.warn(profile.record.warnings)
    value = {"reference": profile.reference, "created": created, "profile": profile.record}
    console.summary(value, views.built_profile(profile, created, console))
