"""Mending the documents of one set: its record, versions, redirects and tombstones."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, TypeVar

from nait_store.activations.changes import Change, Contents
from nait_store.activations.chunks import SAMPLES_FILE, SEGMENT_FILE
from nait_store.activations.sample_rows import read_samples
from nait_store.activations.versions import ActivationSets
from nait_store.errors import AlreadyExistsError, FormatError, NaitStoreError, NotFoundError
from nait_store.ingest.journal import FLUSHED_FOLDER, OUTCOME_FILE, PLAN_FILE
from nait_store.refs import Kind
from nait_store.schemas.activation_set import (
    FlushRecord,
    IngestOutcome,
    IngestPlan,
    Operation,
    RedirectRecord,
    SegmentRecord,
    SegmentRef,
    SetManifest,
    SetRecord,
)
from nait_store.schemas.history import CollectionRecord, DeletionRecord
from nait_store.schemas.record import Document
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.provenance import current_provenance
from nait_store.store.census import take_census
from nait_store.store.repair.flipped_bits import unflip
from nait_store.store.repair.repair_log import RepairLog

if TYPE_CHECKING:
    from nait_store.activations.set_version import SetVersion
    from nait_store.registry.profiles import ProfileRegistry

D = TypeVar("D", bound=Document)
LOST_VERSION = "repair: "
"""Reasons of the deletion of versions that were lost begin with this."""


class SetRepair:
    """Mends the documents of one set.

    Parameters
    ----------
    sets, profiles
        The store's sets and profiles.
    name
        The set.
    log
        Changes files and takes notes.
    damaged
        Paths that verification named.
    """

    def __init__(
        self, sets: ActivationSets, profiles: ProfileRegistry, name: str, log: RepairLog, damaged: Collection[str]
    ) -> None:
        self._sets = sets
        self._profiles = profiles
        self._location = sets.location
        self._name = name
        self._log = log
        self._damaged = damaged

    def set_record(self) -> SetRecord | None:
        """``set.json``, made again where it is lost; None where nothing tells what stood in it."""
        path = layout.set_record(self._name)
        with contextlib.suppress(FormatError):
            record = self._sets.record(self._name)
            if record is not None:
                return record
        segments = list(self._segment_records())
        capture_ids = {record.capture_id for record in segments} | {plan.capture_id for plan in self._plans()}
        for found in self._set_records(segments):
            if found.identity.capture_id in capture_ids:
                self._log.write(path, found.to_json_bytes(), "made again from what other documents say")
                return found
        if path in self._damaged:
            self._log.lose(
                path, "no other document says how the set was captured: put it back from a copy of the store"
            )
        return None

    def mend_redirects(self) -> None:
        """Make lost redirects again from the segments that stand for others."""
        folder = layout.redirects_folder(Kind.SET, self._name)
        for path in sorted(path for path in self._damaged if path.startswith(f"{folder}/")):
            if self._read(path, RedirectRecord) is not None:
                continue
            gone = path.removeprefix(f"{folder}/").removesuffix(".json")
            found = [(blank, record) for record in self._segment_records() if (blank := self._blank_rows(record, gone))]
            if not found:
                self._log.lose(path, f"nothing tells which segment stands for {gone}")
                self._log.delete(path, "it cannot be read")
                continue
            blank, record = max(found, key=lambda one: len(one[0]))
            redirect = RedirectRecord(
                segment_id=gone,
                replacement=record.segment_id,
                record_sha256=record.digest(),
                n_rows=record.n_rows,
                blank_rows=blank,
                operation=Operation.REPAIR,
                provenance=current_provenance(),
            )
            self._log.write(path, redirect.to_json_bytes(), f"made again from segment {record.segment_id}")

    def hide_lost_versions(self) -> set[int]:
        """Delete the versions whose documents, or whose list of segments or of hidden rows, cannot be read.

        Returns
        -------
        set of int
            The numbers of all versions that this and earlier repairs found lost.
        """
        lost = self._lost_versions()
        folder = layout.versions_folder(Kind.SET, self._name)
        for number, why in sorted(lost.items()):
            reason = f"{LOST_VERSION}{why}"
            deletion = DeletionRecord(number=number, reason=reason, provenance=current_provenance())
            collection = CollectionRecord(number=number, provenance=current_provenance())
            path = layout.version_document(Kind.SET, self._name, number)
            if not self._log.dry_run:
                self._create(layout.deletion_marker(Kind.SET, self._name, number), deletion)
                self._create(layout.collection_marker(Kind.SET, self._name, number), collection)
            self._log.lose(
                path,
                f"{self._name}@{number}: {why}; its samples are kept, but what it left out, or restored, is forgotten",
            )
            if self._read(path, SetManifest) is None and self._location.exists(path):
                self._log.delete(path, f"{self._name}@{number} cannot be read")
        self._mend_markers(folder)
        return set(lost) | {n for n in self._sets.log.listing(self._name).deleted if self._was_lost(n)}

    def mend_tombstones(self) -> None:
        """Undo flipped bits in files of tombstones; they are small, and manifests have their digests."""
        folder = layout.item_folder(Kind.SET, self._name)
        for number in self._sets.log.listing(self._name).documents:
            manifest = self._manifest(number)
            written = manifest.tombstones if manifest else None
            path = f"{folder}/{written.path}" if written else ""
            if written is None or path not in self._damaged or not self._location.exists(path):
                continue
            data = self._location.read_bytes(path)
            if sha256_bytes(data) == written.sha256:
                continue
            mended = unflip(data, written.sha256)
            if mended is not None:
                self._log.write(path, mended, "a flipped bit was put right; its digest confirms it")

    def orphans(self, lost: set[int]) -> list[SegmentRef]:
        """Segments that lost versions alone referred to: flushed by their ingests, or made by their compactions."""
        if not lost:
            return []
        census = take_census(self._sets, self._name)
        flushed: dict[str, SegmentRef] = {}
        for outcome in self._outcomes():
            if outcome.version in lost:
                folder = f"{layout.ingest_folder(self._name, outcome.ingest_id)}/{FLUSHED_FOLDER}"
                for entry in self._location.names(folder):
                    flush = self._read(f"{folder}/{entry}", FlushRecord)
                    if flush is not None:
                        flushed[flush.segment_id] = _ref(flush.segment_id, flush.n_rows, flush.record_sha256)
        redirects = self._sets.redirects(self._name)
        found = {ref.segment_id: ref for ref in redirects.follow_all(flushed.values())}
        folders = set(self._location.names(layout.segment_folder(self._name)))
        for record in self._segment_records():
            if record.replaces and folders.isdisjoint(record.replaces):
                found[record.segment_id] = _ref(record.segment_id, record.n_rows, record.digest())
        unreferenced = set(census.unreferenced)
        return [ref for segment_id, ref in sorted(found.items()) if segment_id in unreferenced]

    def commit(self, lost: set[int]) -> None:
        """Commit what lost versions alone referred to, and the blank rows, on top of the newest sound version."""
        orphans = [
            record
            for ref in self.orphans(lost)
            if (
                record := self._read(
                    f"{layout.segment_folder(self._name, ref.segment_id)}/{SEGMENT_FILE}", SegmentRecord
                )
            )
        ]
        if orphans:
            before = self._sets.numbers(self._name)
            version = self._sets.commit(
                self._name,
                orphans,
                ingest_ids=(),
                message="what lost versions held",
                yielding=frozenset(record.segment_id for record in orphans),
                operation=Operation.REPAIR,
            )
            if version.number not in before:
                self._log.versions.append(version.reference)
        change: Change | None = None

        def propose(current: SetVersion | None, _next_ordinal: int) -> Change | None:
            nonlocal change
            change = None if current is None else self._change(current)
            return change

        version_now = self._sets.advance(self._name, propose)
        if version_now is not None and change is not None:
            self._log.versions.append(version_now.reference)

    def _change(self, current: SetVersion) -> Change | None:
        written = current.manifest.tombstones
        n_dropped = sum(map(len, current.tombstones().values())) - (written.n_rows if written else 0)
        listing = self._sets.log.listing(self._name)
        # The highest number must have a document: it says which ordinals were used.
        if not n_dropped and listing.documents[-1] == listing.last:
            return None
        return Change(
            operation=Operation.REPAIR,
            contents=Contents(current.features, current.layers),
            details={"n_dropped": n_dropped},
        )

    def _set_records(self, segments: list[SegmentRecord]) -> Iterator[SetRecord]:
        for plan in self._plans():
            if plan.identity is not None and plan.n_neurons is not None and plan.n_model_layers is not None:
                yield SetRecord(
                    name=self._name,
                    capture_id=plan.capture_id,
                    identity=plan.identity,
                    n_neurons=plan.n_neurons,
                    n_model_layers=plan.n_model_layers,
                    projections=plan.projections,
                    provenance=current_provenance(),
                )
        for other in self._sets.log.all_names():
            with contextlib.suppress(NaitStoreError):
                record = self._sets.record(other)
                if record is not None:
                    yield record.model_copy(update={"name": self._name, "provenance": current_provenance()})
        n_layers = max((layer + 1 for record in segments for layer in record.layers), default=0)
        for name in self._profiles.names():
            for number in self._profiles.numbers(name):
                with contextlib.suppress(NaitStoreError):
                    profile = self._profiles.open(f"{name}@{number}").record
                    yield SetRecord(
                        name=self._name,
                        capture_id=profile.capture_id,
                        identity=profile.identity,
                        n_neurons=profile.n_neurons,
                        n_model_layers=max(n_layers, *(layer + 1 for layer in profile.layers)),
                        provenance=current_provenance(),
                    )

    def _segment_records(self) -> Iterator[SegmentRecord]:
        for segment_id in self._location.names(layout.segment_folder(self._name)):
            record = self._read(f"{layout.segment_folder(self._name, segment_id)}/{SEGMENT_FILE}", SegmentRecord)
            if record is not None:
                yield record

    def _plans(self) -> Iterator[IngestPlan]:
        for ingest_id in self._location.names(layout.ingest_folder(self._name)):
            plan = self._read(f"{layout.ingest_folder(self._name, ingest_id)}/{PLAN_FILE}", IngestPlan)
            if plan is not None:
                yield plan

    def _blank_rows(self, record: SegmentRecord, gone: str) -> tuple[int, ...]:
        if record.replaces != (gone,):
            return ()
        path = f"{layout.segment_folder(self._name, record.segment_id)}/{SAMPLES_FILE}"
        try:
            ids = read_samples(self._location, path, ["sample_id"]).column(0).to_pylist()
        except NaitStoreError:
            return ()
        return tuple(row for row, sample_id in enumerate(ids) if not sample_id)

    def _lost_versions(self) -> dict[int, str]:
        listing = self._sets.log.listing(self._name)
        lost: dict[int, str] = {}
        known = {*listing.documents, *listing.collected}
        named = {n for outcome in self._outcomes() if (n := outcome.version) is not None}
        for number in range(1, max([listing.last, *named]) + 1):
            if number not in known:
                lost[number] = "its document is missing"
        manifests = {number: self._manifest(number) for number in listing.documents}
        for number, manifest in manifests.items():
            if number in listing.collected:
                continue
            if manifest is None:
                lost[number] = "its document is damaged"
            elif manifest.base is not None and manifests.get(manifest.base) is None:
                lost[number] = f"the document of {self._name}@{manifest.base}, which it builds on, is lost"
            elif manifest.tombstones is not None and not self._has_tombstones(manifest):
                lost[number] = f"the list of its {manifest.tombstones.n_rows:,} hidden rows is lost"
        return lost

    def _has_tombstones(self, manifest: SetManifest) -> bool:
        written = manifest.tombstones
        assert written is not None
        path = f"{layout.item_folder(Kind.SET, self._name)}/{written.path}"
        if path not in self._damaged:
            return True
        mended = any(note.path == path for note in self._log.mended)
        return mended or (
            self._location.exists(path) and sha256_bytes(self._location.read_bytes(path)) == written.sha256
        )

    def _outcomes(self) -> Iterator[IngestOutcome]:
        for ingest_id in self._location.names(layout.ingest_folder(self._name)):
            outcome = self._read(f"{layout.ingest_folder(self._name, ingest_id)}/{OUTCOME_FILE}", IngestOutcome)
            if outcome is not None:
                yield outcome

    def _mend_markers(self, folder: str) -> None:
        for path in sorted(path for path in self._damaged if path.startswith(f"{folder}/")):
            number, _, kind = path.removeprefix(f"{folder}/").removesuffix(".json").partition(".")
            if kind == "deleted" and self._read(path, DeletionRecord) is None:
                record: Document = DeletionRecord(
                    number=int(number), reason="(the reason was lost)", provenance=current_provenance()
                )
            elif kind == "collected" and self._read(path, CollectionRecord) is None:
                record = CollectionRecord(number=int(number), provenance=current_provenance())
            else:
                continue
            self._log.write(path, record.to_json_bytes(), "written anew: who did it, when and why is lost")

    def _was_lost(self, number: int) -> bool:
        try:
            deletion = self._sets.log.deletion(self._name, number)
        except FormatError:
            return False
        return deletion is not None and deletion.reason.startswith(LOST_VERSION)

    def _manifest(self, number: int) -> SetManifest | None:
        return self._read(layout.version_document(Kind.SET, self._name, number), SetManifest)

    def _read(self, path: str, record_type: type[D]) -> D | None:
        try:
            return record_type.from_json_bytes(self._location.read_bytes(path), path)
        except (NotFoundError, FormatError):
            return None

    def _create(self, path: str, record: Document) -> None:
        with contextlib.suppress(AlreadyExistsError):
            self._location.create_bytes(path, record.to_json_bytes())


def _ref(segment_id: str, n_rows: int, record_sha256: str) -> SegmentRef:
    return SegmentRef(segment_id=segment_id, ordinal=0, n_rows=n_rows, record_sha256=record_sha256)
