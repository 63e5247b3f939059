"""Garbage that belongs to no item: score sidecars, and files that were never finished."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from nait_store.scoring.sidecar_listing import ListedSidecar, list_sidecars
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.store.garbage.items import Ages, Garbage, GarbageKind, delete, weigh


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
    for sidecar in list_sidecars(location):
        reason = why_unwanted(sidecar, ages, wanted)
        if reason is not None:
            yield weigh(GarbageKind.SCORES, sidecar.path, reason, sidecar.files)


def why_unwanted(sidecar: ListedSidecar, ages: Ages, wanted: Wanted) -> str | None:
    """Why nothing can ask for a sidecar any more; None where something can, or may soon."""
    record = sidecar.record
    if record is not None and record.segment_sha256 in wanted.doomed_segments:
        return "its segment is collected"
    if not ages.is_orphan([file.modified_at for file in sidecar.files]):
        return None
    if sidecar.problem or record is None:
        return sidecar.problem
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
