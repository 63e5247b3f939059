"""What a repair does to files, and its record of it; under a dry run only the record."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nait_store.errors import InvalidInputError, StorageError
from nait_store.scoring.sidecar_files import delete_sidecar
from nait_store.storage import layout
from nait_store.storage.location import Location


@dataclass(frozen=True)
class Note:
    """One thing that a repair did, or could not do.

    Attributes
    ----------
    path
        File or folder, relative to the store's root.
    text
        What, in words.
    """

    path: str
    text: str


@dataclass
class RepairLog:
    """Changes files and takes notes.

    Attributes
    ----------
    location
        The store's root.
    dry_run
        Whether to take notes only.
    mended
        Files that are again what they were, or as good.
    deleted
        Files and versions that are gone, because nothing can be made of them.
    lost
        What could not be saved, and what to do about it.
    versions
        References of the versions committed.
    n_dropped
        Rows that were blanked.
    dropped_ids
        Set → ids of the samples that its latest version lost.
    n_unknown
        Set → rows that were lost together with their ids.
    """

    location: Location
    dry_run: bool = False
    mended: list[Note] = field(default_factory=list)
    deleted: list[Note] = field(default_factory=list)
    lost: list[Note] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    n_dropped: int = 0
    dropped_ids: dict[str, set[str]] = field(default_factory=dict)
    n_unknown: dict[str, int] = field(default_factory=dict)

    def write(self, path: str, data: bytes | memoryview, how: str) -> None:
        """Put a file right."""
        if not self.dry_run:
            self.location.write_bytes(path, data)
        self.mended.append(Note(path, how))

    def delete(self, path: str, why: str) -> None:
        """Delete a file or folder."""
        if not self.dry_run:
            self.location.delete(path)
        self.deleted.append(Note(path, why))

    def delete_scores(self, key: str, why: str) -> None:
        """Delete a score sidecar."""
        if not self.dry_run:
            delete_sidecar(self.location, key)
        self.deleted.append(Note(layout.score_sidecar(key), why))

    def lose(self, path: str, what: str) -> None:
        """Note what could not be saved."""
        self.lost.append(Note(path, what))


def append_lines(target: str, entries: Iterable[dict[str, Any]]) -> None:
    """Append JSON lines to a file at a path or URL.

    Raises
    ------
    StorageError, InvalidInputError
        It cannot be written, or named.
    """
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    if not lines:
        return
    try:
        if "://" not in target:
            with open(target, "a", encoding="utf-8") as file:  # noqa: PTH123
                file.write(lines)
            return
        import fsspec

        earlier = ""
        with contextlib.suppress(FileNotFoundError), fsspec.open(target, "r", encoding="utf-8") as file:
            earlier = file.read()
        with fsspec.open(target, "w", encoding="utf-8") as file:
            file.write(earlier + lines)
    except OSError as error:
        raise StorageError(
            f"could not write the rejects file {target}: {error.strerror or error}",
            next_step="name another file with --rejects; nothing was dropped yet",
        ) from error
    except (ValueError, ImportError) as error:
        raise InvalidInputError(f"cannot write the rejects file {target!r}: {error}") from error
