"""Repair of notes: what was said is in no other place, so a text that is lost is said to be lost."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection

from nait_store.errors import AlreadyExistsError, FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.history import NoteRecord
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance
from nait_store.store.repair.repair_log import RepairLog

_NOTE = re.compile(r"(?P<version>[1-9][0-9]*)/(?P<number>[1-9][0-9]*)\.json\Z")


def mend_notes(location: Location, kind: Kind, name: str, log: RepairLog, damaged: Collection[str]) -> None:
    """Write lost texts of notes anew, empty: who wrote them, when and what is lost.

    Parameters
    ----------
    location, kind, name
        The store, and whose notes to mend.
    log
        Changes files and takes notes.
    damaged
        Paths that verification named.
    """
    folder = layout.notes_folder(kind, name)
    for path in sorted(damaged):
        match = _NOTE.match(path.removeprefix(f"{folder}/"))
        if not path.startswith(f"{folder}/") or match is None:
            continue
        version, number = int(match["version"]), int(match["number"])
        known = _read(location, path)
        if known is not None and (known.version, known.number) == (version, number):
            continue
        log.write(path, _nothing(version, number), "written anew: the text of this note is lost")
        later = f"{folder}/{version}/{number + 1}.json"
        if location.exists(later):
            continue
        # Indexes of the store read a text once, and know only by a new one that there is none now.
        if not log.dry_run:
            with contextlib.suppress(AlreadyExistsError):  # somebody wrote another at once
                location.create_bytes(later, _nothing(version, number + 1))
        before = _read(location, f"{folder}/{version}/{number - 1}.json") if number > 1 else None
        was = f"before it was {before.text!r}; " if before is not None and before.text else ""
        log.lose(path, f"the note on {kind} {name}@{version} is lost: {was}write it again")


def _nothing(version: int, number: int) -> bytes:
    return NoteRecord(version=version, number=number, text="", provenance=current_provenance()).to_json_bytes()


def _read(location: Location, path: str) -> NoteRecord | None:
    try:
        return NoteRecord.from_json_bytes(location.read_bytes(path), path)
    except (NotFoundError, FormatError):
        return None
