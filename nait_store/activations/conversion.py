"""Conversion: the segments of a set written again in another dtype, as a new version.

Values are rounded to the new dtype, so the new segments have scores of their own. Old versions keep reading the old
segments, and with them the old values, until gc takes both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nait_store.activations.assembly import SegmentAssembly, TakenRows, copy_rows
from nait_store.activations.chunks import chunk_path, norms_path, numpy_dtype, row_bytes, scales_path
from nait_store.activations.compaction_plan import Merge, taken_rows
from nait_store.activations.rewriting import RewritePlan, Rewriting
from nait_store.activations.set_version import SetVersion
from nait_store.activations.stored_values import (
    decode,
    encode,
    largest_magnitude,
    largest_scaled,
    overflow_of,
    row_norms,
)
from nait_store.activations.versions import ActivationSets
from nait_store.errors import InvalidInputError
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.refs import Kind, Reference, check_name
from nait_store.schemas.activation_set import FeatureArray, Operation
from nait_store.schemas.capture import HookPoint, StoredDtype
from nait_store.schemas.record import FileDigest
from nait_store.schemas.store_record import DTYPES_FEATURE
from nait_store.storage import layout
from nait_store.storage.digests import write_payload_file
from nait_store.storage.heartbeat import sole_job
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid
from nait_store.storage.store_features import announce_feature


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did, or would do.

    Attributes
    ----------
    source
        The version that it began with, ``pool@7``.
    reference
        The version that holds the result; None where there was nothing to do, or nothing was to be done.
    dtype
        Element type of what is stored now.
    n_segments, n_converted
        Of the version, and those of another dtype, which are written again.
    n_dropped_rows
        Hidden rows of these, which were left behind.
    n_bytes_before, n_bytes
        Of the converted segments, before and after; an estimate where nothing was written.
    elapsed_seconds
        In all.
    """

    source: str
    reference: str | None
    dtype: StoredDtype
    n_segments: int
    n_converted: int
    n_dropped_rows: int
    n_bytes_before: int
    n_bytes: int
    elapsed_seconds: float


def convert(
    sets: ActivationSets,
    name: str,
    dtype: StoredDtype,
    *,
    dry_run: bool = False,
    message: str = "",
    progress: ProgressListener = ignore_progress,
) -> ConversionReport:
    """Write the segments of a set's latest version again in another dtype, those that have it already excepted.

    Parameters
    ----------
    sets
        The store's sets.
    name
        Which one.
    dtype
        What to store.
    dry_run
        Only say what would be done.
    message
        For the history.
    progress
        Told rows and bytes written.

    Raises
    ------
    NotFoundError
        There is no such set.
    InvalidInputError
        The dtype cannot hold a stored value; or the set keeps projections only.
    CorruptChunkError
        Something that was to be converted is damaged; nothing was changed.
    ConflictError
        A segment was purged, repaired or compacted meanwhile, or samples came back; or another such job is at work.
    StorageError
        There is not enough room, or writing failed; nothing was changed.
    """
    started = time.monotonic()
    reference = Reference(Kind.SET, check_name(name, Kind.SET))
    version = sets.open(reference)  # an unknown name is told before anything is written
    if version.record.projections:
        raise InvalidInputError(
            f"set {name!r} keeps projections in the place of activations, and those stay float32",
            next_step="compact it with 'nait-store sets compact', or leave it as it is",
        )
    if dry_run:
        merges = _merges(sets.location, version, dtype)
        return _report(version, None, dtype, merges, _size_bytes(merges, dtype), started)
    sets.location.require_writable()
    with sole_job(sets.location, layout.job_folder(name), new_ulid(), f"set {name!r}"):
        version = sets.open(reference)
        merges = _merges(sets.location, version, dtype)
        if not merges:
            return _report(version, None, dtype, merges, 0, started)
        announce_feature(sets.location, DTYPES_FEATURE)  # the operation itself is new to older releases
        work = Rewriting(sets, version, _plan(sets, version, merges, dtype), progress)
        committed = work.run(message)
        return _report(version, committed, dtype, merges, work.n_bytes, started)


