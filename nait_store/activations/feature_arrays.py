"""The arrays of one segment: chunk files that hold plain numbers, and through zarr those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.chunk_memory import ChunkMemory
from nait_store.activations.chunks import DATA_FOLDER, RawGrid, chunk_path, numpy_dtype, raw_grid
from nait_store.activations.missing import require_segment
from nait_store.activations.segment_files import SegmentFiles
from nait_store.activations.zarr_arrays import open_zarr_array, read_zarr_array
from nait_store.errors import CorruptChunkError, InvalidInputError, NotFoundError
from nait_store.schemas.activation_set import FeatureArray, SegmentRecord
from nait_store.schemas.capture import Feature


@dataclass(frozen=True)
class _Array:
    record: FeatureArray
    grid: RawGrid | None
    """None: zarr has to read it."""
    zarr: Any = None


class FeatureArrays:
    """Reads stored numbers by feature, position along the layers' axis, and block or row. Safe to use from threads.

    Parameters
    ----------
    record
        The segment's record.
    files
        Of the segment.
    """

    def __init__(self, record: SegmentRecord, files: SegmentFiles) -> None:
        self._record = record
        self._files = files
        self._opened: dict[Feature, _Array] = {}

    def record_of(self, feature: Feature) -> FeatureArray:
        """What the segment's record says of a feature; NotFoundError, naming those there are, if it stores none."""
        for record in self._record.arrays:
            if record.feature == feature:
                return record
        stored = ", ".join(f.value for f in self._record.features)
        raise NotFoundError(
            f"segment {self._record.segment_id} of set {self._record.set_name!r} "
            f"does not store the feature {feature!s}",
            next_step=f"it stores: {stored}",
        )

    def check(self, feature: Feature) -> None:
        """Check that a feature's Zarr metadata agrees with the segment's record; FormatError where it does not."""
        self._array(feature)

    def chunk_bytes(self, feature: Feature) -> int:
        """Bytes of a whole chunk of a feature."""
        record = self.record_of(feature)
        return record.chunk_rows * self._record.n_neurons * numpy_dtype(record.dtype).itemsize

    def block(self, feature: Feature, number: int) -> slice:
        """Rows of a block; InvalidInputError where there is none of this number."""
        rows = self.record_of(feature).chunk_rows
        start = number * rows
        if not 0 <= start < self._record.n_rows:
            raise InvalidInputError(f"segment {self._record.segment_id} has no block {number}")
        return slice(start, min(start + rows, self._record.n_rows))

    def chunk(
        self, feature: Feature, index: int, block: int, *, keep: bool, memory: ChunkMemory | None
    ) -> NDArray[Any]:
        """One layer of one block of rows, [rows_in_block, J], as stored; see :meth:`SegmentReader.chunk`."""
        array = self._array(feature)
        span = self.block(feature, block)
        if array.grid is None:
            url = self._files.url(f"{DATA_FOLDER}/{feature.value}")
            values = read_zarr_array(array.zarr, (span, slice(index, index + 1)), url)[:, 0]
            require_segment(self._files.location, self._files.folder)
            values.setflags(write=False)
            return values
        grid = array.grid
        raw = self._files.array(chunk_path(feature, block, index), self.chunk_bytes(feature), keep=keep, memory=memory)
        whole: NDArray[Any] = raw.view(grid.dtype).reshape(grid.chunk_rows, self._record.n_neurons)
        return whole[: span.stop - span.start]

    def is_in_page_cache(self, feature: Feature, index: int, block: int) -> bool:
        """Whether a chunk can be had without waiting for a disk or decoding it; see :meth:`SegmentReader.chunk`."""
        if self._array(feature).grid is None:
            return False
        return self._files.is_in_page_cache(chunk_path(feature, block, index), self.chunk_bytes(feature))

    def row(self, feature: Feature, index: int, row: int) -> NDArray[Any]:
        """One layer of one row, [J], as stored; of a remote store's plain chunk only these bytes are fetched."""
        array = self._array(feature)
        if not 0 <= row < self._record.n_rows:
            raise InvalidInputError(f"segment {self._record.segment_id} has no row {row}")
        block, position = divmod(row, array.record.chunk_rows)
        if array.grid is None:
            found: NDArray[Any] = self.chunk(feature, index, block, keep=True, memory=None)[position]
            return found
        n_bytes = self._record.n_neurons * array.grid.dtype.itemsize
        path = chunk_path(feature, block, index)
        raw = self._files.piece(path, position * n_bytes, n_bytes, array.grid.chunk_rows * n_bytes)
        return raw.view(array.grid.dtype)

    def per_row(self, name: str, path: str) -> NDArray[np.float32]:
        """A float32 number of every row and layer, [n, L]: norms, or scales.

        Parameters
        ----------
        name
            Of the array within the segment's group.
        path
            Of its single chunk.
        """
        shape = (self._record.n_rows, len(self._record.layers))
        folder = f"{DATA_FOLDER}/{name}"
        grid = raw_grid(self._files.read(f"{folder}/zarr.json"), self._files.url(f"{folder}/zarr.json"))
        found: NDArray[np.float32]
        if grid == RawGrid(shape, shape[0], np.dtype("<f4")):
            raw = self._files.array(path, 4 * shape[0] * shape[1], mapped=False)
            found = raw.view(np.float32).reshape(shape)
        else:
            found = read_zarr_array(self._open(folder), (slice(None),), self._files.url(folder)).astype(np.float32)
            require_segment(self._files.location, self._files.folder)
            if found.shape != shape:
                raise CorruptChunkError(f"{self._files.url(folder)} has shape {found.shape}, expected {shape}")
        return found

    def _array(self, feature: Feature) -> _Array:
        known = self._opened.get(feature)
        if known is not None:
            return known
        record = self.record_of(feature)
        folder = f"{DATA_FOLDER}/{feature.value}"
        path = f"{folder}/zarr.json"
        grid = raw_grid(self._files.read(path), self._files.url(path))
        shape = (self._record.n_rows, len(self._record.layers), self._record.n_neurons)
        if grid is not None and (grid.dtype != numpy_dtype(record.dtype) or grid.chunk_rows != record.chunk_rows):
            grid = None
        if grid is not None:
            array = _Array(record, grid)
            found: tuple[int, ...] = grid.shape
        else:
            opened = self._open(folder)
            array = _Array(record, None, opened)
            found = tuple(opened.shape)
            if record.dtype.is_coded and opened.dtype != numpy_dtype(record.dtype):
                raise CorruptChunkError(
                    f"{self._files.url(path)} says data type {opened.dtype}, the segment's record says {record.dtype}"
                )
        if found != shape:
            raise CorruptChunkError(f"{self._files.url(path)} says shape {found}, the segment's record says {shape}")
        self._opened[feature] = array
        return array

    def _open(self, folder: str) -> Any:
        """An array for zarr to read; its files are checked first, since a missing chunk would read as zeros."""
        self._files.check(folder + "/")
        return open_zarr_array(self._files.location.sub(f"{self._files.folder}/{folder}"))
