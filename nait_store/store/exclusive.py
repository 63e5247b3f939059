"""Work on a set that suffers no other writer beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nait_store.errors import ConflictError
from nait_store.ingest.journal import OUTCOME_FILE
from nait_store.storage import layout
from nait_store.storage.heartbeat import job, living
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid


@contextlib.contextmanager
def exclusive_job(location: Location, set_name: str) -> Iterator[str]:
    """Keep a heartbeat while the block lasts, which begins only where nobody else writes to the set.

    The heartbeat comes first and the look at the others second, so of two that start at once at least one sees the
    other.

    Parameters
    ----------
    location, set_name
        The store and the set.

    Yields
    ------
    str
        Id of the job.

    Raises
    ------
    ConflictError
        An ingest or another job of the set is alive.
    """
    job_id = new_ulid()
    with job(location, layout.job_folder(set_name, job_id)):
        others = living_work(location, set_name, besides=job_id)
        if others:
            raise ConflictError(
                f"set {set_name!r} is being written to: {', '.join(others)}",
                next_step="wait for it, or stop it, then run the same command again; what was killed on another "
                "machine counts as alive for a minute",
            )
        yield job_id


def living_work(location: Location, set_name: str, *, besides: str = "") -> list[str]:
    """Folders, below the store's root, of the ingests and jobs of a set that are alive."""
    ingests = living(location, layout.ingest_folder(set_name))
    running = [folder for folder in ingests if not location.exists(f"{folder}/{OUTCOME_FILE}")]
    return running + living(location, layout.job_folder(set_name), besides=besides)