class ConvertedSegment(SegmentAssembly):
    """The rows of one segment in another dtype, with norms, and for int8 scales, of what is stored now.

    Parameters
    ----------
    location, set_name, hook_point
        As for :class:`SegmentAssembly`.
    source
        What is converted; at least one row.
    dtype
        Of the new segment.
    """

    def __init__(
        self, location: Location, set_name: str, hook_point: HookPoint, source: TakenRows, dtype: StoredDtype
    ) -> None:
        super().__init__(location, set_name, hook_point, [source])
        self._source = source
        self._dtype = dtype
        shape = (len(source.rows), len(source.reader.layers))
        features = source.reader.features
        self._old_scales = {feature: source.reader.scales(feature) for feature in features}  # [n, L] each
        self._norms = {feature: np.empty(shape, "<f4") for feature in features}
        self._scales = {feature: np.empty(shape, "<f4") for feature in features}

    def _write_feature(self, old: FeatureArray, written: Callable[[int], None]) -> FeatureArray:
        return super()._write_feature(old.model_copy(update={"dtype": self._dtype}), written)

    def _write_chunk(self, array: FeatureArray, block: int, layer_index: int) -> tuple[FileDigest, float]:
        reader, feature = self._source.reader, array.feature
        part = slice(block * array.chunk_rows, min((block + 1) * array.chunk_rows, len(self._source.rows)))
        rows = self._source.rows[part]
        old_dtype = next(each.dtype for each in reader.record.arrays if each.feature == feature)
        taken = np.empty((len(rows), reader.record.n_neurons), numpy_dtype(old_dtype))
        copy_rows(reader, array, reader.layers[layer_index], rows, taken)
        old_scales = self._old_scales[feature]
        values = decode(taken, None if old_scales is None else old_scales[rows, layer_index])
        chunk = np.zeros((array.chunk_rows, reader.record.n_neurons), numpy_dtype(self._dtype))
        stored, scales = encode(values, self._dtype, out=chunk[: len(rows)])
        self._norms[feature][part, layer_index] = row_norms(stored, scales)
        if scales is not None:
            self._scales[feature][part, layer_index] = scales
        path = chunk_path(feature, block, layer_index)
        file = write_payload_file(self._location, self._folder, path, chunk.reshape(-1).view(np.uint8).data)
        return file, largest_magnitude(stored)

    def _write_per_row(self, array: FeatureArray) -> FeatureArray:
        self._join(norms_path(array.feature), [self._norms[array.feature]])
        if self._dtype is not StoredDtype.INT8:
            return array
        scales = self._scales[array.feature]
        self._join(scales_path(array.feature), [scales])
        return array.model_copy(update={"max_abs": largest_scaled(scales)})


def _merges(location: Location, version: SetVersion, dtype: StoredDtype) -> list[Merge]:
    """A new segment for each one that stores something in another dtype."""
    found = [
        Merge((source,))
        for source in taken_rows(location, version)
        if any(array.dtype is not dtype for array in source.reader.record.arrays)
    ]
    for merge in found:
        for array in merge.sources[0].reader.record.arrays:
            if array.max_abs >= overflow_of(dtype):
                raise InvalidInputError(
                    f"{array.feature.value} of {version.reference} reaches {array.max_abs:.4g}, beyond the range of "
                    f"{dtype.value}",
                    next_step="convert it to bfloat16, int8 or float32",
                )
    return found


def _size_bytes(merges: Sequence[Merge], dtype: StoredDtype) -> int:
    """About the bytes of the new segments."""
    total = 0
    for merge in merges:
        record = merge.sources[0].reader.record
        n_vectors = merge.n_rows * len(record.layers)
        change = sum(row_bytes(record.n_neurons, dtype) - row_bytes(record.n_neurons, a.dtype) for a in record.arrays)
        total += merge.size_bytes + n_vectors * change
    return max(0, total)


def _plan(sets: ActivationSets, version: SetVersion, merges: Sequence[Merge], dtype: StoredDtype) -> RewritePlan:
    hook_point = version.record.identity.hook_point
    return RewritePlan(
        operation=Operation.CONVERT,
        command=f"nait-store sets convert {version.name} --dtype {dtype.value}",
        merges=merges,
        size_bytes=_size_bytes(merges, dtype),
        assemble=lambda merge: ConvertedSegment(sets.location, version.name, hook_point, merge.sources[0], dtype),
        same_numbers=False,
        details={"dtype": dtype.value},
    )


def _report(
    version: SetVersion,
    committed: SetVersion | None,
    dtype: StoredDtype,
    merges: Sequence[Merge],
    n_bytes: int,
    began: float,
) -> ConversionReport:
    return ConversionReport(
        source=version.reference,
        reference=committed.reference if committed is not None else None,
        dtype=dtype,
        n_segments=len(version.refs),
        n_converted=len(merges),
        n_dropped_rows=sum(merge.n_dropped for merge in merges),
        n_bytes_before=sum(source.reader.record.size_bytes for merge in merges for source in merge.sources),
        n_bytes=n_bytes,
        elapsed_seconds=time.monotonic() - began,
    )
