"""The record beside ``catalog.duckdb``: what that describes, and digests that say whether to believe it at all."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from pydantic import Field

from nait_store.errors import FormatError
from nait_store.schemas.record import Document, Sha256
from nait_store.storage.atomic import replace_local


class CatalogRecord(Document):
    """``catalog.duckdb.json``; not part of the format: another release is free to write another."""

    store_id: str
    """Of ``store.json``; empty where there is none."""
    fingerprint: str
    """Of the listing that the catalog was made from; empty where a document could not be read."""
    definition_sha256: Sha256
    """Of the statements that made the tables."""
    redirects: dict[str, tuple[str, ...]]
    """Of the listing."""
    labels: dict[str, int]
    """Of the listing, those left out whose document could not be read."""
    size_bytes: int = Field(default=0, ge=0)
    sha256: str = ""
    """Of the DuckDB file."""
    profiles_sha256: str = ""
    """Of the lines about profiles beside it."""

    def describes(self, path: Path) -> bool:
        """Whether the file at ``path`` is, byte for byte, the one that this was written for."""
        try:
            return path.stat().st_size == self.size_bytes and _sha256(path) == self.sha256
        except OSError:
            return False

    def profile_lines(self, path: Path) -> bytes | None:
        """Read the lines beside the catalog at ``path``; None where they are not those that this was written for."""
        try:
            data = lines_path(path).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == self.profiles_sha256 else None


def record_path(path: Path) -> Path:
    """Where the record of the catalog at ``path`` lies."""
    return path.with_name(path.name + ".json")


def lines_path(path: Path) -> Path:
    """Where the lines about profiles of the catalog at ``path`` lie."""
    return path.with_name(path.name + ".profiles.jsonl")


def read_record(path: Path) -> CatalogRecord | None:
    """Read the record of the catalog at ``path``; None where there is none that can be believed."""
    try:
        return CatalogRecord.from_json_bytes(record_path(path).read_bytes(), str(path))
    except (OSError, FormatError):
        return None


def swap_in(path: Path, built: Path, lines: bytes, about: CatalogRecord) -> None:
    """Put a finished catalog in its place, and its lines and its record beside it.

    A crash in between leaves a catalog without a record, which is as good as none; so does a race of two builders.

    Parameters
    ----------
    path
        The place.
    built
        The finished file, in the same folder; it is moved.
    lines
        About profiles.
    about
        What it describes; size and digests are filled in.
    """
    stat = built.stat()
    digests = {"sha256": _sha256(built), "profiles_sha256": hashlib.sha256(lines).hexdigest()}
    whole = about.model_copy(update={"size_bytes": stat.st_size, **digests})
    record = record_path(path)
    record.unlink(missing_ok=True)
    built.replace(path)
    replace_local(lines_path(path), lines)
    replace_local(record, whole.to_json_bytes())
    if path.stat().st_ino != stat.st_ino:  # another builder's file came over ours, maybe after its record
        with suppress(OSError):
            record.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
