"""Mending segments: what the digests allow is made again as it was, the rows of what is lost become blank."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.chunks import (
    DATA_FOLDER,
    SAMPLES_FILE,
    SEGMENT_FILE,
    chunk_path,
    chunk_rows_for,
    norms_path,
    numpy_dtype,
    scales_path,
    segment_metadata,
)
from nait_store.activations.replacement import replace_segment
from nait_store.activations.sample_rows import read_samples
from nait_store.activations.stored_values import row_norms
from nait_store.activations.versions import ActivationSets
from nait_store.errors import CorruptChunkError, FormatError, NaitStoreError, NotFoundError
from nait_store.schemas.activation_set import FeatureArray, Operation, SegmentRecord, SegmentRef, SetRecord
from nait_store.schemas.capture import CaptureEnvironment, CaptureSettings, Feature, StoredDtype
from nait_store.schemas.record import FileDigest, canonical_json
from nait_store.schemas.scores import SidecarRecord
from nait_store.scoring.carrying import sidecar_records
from nait_store.storage import layout
from nait_store.storage.digests import check_file, sha256_bytes, sha256_file
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance
from nait_store.store.moved_scores import move_scores
from nait_store.store.repair.flipped_bits import LARGEST_BYTES, unflip
from nait_store.store.repair.repair_log import Note, RepairLog, append_lines

_COLUMNS = ["sample_id", "source_uri", "source_index", "record"]
_UNKNOWN_SETTINGS = CaptureSettings(max_length_tokens=1, compute_dtype="unknown")
_UNKNOWN_ENVIRONMENT = CaptureEnvironment(
    model_source="unknown",
    model_type="unknown",
    n_parameters=0,
    device="unknown",
    batch_layout="unknown",
    token_budget=0,
    torch_version="unknown",
    transformers_version="unknown",
)


@dataclass(frozen=True)
class _Wound:
    """A segment that has to be replaced."""

    ref: SegmentRef
    record: SegmentRecord
    rows: NDArray[np.int64]
    """To be blank."""
    recomputed_norms: tuple[Feature, ...]
    derived_scales: tuple[Feature, ...]
    samples_readable: bool
    reason: str


class SegmentRepair:
    """Mends the segments of one set.

    Parameters
    ----------
    sets, set_record
        The store's sets; ``set.json`` of this one.
    log
        Changes files and takes notes.
    damaged
        Paths that verification named.
    rejects
        File that gets the rows that are dropped.
    """

    def __init__(
        self, sets: ActivationSets, set_record: SetRecord, log: RepairLog, damaged: Collection[str], rejects: str
    ) -> None:
        self._sets = sets
        self._location: Location = sets.location
        self._set = set_record
        self._name = set_record.name
        self._log = log
        self._damaged = damaged
        self._rejects = rejects
        self._orphans: set[str] = set()
        self._distrusted: set[str] = set()

    def run(self, refs: Sequence[SegmentRef], orphans: Sequence[SegmentRef]) -> None:
        """Mend segments; ``orphans`` are in no version that can be read, and are to be committed again."""
        self._orphans = {ref.segment_id for ref in orphans}
        wounds = [wound for ref in (*refs, *orphans) if (wound := self._examine(ref)) is not None]
        if not wounds and not self._distrusted:
            return
        for wound in wounds:
            self._take_notes(wound)
        sidecars = self._trusted_scores()
        if self._log.dry_run:
            return
        entries = [entry for wound in wounds for entry in self._dropped(wound)]
        append_lines(self._rejects, entries)  # before anything is blank
        for wound in wounds:
            replaced = replace_segment(
                self._sets,
                self._name,
                wound.record,
                blank_rows=wound.rows,
                operation=Operation.REPAIR,
                recomputed_norms=wound.recomputed_norms,
                derived_scales=wound.derived_scales,
                even_if_blank=True,
            )
            if replaced is not None and wound.record.files:
                move_scores(self._location, replaced, self._sets.redirects(self._name), sidecars)

    def _examine(self, ref: SegmentRef) -> _Wound | None:
        folder = layout.segment_folder(self._name, ref.segment_id)
        if not any(path.startswith(f"{folder}/") or path == folder for path in self._damaged):
            return None
        record = self._record(ref, folder)
        if record is None:
            readable = self._samples(folder, ref.n_rows) is not None
            every = np.arange(ref.n_rows, dtype=np.int64)
            return _Wound(ref, self._stand_in(ref), every, (), (), readable, "its segment.json is lost")
        broken = {file.path for file in record.files if not _is_sound(self._location, folder, file)}
        found = frozenset(broken)
        self._mend_bits(folder, record, broken)
        self._mend_metadata(folder, record, broken)
        self._mend_norms(folder, record, broken)
        per_row = {path(f) for f in record.features for path in (norms_path, scales_path)}
        # Rows of a chunk that is lost become blank, and so do their scores. What else was wrong for a while is right
        # again, and scores that were computed in that while are not.
        if any(path.startswith(f"{DATA_FOLDER}/") for path in (found - broken) | (found & per_row)):
            self._distrusted.add(ref.record_sha256)
        if not broken:
            return None
        return _Wound(
            ref,
            record,
            self._lost_rows(record, broken),
            tuple(f for f in record.features if norms_path(f) in broken),
            tuple(f for f in record.features if scales_path(f) in broken),
            SAMPLES_FILE not in broken,
            ", ".join(sorted(broken)[:3]) + (" …" if len(broken) > 3 else ""),
        )

    def _trusted_scores(self) -> list[SidecarRecord]:
        """Records of all score sidecars, but those that damaged arrays may have been scored for, which are deleted."""
        trusted = []
        for sidecar in sidecar_records(self._location):
            if sidecar.segment_sha256 in self._distrusted:
                self._log.delete_scores(sidecar.key, "scores that may have been computed from damaged arrays")
            else:
                trusted.append(sidecar)
        return trusted

    def _record(self, ref: SegmentRef, folder: str) -> SegmentRecord | None:
        path = f"{folder}/{SEGMENT_FILE}"
        try:
            data = self._location.read_bytes(path)
        except NotFoundError:
            return None
        if sha256_bytes(data) != ref.record_sha256:
            mended = self._unflip_record(folder, data, ref.record_sha256)
            if mended is None:
                return None
            self._log.write(path, mended, "put right: the digest in the set's manifest confirms every byte")
            data = mended
        try:
            return SegmentRecord.from_json_bytes(data, path)
        except FormatError:
            return None

    def _unflip_record(self, folder: str, data: bytes, sha256: str) -> bytes | None:
        """Undo a flipped bit, also in a large record: its list of files is made again from the files."""
        begin, end = data.find(b'"files":['), data.find(b'],"layers":[')
        if 0 < begin < end:
            listed = data[begin:end].count(b'"path":')
            files = [
                {"path": path.removeprefix(f"{folder}/"), "sha256": sha256_file(self._location, path), "size_bytes": n}
                for path, n in sorted(self._location.walk(folder))
                if path != f"{folder}/{SEGMENT_FILE}"
            ]
            rebuilt = data[:begin] + b'"files":' + canonical_json(files)[:-1] + data[end:]
            if sha256_bytes(rebuilt) == sha256:
                return rebuilt
            if listed == len(files) and len(data) < 1 << 20:
                tail = len(rebuilt) - (len(data) - end)
                for only in (range(begin), range(tail, len(rebuilt))):
                    found = unflip(rebuilt, sha256, only=only)
                    if found is not None:
                        return found
        return unflip(data, sha256)

    def _mend_bits(self, folder: str, record: SegmentRecord, broken: set[str]) -> None:
        for file in record.files:
            if file.path in broken and self._location.is_file(f"{folder}/{file.path}"):
                path = f"{folder}/{file.path}"
                if file.size_bytes > LARGEST_BYTES or self._location.size_bytes(path) != file.size_bytes:
                    continue
                mended = unflip(self._location.read_bytes(path), file.sha256)
                if mended is not None:
                    self._log.write(path, mended, "a flipped bit was put right; its digest confirms it")
                    broken.discard(file.path)

    def _mend_metadata(self, folder: str, record: SegmentRecord, broken: set[str]) -> None:
        documents = segment_metadata(
            record.segment_id,
            record.n_rows,
            record.layers,
            record.n_neurons,
            [(array.feature, array.dtype, array.chunk_rows) for array in record.arrays],
            capture_id=record.capture_id,
            hook_point=self._set.identity.hook_point,
            model=record.environment.model_label,
        )
        digests = {file.path: file.sha256 for file in record.files}
        for name, data in documents.items():
            path = f"{DATA_FOLDER}/{name}"
            if path in broken and digests[path] == sha256_bytes(data):
                self._log.write(f"{folder}/{path}", data, "made again from segment.json; its digest confirms it")
                broken.discard(path)

    def _mend_norms(self, folder: str, record: SegmentRecord, broken: set[str]) -> None:
        digests = {file.path: file.sha256 for file in record.files}
        for array in record.arrays:
            path = norms_path(array.feature)
            chunks = {file.path for file in record.files if file.path.startswith(f"{DATA_FOLDER}/{array.feature}/c/")}
            scales = scales_path(array.feature)
            if path not in broken or chunks & broken or scales in broken:
                continue
            factors = None
            if array.dtype is StoredDtype.INT8:
                factors = np.frombuffer(self._location.read_bytes(f"{folder}/{scales}"), "<f4")
                factors = factors.reshape(record.n_rows, len(record.layers))
            norms = np.zeros((record.n_rows, len(record.layers)), dtype="<f4")
            for begin in range(0, record.n_rows, array.chunk_rows):
                span = slice(begin, min(begin + array.chunk_rows, record.n_rows))
                for i in range(len(record.layers)):
                    data = self._location.read_bytes(
                        f"{folder}/{chunk_path(array.feature, begin // array.chunk_rows, i)}"
                    )
                    chunk = np.frombuffer(data, numpy_dtype(array.dtype)).reshape(-1, record.n_neurons)
                    norms[span, i] = row_norms(
                        chunk[: span.stop - span.start], None if factors is None else factors[span, i]
                    )
            if sha256_bytes(norms.tobytes()) == digests[path]:
                self._log.write(f"{folder}/{path}", norms.tobytes(), "computed again; its digest confirms it")
                broken.discard(path)

    def _lost_rows(self, record: SegmentRecord, broken: set[str]) -> NDArray[np.int64]:
        codes_are_worthless = any({norms_path(f), scales_path(f)} <= broken for f in record.features)
        if SAMPLES_FILE in broken or codes_are_worthless:
            return np.arange(record.n_rows, dtype=np.int64)
        lost = np.zeros(record.n_rows, dtype=bool)
        for array in record.arrays:
            for begin in range(0, record.n_rows, array.chunk_rows):
                block = begin // array.chunk_rows
                if not broken.isdisjoint(chunk_path(array.feature, block, i) for i in range(len(record.layers))):
                    lost[begin : begin + array.chunk_rows] = True
        return np.flatnonzero(lost).astype(np.int64)

    def _stand_in(self, ref: SegmentRef) -> SegmentRecord:
        """A record that a segment could have had, to make a blank one of: what it stored is told by its versions."""
        features: set[Feature] = set()
        layers: set[int] = set()
        original = {r.replacement: r.segment_id for r in self._sets.redirects(self._name).records}
        ids, at = {ref.segment_id}, ref.segment_id
        while at in original:
            at = original[at]
            ids.add(at)
        for number in self._sets.log.listing(self._name).documents:
            manifest = self._sets.log.read(self._name, number)
            refs = manifest.segments
            if manifest.base is not None:
                refs += self._sets.log.read(self._name, manifest.base).segments
            if any(one.segment_id in ids for one in refs):
                features |= set(manifest.features)
                layers |= set(manifest.layers)
        template = self._any_record()
        dtype = template.arrays[0].dtype if template else StoredDtype.FLOAT16
        chunk_rows = chunk_rows_for(self._set.n_neurons, dtype, ref.n_rows)
        return SegmentRecord(
            segment_id=ref.segment_id,
            set_name=self._name,
            capture_id=self._set.capture_id,
            n_rows=ref.n_rows,
            layers=tuple(sorted(layers)) or tuple(range(self._set.n_model_layers)),
            n_neurons=self._set.n_neurons,
            arrays=tuple(
                FeatureArray(feature=f, dtype=dtype, chunk_rows=chunk_rows, max_abs=0)
                for f in Feature
                if f in (features or {Feature.MEAN})
            ),
            user_fields={},
            files=(),
            settings=template.settings if template else _UNKNOWN_SETTINGS,
            environment=template.environment if template else _UNKNOWN_ENVIRONMENT,
            n_tokens=0,
            n_truncated=0,
            projections=self._set.projections,
            provenance=current_provenance(),
        )

    def _any_record(self) -> SegmentRecord | None:
        for segment_id in self._location.names(layout.segment_folder(self._name)):
            path = f"{layout.segment_folder(self._name, segment_id)}/{SEGMENT_FILE}"
            try:
                return SegmentRecord.from_json_bytes(self._location.read_bytes(path), path)
            except NaitStoreError:
                continue
        return None

    def _samples(self, folder: str, n_rows: int) -> pa.Table | None:
        try:
            table = read_samples(self._location, f"{folder}/{SAMPLES_FILE}", _COLUMNS)
        except (NaitStoreError, pa.ArrowException, KeyError, ValueError):
            return None
        return table if table.num_rows == n_rows else None

    def _take_notes(self, wound: _Wound) -> None:
        folder = layout.segment_folder(self._name, wound.ref.segment_id)
        before = self._sets.redirects(self._name).blank_rows(wound.ref.segment_id)
        rows = wound.rows if before is None else np.setdiff1d(wound.rows, before)
        self._log.n_dropped += len(rows)
        if not len(rows):
            self._log.mended.append(Note(folder, "written anew: nothing of its samples was lost"))
            return
        table = self._samples(folder, wound.ref.n_rows) if wound.samples_readable else None
        visible = self._visible_in_latest(wound.ref)[rows]
        ids = self._log.dropped_ids.setdefault(self._name, set())
        if table is None:
            self._log.n_unknown[self._name] = self._log.n_unknown.get(self._name, 0) + int(visible.sum())
        else:
            ids |= set(table.column("sample_id").take(rows[visible]).to_pylist())
        self._log.lose(
            folder,
            f"{len(rows):,} of {wound.ref.n_rows:,} rows dropped ({wound.reason} damaged)"
            if wound.record.files
            else f"all {len(rows):,} rows dropped: {wound.reason}",
        )

    def _visible_in_latest(self, ref: SegmentRef) -> NDArray[np.bool_]:
        visible = np.full(ref.n_rows, ref.segment_id in self._orphans)
        if self._sets.numbers(self._name):
            version = self._sets.open(self._name)
            for one in version.refs:
                if one.segment_id == ref.segment_id:
                    mask = version.visible_mask(one)
                    visible[:] = True if mask is None else mask
        return visible

    def _dropped(self, wound: _Wound) -> Iterator[dict[str, Any]]:
        folder = layout.segment_folder(self._name, wound.ref.segment_id)
        before = self._sets.redirects(self._name).blank_rows(wound.ref.segment_id)
        rows = wound.rows if before is None else np.setdiff1d(wound.rows, before)
        table = self._samples(folder, wound.ref.n_rows) if wound.samples_readable else None
        found = table.take(rows).to_pylist() if table is not None else [dict.fromkeys(_COLUMNS)] * len(rows)
        for row in found:
            yield {
                "set": self._name,
                "sample_id": row["sample_id"],
                "source_uri": row["source_uri"],
                "source_index": row["source_index"],
                "record": _parsed(row["record"]),
                "reason": f"{folder}: {wound.reason}",
            }


def _is_sound(location: Location, folder: str, file: FileDigest) -> bool:
    try:
        check_file(location, folder, file, hashed=True)
    except CorruptChunkError:
        return False
    return True


def _parsed(record: str | None) -> Any:
    try:
        return None if record is None else json.loads(record)
    except ValueError:
        return record
