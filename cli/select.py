"""``nait-store select``."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from nait_store.cli import views
from nait_store.cli.console import Console
from nait_store.cli.options import ReplaceOut, open_store
from nait_store.errors import InvalidInputError


def select(
    context: typer.Context,
    set_ref: Annotated[
        str, typer.Option("--from", metavar="SET", show_default=False, help="Set to choose from, pool or pool@3.")
    ],
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROFILE[:WEIGHT]", help="Profile to rank by, math or math@2; several, by name or weight, code:2."
        ),
    ] = None,
    combine: Annotated[
        Literal["union", "sum", "min", "rrf", "norm"] | None,
        typer.Option(help="How several profiles make one order.", show_default="union"),
    ] = None,
    min_profiles: Annotated[
        int | None,
        typer.Option(metavar="M", min=1, help="Take what is in the --top of M of several profiles, however many."),
    ] = None,
    top: Annotated[
        str | None,
        typer.Option(
            metavar="N|N%",
            help="How many, or which share of the candidates.",
            show_default="10%, or what other limits leave",
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Choose among the samples for which this holds only.")
    ] = None,
    budget_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Take samples in order while their tokens add up to N at most.")
    ] = None,
    quota: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN=VALUE:SHARE,…", help="What the values of a column give, source=alpaca:50%,code:20%."
        ),
    ] = None,
    per: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Take --top of every group of samples, by this column.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(metavar="X", help="Only scores of X or more.")] = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="Take as many as lie before the score curve's knee.", show_default=False)
    ] = False,
    drop_duplicates: Annotated[
        list[str] | None,
        typer.Option(
            metavar="exact|near[:X]|cosine[:X]",
            help="Leave out samples that are like a better-ranked one; several times if need be.",
        ),
    ] = None,
    diversity: Annotated[
        Literal["k-center", "facility-location", "none"] | None,
        typer.Option(help="Spread the samples over the best, by their activations.", show_default="none"),
    ] = None,
    among: Annotated[
        str | None,
        typer.Option(
            metavar="M|M%",
            help="Over how many of the best --diversity spreads.",
            show_default="thrice the number to be taken",
        ),
    ] = None,
    strategy: Annotated[
        Literal["alignment", "lowest", "random", "length-matched", "embedding"] | None,
        typer.Option(help="How candidates are ordered, or drawn.", show_default="alignment"),
    ] = None,
    lowest: Annotated[
        bool, typer.Option("--lowest", help="Lowest scores first: a control.", show_default=False)
    ] = False,
    random: Annotated[bool, typer.Option("--random", help="By chance: the other control.", show_default=False)] = False,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of what chance decides.")] = 0,
    in_domain: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Set whose centroid --strategy embedding compares with.",
            show_default="the profile's own samples",
        ),
    ] = None,
    fuse: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN:WEIGHT", help="Add a column of numbers to the score; several times if need be."),
    ] = None,
    fuse_by: Annotated[
        Literal["minmax", "rank"] | None,
        typer.Option(help="How score and columns are put on one scale.", show_default="minmax"),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Export here: path, fsspec URL, or - for standard output.")
    ] = None,
    form: Annotated[
        Literal["jsonl", "parquet", "ids"] | None,
        typer.Option("--format", help="Of the export.", show_default="by the ending of --out, else jsonl"),
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Leave score and rank out of the export.", show_default=False)
    ] = False,
    force: ReplaceOut = False,
    save: Annotated[
        str | None, typer.Option(metavar="NAME", help="Save as the next version of this selection.")
    ] = None,
    message: Annotated[str, typer.Option(metavar="TEXT", help="Recorded with --save.", show_default=False)] = "",
) -> None:
    """Choose a ranked subset: export, save, or look at it.

    Exported records keep all their original fields and get score and rank (nait_score and nait_rank where the
    record has fields of these names).
    """
    from nait_store.refs import Kind, check_name
    from nait_store.selection.destination import BytesTarget, Destination
    from nait_store.selection.export import Target

    console: Console = context.obj
    if lowest and random:
        raise InvalidInputError("--lowest and --random exclude each other", next_step="leave one of them out")
    shorthand: Literal["lowest", "random"] | None = "lowest" if lowest else "random" if random else None
    if strategy is not None and shorthand is not None:
        raise InvalidInputError(
            f"--strategy {strategy} and --{shorthand} exclude each other", next_step="leave one of them out"
        )
    if save is not None:
        check_name(save, Kind.SELECTION)
    to_stdout = out == "-"
    target: Target | None = None
    if to_stdout:
        target = BytesTarget(sys.stdout.buffer, "standard output")
    elif out is not None:
        target = Destination(out, overwrite=force)
    with console.progress() as progress:
        store = open_store(console, progress)
        selection = store.select(
            set_ref,
            profile=profile,
            combine=combine,
            min_profiles=min_profiles,
            top=top,
            where=where,
            budget_tokens=budget_tokens,
            quota=quota,
            per=per,
            min_score=min_score,
            knee=knee,
            drop_duplicates=drop_duplicates or (),
            diversity=diversity,
            among=among,
            strategy=strategy or shorthand or "alignment",
            seed=seed,
            in_domain=in_domain,
            fuse=fuse or (),
            fuse_by=fuse_by,
        )
        console.warn(selection.warnings)
        saved = store.selections.save(save, selection, message=message) if save is not None else None
        exported = store.export(selection, target, format=form, clean=clean) if target is not None else None
    outcome = views.SelectOutcome(selection, saved, exported)
    if to_stdout:
        for line in views.selection_summary(outcome):
            console.note(line)
    elif exported is None and saved is None:
        console.result(views.selection_value(outcome), views.selection_preview(store, outcome, console))
    else:
        console.summary(views.selection_value(outcome), views.selection_summary(outcome))
