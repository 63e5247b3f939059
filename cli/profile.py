"""``nait-store profile``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.options import open_store, parse_layers
from nait_store.store.options import BuildOptions

app = typer.Typer(help="Build, list and describe profiles.", no_args_is_help=True, rich_markup_mode=None)

FeatureChoice = Literal["mean", "drift", "last"]


@app.command("build")
def build(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Name of the profile.")],
    source: Annotated[
        str, typer.Option("--from", metavar="SET", show_default=False, help="In-domain set, gsm8k or gsm8k@2.")
    ],
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="default, or nait-paper: the paper to the letter.")
    ] = "default",
    method: Annotated[
        Literal["pca", "mean", "contrastive"] | None,
        typer.Option(help="First component, mean, or mean minus a background's mean.", show_default="of the recipe"),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="SET", help="Background set; implies --method contrastive.")
    ] = None,
    center: Annotated[
        bool | None,
        typer.Option("--center/--no-center", help="Whether PCA removes the mean.", show_default="of the recipe"),
    ] = None,
    feature: Annotated[
        FeatureChoice | None,
        typer.Option(help="Feature for the directions and the candidates.", show_default="of the recipe"),
    ] = None,
    profile_feature: Annotated[
        FeatureChoice | None,
        typer.Option(help="Feature for the directions only.", show_default="as --feature"),
    ] = None,
    metric: Annotated[
        Literal["dot", "cosine"] | None,
        typer.Option(help="How activation and direction meet.", show_default="of the recipe"),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="LIST", help="Layers to use, from 0, e.g. 0,2,5-7.", show_default="all stored")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Use the samples for which this holds, e.g. \"source = 'x'\".")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use at most N samples, drawn by --seed.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the draw.")] = 0,
    message: Annotated[str, typer.Option(metavar="TEXT", help="Recorded with the version.", show_default=False)] = "",
    card: Annotated[str, typer.Option(metavar="TEXT", help="Free text kept in the profile.", show_default=False)] = "",
) -> None:
    """Compute one direction per layer from an in-domain set."""
    console: Console = context.obj
    options = BuildOptions(
        against=against,
        recipe=recipe,
        method=method,
        center=center,
        profile_feature=profile_feature,
        feature=feature,
        metric=metric,
        layers=parse_layers(layers),
        where=where,
        limit=limit,
        seed=seed,
        message=message,
        card=card,
    )
    with console.progress() as progress:
        profile, created = open_store(console, progress).profiles.build(name, source=source, **options)
    console.warn(profile.record.warnings)
    value = {"reference": profile.reference, "created": created, "profile": profile.record}
    console.summary(value, views.built_profile(profile, created, console))


@app.command("list")
def list_profiles(context: typer.Context) -> None:
    """List the profiles of the store, each at its latest version."""
    console: Console = context.obj
    profiles = open_store(console).profiles.list()
    value = [{"reference": profile.reference, "profile": profile.record} for profile in profiles]
    console.result(value, views.profile_list(profiles, console))


@app.command("show")
def show(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="math, or math@2.")],
) -> None:
    """Describe a profile: recipe, where it comes from, statistics per layer, warnings."""
    console: Console = context.obj
    store = open_store(console)
    profile = store.profiles.open(reference)
    value = {"reference": profile.reference, "profile": profile.record}
    console.warn(profile.record.warnings)
    console.result(value, views.profile_details(profile))
