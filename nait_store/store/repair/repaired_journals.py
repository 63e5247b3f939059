"""Mending the journals of ingests: flush records, outcomes, plans and lists of rejects."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeVar

from nait_store.activations.chunks import SEGMENT_FILE
from nait_store.activations.versions import ActivationSets
from nait_store.errors import FormatError, NotFoundError
from nait_store.ingest.journal import FLUSHED_FOLDER, OUTCOME_FILE, PLAN_FILE
from nait_store.refs import Kind
from nait_store.schemas.activation_set import FlushRecord, IngestOutcome, IngestPlan, SegmentRecord, SetManifest
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.record import Document, FileDigest
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.provenance import current_provenance
from nait_store.store.repair.flipped_bits import unflip
from nait_store.store.repair.repair_log import RepairLog

D = TypeVar("D", bound=Document)


class JournalRepair:
    """Mends the journals of the ingests of one set.

    Parameters
    ----------
    sets, name
        The store's sets, and the one.
    capture_id
        Of the set; empty where that is lost.
    log
        Changes files and takes notes.
    damaged
        Paths that verification named.
    """

    def __init__(
        self, sets: ActivationSets, name: str, capture_id: str, log: RepairLog, damaged: Collection[str]
    ) -> None:
        self._sets = sets
        self._location = sets.location
        self._name = name
        self._capture_id = capture_id
        self._log = log
        self._damaged = damaged

    def run(self) -> None:
        """Make lost flush records, outcomes and plans of ingests again."""
        for ingest_id in self._location.names(layout.ingest_folder(self._name)):
            folder = layout.ingest_folder(self._name, ingest_id)
            damaged = [path for path in self._damaged if path.startswith(f"{folder}/")]
            for path in sorted(damaged):
                file = path.removeprefix(f"{folder}/")
                if file.startswith(f"{FLUSHED_FOLDER}/"):
                    self._mend_flush(ingest_id, path)
                elif file == PLAN_FILE:
                    self._mend_plan(ingest_id, path)
                elif file == OUTCOME_FILE:
                    self._mend_outcome(ingest_id, folder)
                elif file.startswith("rejects"):
                    self._accept_rejects(folder)
                elif file == "heartbeat.json":
                    self._log.delete(path, "the heartbeat of an ingest that is over")

    def _mend_flush(self, ingest_id: str, path: str) -> None:
        if self._read(path, FlushRecord) is not None:
            return
        segment_id = path.rpartition("/")[2].removesuffix(".json")
        record = self._read(f"{layout.segment_folder(self._name, segment_id)}/{SEGMENT_FILE}", SegmentRecord)
        if record is None:
            self._log.lose(path, f"segment {segment_id} is lost as well")
            self._log.delete(path, "it cannot be read")
            return
        flush = FlushRecord(
            ingest_id=ingest_id, segment_id=segment_id, n_rows=record.n_rows, record_sha256=record.digest()
        )
        self._log.write(path, flush.to_json_bytes(), "made again from the segment")

    def _mend_plan(self, ingest_id: str, path: str) -> None:
        if self._read(path, IngestPlan) is not None:
            return
        segments = list(self._segment_records())
        features = {feature for one in segments for feature in one.features} or {Feature.MEAN}
        layers = {layer for one in segments for layer in one.layers}
        dtype = segments[0].arrays[0].dtype if segments else StoredDtype.FLOAT16
        plan = IngestPlan(
            ingest_id=ingest_id,
            set_name=self._name,
            capture_id=self._capture_id,
            sources=(),
            features=tuple(feature for feature in Feature if feature in features),
            layers=tuple(sorted(layers)),
            dtype=dtype,
            projections=segments[0].projections if segments else (),
            provenance=current_provenance(),
        )
        self._log.write(path, plan.to_json_bytes(), "written anew: the names of its sources are lost")

    def _mend_outcome(self, ingest_id: str, folder: str) -> None:
        path = f"{folder}/{OUTCOME_FILE}"
        if self._read(path, IngestOutcome) is not None:
            return
        version = None
        for number in self._sets.log.listing(self._name).documents:
            manifest = self._read(layout.version_document(Kind.SET, self._name, number), SetManifest)
            if manifest is not None and ingest_id in manifest.ingest_ids:
                version = number
        if version is None:  # not committed by any version that is left: the next ingest, or this repair, adopts it
            self._log.delete(path, "it cannot be read, and no version names the ingest")
            return
        rejects = None
        lists = [name for name in self._location.names(folder) if name.startswith("rejects")]
        if lists:  # a purge that was killed may have left an earlier one
            data = self._location.read_bytes(f"{folder}/{max(lists, key=len)}")
            rejects = FileDigest(path=max(lists, key=len), size_bytes=len(data), sha256=sha256_bytes(data))
        outcome = IngestOutcome(ingest_id=ingest_id, version=version, rejects=rejects, provenance=current_provenance())
        self._log.write(path, outcome.to_json_bytes(), "made again from the version that names the ingest")

    def _accept_rejects(self, folder: str) -> None:
        outcome_path = f"{folder}/{OUTCOME_FILE}"
        outcome = self._read(outcome_path, IngestOutcome)
        if outcome is None or outcome.rejects is None:
            return
        path = f"{folder}/{outcome.rejects.path}"
        data = self._location.read_bytes(path) if self._location.exists(path) else None
        if data is not None and len(data) == outcome.rejects.size_bytes:
            mended = data if sha256_bytes(data) == outcome.rejects.sha256 else unflip(data, outcome.rejects.sha256)
            if mended is not None:
                if mended != data:
                    self._log.write(path, mended, "a flipped bit was put right; its digest confirms it")
                return
        kept = None
        if data is not None:
            kept = outcome.rejects.model_copy(update={"size_bytes": len(data), "sha256": sha256_bytes(data)})
        self._log.lose(path, "some of the list of what an ingest left out is lost; the rest stays as it is")
        changed = outcome.model_copy(update={"rejects": kept})
        self._log.write(outcome_path, changed.to_json_bytes(), "says what is left of the list of rejects")

    def _segment_records(self) -> Iterator[SegmentRecord]:
        for segment_id in self._location.names(layout.segment_folder(self._name)):
            record = self._read(f"{layout.segment_folder(self._name, segment_id)}/{SEGMENT_FILE}", SegmentRecord)
            if record is not None:
                yield record

    def _read(self, path: str, record_type: type[D]) -> D | None:
        try:
            return record_type.from_json_bytes(self._location.read_bytes(path), path)
        except (NotFoundError, FormatError):
            return None
