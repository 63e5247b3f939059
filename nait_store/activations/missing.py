"""What to say about a file of a segment that is not there: lost, or taken with its segment while it was being read."""

from __future__ import annotations

from nait_store.activations.chunks import SEGMENT_FILE
from nait_store.errors import CorruptChunkError
from nait_store.storage.location import Location


def missing_file(location: Location, folder: str, path: str) -> CorruptChunkError:
    """The error for a missing file.

    Whoever takes a segment away (gc, purge, repair) deletes its ``segment.json`` first.

    Parameters
    ----------
    location, folder
        The store, and the segment's folder below it.
    path
        The file, relative to the folder.
    """
    if location.is_file(f"{folder}/{SEGMENT_FILE}"):
        return CorruptChunkError(
            f"{location.url_of(f'{folder}/{path}')} is missing",
            next_step="run 'nait-store verify' to see what else is damaged",
        )
    return CorruptChunkError(
        f"{location.url_of(f'{folder}/{path}')} is missing with its whole segment: gc took it, or a purge or repair "
        "replaced it, while it was being read",
        next_step="open the set again; 'nait-store sets history' lists the versions that exist",
    )


def require_segment(location: Location, folder: str) -> None:
    """Raise :func:`missing_file` if a segment was taken: generic readers take a missing chunk for zeros."""
    if not location.is_file(f"{folder}/{SEGMENT_FILE}"):
        raise missing_file(location, folder, SEGMENT_FILE)
