"""Commands that sets, profiles and selections share: describe, delete, undelete, alias, tag, untag, tags."""

# Without "from __future__ import annotations": typer would look for the words below among the globals.

from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli import history_views
from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.refs import COMMANDS, Kind

if TYPE_CHECKING:
    from nait_store.store.kept_versions import KeptVersions


def add_version_commands(app: typer.Typer, kind: Kind, example: str) -> None:
    """Add the commands to a group.

    Parameters
    ----------
    app
        The group.
    kind
        Set, profile or selection.
    example
        A name, for the help texts.
    """
    noun = kind.value
    Name = Annotated[str, typer.Argument(metavar=noun.upper(), show_default=False, help=f"Name of the {noun}.")]
    Version = Annotated[str, typer.Argument(metavar="VERSION", show_default=False, help=f"{example}@3.")]
    Reason = Annotated[str, typer.Option(metavar="TEXT", help="Recorded.", show_default=False)]

    def versions(console: Console) -> "KeptVersions":
        store = open_store(console)
        return {Kind.SET: store.sets, Kind.PROFILE: store.profiles, Kind.SELECTION: store.selections}[kind]

    @app.command("describe", help="Say something about a version, in the place of what was said before.")
    def describe(
        context: typer.Context,
        reference: Annotated[
            str,
            typer.Argument(
                metavar="VERSION", show_default=False, help=f"{example}@3, or {example}: its latest version."
            ),
        ],
        text: Annotated[
            str, typer.Argument(metavar="TEXT", show_default=False, help="What to say; '' takes the note away.")
        ],
    ) -> None:
        console: Console = context.obj
        summary = versions(console).describe(reference, text)
        console.summary(summary, history_views.note(summary))

    @app.command("delete", help=f"Hide a version, or a whole {noun}, until gc takes it.")
    def delete(
        context: typer.Context,
        reference: Annotated[
            str,
            typer.Argument(
                metavar=noun.upper(), show_default=False, help=f"{example}@3, or {example}: all of its versions."
            ),
        ],
        reason: Reason = "",
        force: Annotated[
            bool,
            typer.Option(
                "--force",
                help="Also where aliases, selections or profiles need it; tags protect.",
                show_default=False,
            ),
        ] = False,
    ) -> None:
        console: Console = context.obj
        report = versions(console).delete(reference, reason=reason, force=force)
        console.summary(report, history_views.deleted_versions(report))

    @app.command("undelete", help="Bring back what was deleted.")
    def undelete(
        context: typer.Context,
        reference: Annotated[
            str,
            typer.Argument(
                metavar=noun.upper(), show_default=False, help=f"{example}@3, or {example}: all that gc has not taken."
            ),
        ],
    ) -> None:
        console: Console = context.obj
        references = versions(console).undelete(reference)
        console.summary({"undeleted": references}, history_views.undeleted_versions(reference, references))

    @app.command("tag", help="Name a version for good, and protect it.")
    def tag(
        context: typer.Context,
        reference: Version,
        label: Annotated[str, typer.Argument(metavar="TAG", show_default=False, help=f"Its name: {example}@TAG.")],
        reason: Reason = "",
    ) -> None:
        console: Console = context.obj
        summary = versions(console).tag(reference, label, reason=reason)
        console.summary(summary, history_views.label(summary))

    def alias(
        context: typer.Context,
        reference: Version,
        label: Annotated[str, typer.Argument(metavar="ALIAS", show_default=False, help=f"Its name: {example}@ALIAS.")],
        reason: Reason = "",
    ) -> None:
        console: Console = context.obj
        summary = versions(console).alias(reference, label, reason=reason)
        console.summary(summary, history_views.label(summary))

    # The aliases of profiles have a group of their own: profile alias set, profile alias remove.
    if kind is not Kind.PROFILE:
        app.command("alias", help="Name a version, or move the name to another.")(alias)

    @app.command("untag", help="Take a tag or an alias away.")
    def untag(
        context: typer.Context,
        name: Name,
        label: Annotated[str, typer.Argument(metavar="LABEL", show_default=False, help="Tag or alias.")],
        reason: Reason = "",
    ) -> None:
        console: Console = context.obj
        summary = versions(console).untag(name, label, reason=reason)
        console.summary(summary, history_views.label(summary))

    @app.command("tags", help=f"List the tags and aliases of a {noun}, with every move.")
    def tags(context: typer.Context, name: Name) -> None:
        console: Console = context.obj
        summaries = versions(console).labels(name)
        hint = console.hint(f"{COMMANDS[kind]} tag {name}@1 NAME --reason TEXT")
        console.result(summaries, history_views.labels(summaries, f"{noun} {name}", hint))
