"""Verification of an activation set: every document, file and row against its record."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from nait_store.activations.chunks import SAMPLES_FILE, SEGMENT_FILE
from nait_store.activations.reader import SegmentReader, read_segment_record
from nait_store.activations.sample_keys import SegmentKeys
from nait_store.activations.tombstones import Tombstones, read_tombstones
from nait_store.activations.versions import ActivationSets
from nait_store.errors import CorruptChunkError, FormatError, NaitStoreError
from nait_store.progress import ProgressEvent, ProgressListener, ignore_progress
from nait_store.refs import Kind
from nait_store.schemas.activation_set import SegmentRecord, SegmentRef, SetManifest, TombstoneRef
from nait_store.schemas.record import FileDigest
from nait_store.schemas.samples import samples_schema
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.verify import Finding, Severity, verify_payload

__all__ = ["Finding", "Severity", "verify_set"]


def verify_set(
    sets: ActivationSets, name: str, *, quick: bool = False, progress: ProgressListener = ignore_progress
) -> list[Finding]:
    """Verify every version of a set, and every segment that a version refers to.

    Parameters
    ----------
    sets
        The store's sets.
    name
        The set.
    quick
        Compare documents and sizes only, instead of hashing every byte.
    progress
        Told after each file.

    Returns
    -------
    list of Finding
        Empty, or infos only, if all is well.
    """
    return list(_SetVerification(sets, name, quick, progress).findings())


class _SetVerification:
    def __init__(self, sets: ActivationSets, name: str, quick: bool, progress: ProgressListener) -> None:
        self._sets = sets
        self._location: Location = sets.location
        self._name = name
        self._quick = quick
        self._progress = progress
        self._began = time.monotonic()
        self._n_files = 0
        self._n_bytes = 0
        self._keys: dict[int, SegmentKeys] = {}  # by ordinal
        self._refs: dict[int, SegmentRef] = {}

    def findings(self) -> Iterator[Finding]:
        """Walk from the documents down to the bytes."""
        try:
            record = self._sets.record(self._name)
        except FormatError as error:
            yield Finding(layout.set_record(self._name), error.what)
            record = None
        else:
            if record is None:
                yield Finding(layout.set_record(self._name), "set.json is missing")
        if record is not None and (record.identity.capture_id != record.capture_id or record.name != self._name):
            yield Finding(layout.set_record(self._name), "set.json contradicts itself or its folder")
        manifests: dict[int, SetManifest] = {}
        for number in self._sets.numbers(self._name):
            path = layout.version_document(Kind.SET, self._name, number)
            try:
                manifests[number] = self._sets.manifest(self._name, number)
            except NaitStoreError as error:
                yield Finding(path, error.what)
                continue
            if (manifests[number].number, manifests[number].set_name) != (number, self._name):
                yield Finding(path, "the document names another set or version")
        yield from self._collect_refs(manifests)
        for ref in self._refs.values():
            yield from self._segment(ref, record.capture_id if record else None)
        for manifest in manifests.values():
            yield from self._manifest(manifest, manifests)
        yield from self._orphans()

    def _collect_refs(self, manifests: dict[int, SetManifest]) -> Iterator[Finding]:
        for number, manifest in manifests.items():
            path = layout.version_document(Kind.SET, self._name, number)
            for ref in manifest.segments:
                known = self._refs.setdefault(ref.ordinal, ref)
                if known != ref:
                    yield Finding(path, f"ordinal {ref.ordinal} stands for two segments, {known.segment_id} and this")
                if ref.ordinal >= manifest.next_ordinal:
                    yield Finding(path, f"ordinal {ref.ordinal} is not below next_ordinal {manifest.next_ordinal}")

    def _segment(self, ref: SegmentRef, capture_id: str | None) -> Iterator[Finding]:
        folder = layout.segment_folder(self._name, ref.segment_id)
        document = f"{folder}/{SEGMENT_FILE}"
        try:
            record = read_segment_record(self._location, self._name, ref)
        except NaitStoreError as error:
            yield Finding(document, error.what)
            return
        if (record.segment_id, record.set_name, record.n_rows) != (ref.segment_id, self._name, ref.n_rows):
            yield Finding(document, "the record contradicts the manifest that refers to it")
        if capture_id is not None and record.capture_id != capture_id:
            yield Finding(document, f"capture identity {record.capture_id} differs from the set's {capture_id}")
        damaged = verify_payload(
            self._location,
            folder,
            record.files,
            hashed=not self._quick,
            ignore=frozenset({SEGMENT_FILE}),
            checked=self._checked,
        )
        yield from damaged
        if not self._quick:
            yield from self._rows(ref, record, folder, damaged)

    def _rows(self, ref: SegmentRef, record: SegmentRecord, folder: str, damaged: list[Finding]) -> Iterator[Finding]:
        path = f"{folder}/{SAMPLES_FILE}"
        if any(finding.path == path and finding.severity is Severity.ERROR for finding in damaged):
            return
        reader = SegmentReader(self._location, record, ref)
        try:
            indices = reader.samples(["row_index"]).column("row_index").to_numpy()
            schema = reader.samples_schema()
            keys = SegmentKeys.read(reader)
            for feature in record.features:
                reader.check_array(feature)
        except (NaitStoreError, pa.ArrowException) as error:
            yield Finding(path, str(error))
            return
        if not np.array_equal(indices, np.arange(record.n_rows)):
            yield Finding(path, "row_index does not count the rows")
        # The record's JSON has its fields sorted; the columns stand in the order of their first appearance.
        expected = samples_schema(record.user_fields)
        if len(schema) != len(expected) or set(schema) != set(expected):
            yield Finding(path, "the columns are not those that the record names")
        self._keys[ref.ordinal] = keys

    def _manifest(self, manifest: SetManifest, manifests: dict[int, SetManifest]) -> Iterator[Finding]:
        path = layout.version_document(Kind.SET, self._name, manifest.number)
        refs = manifest.segments
        if manifest.base is not None:
            base = manifests.get(manifest.base)
            if base is None or base.base is not None:
                yield Finding(path, f"its base version {manifest.base} is missing or is not a full list")
                return
            refs = base.segments + refs
        hidden: Tombstones = {}
        if manifest.tombstones is not None:
            try:
                hidden = self._tombstones(manifest.tombstones)
            except NaitStoreError as error:
                yield Finding(f"{layout.item_folder(Kind.SET, self._name)}/{manifest.tombstones.path}", error.what)
                return
        n_rows = {ref.ordinal: ref.n_rows for ref in refs}
        if len(n_rows) != len(refs):
            yield Finding(path, "it refers to a segment twice")
        n_hidden = 0
        for ordinal, rows in hidden.items():
            if len(rows) and (ordinal not in n_rows or rows[-1] >= n_rows[ordinal] or rows[0] < 0):
                yield Finding(path, f"its tombstones name rows that segment {ordinal} does not have")
            n_hidden += len(rows)
        n_samples = sum(n_rows.values()) - n_hidden
        if n_samples != manifest.n_samples:
            yield Finding(path, f"it counts {manifest.n_samples:,} samples where there are {n_samples:,}")
        if not self._quick and manifest.number == max(manifests):
            # segments and tombstones only ever accumulate, so the earlier versions follow
            yield from self._unique(path, refs, hidden)

    def _unique(self, path: str, refs: tuple[SegmentRef, ...], hidden: Tombstones) -> Iterator[Finding]:
        ids = []
        for ref in refs:
            keys = self._keys.get(ref.ordinal)
            if keys is None:
                return  # reported already
            mask = None
            if ref.ordinal in hidden:
                mask = np.ones(ref.n_rows, dtype=bool)
                mask[hidden[ref.ordinal]] = False
            ids.append(keys.only(mask).ids)
        if ids:
            together = np.sort(np.concatenate(ids))
            n_repeated = int((together[1:] == together[:-1]).sum())
            if n_repeated:
                yield Finding(path, f"{n_repeated:,} sample ids are visible more than once")

    def _tombstones(self, ref: TombstoneRef) -> Tombstones:
        hidden = read_tombstones(self._location, self._name, ref)
        if sum(map(len, hidden.values())) != ref.n_rows:
            raise CorruptChunkError(f"{ref.path} does not hold the {ref.n_rows:,} rows that the manifest says")
        return hidden

    def _orphans(self) -> Iterator[Finding]:
        referenced = {ref.segment_id for ref in self._refs.values()}
        segments = layout.segment_folder(self._name)
        for segment_id in self._location.names(segments):
            if segment_id not in referenced:
                whole = self._location.exists(f"{segments}/{segment_id}/{SEGMENT_FILE}")
                state = "whole, not committed yet" if whole else "not finished"
                yield Finding(f"{segments}/{segment_id}", f"no version refers to this segment ({state})", Severity.INFO)

    def _checked(self, file: FileDigest) -> None:
        self._n_files += 1
        self._n_bytes += 0 if self._quick else file.size_bytes
        self._progress(
            ProgressEvent(
                stage="verify",
                done=self._n_files,
                bytes_done=self._n_bytes,
                elapsed_seconds=time.monotonic() - self._began,
            )
        )
