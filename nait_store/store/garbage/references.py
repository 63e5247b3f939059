"""What refers to what within one activation set, at one moment: what gc looks at, again and again."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from nait_store.activations.chunks import SEGMENT_FILE
from nait_store.activations.redirects import Redirects
from nait_store.errors import FormatError, NotFoundError
from nait_store.ingest.journal import FLUSHED_FOLDER, OUTCOME_FILE
from nait_store.refs import Kind
from nait_store.schemas.activation_set import (
    FlushRecord,
    Heartbeat,
    IngestOutcome,
    SegmentRef,
    SetManifest,
)
from nait_store.storage import layout
from nait_store.storage.heartbeat import HEARTBEAT_FILE, STALE_SECONDS, is_alive
from nait_store.storage.location import Location
from nait_store.storage.provenance import now
from nait_store.storage.versions import VersionLog, VersionNumbers
from nait_store.store.garbage.items import ulid_time
from nait_store.store.garbage.roots import chain


class JournalState(Enum):
    """Of an ingest: running; dead with flushed segments that wait for adoption; dead without; over."""

    LIVE = "live"
    PENDING = "pending"
    DEAD = "dead"
    FINISHED = "finished"


@dataclass(frozen=True)
class Journal:
    """An ingest's journal.

    Attributes
    ----------
    state
        What became of the ingest.
    flushed
        Segments that it acknowledged, unless it is over.
    version
        The version that holds its segments, if it is over.
    """

    state: JournalState
    flushed: tuple[SegmentRef, ...] = ()
    version: int | None = None


@dataclass(frozen=True)
class References:
    """What refers to what within a set.

    Attributes
    ----------
    numbers
        Of its version documents and markers.
    gone
        Numbers of versions whose data go, or are gone.
    journals, live_jobs
        Its ingests, and its compactions, purges and repairs that are running.
    live_since
        When the oldest running ingest or job began; None if none is running.
    redirects
        Replaced segment → replacement.
    segments
        Every segment that a kept version or an acknowledgement names, and whatever stands for it.
    doomed_segments, doomed_tombstones
        What versions that go named; the number of one of them.
    tombstones
        Paths of the tombstone files of kept versions, relative to the set's folder.
    documents
        Version documents that a kept version needs, its own and its base's; and those which tell that something was
        committed that an ingest without an outcome acknowledged, so that nobody adopts it again.
    digests, doomed_digests
        SHA-256 of the ``segment.json`` of what is read in the place of the segments above.
    """

    numbers: VersionNumbers
    gone: frozenset[int]
    journals: Mapping[str, Journal]
    live_jobs: frozenset[str]
    live_since: datetime | None
    redirects: Mapping[str, str]
    segments: frozenset[str]
    doomed_segments: Mapping[str, int]
    tombstones: frozenset[str]
    doomed_tombstones: Mapping[str, int]
    documents: frozenset[int]
    digests: frozenset[str]
    doomed_digests: frozenset[str]


class SetReferences:
    """Reads :class:`References`; documents are immutable, so each is read once.

    Parameters
    ----------
    location
        The store's root.
    name
        The set.
    """

    def __init__(self, location: Location, name: str) -> None:
        self.log = VersionLog(location, Kind.SET, SetManifest)
        self._location = location
        self._name = name
        self._redirects = Redirects(location, name)
        self._last: tuple[object, References] | None = None
        self._manifests: dict[int, SetManifest] = {}
        self._finished: dict[str, Journal] = {}
        self._undone: dict[int, bool] = {}

    def look(self, pretended: frozenset[int] = frozenset()) -> References:
        """Read them as they are now.

        The order matters: what protects a segment passes from the running ingest to its flush record, and from that
        to the version, each there before the one before it goes. So they are read in this order, and a segment that
        moves on meanwhile is seen at least once.

        Parameters
        ----------
        pretended
            Versions to be taken for collected.

        Raises
        ------
        FormatError
            Something cannot be read, so that it is not known what it refers to.
        """
        journals = {ingest_id: self._journal(ingest_id) for ingest_id in self._ulids(layout.ingest_folder(self._name))}
        jobs = self._ulids(layout.job_folder(self._name))
        live_jobs = frozenset(job for job in jobs if self._is_alive(layout.job_folder(self._name, job)))
        live = [*live_jobs, *(key for key, journal in journals.items() if journal.state is JournalState.LIVE)]
        numbers = self.log.listing(self._name)
        self._refresh()
        gone = frozenset({n for n in numbers.collected if not self.was_undone(n, numbers)} | pretended)
        # Documents of versions that go vanish one by one, by our own hand; that changes nothing for the others.
        kept = tuple(number for number in numbers.documents if number not in gone)
        seen = (kept, gone, journals, live_jobs, len(self._redirects.records))
        if self._last is None or self._last[0] != seen:
            since = min((time for key in live if (time := ulid_time(key)) is not None), default=None)
            self._last = (seen, self._references(numbers, gone, journals, live_jobs, since))
        return replace(self._last[1], numbers=numbers)

    def _references(
        self,
        numbers: VersionNumbers,
        gone: frozenset[int],
        journals: dict[str, Journal],
        live_jobs: frozenset[str],
        live_since: datetime | None,
    ) -> References:
        kept = {n: m for n in numbers.documents if n not in gone and (m := self._kept_manifest(n)) is not None}
        lost = {n: m for n in numbers.documents if n in gone and (m := self._lost_manifest(n)) is not None}
        bases = {m.base: self._base(m.base) for m in kept.values() if m.base is not None}
        journals = {ingest_id: _completed(ingest_id, journal, kept, lost) for ingest_id, journal in journals.items()}
        pending = {ref.segment_id for journal in journals.values() for ref in journal.flushed}
        needed = {n for n, m in lost.items() if any(ref.segment_id in pending for ref in m.segments)}
        redirects = self._redirects
        replaced = {record.segment_id: record.replacement for record in redirects.records}
        refs: dict[str, SegmentRef] = {}
        for manifest in (*bases.values(), *kept.values()):
            refs.update({ref.segment_id: ref for ref in manifest.segments})
        for journal in journals.values():
            refs.update({ref.segment_id: ref for ref in journal.flushed})
        lost_refs: dict[str, tuple[int, SegmentRef]] = {}
        for number, manifest in lost.items():
            lost_refs.update({ref.segment_id: (number, ref) for ref in self._all_refs(manifest)})
        digests = frozenset(redirects.follow(ref).record_sha256 for ref in refs.values())
        lost_digests = {ref.record_sha256 for _, ref in lost_refs.values()}
        lost_digests |= {redirects.follow(ref).record_sha256 for _, ref in lost_refs.values()}
        return References(
            numbers=numbers,
            gone=gone,
            journals=journals,
            live_jobs=live_jobs,
            live_since=live_since,
            redirects=replaced,
            segments=frozenset(segment for ref in refs for segment in chain(replaced, ref)),
            doomed_segments={s: n for ref, (n, _) in lost_refs.items() for s in chain(replaced, ref)},
            tombstones=frozenset(m.tombstones.path for m in kept.values() if m.tombstones is not None),
            doomed_tombstones={m.tombstones.path: n for n, m in lost.items() if m.tombstones is not None},
            documents=frozenset({*kept, *bases, *needed}),
            digests=digests,
            doomed_digests=frozenset(lost_digests) - digests,
        )

    def _refresh(self) -> None:
        try:
            self._redirects.refresh()
        except NotFoundError:  # another gc is taking redirects
            self._redirects.refresh()

    def was_undone(self, number: int, numbers: VersionNumbers) -> bool:
        """Whether a version bears the mark of a gc that died, while somebody was bringing the version back.

        Then the deletion's marker is gone, and nothing of the version is.
        """
        if number in numbers.deleted or number not in numbers.collected or number not in numbers.documents:
            return False
        if number not in self._undone:
            self._undone[number] = self._is_whole(number)
        return self._undone[number]

    def _is_whole(self, number: int) -> bool:
        try:
            manifest = self._manifest(number)
            refs = self._redirects.follow_all(self._all_refs(manifest))
        except (FormatError, NotFoundError):
            return False
        segments = [f"{layout.segment_folder(self._name, ref.segment_id)}/{SEGMENT_FILE}" for ref in refs]
        tombstones = [f"{layout.item_folder(Kind.SET, self._name)}/{t.path}" for t in [manifest.tombstones] if t]
        return all(self._location.is_file(path) for path in [*segments, *tombstones])

    def _manifest(self, number: int) -> SetManifest:
        if number not in self._manifests:
            self._manifests[number] = self.log.read(self._name, number)
        return self._manifests[number]

    def _kept_manifest(self, number: int) -> SetManifest | None:
        try:
            return self._manifest(number)
        except NotFoundError:
            if number in self.log.listing(self._name).collected:  # by another gc, since the listing
                return None
            raise

    def _lost_manifest(self, number: int) -> SetManifest | None:
        try:
            return self._manifest(number)
        except (FormatError, NotFoundError):  # what it referred to is an orphan, then
            return None

    def _base(self, number: int) -> SetManifest:
        try:
            return self._manifest(number)
        except NotFoundError as error:
            raise FormatError(
                f"{self._name}@{number} is missing, which later versions build on",
                next_step="run 'nait-store verify' to see what else is damaged",
            ) from error

    def _all_refs(self, manifest: SetManifest) -> tuple[SegmentRef, ...]:
        if manifest.base is None:
            return manifest.segments
        base = self._lost_manifest(manifest.base)
        return (base.segments if base else ()) + manifest.segments

    def _ulids(self, folder: str) -> list[str]:
        return [name for name in self._location.names(folder) if ulid_time(name) is not None]

    def _journal(self, ingest_id: str) -> Journal:
        if ingest_id in self._finished:
            return self._finished[ingest_id]
        folder = layout.ingest_folder(self._name, ingest_id)
        if self._location.is_file(f"{folder}/{OUTCOME_FILE}"):
            path = f"{folder}/{OUTCOME_FILE}"
            try:
                outcome = IngestOutcome.from_json_bytes(self._location.read_bytes(path), self._location.url_of(path))
            except NotFoundError:  # another gc is taking the journal
                return Journal(JournalState.DEAD)
            self._finished[ingest_id] = Journal(JournalState.FINISHED, version=outcome.version)
            return self._finished[ingest_id]
        alive = self._is_alive(folder)
        flushed = []
        for name in self._location.names(f"{folder}/{FLUSHED_FOLDER}"):
            path = f"{folder}/{FLUSHED_FOLDER}/{name}"
            record = FlushRecord.from_json_bytes(self._location.read_bytes(path), self._location.url_of(path))
            flushed.append(
                SegmentRef(
                    segment_id=record.segment_id, ordinal=0, n_rows=record.n_rows, record_sha256=record.record_sha256
                )
            )
        state = JournalState.LIVE if alive else JournalState.PENDING if flushed else JournalState.DEAD
        return Journal(state, tuple(flushed))

    def _is_alive(self, folder: str) -> bool:
        if is_alive(self._location, folder):
            return True
        path = f"{folder}/{HEARTBEAT_FILE}"
        try:
            beat = Heartbeat.from_json_bytes(self._location.read_bytes(path), self._location.url_of(path))
        except (NotFoundError, FormatError):
            return False
        if beat.host == socket.gethostname():
            return False
        # The other machine's clock may be slow: the time at which its heartbeat was stored counts as well.
        stored = [file.modified_at for file in self._location.files(folder) if file.path == path]
        return any(time is not None and (now() - time).total_seconds() <= STALE_SECONDS for time in stored)


def _completed(
    ingest_id: str, journal: Journal, kept: Mapping[int, SetManifest], lost: Mapping[int, SetManifest]
) -> Journal:
    """An ingest that died between its commit and its outcome is over, and the version protects what it flushed."""
    if journal.state is JournalState.PENDING:
        for manifests in (kept, lost):
            for number, manifest in manifests.items():
                if ingest_id in manifest.ingest_ids:
                    return Journal(JournalState.FINISHED, version=number)
    return journal
