"""``nait-store remote``: the registries that stores share profiles through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.cli.quantities import size
from nait_store.cli.tables import Table

if TYPE_CHECKING:
    from nait_store.store.published_profiles import PublishedProfile
    from nait_store.store.remote_names import Remote

app = typer.Typer(
    help="Name the registries that stores share profiles through.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="What to call it.")],
    url: Annotated[
        str, typer.Argument(metavar="URL", show_default=False, help="Folder or fsspec URL; no credentials.")
    ],
    require_signed: Annotated[
        bool,
        typer.Option(
            "--require-signed", help="What is pulled from it must be signed by a trusted key.", show_default=False
        ),
    ] = False,
) -> None:
    """Give a shared registry a name; it need not exist yet."""
    console: Console = context.obj
    remote = open_store(console).remotes.add(name, url, require_signed=require_signed)
    console.summary(remote, [f"{remote.name} is {remote.url}", console.hint(f"push PROFILE {remote.name}")])


@app.command("list")
def list_remotes(context: typer.Context) -> None:
    """List the registries that have a name."""
    console: Console = context.obj
    remotes = open_store(console).remotes.list()
    console.result(remotes, _remotes(remotes, console.hint("remote add NAME URL")))


@app.command("remove")
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The name.")],
) -> None:
    """Forget the name of a registry; what is in it stays."""
    console: Console = context.obj
    remote = open_store(console).remotes.remove(name)
    console.summary(remote, [f"{remote.name} is no longer a name for {remote.url}"])


@app.command("show")
def show(
    context: typer.Context,
    remote: Annotated[
        str | None,
        typer.Argument(
            metavar="REMOTE", show_default=False, help="Name or URL; not needed where the store knows just one."
        ),
    ] = None,
) -> None:
    """List the profiles in a shared registry, and which of them are here."""
    console: Console = context.obj
    published = open_store(console).remotes.show(remote)
    console.result(published, _published(published, console.hint(f"push PROFILE{f' {remote}' if remote else ''}")))


def _remotes(remotes: Sequence[Remote], hint: str) -> Iterator[str | Table]:
    if remotes:
        rows = [(each.name, each.url, "required" if each.require_signed else "", each.added_by) for each in remotes]
        yield Table(("remote", "url", "signatures", "added by"), rows)
    else:
        yield "no registry has a name"
        yield hint


def _published(published: Sequence[PublishedProfile], hint: str) -> Iterator[str | Table]:
    if not published:
        yield "no profile is there"
        yield hint
        return
    rows = [
        (
            each.reference,
            each.here,
            each.published_by,
            f"{each.published_at:%Y-%m-%d}",
            ", ".join(each.signed_by),
            each.policy.value,
            size(each.size_bytes),
            each.message,
        )
        for each in published
    ]
    yield Table(("profile", "here", "published by", "on", "signed by", "reference", "size", "message"), rows)
