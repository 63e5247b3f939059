"""Writing a segment out of rows of other segments, bit by bit as they are stored there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.chunks import (
    DATA_FOLDER,
    SEGMENT_FILE,
    chunk_path,
    chunk_rows_for,
    norms_path,
    numpy_dtype,
    scales_path,
    segment_metadata,
)
from nait_store.activations.reader import SegmentReader
from nait_store.activations.sample_copies import copy_samples
from nait_store.activations.stored_values import largest_magnitude, largest_scaled
from nait_store.schemas.activation_set import FeatureArray, SegmentRecord
from nait_store.schemas.capture import HookPoint, StoredDtype
from nait_store.schemas.record import FileDigest
from nait_store.storage import layout
from nait_store.storage.digests import HashedFile, write_payload_file
from nait_store.storage.location import Location
from nait_store.storage.pending import PendingFile
from nait_store.storage.provenance import current_provenance, new_ulid

_THREADS = 4  # each holds one chunk; more gain little on a disk
_THREADS_REMOTE = 16


@dataclass(frozen=True)
class TakenRows:
    """Rows of one segment.

    Attributes
    ----------
    reader
        The segment; it should verify what it reads, because damage that is copied gets a digest that vouches for it.
    rows
        Ascending row indices.
    """

    reader: SegmentReader
    rows: NDArray[np.int64]


class SegmentAssembly:
    """One segment being made of rows of others, which agree in features, layers, stored types and settings.

    Activations, norms and scales are copied as they lie; memory holds a few chunks and a few thousand sample rows,
    whatever the size of the segments.

    Parameters
    ----------
    location, set_name
        Where it is written.
    hook_point
        Of the set, for the attributes of the Zarr group.
    sources
        At least one row in all. Settings are theirs, the environment is the last one's.

    Attributes
    ----------
    segment_id
        Fresh ULID.
    """

    def __init__(self, location: Location, set_name: str, hook_point: HookPoint, sources: Sequence[TakenRows]) -> None:
        self.segment_id = new_ulid()
        self._location = location
        self._set_name = set_name
        self._hook_point = hook_point
        self._sources = [source for source in sources if len(source.rows)]
        self._replaced = tuple(source.reader.segment_id for source in sources)
        self._record = self._sources[-1].reader.record
        self._folder = layout.segment_folder(set_name, self.segment_id)
        self._starts = np.cumsum([0, *(len(source.rows) for source in self._sources)])
        self._n_rows = int(self._starts[-1])
        self._files: list[FileDigest] = []

    def write(self, written: Callable[[int], None]) -> SegmentRecord:
        """Write it.

        Parameters
        ----------
        written
            Told the bytes of each chunk as it is written.

        Raises
        ------
        CorruptChunkError
            A source is damaged.
        StorageError
            Writing failed.
        """
        arrays = tuple(self._write_feature(array, written) for array in self._record.arrays)
        arrays = tuple(map(self._write_per_row, arrays))
        metadata = segment_metadata(
            self.segment_id,
            self._n_rows,
            self._record.layers,
            self._record.n_neurons,
            [(array.feature, array.dtype, array.chunk_rows) for array in arrays],
            capture_id=self._record.capture_id,
            hook_point=self._hook_point,
            model=self._record.environment.model_label,
        )
        for path, document in metadata.items():
            self._files.append(write_payload_file(self._location, self._folder, f"{DATA_FOLDER}/{path}", document))
        samples = copy_samples(
            self._location, self._folder, [(source.reader.record, source.rows) for source in self._sources]
        )
        self._files.append(samples.file)
        record = self._record.model_copy(
            update={
                "segment_id": self.segment_id,
                "n_rows": self._n_rows,
                "arrays": arrays,
                "user_fields": samples.user_fields,
                "files": tuple(sorted(self._files, key=lambda file: file.path)),
                "n_tokens": samples.n_tokens,
                "n_truncated": samples.n_truncated,
                "replaces": self._replaced,
                "provenance": current_provenance(),
            }
        )
        self._location.create_bytes(f"{self._folder}/{SEGMENT_FILE}", record.to_json_bytes())
        return record

    def discard(self) -> None:
        """Delete whatever was written."""
        self._location.delete(self._folder)

    def _write_feature(self, old: FeatureArray, written: Callable[[int], None]) -> FeatureArray:
        chunk_rows = chunk_rows_for(self._record.n_neurons, old.dtype, self._n_rows)
        array = old.model_copy(update={"chunk_rows": chunk_rows})
        n_blocks = -(-self._n_rows // chunk_rows)
        n_threads = _THREADS if self._location.is_local else _THREADS_REMOTE
        max_abs = 0.0
        pool = ThreadPoolExecutor(n_threads, thread_name_prefix="nait-compact")
        try:
            # Layers of one block go through the threads together, so that sources are read from front to back.
            for block in range(n_blocks):
                found: list[Future[tuple[FileDigest, float]]] = [
                    pool.submit(self._write_chunk, array, block, i) for i in range(len(self._record.layers))
                ]
                for future in found:
                    file, largest = future.result()
                    self._files.append(file)
                    max_abs = max(max_abs, largest)
                    written(file.size_bytes)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return array.model_copy(update={"max_abs": max_abs})

    def _write_chunk(self, array: FeatureArray, block: int, layer_index: int) -> tuple[FileDigest, float]:
        chunk = np.zeros((array.chunk_rows, self._record.n_neurons), numpy_dtype(array.dtype))
        begin = block * array.chunk_rows
        end = min(begin + array.chunk_rows, self._n_rows)
        first, last = np.searchsorted(self._starts, [begin, end - 1], side="right") - 1
        for s in range(int(first), int(last) + 1):
            source, start = self._sources[s], int(self._starts[s])
            low, high = max(begin, start) - start, min(end, int(self._starts[s + 1])) - start
            copy_rows(
                source.reader,
                array,
                self._record.layers[layer_index],
                source.rows[low:high],
                chunk[start + low - begin : start + high - begin],
            )
        path = chunk_path(array.feature, block, layer_index)
        file = write_payload_file(self._location, self._folder, path, chunk.reshape(-1).view(np.uint8).data)
        return file, largest_magnitude(chunk)

    def _write_per_row(self, array: FeatureArray) -> FeatureArray:
        self._join(norms_path(array.feature), (s.reader.norms(array.feature)[s.rows] for s in self._sources))
        if array.dtype is not StoredDtype.INT8:
            return array
        largest = 0.0

        def scales() -> Iterator[NDArray[np.float32]]:
            nonlocal largest
            for source in self._sources:
                found = source.reader.scales(array.feature)
                assert found is not None
                largest = max(largest, largest_scaled(found[source.rows]))
                yield found[source.rows]

        self._join(scales_path(array.feature), scales())
        return array.model_copy(update={"max_abs": largest})

    def _join(self, path: str, parts: Iterable[NDArray[np.float32]]) -> None:
        """Write parts [n, L] of a file one after the other."""
        with PendingFile(self._location, f"{self._folder}/{path}") as file:
            hashed = HashedFile(file.handle)
            for part in parts:
                data = np.ascontiguousarray(part, dtype="<f4").reshape(-1).view(np.uint8).data
                with file.errors():
                    hashed.write(data)
            file.publish()
        self._files.append(FileDigest(path=path, size_bytes=hashed.size_bytes, sha256=hashed.sha256))


def copy_rows(
    reader: SegmentReader, array: FeatureArray, layer: int, rows: NDArray[np.int64], out: NDArray[np.generic]
) -> None:
    """Copy rows of one layer as they are stored, [m, J], one chunk of the source at a time.

    Parameters
    ----------
    reader
        The source.
    array
        Which feature.
    layer
        Zero-based decoder layer.
    rows
        [m] ascending row indices of the source.
    out
        [m, J], where they go.
    """
    copied = 0
    stored = next(each for each in reader.record.arrays if each.feature == array.feature)
    while copied < len(rows):
        block = int(rows[copied]) // stored.chunk_rows
        begin = block * stored.chunk_rows
        until = int(np.searchsorted(rows, begin + stored.chunk_rows))
        chunk = reader.chunk(array.feature, layer, block, keep=False)
        wanted = rows[copied:until] - begin
        whole = len(wanted) == int(wanted[-1]) - int(wanted[0]) + 1
        out[copied:until] = chunk[int(wanted[0]) : int(wanted[-1]) + 1] if whole else chunk[wanted]
        copied = until
