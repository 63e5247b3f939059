"""``nait-store profile``: what is about profiles alone."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nait_store.cli import card_views, history_views, views
from nait_store.cli.console import Console
from nait_store.cli.options import Message, open_store, parse_layers
from nait_store.cli.profile_card import card_page
from nait_store.cli.version_commands import add_version_commands
from nait_store.errors import IncompatibleError
from nait_store.refs import Kind, check_name
from nait_store.store.options import BuildOptions

app = typer.Typer(help="Build, find, describe, name and delete profiles.", no_args_is_help=True, rich_markup_mode=None)
aliases = typer.Typer(help="Names that move from version to version.", no_args_is_help=True, rich_markup_mode=None)

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
        typer.Option(
            help="Principal component, mean, or mean minus a background's mean.", show_default="of the recipe"
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="SET", help="Background set; implies --method contrastive.")
    ] = None,
    center: Annotated[
        bool | None,
        typer.Option("--center/--no-center", help="Whether PCA removes the mean.", show_default="of the recipe"),
    ] = None,
    component: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, help="Which principal component, from 1.", show_default="of the recipe"),
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
    weights: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="How much each sample counts: a column, or an expression of columns."),
    ] = None,
    weights_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The same, from a file with columns sample_id and weight.")
    ] = None,
    message: Message = "",
    card: Annotated[str, typer.Option(metavar="TEXT", help="Free text kept in the profile.", show_default=False)] = "",
    card_against: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Set that the quality card tells the in-domain samples from.",
            show_default="of --against",
        ),
    ] = None,
    quality_card: Annotated[
        bool,
        typer.Option(
            "--quality-card/--no-quality-card",
            help="Whether to measure the profile's quality card.",
            show_default="measured",
        ),
    ] = True,
) -> None:
    """Compute one direction per layer from an in-domain set."""
    console: Console = context.obj
    options = BuildOptions(
        against=against,
        recipe=recipe,
        method=method,
        center=center,
        component=component,
        profile_feature=profile_feature,
        feature=feature,
        metric=metric,
        layers=parse_layers(layers),
        where=where,
        limit=limit,
        seed=seed,
        weights=weights,
        weights_file=weights_file,
        message=message,
        card=card,
        card_against=card_against,
        quality_card=quality_card,
    )
    with console.progress() as progress:
        profile, created = open_store(console, progress).profiles.build(name, source=source, **options)
    console.warn(profile.record.warnings)
    if card_against is not None and not created:
        console.warn([card_views.not_measured(profile.reference, card_against)])
    value = {"reference": profile.reference, "created": created, "profile": profile.record}
    console.summary(value, views.built_profile(profile, created, console))


@app.command("list")
def list_profiles(context: typer.Context) -> None:
    """List the profiles of the store, each at its latest version."""
    console: Console = context.obj
    profiles = open_store(console).profiles.list()
    console.result(profiles, views.profile_list(profiles, console.hint("profile build NAME --from SET")))


@app.command("search")
def search(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORD...",
            show_default=False,
            help="Each must be part of its name, card, message, note, recipe, model, set, author, aliases or tags.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Part of the model's path or hub id.", show_default=False)
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="SET", help="In-domain set, gsm8k or gsm8k@2.", show_default=False)
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="NAME", help="Alias or tag that the version has.", show_default=False)
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Every version, not only the latest and those with a label or note.", show_default=False
        ),
    ] = False,
) -> None:
    """Find profiles by what is known of them."""
    console: Console = context.obj
    found = open_store(console).profiles.search(
        " ".join(words or ()), model=model, source=source, label=label, all_versions=every
    )
    console.result(found, views.profile_list(found, console.hint("profile list"), nothing="no profile fits"))


@app.command("show")
def show(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="math, or math@2.")],
) -> None:
    """Describe a profile: recipe, where it comes from, how far to trust it, warnings."""
    console: Console = context.obj
    profiles = open_store(console).profiles
    profile = profiles.open(reference)
    note = profiles.note(profile.reference)
    found = profiles.card(reference, measure=False)
    value = {
        "reference": profile.reference,
        "origin": profile.manifest.origin,
        "note": note,
        "profile": profile.record,
        **card_views.card_value(found),
    }
    console.warn(found.warnings)
    console.result(value, [*views.profile_details(profile, note), *card_views.card_details(found, console)])


@app.command("history")
def history(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="Name of the profile.")],
) -> None:
    """List the versions of a profile, and every change of aliases, tags and notes."""
    console: Console = context.obj
    profiles = open_store(console).profiles
    versions, moves, notes = profiles.history(name), profiles.labels(name), profiles.notes(name)
    value = {"versions": versions, "labels": moves, "notes": notes}
    console.result(value, history_views.profile_history(versions, moves, notes))


@app.command("diff")
def diff(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="FIRST", show_default=False, help="math@1.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", show_default=False, help="math@2, or another profile.")],
    set_ref: Annotated[
        str | None,
        typer.Option("--set", metavar="SET", help="Compare the best samples of this set too.", show_default=False),
    ] = None,
    top: Annotated[str, typer.Option(metavar="N|P%", help="How many are the best, with --set.")] = "10%",
) -> None:
    """Say in what two versions differ: directions, settings, in-domain samples."""
    console: Console = context.obj
    with console.progress() as progress:
        found = open_store(console, progress).profiles.diff(first, second, set=set_ref, top=top)
    console.result(found, history_views.profile_diff(found))


@app.command("check")
def check(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="math, or math@2.")],
    set_ref: Annotated[
        str, typer.Option("--set", metavar="SET", show_default=False, help="Set to be scored, pool or pool@3.")
    ],
) -> None:
    """Say field by field whether a profile applies to a set, and what to do."""
    console: Console = context.obj
    report = open_store(console).profiles.check(reference, set=set_ref)
    console.result(report, views.compatibility(report))
    if not report.applies:
        raise typer.Exit(IncompatibleError.exit_code)


@aliases.command("set")
def set_alias(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="Name of the profile.")],
    label: Annotated[str, typer.Argument(metavar="ALIAS", show_default=False, help="Its name: math@ALIAS.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", show_default=False, help="3, or another label.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Recorded.", show_default=False)] = "",
) -> None:
    """Name a version, or move the name to another."""
    console: Console = context.obj
    check_name(name, Kind.PROFILE)
    summary = open_store(console).profiles.alias(f"{name}@{version}", label, reason=reason)
    console.summary(summary, history_views.label(summary))


@aliases.command("remove")
def remove_alias(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="PROFILE", show_default=False, help="Name of the profile.")],
    label: Annotated[str, typer.Argument(metavar="ALIAS", show_default=False, help="The alias.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Recorded.", show_default=False)] = "",
) -> None:
    """Take an alias away."""
    console: Console = context.obj
    summary = open_store(console).profiles.unalias(name, label, reason=reason)
    console.summary(summary, history_views.label(summary))


app.command("card")(card_page)
app.add_typer(aliases, name="alias")
add_version_commands(app, Kind.PROFILE, "math")
