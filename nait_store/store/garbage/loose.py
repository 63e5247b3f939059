"""Garbage that belongs to no item: score sidecars, and files that were never finished."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from nait_store.errors import FormatError, NotFoundError
from nait_store.schemas.scores import SidecarRecord
from nait_store.storage import layout
from nait_store.storage.backend import StoredFile
from nait_store.storage.location import Location
from nait_store.store.garbage.items import Ages, Garbage, GarbageKind, delete, weigh

_SIDECAR = re.compile(r"([0-9a-f]{64})\.(json|parquet)\Z")


@dataclass(frozen=True)
class Wanted:
    """What scores are kept for.

    Attributes
    ----------
    segments
        SHA-256 of the ``segment.json`` of every segment that stays; None where that is not known of all.
    doomed_segments
        The same of segments that this run takes.
    directions
        Digests of the directions of every profile version that stays; None where that is not known of all.
    """

    segments: Collection[str] | None
    doomed_segments: Collection[str]
    directions: Collection[str] | None


def score_garbage(location: Location, ages: Ages, wanted: Wanted) -> Iterator[Garbage]:
    """Find the score sidecars that nothing can ask for any more; each is named by its Parquet file."""
    found: dict[str, dict[str, StoredFile]] = {}
    for file in location.files(layout.SCORES):
        match = _SIDECAR.match(file.path.rpartition("/")[2])
        if match is not None:
            found.setdefault(match[1], {})[match[2]] = file
    for key, files in sorted(found.items()):
        reason = _why(location, key, files, ages, wanted)
        if reason is not None:
            yield weigh(GarbageKind.SCORES, layout.score_sidecar(key), reason, list(files.values()))


def _why(location: Location, key: str, files: dict[str, StoredFile], ages: Ages, wanted: Wanted) -> str | None:
    record: SidecarRecord | None = None
    if len(files) == 2:
        path = layout.score_record(key)
        try:
            record = SidecarRecord.from_json_bytes(location.read_bytes(path), location.url_of(path))
        except (FormatError, NotFoundError):
            record = None
    if record is not None and record.segment_sha256 in wanted.doomed_segments:
        return "its segment is collected"
    if not ages.is_orphan([file.modified_at for file in files.values()]):
        return None
    if record is None:
        return "it is not whole"
    if wanted.segments is not None and record.segment_sha256 not in wanted.segments:
        return "its segment does not exist"
    if wanted.directions is not None and record.directions_sha256 not in wanted.directions:
        return "no profile has its directions"
    return None


def take_scores(location: Location, garbage: Iterable[Garbage]) -> Iterator[Garbage]:
    """Delete sidecars, the records first, so that no moment shows a whole one that is not."""
    for item in garbage:
        delete(location, layout.score_record(item.name))
        delete(location, item.path)
        yield item


def unfinished_garbage(location: Location, ages: Ages, folder: str, going: Collection[str]) -> Iterator[Garbage]:
    """Find what crashed writers left of the files that they were writing.

    Parameters
    ----------
    location, ages
        The store, and what is old enough.
    folder
        Where to look; the whole store for ``""``.
    going
        Folders that go as a whole, and take theirs along.
    """
    for file in location.leftovers(folder):
        above = file.path
        inside = False
        while above := above.rpartition("/")[0]:
            inside = inside or above in going
        if not inside and ages.is_orphan([file.modified_at]):
            yield weigh(GarbageKind.UNFINISHED, file.path, "its writer never finished it", [file])


def take_unfinished(location: Location, garbage: Iterable[Garbage]) -> Iterator[Garbage]:
    """Delete unfinished files."""
    for item in garbage:
        delete(location, item.path)
        yield item
