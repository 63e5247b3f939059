"""``attach``: the DuckDB file is built aside and appears under its name whole, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nait_store.errors import ConflictError, InvalidInputError
from nait_store.query.attached.attaching import Attachment, attach
from nait_store.query.attached.views import ALIGNMENT, SAMPLES
from nait_store.selection.destination import Destination, copy_into

if TYPE_CHECKING:
    from nait_store.store.facade import Store


@dataclass(frozen=True)
class AttachReport(Attachment):
    """What :meth:`nait_store.store.facade.Store.attach` wrote, and where.

    Attributes
    ----------
    url
        Of the file.
    size_bytes
        Of the file.
    """

    url: str
    size_bytes: int


def write_attached_file(
    store: Store, out: str, *, sets: Sequence[str], profiles: Sequence[str], compute: bool, overwrite: bool
) -> AttachReport:
    """See :meth:`nait_store.store.facade.Store.attach`."""
    target = Destination(out, overwrite=overwrite)
    _check_name(target.url)
    with tempfile.TemporaryDirectory(prefix="nait-attach-") as folder:
        built = Path(folder) / "attached.duckdb"
        attachment = attach(
            built,
            store.location,
            store.record.store_id,
            store.sets.versions,
            store.profiles.registry,
            store.catalog,
            asked_sets=sets,
            asked_profiles=profiles,
            compute=compute,
            progress=store.progress,
        )
        size_bytes = built.stat().st_size
        with built.open("rb") as source, target.open() as stream:
            copy_into(source, stream)
    return AttachReport(**vars(attachment), url=target.url, size_bytes=size_bytes)


def _check_name(url: str) -> None:
    """Refuse a place in which DuckDB would not find the views, or would spoil the file."""
    path = Path(url)
    # DuckDB calls a database by its file's name up to the first dot, and then 'samples.pool' could mean two things.
    name = path.name.lstrip(".").partition(".")[0]
    if name.lower() in (SAMPLES, ALIGNMENT):
        raise InvalidInputError(
            f"in a DuckDB file called {path.name} the schema {name.lower()} could not be told from the database",
            next_step="give it another name, e.g. --out view.duckdb",
        )
    log = path.with_name(path.name + ".wal")
    if log.is_file():
        raise ConflictError(
            f"{log} is there: a program has the file open for writing, or died over it",
            next_step=f"close that program; if there is none, delete {log.name} with what it never stored",
        )
