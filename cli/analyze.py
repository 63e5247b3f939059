"""``nait-store analyze``: the group; each of its commands is in a module of its own."""

from __future__ import annotations

import typer

app = typer.Typer(help="Say how profiles relate, and what a set is like.", no_args_is_help=True, rich_markup_mode=None)
