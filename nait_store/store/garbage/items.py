"""What garbage is: a file or folder of the store that nothing needs, its weight, and how it is deleted safely."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from ulid import ULID

from nait_store.errors import NotFoundError
from nait_store.storage.backend import StoredFile
from nait_store.storage.location import Location

DEFAULT_GRACE = timedelta(days=7)
YOUNGEST_ORPHAN = timedelta(hours=1)
"""Nothing younger is an orphan, whatever the grace period: its writer may be about to refer to it."""
_ATTEMPTS = 10


class GarbageKind(StrEnum):
    """What it was."""

    VERSION = "version"
    SEGMENT = "segment"
    TOMBSTONES = "tombstones"
    REDIRECT = "redirect"
    PAYLOAD = "payload"
    INGEST = "ingest"
    JOB = "job"
    SET = "set"
    SCORES = "scores"
    UNFINISHED = "unfinished file"


@dataclass(frozen=True)
class Garbage:
    """Something that goes.

    Attributes
    ----------
    kind
        What it was.
    path
        File or folder, relative to the store's root.
    reason
        Why nothing needs it.
    n_files, size_bytes
        What is freed; nothing for a version whose document stays because it holds the item's numbers.
    """

    kind: GarbageKind
    path: str
    reason: str
    n_files: int
    size_bytes: int

    @property
    def name(self) -> str:
        """Last part of the path, without the ending of a document: a ULID, a number, a key."""
        return self.path.rpartition("/")[2].partition(".")[0]


@dataclass(frozen=True)
class Ages:
    """What is old enough to go.

    Attributes
    ----------
    now
        When this run began.
    grace
        How long a deleted version can be brought back, and how old an orphan must be.
    """

    now: datetime
    grace: timedelta

    def is_over(self, times: Iterable[datetime | None]) -> bool:
        """Whether the grace period of a deletion is over; the latest of what is known about its time counts."""
        return not self.grace or self._latest(times) <= self.now - self.grace

    def is_orphan(self, times: Iterable[datetime | None], live_since: datetime | None = None) -> bool:
        """Whether something that nothing refers to is abandoned.

        Parameters
        ----------
        times
            When it was written, as its name and the filesystem say. Clocks differ between machines, so the latest
            of them counts; without any it is not old.
        live_since
            When the oldest job began that may own it; what is clearly older is not its.
        """
        known = [time for time in times if time is not None]
        limit = self.now - max(self.grace, YOUNGEST_ORPHAN)
        if live_since is not None:
            limit = min(limit, live_since - YOUNGEST_ORPHAN)
        return bool(known) and self._latest(known) <= limit

    def _latest(self, times: Iterable[datetime | None]) -> datetime:
        return max((time for time in times if time is not None), default=self.now)


def ulid_time(text: str) -> datetime | None:
    """When a ULID was made; None for other names, which are not ours."""
    try:
        return ULID.from_str(text).datetime.astimezone(UTC) if len(text) == 26 else None
    except ValueError:
        return None


def times_of(name: str, files: Iterable[StoredFile]) -> list[datetime | None]:
    """All that is known about the age of a folder or file whose name is a ULID."""
    return [ulid_time(name), *(file.modified_at for file in files)]


def files_of(location: Location, folder: str) -> list[StoredFile]:
    """Every file of a folder, unfinished ones included."""
    return [*location.files(folder), *location.leftovers(folder)]


def weigh(kind: GarbageKind, path: str, reason: str, files: Sequence[StoredFile]) -> Garbage:
    """Garbage made of these files."""
    return Garbage(kind, path, reason, len(files), sum(file.size_bytes for file in files))


def delete_in_order(location: Location, folder: str, *, first: Sequence[str] = (), last: Sequence[str] = ()) -> None:
    """Delete a folder whose entries tell others what to make of the rest.

    Parameters
    ----------
    location, folder
        The store, and the folder below it.
    first
        Entries to delete before all others: the record that says that the folder is whole. Whoever dies in the
        middle leaves something unfinished, which nobody reads, and never something that looks whole and is not.
    last
        Entries to delete after all others: what says that the folder is of no use any more.
    """
    for entry in first:
        delete(location, f"{folder}/{entry}")
    if last:
        for entry in location.names(folder):
            if entry not in last:
                delete(location, f"{folder}/{entry}")
        for entry in last:
            delete(location, f"{folder}/{entry}")
    delete(location, folder)


def delete(location: Location, path: str) -> None:
    """Delete a file or folder that somebody else may be deleting at the same time."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(NotFoundError):  # of an entry that the other was quicker with
            location.delete(path)
            return
    location.delete(path)
