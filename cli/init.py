"""``nait-store init``."""

from __future__ import annotations

import typer

from nait_store.cli.console import Console


def init(context: typer.Context) -> None:
    """Create a store; an existing one is left as it is."""
    import nait_store

    console: Console = context.obj
    store = nait_store.open(console.store_url, create=True)
    done = f"created a store at {store.url}" if store.created else f"there is a store at {store.url} already"
    value = {"url": store.url, "created": store.created, "store_id": store.record.store_id}
    console.summary(value, [done, console.hint("ingest FILE… --set NAME --model MODEL")])
