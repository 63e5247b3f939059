"""Taking samples out of one set: segments, their scores, the lists of rejected records; then a version that says so."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.changes import Change, Contents
from nait_store.activations.chunks import SEGMENT_FILE
from nait_store.activations.reader import SegmentReader, read_segment_record
from nait_store.activations.replacement import replace_segment
from nait_store.activations.sample_keys import find_sorted, keys_of
from nait_store.errors import FormatError, NotFoundError
from nait_store.ingest.journal import OUTCOME_FILE
from nait_store.progress import ProgressEvent
from nait_store.refs import Kind
from nait_store.schemas.activation_set import IngestOutcome, Operation, SegmentRecord, SegmentRef
from nait_store.schemas.record import FileDigest
from nait_store.schemas.scores import SidecarRecord
from nait_store.scoring.carrying import sidecar_records
from nait_store.scoring.sidecar_files import delete_sidecar
from nait_store.storage import layout
from nait_store.storage.digests import write_payload_file
from nait_store.storage.object_cache import object_cache
from nait_store.storage.provenance import new_ulid
from nait_store.store.census import SegmentCensus, take_census
from nait_store.store.exclusive import living_work
from nait_store.store.moved_scores import move_scores

if TYPE_CHECKING:
    from nait_store.activations.set_version import SetVersion
    from nait_store.store.facade import Store


@dataclass
class Tally:
    """What a purge has done, or would do.

    Attributes
    ----------
    found
        Sample ids that were there.
    n_rows
        Rows that held them.
    rewritten, deleted
        Paths below the store's root.
    sources
        Where the samples came from.
    positions
        (source, index in it) of each, to know lists of rejects by.
    n_cached_files
        Files deleted from this machine's cache.
    versions
        The versions that say so.
    """

    found: set[str] = field(default_factory=set)
    n_rows: int = 0
    rewritten: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)
    positions: set[tuple[str, int]] = field(default_factory=set)
    n_cached_files: int = 0
    versions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Hit:
    ref: SegmentRef
    record: SegmentRecord
    rows: NDArray[np.int64]


class SetPurge:
    """Takes samples out of one set. Every step may be the last: doing it all again finishes it.

    Parameters
    ----------
    store
        The store.
    name
        The set.
    sample_ids
        What goes.
    tally
        Told what was done.
    """

    def __init__(self, store: Store, name: str, sample_ids: Collection[str], tally: Tally) -> None:
        self._store = store
        self._location = store.location
        self._sets = store.sets.versions
        self._name = name
        self._ids = frozenset(sample_ids)
        self._keys = np.sort(keys_of(self._ids))
        self._tally = tally

    def look(self) -> None:
        """Tell what :meth:`run` would do, and do nothing."""
        census = take_census(self._sets, self._name)
        for segment_id in census.replaced:
            if self._location.exists(layout.segment_folder(self._name, segment_id)):
                self._tally.deleted.append(layout.segment_folder(self._name, segment_id))
        for hit in self._hits(census):
            self._tally.n_rows += len(hit.rows)
            self._tally.rewritten.append(layout.segment_folder(self._name, hit.ref.segment_id))
        for path, _ in self._rejects():
            self._tally.rewritten.append(path)

    def run(self, job_id: str, reason: str) -> None:
        """Do it; the caller keeps every other writer away from the set."""
        while True:
            census = take_census(self._sets, self._name)
            self._delete_replaced(census)
            hits = list(self._hits(census))
            if not hits:
                break
            sidecars = list(sidecar_records(self._location))
            for n, hit in enumerate(hits):
                self._replace(hit, sidecars)
                self._progress(n + 1, len(hits))
        self._delete_unreferenced(census, job_id)
        self._rewrite_rejects()
        change: Change | None = None

        def propose(current: SetVersion | None, _next_ordinal: int) -> Change | None:
            nonlocal change
            change = self._change(current, reason)
            return change

        version = self._sets.advance(self._name, propose)
        if version is not None and change is not None:
            self._tally.versions.append(version.reference)

    def _hits(self, census: SegmentCensus) -> Iterator[_Hit]:
        for ref in census.referenced:
            record = read_segment_record(self._location, self._name, ref)
            reader = SegmentReader(self._location, record)
            keys = self._sets.keys(reader)
            rows = np.sort(keys.rows[find_sorted(self._keys, keys.ids) >= 0]).astype(np.int64)
            if not len(rows):
                continue
            columns = ["sample_id", "source_uri", "source_index"]
            for row in reader.samples(columns).take(rows).to_pylist():
                self._tally.found.add(row["sample_id"])
                self._tally.sources.add(row["source_uri"])
                self._tally.positions.add((row["source_uri"], row["source_index"]))
            yield _Hit(ref, record, rows)

    def _replace(self, hit: _Hit, sidecars: Sequence[SidecarRecord]) -> None:
        replaced = replace_segment(self._sets, self._name, hit.record, blank_rows=hit.rows, operation=Operation.PURGE)
        if replaced is None:
            return
        move_scores(self._location, replaced, self._sets.redirects(self._name), sidecars)
        old, new = replaced.old, replaced.new
        self._forget_cached(old.files, new.files)
        folder = layout.segment_folder(self._name, old.segment_id)
        self._location.delete(folder)
        self._tally.n_rows += replaced.n_blanked
        self._tally.rewritten.append(folder)

    def _delete_replaced(self, census: SegmentCensus) -> None:
        """Finish what an earlier purge began, and take what a repair left to gc: old bytes of any row may be in it."""
        digests = {digest for digest in census.replaced.values() if digest}
        if digests:
            for sidecar in sidecar_records(self._location):
                if sidecar.segment_sha256 in digests:
                    delete_sidecar(self._location, sidecar.key)
                    self._tally.deleted.append(layout.score_sidecar(sidecar.key))
        for segment_id in census.replaced:
            self._delete_segment(segment_id)

    def _delete_unreferenced(self, census: SegmentCensus, job_id: str) -> None:
        """Delete segments and unfinished files of writers that died: nobody can tell what an unfinished one holds."""
        for segment_id in census.unreferenced:
            if not living_work(self._location, self._name, besides=job_id):  # one that began meanwhile has its own
                self._delete_segment(segment_id)
        if not living_work(self._location, self._name, besides=job_id):
            own = layout.job_folder(self._name, job_id)
            for file in list(self._location.leftovers(layout.item_folder(Kind.SET, self._name))):
                if not file.path.startswith(own):
                    self._location.delete(file.path)
                    self._tally.deleted.append(file.path)

    def _delete_segment(self, segment_id: str) -> None:
        folder = layout.segment_folder(self._name, segment_id)
        if not self._location.exists(folder):
            return
        path = f"{folder}/{SEGMENT_FILE}"
        try:
            record = SegmentRecord.from_json_bytes(self._location.read_bytes(path), path)
            self._forget_cached(record.files, ())
        except (NotFoundError, FormatError):
            pass  # never whole, or being deleted already: nothing of it is read, or was kept since
        self._location.delete(folder)
        self._tally.deleted.append(folder)

    def _forget_cached(self, old: Collection[FileDigest], new: Collection[FileDigest]) -> None:
        kept = {file.sha256 for file in new}
        gone = {file.sha256 for file in old} - kept
        self._tally.n_cached_files += object_cache().remove(gone)

    def _rejects(self) -> Iterator[tuple[str, bytes]]:
        """Yield (path, bytes without the samples) of every list of rejects that names some."""
        for ingest_id in self._location.names(layout.ingest_folder(self._name)):
            folder = layout.ingest_folder(self._name, ingest_id)
            for file in self._location.names(folder):
                if not (file.startswith("rejects") and file.endswith(".jsonl")):
                    continue
                path = f"{folder}/{file}"
                lines = self._location.read_bytes(path).splitlines(keepends=True)
                kept = [line for line in lines if not self._names_sample(line)]
                if len(kept) < len(lines):
                    yield path, b"".join(kept)

    def _names_sample(self, line: bytes) -> bool:
        try:
            entry: dict[str, Any] = json.loads(line)
            sample_id, position = entry.get("sample_id"), (entry.get("source_uri"), entry.get("source_index"))
        except (ValueError, AttributeError):
            return False
        if sample_id in self._ids:
            self._tally.found.add(sample_id)
            return True
        return position in self._tally.positions

    def _rewrite_rejects(self) -> None:
        for path, data in list(self._rejects()):
            folder, _, file = path.rpartition("/")
            outcome_path = f"{folder}/{OUTCOME_FILE}"
            try:
                outcome = IngestOutcome.from_json_bytes(self._location.read_bytes(outcome_path), outcome_path)
            except NotFoundError:
                outcome = None
            if outcome is not None and outcome.rejects is not None and outcome.rejects.path == file:
                # Under another name, so that the outcome names a list that is what it says at every moment.
                digest = write_payload_file(self._location, folder, f"rejects-{new_ulid()}.jsonl", data)
                changed = outcome.model_copy(update={"rejects": digest})
                self._location.write_bytes(outcome_path, changed.to_json_bytes())
                self._location.delete(path)
            else:
                self._location.write_bytes(path, data)
            self._tally.rewritten.append(path)

    def _change(self, current: SetVersion | None, reason: str) -> Change | None:
        if current is None:
            return None
        written = current.manifest.tombstones
        n_hidden = sum(map(len, current.tombstones().values()))
        n_purged = n_hidden - (written.n_rows if written else 0)
        if not n_purged:
            return None
        return Change(
            operation=Operation.PURGE,
            contents=Contents(current.features, current.layers),
            message=reason,
            details={"n_purged": n_purged},
        )

    def _progress(self, done: int, total: int) -> None:
        self._store.progress(ProgressEvent(stage="purge", done=done, total=total))
