"""Replacing a segment by one with the same rows in the same places, some of them blank.

The replacement becomes part of every version at once, by the creation of one redirect record; what it replaces can
then be deleted. Purge and repair are made of this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.blank_rows import write_blanked_samples
from nait_store.activations.chunks import (
    DATA_FOLDER,
    SAMPLES_FILE,
    SEGMENT_FILE,
    chunk_path,
    norms_path,
    numpy_dtype,
    scales_path,
    segment_metadata,
)
from nait_store.activations.reader import SegmentReader, read_segment_record
from nait_store.activations.redirects import Redirects
from nait_store.activations.stored_values import largest_magnitude, largest_scaled, row_norms, row_scales
from nait_store.activations.versions import ActivationSets
from nait_store.errors import AlreadyExistsError, CorruptChunkError, NaitStoreError, NotFoundError
from nait_store.schemas.activation_set import FeatureArray, Operation, RedirectRecord, SegmentRecord, SegmentRef
from nait_store.schemas.capture import Feature, HookPoint, StoredDtype
from nait_store.schemas.record import FileDigest
from nait_store.storage import layout
from nait_store.storage.digests import check_file, sha256_bytes, write_payload_file
from nait_store.storage.fetching import FilePart
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid


@dataclass(frozen=True)
class Replacement:
    """One segment in the place of another.

    Attributes
    ----------
    old, new
        Records of the segment that is gone and of the one that stands for it.
    n_blanked
        Rows that are blank now and were not before.
    """

    old: SegmentRecord
    new: SegmentRecord
    n_blanked: int


def replace_segment(
    sets: ActivationSets,
    set_name: str,
    record: SegmentRecord,
    *,
    blank_rows: NDArray[np.int64],
    operation: Operation,
    recomputed_norms: Collection[Feature] = (),
    derived_scales: Collection[Feature] = (),
    even_if_blank: bool = False,
) -> Replacement | None:
    """Put a segment with blank rows in the place of one, in every version.

    Rows that are blank already stay so. Where somebody else replaces the segment meanwhile, theirs is replaced in
    turn, so that no rows of either are lost. The old segment's files are left to
    :func:`delete_replaced`. Memory holds a few chunks at a time.

    Parameters
    ----------
    sets
        The store's sets; ``set.json`` must be there.
    set_name
        The set.
    record
        The segment, or one that it stands for by now.
    blank_rows
        Row indices to be blank; chunks and sample rows that hold no others are not read.
    operation
        For the redirect record.
    recomputed_norms
        Features whose norms are taken again from the stored activations instead of copied.
    derived_scales
        Features stored as int8 whose scales are computed from the norms instead of copied.
    even_if_blank
        Whether to replace the segment though all these rows are blank already: its other files are to be made anew.

    Returns
    -------
    Replacement or None
        None where the rows are blank already.

    Raises
    ------
    CorruptChunkError
        Something that is to be kept differs from its record; nothing was changed.
    StorageError
        The disk was full, or failed; nothing was changed.
    """
    location = sets.location
    set_record = sets.record(set_name)
    if set_record is None:
        raise NotFoundError(f"{location.url_of(layout.set_record(set_name))} is missing")
    while True:
        redirects = sets.redirects(set_name)
        current = _current(location, redirects, record)
        before = redirects.blank_rows(current.segment_id)
        rows = np.unique(blank_rows if before is None else np.concatenate([before, blank_rows])).astype(np.int64)
        n_new = len(rows) - (0 if before is None else len(before))
        if n_new == 0 and not even_if_blank:
            return None
        writing = _ReplacementWriter(
            location, current, rows, set_record.identity.hook_point, recomputed_norms, derived_scales
        )
        try:
            new = writing.write()
            redirects.add(
                RedirectRecord(
                    segment_id=current.segment_id,
                    replacement=new.segment_id,
                    record_sha256=new.digest(),
                    n_rows=new.n_rows,
                    blank_rows=tuple(rows.tolist()),
                    operation=operation,
                    provenance=current_provenance(),
                )
            )
        except (AlreadyExistsError, CorruptChunkError):
            writing.discard()
            # somebody else's replacement came first, and may have taken away what was being read
            if _current(location, sets.redirects(set_name), current).segment_id == current.segment_id:
                raise
            continue
        except NaitStoreError:
            # of the redirect it is not known whether it was created: then gc decides about the segment
            if not writing.finished:
                with contextlib.suppress(NaitStoreError):
                    writing.discard()
            raise
        return Replacement(current, new, n_new)


def delete_replaced(location: Location, redirects: Redirects) -> list[str]:
    """Delete the folders of segments that others stand for; returns their paths."""
    deleted = []
    for record in redirects.records:
        folder = layout.segment_folder(redirects.set_name, record.segment_id)
        if location.exists(folder):
            location.delete(folder)
            deleted.append(folder)
    return deleted


def _current(location: Location, redirects: Redirects, record: SegmentRecord) -> SegmentRecord:
    ref = SegmentRef(segment_id=record.segment_id, ordinal=0, n_rows=record.n_rows, record_sha256=record.digest())
    last = redirects.follow(ref)
    return record if last.segment_id == record.segment_id else read_segment_record(location, record.set_name, last)


class _ReplacementWriter:
    def __init__(
        self,
        location: Location,
        old: SegmentRecord,
        blank_rows: NDArray[np.int64],
        hook_point: HookPoint,
        recomputed_norms: Collection[Feature],
        derived_scales: Collection[Feature],
    ) -> None:
        self.finished = False
        self._location = location
        self._old = old
        self._hook_point = hook_point
        self._recomputed = frozenset(recomputed_norms)
        self._derived = frozenset(derived_scales)
        self._blank = np.zeros(old.n_rows, dtype=bool)
        self._blank[blank_rows] = True
        self._id = new_ulid()
        self._from = layout.segment_folder(old.set_name, old.segment_id)
        self._folder = layout.segment_folder(old.set_name, self._id)
        self._recorded = {file.path: file for file in old.files}
        self._files: list[FileDigest] = []

    def write(self) -> SegmentRecord:
        old = self._old
        arrays = tuple(self._write_feature(array) for array in old.arrays)
        metadata = segment_metadata(
            self._id,
            old.n_rows,
            old.layers,
            old.n_neurons,
            [(array.feature, array.dtype, array.chunk_rows) for array in old.arrays],
            capture_id=old.capture_id,
            hook_point=self._hook_point,
            model=old.environment.model_label,
        )
        for path, document in metadata.items():
            self._write(f"{DATA_FOLDER}/{path}", document)
        source = None
        if not self._blank.all():
            check_file(self._location, self._from, self._recorded[SAMPLES_FILE], hashed=True)
            source = f"{self._from}/{SAMPLES_FILE}"
        samples = write_blanked_samples(self._location, source, self._folder, SAMPLES_FILE, old.n_rows, self._blank)
        self._files.append(samples.file)
        new = old.model_copy(
            update={
                "segment_id": self._id,
                "arrays": arrays,
                "user_fields": {name: old.user_fields[name] for name in samples.user_fields},
                "files": tuple(sorted(self._files, key=lambda file: file.path)),
                "n_tokens": samples.n_tokens,
                "n_truncated": samples.n_truncated,
                "replaces": (old.segment_id,),
                "provenance": current_provenance(),
            }
        )
        self._location.create_bytes(f"{self._folder}/{SEGMENT_FILE}", new.to_json_bytes())
        self.finished = True
        return new

    def discard(self) -> None:
        self._location.delete(self._folder)

    def _write_feature(self, array: FeatureArray) -> FeatureArray:
        feature = array.feature
        max_abs = 0.0
        norms = self._per_row(feature in self._recomputed, lambda reader: reader.norms(feature))
        scales = None  # [n, L]
        if array.dtype is StoredDtype.INT8:
            scales = self._per_row(feature in self._derived, lambda reader: reader.scales(feature))
        for span, i, chunk, changed in self._chunks(array):
            path = chunk_path(feature, span.start // array.chunk_rows, i)
            data = chunk.reshape(-1).view(np.uint8).data
            self._write(path, data, None if changed else self._recorded[path])
            max_abs = max(max_abs, largest_magnitude(chunk))
            rows = chunk[: span.stop - span.start]
            if scales is not None and feature in self._derived:
                scales[span, i] = row_scales(rows, norms[span, i])
            if feature in self._recomputed | self._derived:
                norms[span, i] = row_norms(rows, None if scales is None else scales[span, i])
        norms[self._blank] = 0
        self._write(norms_path(feature), norms.data)
        if scales is not None:
            scales[self._blank] = 0
            self._write(scales_path(feature), scales.data)
            max_abs = largest_scaled(scales)
        return array.model_copy(update={"max_abs": max_abs})

    def _per_row(self, anew: bool, read: Callable[[SegmentReader], NDArray[np.float32] | None]) -> NDArray[np.float32]:
        """Norms or scales of the old segment, [n, L], to be written to; zeros where they are to be made anew."""
        if not anew and not self._blank.all():
            kept = read(SegmentReader(self._location, self._old, verify=True))
            if kept is not None:
                return kept.astype("<f4", order="C")
        return np.zeros((self._old.n_rows, len(self._old.layers)), dtype="<f4")

    def _chunks(self, array: FeatureArray) -> Iterator[tuple[slice, int, NDArray[np.generic], bool]]:
        """Yield (rows, layer index, [chunk_rows, J], whether it differs from the old one) of every chunk, in order."""
        shape = (array.chunk_rows, self._old.n_neurons)
        dtype = numpy_dtype(array.dtype)
        n_bytes = shape[0] * shape[1] * dtype.itemsize
        plan: list[tuple[slice, int, str]] = []
        for begin in range(0, self._old.n_rows, array.chunk_rows):
            span = slice(begin, min(begin + array.chunk_rows, self._old.n_rows))
            for i in range(len(self._old.layers)):
                plan.append((span, i, chunk_path(array.feature, begin // array.chunk_rows, i)))
        paths = [path for span, _, path in plan if not self._blank[span].all()]
        plain = all(path in self._recorded and self._recorded[path].size_bytes == n_bytes for path in paths)
        fetched = self._fetched(paths, n_bytes) if plain else self._decoded(array, plan)
        for span, i, _ in plan:
            mask = self._blank[span]
            if mask.all():
                yield span, i, np.zeros(shape, dtype), True
                continue
            chunk = np.frombuffer(next(fetched), dtype).reshape(shape)
            if mask.any():
                chunk = chunk.copy()
                chunk[: len(mask)][mask] = 0
            yield span, i, chunk, bool(mask.any()) or not plain

    def _fetched(self, paths: list[str], n_bytes: int) -> Iterator[bytes]:
        """Chunk files as they lie, each compared with its digest: damage shall not be copied."""
        parts = [FilePart(f"{self._from}/{path}", n_bytes) for path in paths]
        try:
            for path, (part, data) in zip(paths, self._location.read_many(parts), strict=True):
                if sha256_bytes(data) != self._recorded[path].sha256:
                    raise CorruptChunkError(
                        f"{self._location.url_of(part.path)} differs from its recorded SHA-256",
                        next_step="run 'nait-store repair'",
                    )
                yield data
        except NotFoundError as error:
            raise CorruptChunkError(
                f"a chunk of {self._location.url_of(self._from)} is missing", next_step="run 'nait-store repair'"
            ) from error

    def _decoded(self, array: FeatureArray, plan: list[tuple[slice, int, str]]) -> Iterator[bytes]:
        """The same from arrays that another tool wrote, compressed or sharded; only zarr can read them."""
        reader = SegmentReader(self._location, self._old, verify=True)
        for span, i, _ in plan:
            if self._blank[span].all():
                continue
            chunk = np.zeros((array.chunk_rows, self._old.n_neurons), numpy_dtype(array.dtype))
            rows = reader.chunk(array.feature, self._old.layers[i], span.start // array.chunk_rows)
            chunk[: len(rows)] = rows
            yield chunk.tobytes()

    def _write(self, path: str, data: bytes | memoryview, known: FileDigest | None = None) -> None:
        if known is not None:  # hashed when it was read
            self._location.write_bytes(f"{self._folder}/{path}", data)
            self._files.append(known)
            return
        self._files.append(write_payload_file(self._location, self._folder, path, data))
