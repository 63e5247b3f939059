"""The records of one ingest: plan, heartbeat, one per flushed segment, outcome (docs/format.md)."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Self

from nait_store.errors import AlreadyExistsError, IngestInterrupted, NaitStoreError, NotFoundError
from nait_store.schemas.activation_set import FlushRecord, IngestOutcome, IngestPlan, SegmentRecord
from nait_store.schemas.record import FileDigest
from nait_store.schemas.store_record import DTYPES_FEATURE
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.heartbeat import HEARTBEAT_FILE, BeatingHeart
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance
from nait_store.storage.store_features import announce_feature

PLAN_FILE = "plan.json"
OUTCOME_FILE = "outcome.json"
REJECTS_FILE = "rejects.jsonl"
FLUSHED_FOLDER = "flushed"


class IngestJournal:
    """Writes the records of a running ingest; a context manager that ends its life in the records too.

    Leaving the block without :meth:`finish` removes the heartbeat, so that the next ingest adopts what was flushed
    at once; where nothing was flushed, no trace is left.

    Parameters
    ----------
    location
        The store's root.
    plan
        What the ingest sets out to do.

    Attributes
    ----------
    plan
        As given.
    """

    def __init__(self, location: Location, plan: IngestPlan) -> None:
        self.plan = plan
        self._location = location
        self._folder = layout.ingest_folder(plan.set_name, plan.ingest_id)
        self._n_flushed = 0
        self._finished = False
        self._over = False
        self._lock = threading.Lock()
        self._heart = BeatingHeart(location, self._folder)

    @property
    def ingest_id(self) -> str:
        """ULID of the ingest."""
        return self.plan.ingest_id

    @property
    def n_flushed(self) -> int:
        """Segments acknowledged so far."""
        return self._n_flushed

    def __enter__(self) -> Self:
        if self.plan.dtype.is_coded:  # releases that cannot read the segments cannot read the plan either
            announce_feature(self._location, DTYPES_FEATURE)
        # the heartbeat first: a plan without one is a dead ingest
        self._heart.__enter__()
        try:
            self._location.create_bytes(f"{self._folder}/{PLAN_FILE}", self.plan.to_json_bytes())
        except BaseException as failure:
            self.__exit__(type(failure), failure, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._heart.__exit__(kind, error, trace)
        with self._lock:
            self._over = True
        if self._finished:
            return
        with contextlib.suppress(NaitStoreError):  # the error that brought us here is the one to report
            if self._n_flushed:
                self._location.delete(f"{self._folder}/{HEARTBEAT_FILE}")
            else:
                self._location.delete(self._folder)

    def acknowledge(self, record: SegmentRecord) -> None:
        """Record a flushed segment: from here on its samples are never lost.

        Raises
        ------
        IngestInterrupted
            The block has been left.
        """
        flush = FlushRecord(
            ingest_id=self.plan.ingest_id,
            segment_id=record.segment_id,
            n_rows=record.n_rows,
            record_sha256=record.digest(),
        )
        path = f"{self._folder}/{FLUSHED_FOLDER}/{record.segment_id}.json"
        with self._lock:
            if self._over:  # a writer that was left behind must not write into a journal that may be gone
                raise IngestInterrupted(f"ingest {self.ingest_id} was stopped")
            self._location.create_bytes(path, flush.to_json_bytes())
            self._n_flushed += 1

    def finish(self, version: int | None) -> None:
        """Record that the ingest is over."""
        write_outcome(self._location, self.plan.set_name, self.plan.ingest_id, version)
        self._finished = True


def write_outcome(location: Location, set_name: str, ingest_id: str, version: int | None) -> None:
    """Record that an ingest is over, with the digest of what it left out; harmless where that is recorded already."""
    folder = layout.ingest_folder(set_name, ingest_id)
    try:
        rejects = location.read_bytes(f"{folder}/{REJECTS_FILE}")
    except NotFoundError:
        digest = None
    else:
        digest = FileDigest(path=REJECTS_FILE, size_bytes=len(rejects), sha256=sha256_bytes(rejects))
    outcome = IngestOutcome(ingest_id=ingest_id, version=version, rejects=digest, provenance=current_provenance())
    with contextlib.suppress(AlreadyExistsError):
        location.create_bytes(f"{folder}/{OUTCOME_FILE}", outcome.to_json_bytes())
