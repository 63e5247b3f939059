"""``nait-store trust``: whose signatures count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nait_store.cli.console import Console
from nait_store.cli.options import open_store
from nait_store.cli.tables import Table

if TYPE_CHECKING:
    from nait_store.store.trust import TrustedKey

app = typer.Typer(
    help="Say whose signatures of profiles count in this store.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("add")
def add(
    context: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            show_default=False,
            help="Ed25519 public key: a .pub or PEM file, 'ssh-ed25519 AAAA…', or 64 hexadecimal digits.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="What to call it.", show_default="its comment, or fingerprint"),
    ] = None,
) -> None:
    """Trust a public key; compare its fingerprint with its owner first."""
    console: Console = context.obj
    trusted = open_store(console).trust.add(key, name=name)
    console.summary(trusted, [f"signatures of {trusted.name} count now; fingerprint {trusted.fingerprint}"])


@app.command("list")
def list_keys(context: typer.Context) -> None:
    """List the keys that are trusted."""
    console: Console = context.obj
    keys = open_store(console).trust.list()
    console.result(keys, _keys(keys, console.hint("trust add KEY")))


@app.command("remove")
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Its name in 'trust list'.")],
) -> None:
    """No longer trust a key; what was pulled stays."""
    console: Console = context.obj
    key = open_store(console).trust.remove(name)
    console.summary(key, [f"signatures of {key.name} no longer count; what was pulled stays"])


def _keys(keys: Sequence[TrustedKey], hint: str) -> Iterator[str | Table]:
    if keys:
        yield Table(("key", "fingerprint", "added by"), [(one.name, one.fingerprint, one.added_by) for one in keys])
    else:
        yield "no key is trusted"
        yield hint
