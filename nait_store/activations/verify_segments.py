"""Verification of a set's segments: their records, what these list, and the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from nait_store.activations.chunks import DATA_FOLDER, SAMPLES_FILE, SEGMENT_FILE, norms_name, scales_name
from nait_store.activations.reader import SegmentReader
from nait_store.activations.redirects import Redirects
from nait_store.activations.sample_keys import SegmentKeys
from nait_store.errors import NaitStoreError
from nait_store.schemas.activation_set import FlushRecord, SegmentRecord, SegmentRef, SetRecord
from nait_store.schemas.samples import samples_schema
from nait_store.storage import layout
from nait_store.storage.verify import Inspection
from nait_store.storage.version_checks import inspect_payloads


class InspectedSegments:
    """Every segment in a set's folder, checked against what refers to it.

    Parameters
    ----------
    inspection
        What it is part of.
    set_name
        The set.
    set_record
        ``set.json``, if it could be read.
    redirects
        Replacements of segments.
    refs
        What versions refer to, replacements in their places.
    waiting
        Flush records of ingests that have not committed: those segments must be whole too.
    """

    def __init__(
        self,
        inspection: Inspection,
        set_name: str,
        set_record: SetRecord | None,
        redirects: Redirects,
        refs: Iterable[SegmentRef],
        waiting: Mapping[str, FlushRecord],
    ) -> None:
        self._inspection = inspection
        self._name = set_name
        self._set_record = set_record
        self._records: dict[str, SegmentRecord] = {}
        # a flush record and a version may name the same segment: the version's word counts
        wanted = {follow.segment_id: follow for follow in (redirects.follow(_as_ref(f)) for f in waiting.values())}
        committed = {ref.segment_id: ref for ref in refs}
        wanted.update(committed)
        records = inspect_payloads(
            inspection,
            layout.segment_folder(set_name),
            SEGMENT_FILE,
            SegmentRecord,
            {segment_id: ref.record_sha256 for segment_id, ref in wanted.items()},
            files_of=lambda record: record.files,
            places=_places,
            replaced={record.segment_id: record.replacement for record in redirects.records},
        )
        for segment_id, record in records.items():
            self._check_record(record, wanted[segment_id])
            # The lists of files may be longer than everything else together.
            self._records[segment_id] = record.model_copy(update={"files": ()})
        for segment_id in wanted.keys() - committed.keys():
            if segment_id in self._records:
                inspection.info(
                    layout.segment_folder(set_name, segment_id),
                    "no version refers to it (whole, not committed yet: "
                    f"{self._records[segment_id].n_rows:,} samples of an ingest that has not ended)",
                )

    def record(self, ref: SegmentRef) -> SegmentRecord | None:
        """The record of a segment, its files left out; None where it is missing or damaged."""
        return self._records.get(ref.segment_id)

    def read_keys(self) -> dict[str, SegmentKeys]:
        """Check the rows of every segment whose files are sound; segment id → keys of its samples."""
        found: dict[str, SegmentKeys] = {}
        with ThreadPoolExecutor(self._inspection.n_threads, thread_name_prefix="nait-verify") as pool:
            try:
                for segment_id, (keys, problems) in zip(
                    self._records, pool.map(self._check_rows, self._records.values()), strict=True
                ):
                    for path, problem in problems:
                        self._inspection.error(path, problem)
                    if keys is not None:
                        found[segment_id] = keys
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return found

    def _check_record(self, record: SegmentRecord, ref: SegmentRef) -> None:
        path = f"{layout.segment_folder(self._name, ref.segment_id)}/{SEGMENT_FILE}"
        if (record.segment_id, record.set_name, record.n_rows) != (ref.segment_id, self._name, ref.n_rows):
            self._inspection.error(path, "the record contradicts the manifest that refers to it")
        expected = self._set_record
        if expected is not None and record.capture_id != expected.capture_id:
            problem = f"capture identity {record.capture_id} differs from the set's {expected.capture_id}"
            self._inspection.error(path, problem, "capture_id")
        if expected is not None and record.n_neurons != expected.n_neurons:
            problem = f"it has {record.n_neurons} neurons, the set has {expected.n_neurons}"
            self._inspection.error(path, problem, "n_neurons")
        if expected is not None and record.projections != expected.projections:
            self._inspection.error(path, "its projections are on other profiles than the set's", "projections")

    def _check_rows(self, record: SegmentRecord) -> tuple[SegmentKeys | None, list[tuple[str, str]]]:
        folder = layout.segment_folder(self._name, record.segment_id)
        path = f"{folder}/{SAMPLES_FILE}"
        reader = SegmentReader(self._inspection.location, record)
        problems: list[tuple[str, str]] = []
        for feature in record.features:
            metadata = f"{folder}/{DATA_FOLDER}/{feature.value}/zarr.json"
            if self._inspection.is_sound([metadata]):
                try:
                    reader.check_array(feature)
                except NaitStoreError as error:
                    problems.append((metadata, error.what))
        if not self._inspection.is_sound([path]):
            return None, problems
        try:
            indices = reader.samples(["row_index"]).column("row_index").to_numpy()
            schema = reader.samples_schema()
            keys = SegmentKeys.read(reader)
        except (NaitStoreError, pa.ArrowException, ValueError) as error:
            return None, [*problems, (path, str(error))]
        if not np.array_equal(indices, np.arange(record.n_rows)):
            problems.append((path, "row_index does not count the rows"))
        # The record's JSON has its fields sorted; the columns stand in the order of their first appearance.
        expected = samples_schema(record.user_fields)
        if len(schema) != len(expected) or set(schema) != set(expected):
            problems.append((path, "the columns are not those that the record names"))
        return keys, problems


def _as_ref(flush: FlushRecord) -> SegmentRef:
    return SegmentRef(segment_id=flush.segment_id, ordinal=0, n_rows=flush.n_rows, record_sha256=flush.record_sha256)


def _places(record: SegmentRecord) -> Callable[[str], str]:
    """Say what a file of a segment is."""
    arrays = {array.feature.value: array for array in record.arrays}
    per_row = {norms_name(array.feature): f"norms of {array.feature.value}" for array in record.arrays}
    per_row |= {scales_name(array.feature): f"scales of {array.feature.value}" for array in record.arrays}

    def place(path: str) -> str:
        if path == SAMPLES_FILE:
            return f"the {record.n_rows:,} sample rows"
        parts = path.split("/")
        if parts[0] != DATA_FOLDER or len(parts) < 3:
            return ""
        name = parts[1]
        if parts[2] == "zarr.json":
            return f"metadata of {name}"
        if name in per_row:
            return f"{per_row[name]}, all layers and rows"
        array = arrays.get(name)
        if array is None or parts[2] != "c" or len(parts) != 6 or not (parts[3].isdigit() and parts[4].isdigit()):
            return f"part of {name}"
        block, index = int(parts[3]), int(parts[4])
        first, layer = block * array.chunk_rows, record.layers[index] if index < len(record.layers) else index
        return f"{name} of layer {layer}, rows {first}–{min(first + array.chunk_rows, record.n_rows) - 1}"

    return place
