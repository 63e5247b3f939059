"""The sign of life of a job that writes segments, so that nobody takes its unfinished work for garbage."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from nait_store.errors import ConflictError, FormatError, NaitStoreError, NotFoundError
from nait_store.schemas.activation_set import Heartbeat
from nait_store.storage.location import Location
from nait_store.storage.provenance import now

HEARTBEAT_FILE = "heartbeat.json"
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
_PATIENCE_SECONDS = 30.0


class BeatingHeart:
    """Writes ``heartbeat.json`` into a folder every ten seconds for as long as the block lasts.

    Parameters
    ----------
    location
        The store's root.
    folder
        Folder of the job, below it; leaving the block stops the beat and leaves the file to the caller.
    """

    def __init__(self, location: Location, folder: str) -> None:
        self._location = location
        self._path = f"{folder}/{HEARTBEAT_FILE}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(NaitStoreError):  # a full disk shall not kill the beat
                self._write()

    def _write(self) -> None:
        beat = Heartbeat(at=now(), host=socket.gethostname(), pid=os.getpid())
        self._location.write_bytes(self._path, beat.to_json_bytes())


@contextlib.contextmanager
def job(location: Location, folder: str) -> Iterator[None]:
    """Keep a heartbeat in a folder that exists for nothing else, and remove it in the end."""
    try:
        with BeatingHeart(location, folder):
            yield
    finally:
        with contextlib.suppress(NaitStoreError):  # a stale heartbeat does no harm
            location.delete(folder)


@contextlib.contextmanager
def sole_job(location: Location, jobs_folder: str, job_id: str, what: str) -> Iterator[None]:
    """As :func:`job`, while no other job of the folder is alive: each shows its sign of life first and then looks.

    Parameters
    ----------
    location
        The store's root.
    jobs_folder, job_id
        Folder of all jobs of a set, and the name of this one.
    what
        What it works on, for the message.

    Raises
    ------
    ConflictError
        Others were at work for half a minute.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with job(location, f"{jobs_folder}/{job_id}"):
            if not living(location, jobs_folder, besides=job_id):
                yield
                return
        if time.monotonic() > deadline:
            raise ConflictError(
                f"another compaction, purge, repair or restore of {what} is at work",
                next_step="wait until it has ended and run the same command again",
            )
        time.sleep(random.uniform(0.1, 0.6))


def living(location: Location, folder: str, *, besides: str = "") -> list[str]:
    """Folders directly below ``folder``, except one, of the jobs or ingests that still run."""
    others = [f"{folder}/{name}" for name in location.names(folder) if name != besides]
    return [other for other in others if is_alive(location, other)]


def is_alive(location: Location, folder: str) -> bool:
    """Whether the job whose heartbeat lies in ``folder`` still runs, as far as can be told.

    A heartbeat is believed for 60 seconds; one of this machine only as long as the process exists.
    """
    path = f"{folder}/{HEARTBEAT_FILE}"
    try:
        beat = Heartbeat.from_json_bytes(location.read_bytes(path), location.url_of(path))
    except (NotFoundError, FormatError):
        return False
    if (now() - beat.at).total_seconds() > STALE_SECONDS:
        return False
    return beat.host != socket.gethostname() or _process_exists(beat.pid)


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
