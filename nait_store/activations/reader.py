"""Reading a segment: memory-mapped chunk files where the store allows it, zarr where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.chunk_memory import ChunkMemory
from nait_store.activations.chunks import (
    SAMPLES_FILE,
    SEGMENT_FILE,
    norms_name,
    norms_path,
    numpy_dtype,
    scales_name,
    scales_path,
)
from nait_store.activations.feature_arrays import FeatureArrays
from nait_store.activations.missing import missing_file
from nait_store.activations.sample_rows import read_samples, read_samples_schema
from nait_store.activations.segment_files import SegmentFiles
from nait_store.activations.stored_values import decode
from nait_store.errors import CorruptChunkError, InvalidInputError, NotFoundError
from nait_store.schemas.activation_set import SegmentRecord, SegmentRef
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location

ALL_ROWS = slice(None)


def read_segment_record(location: Location, set_name: str, ref: SegmentRef) -> SegmentRecord:
    """Read the ``segment.json`` that a manifest refers to.

    Raises
    ------
    CorruptChunkError
        It is missing or its digest differs from the manifest's.
    """
    path = f"{layout.segment_folder(set_name, ref.segment_id)}/{SEGMENT_FILE}"
    try:
        data = location.read_bytes(path)
    except NotFoundError as error:
        raise CorruptChunkError(f"{location.url_of(path)} is missing") from error
    if sha256_bytes(data) != ref.record_sha256:
        raise CorruptChunkError(f"{location.url_of(path)} differs from the SHA-256 in the set's manifest")
    return SegmentRecord.from_json_bytes(data, location.url_of(path))


class SegmentReader:
    """Reads one immutable segment. Safe to use from several threads.

    Parameters
    ----------
    location
        The store's root.
    record
        The segment's record.
    ref
        How a manifest names the segment, where one does.
    verify
        Hash every file that is read.

    Attributes
    ----------
    record
        The segment's record.
    ref
        As given.
    """

    def __init__(
        self, location: Location, record: SegmentRecord, ref: SegmentRef | None = None, *, verify: bool = False
    ) -> None:
        self.record = record
        self.ref = ref
        self._location = location
        self._folder = layout.segment_folder(record.set_name, record.segment_id)
        self._verify = verify
        self._files = SegmentFiles(location, self._folder, record.files, verify=verify)
        self._arrays = FeatureArrays(record, self._files)
        self._layer_index = {layer: i for i, layer in enumerate(record.layers)}

    def __repr__(self) -> str:
        return f"SegmentReader({self.record.set_name!r}, {self.record.segment_id}, n_rows={self.n_rows})"

    @property
    def segment_id(self) -> str:
        """ULID of the segment."""
        return self.record.segment_id

    @property
    def n_rows(self) -> int:
        """Rows, tombstoned ones included."""
        return self.record.n_rows

    @property
    def layers(self) -> tuple[int, ...]:
        """Zero-based decoder layers, ascending."""
        return self.record.layers

    @property
    def features(self) -> tuple[Feature, ...]:
        """Features it stores."""
        return self.record.features

    @property
    def ordinal(self) -> int:
        """High bits of ``row_id``; needs the manifest's reference."""
        if self.ref is None:
            raise InvalidInputError(f"segment {self.segment_id} has no ordinal: it was not opened through a version")
        return self.ref.ordinal

    @property
    def is_remote(self) -> bool:
        """Whether reading waits for a network, so that many chunks should be asked for at once."""
        return self._location.is_remote

    @property
    def record_sha256(self) -> str:
        """Digest of ``segment.json``: identity of everything the segment holds."""
        return self.ref.record_sha256 if self.ref is not None else self.record.digest()

    def read(self, feature: Feature, rows: slice = ALL_ROWS, layers: Sequence[int] | None = None) -> NDArray[Any]:
        """Read a contiguous row range of one feature into memory.

        Parameters
        ----------
        feature
            One of the segment's features.
        rows
            Half-open row range; step must be 1.
        layers
            Zero-based decoder layers; all of the segment's if omitted.

        Returns
        -------
        ndarray, shape (n_rows, n_layers, n_neurons)
            Values in the stored dtype; float32 where that is bfloat16 or int8.

        Raises
        ------
        NotFoundError
            The segment does not store this feature or layer; the message lists what it does.
        CorruptChunkError
            A chunk is missing, truncated, or (under ``verify``) differs from its digest.
        """
        stored = self._arrays.record_of(feature)
        start, stop, step = rows.indices(self.n_rows)
        if step != 1:
            raise InvalidInputError(f"rows must be contiguous, got step {step}")
        wanted = self.layers if layers is None else tuple(layers)
        shape = (max(0, stop - start), len(wanted), self.record.n_neurons)
        dtype = np.dtype("<f4") if stored.dtype.is_coded else numpy_dtype(stored.dtype)
        out = np.empty(shape, dtype)  # [n, L, J]
        scales = self.scales(feature, wanted)
        for block, span in enumerate(self.blocks(feature)):
            low, high = max(start, span.start), min(stop, span.stop)
            if low >= high:
                continue
            for position, layer in enumerate(wanted):
                chunk = self.chunk(feature, layer, block)[low - span.start : high - span.start]
                factors = None if scales is None else scales[low:high, position]
                out[low - start : high - start, position] = decode(chunk, factors)
        return out

    def values(
        self, feature: Feature, layer: int, block: int, rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Values of some rows of a chunk.

        Parameters
        ----------
        feature, layer, block
            As for :meth:`chunk`.
        rows
            Row indices within the block; all of its rows if omitted.

        Returns
        -------
        ndarray, shape (n_rows, n_neurons), float32
            A copy.

        Raises
        ------
        NotFoundError, CorruptChunkError
            As for :meth:`read`.
        """
        chunk = self.chunk(feature, layer, block)
        scales = self.scales(feature, [layer])
        factors = None if scales is None else scales[self._arrays.block(feature, block), 0]
        if rows is not None:
            chunk, factors = chunk[rows], None if factors is None else factors[rows]
        return decode(chunk, factors).astype(np.float32, copy=rows is None and chunk.dtype == np.float32)

    def chunk(
        self, feature: Feature, layer: int, block: int, *, keep: bool = True, memory: ChunkMemory | None = None
    ) -> NDArray[Any]:
        """One layer of one block of rows: the unit of reading.

        Parameters
        ----------
        feature
            One of the segment's features.
        layer
            Zero-based decoder layer (not a position along the axis).
        block
            Index into :meth:`blocks`.
        keep
            Whether a remote store's chunk goes into the local cache; one pass over more than the cache holds would
            only turn over what others put there.
        memory
            Where to have a local chunk that is not in the page cache, which is faster than mapping it; what is
            returned is then good until this thread asks for another chunk.

        Returns
        -------
        ndarray, shape (rows_in_block, n_neurons)
            Numbers as they are stored, C-contiguous and read-only: float16 or float32, uint16 for the bits of
            bfloat16, int8 to be multiplied by :meth:`scales`. On local uncompressed stores the chunk file itself,
            memory-mapped; the map (and its file descriptor) lives as long as the array.

        Raises
        ------
        NotFoundError, CorruptChunkError
            As for :meth:`read`.
        """
        return self._arrays.chunk(feature, self._index(layer), block, keep=keep, memory=memory)

    def is_in_page_cache(self, feature: Feature, layer: int, block: int) -> bool:
        """Whether :meth:`chunk` would map a file that lies in the page cache: it waits for nothing then."""
        return self._arrays.is_in_page_cache(feature, self._index(layer), block)

    def chunk_bytes(self, feature: Feature) -> int:
        """What a whole chunk of a feature takes."""
        return self._arrays.chunk_bytes(feature)

    def row(self, feature: Feature, layer: int, row: int) -> NDArray[Any]:
        """One layer of one row; of a remote store's uncompressed chunk only these bytes are fetched.

        Parameters
        ----------
        feature
            One of the segment's features.
        layer
            Zero-based decoder layer.
        row
            Index of the row within the segment.

        Returns
        -------
        ndarray, shape (n_neurons,)
            Values in the stored dtype, read-only; float32 where that is bfloat16 or int8.

        Raises
        ------
        NotFoundError, CorruptChunkError
            As for :meth:`read`.
        InvalidInputError
            There is no such row.
        """
        stored = self._arrays.row(feature, self._index(layer), row)
        scales = self.scales(feature, [layer])
        values: NDArray[Any] = decode(stored[None], None if scales is None else scales[row])[0]
        return values

    def blocks(self, feature: Feature) -> list[slice]:
        """Row ranges of the chunk grid, in order."""
        rows = self._arrays.record_of(feature).chunk_rows
        return [slice(start, min(start + rows, self.n_rows)) for start in range(0, self.n_rows, rows)]

    def norms(self, feature: Feature, layers: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Euclidean norms of the stored vectors.

        Parameters
        ----------
        feature
            One of the segment's features.
        layers
            Zero-based decoder layers; all of the segment's if omitted.

        Returns
        -------
        ndarray, shape (n_rows, n_layers), float32
            ‖A_l‖ of every row and layer.
        """
        self._arrays.record_of(feature)
        return self._per_row(norms_name(feature), norms_path(feature), layers)

    def scales(self, feature: Feature, layers: Sequence[int] | None = None) -> NDArray[np.float32] | None:
        """What the codes of an int8 feature are multiplied by.

        Parameters
        ----------
        feature, layers
            As for :meth:`norms`.

        Returns
        -------
        ndarray, shape (n_rows, n_layers), float32, or None
            None where the feature is stored in another dtype.
        """
        if self._arrays.record_of(feature).dtype is not StoredDtype.INT8:
            return None
        return self._per_row(scales_name(feature), scales_path(feature), layers)

    def _per_row(self, name: str, path: str, layers: Sequence[int] | None) -> NDArray[np.float32]:
        found = self._arrays.per_row(name, path)
        return found if layers is None else found[:, [self._index(layer) for layer in layers]]

    def samples(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Sample rows, tombstoned ones included.

        Parameters
        ----------
        columns
            Stored column names (user fields as ``user.<name>``); all of them if omitted.

        Returns
        -------
        pyarrow.Table
            ``n_rows`` rows in the order of the arrays.

        Raises
        ------
        CorruptChunkError
            The file is missing, unreadable, of another length, or (under ``verify``) differs from its digest.
        """
        if self._verify:
            self._files.check(SAMPLES_FILE)
        path = f"{self._folder}/{SAMPLES_FILE}"
        try:
            table = read_samples(self._location, path, columns, data=self._files.cached(SAMPLES_FILE))
        except CorruptChunkError:
            if not self._location.is_file(path):
                raise missing_file(self._location, self._folder, SAMPLES_FILE) from None
            raise
        if table.num_rows != self.n_rows:
            raise CorruptChunkError(
                f"{self._files.url(SAMPLES_FILE)} has {table.num_rows:,} rows, its segment has {self.n_rows:,}"
            )
        return table

    def samples_schema(self) -> pa.Schema:
        """Columns of :meth:`samples`, without reading them."""
        path = f"{self._folder}/{SAMPLES_FILE}"
        return read_samples_schema(self._location, path, data=self._files.cached(SAMPLES_FILE))

    def samples_path(self) -> str:
        """Where other readers find ``samples.parquet``: a path, or its URL where the local cache does not keep it."""
        return self._files.local_url(SAMPLES_FILE)

    def check_array(self, feature: Feature) -> None:
        """Check that a feature's Zarr metadata agrees with the segment's record.

        Raises
        ------
        FormatError
            It does not, or it is not Zarr v3.
        """
        self._arrays.check(feature)

    def _index(self, layer: int) -> int:
        try:
            return self._layer_index[layer]
        except KeyError:
            raise NotFoundError(
                f"segment {self.segment_id} of set {self.record.set_name!r} does not store layer {layer}",
                next_step=f"it stores the layers {', '.join(map(str, self.layers))}",
            ) from None
