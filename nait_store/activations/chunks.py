"""Geometry of a segment's chunks, and the Zarr metadata that describes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nait_store.errors import FormatError
from nait_store.schemas.capture import Feature, HookPoint, StoredDtype

MAX_CHUNK_BYTES = 8 << 20
_EVEN_BLOCKS = 4

DATA_FOLDER = "data.zarr"
SAMPLES_FILE = "samples.parquet"
SEGMENT_FILE = "segment.json"

_ON_DISK = {
    StoredDtype.FLOAT16: "<f2",
    StoredDtype.BFLOAT16: "<u2",
    StoredDtype.INT8: "|i1",
    StoredDtype.FLOAT32: "<f4",
}
_PLAIN_CODECS = {
    # Zarr says nothing of the order of bytes where there is one
    1: ([{"name": "bytes"}], [{"name": "bytes", "configuration": {}}]),
    2: ([{"name": "bytes", "configuration": {"endian": "little"}}],),
    4: ([{"name": "bytes", "configuration": {"endian": "little"}}],),
}


_PLAIN_TYPES = {np.dtype(name).name: np.dtype(name) for name in _ON_DISK.values()}
_VALUES = {
    StoredDtype.BFLOAT16: "the bits of bfloat16 numbers: (bits << 16) read as float32",
    StoredDtype.INT8: "the stored integer times the scale of its row and layer, in the array beside",
}


def numpy_dtype(dtype: StoredDtype) -> np.dtype[Any]:
    """Little-endian element type as it lies on disk; bfloat16 numbers lie there as their bits."""
    return np.dtype(_ON_DISK[dtype])


def row_bytes(n_neurons: int, dtype: StoredDtype) -> int:
    """Bytes of one row and layer: its numbers, its norm and, for int8, its scale."""
    return n_neurons * numpy_dtype(dtype).itemsize + (8 if dtype is StoredDtype.INT8 else 4)


def chunk_rows_for(n_neurons: int, dtype: StoredDtype, expected_rows: int | None = None) -> int:
    """Choose the rows of a (rows, 1, J) chunk so that it takes 4 to 8 MiB.

    Parameters
    ----------
    n_neurons
        J, the width of a layer's vector.
    dtype
        Stored element type.
    expected_rows
        Rows the segment will probably hold. Few blocks are made of equal size, so that little of the last one is
        padding; a segment smaller than one chunk gets a chunk of its own size.

    Returns
    -------
    int
        At least 1; a power of two where ``expected_rows`` does not decide.
    """
    most = max(1, MAX_CHUNK_BYTES // (n_neurons * numpy_dtype(dtype).itemsize))
    if expected_rows is not None and 0 < expected_rows <= most * _EVEN_BLOCKS:
        n_blocks = -(-expected_rows // most)
        return -(-expected_rows // n_blocks)
    return int(1 << (most.bit_length() - 1))


def norms_name(feature: Feature) -> str:
    """Name of the float32 array of ‖A_l‖ per (row, layer) beside a feature's array."""
    return f"{feature.value}_norms"


def scales_name(feature: Feature) -> str:
    """Name of the float32 array of scales per (row, layer) beside an int8 feature's array."""
    return f"{feature.value}_scales"


def chunk_path(feature: Feature, block: int, layer_index: int) -> str:
    """Path of a chunk file within the segment's folder; ``layer_index`` counts along axis 1."""
    return f"{DATA_FOLDER}/{feature.value}/c/{block}/{layer_index}/0"


def norms_path(feature: Feature) -> str:
    """Path of the single chunk of a norms array within the segment's folder."""
    return f"{DATA_FOLDER}/{norms_name(feature)}/c/0/0"


def scales_path(feature: Feature) -> str:
    """Path of the single chunk of a scales array within the segment's folder."""
    return f"{DATA_FOLDER}/{scales_name(feature)}/c/0/0"


@dataclass(frozen=True)
class ArraySpec:
    """What a Zarr array of a segment is to look like.

    Attributes
    ----------
    name
        Path within the group.
    shape, chunks
        (n, L, J) with chunks (rows, 1, J), or (n, L) in a single chunk.
    dtype
        NumPy name, ``<f2`` …
    attributes
        Plain JSON values, for readers that know nothing of us.
    axes
        Names of the dimensions, of which an array has the first two or three.
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    attributes: dict[str, Any]
    axes: tuple[str, ...] = ("sample", "layer", "neuron")


def zarr_metadata(arrays: Sequence[ArraySpec], attributes: dict[str, Any]) -> dict[str, bytes]:
    """Return the ``zarr.json`` documents of a segment's group, as zarr itself writes them.

    Parameters
    ----------
    arrays
        Uncompressed, unsharded arrays.
    attributes
        Of the group.

    Returns
    -------
    dict
        Path relative to the group → bytes.
    """
    import zarr
    from zarr.storage import MemoryStore

    documents: dict[str, Any] = {}
    group = zarr.create_group(store=MemoryStore(store_dict=documents), zarr_format=3, attributes=attributes)
    for spec in arrays:
        group.create_array(
            spec.name,
            shape=spec.shape,
            chunks=spec.chunks,
            dtype=spec.dtype,
            compressors=None,
            filters=None,
            fill_value=0,
            dimension_names=spec.axes[: len(spec.shape)],
            attributes=spec.attributes,
        )
    return {path: document.to_bytes() for path, document in documents.items()}


def segment_metadata(
    segment_id: str,
    n_rows: int,
    layers: Sequence[int],
    n_neurons: int,
    arrays: Sequence[tuple[Feature, StoredDtype, int]],
    *,
    capture_id: str,
    hook_point: HookPoint,
    model: str,
) -> dict[str, bytes]:
    """Return the ``zarr.json`` documents of a segment: of the group, and of each feature's arrays.

    Parameters
    ----------
    segment_id, n_rows, layers, n_neurons
        Of the segment; the shape is (n_rows, n_layers, n_neurons).
    arrays
        Feature, stored element type and rows of a chunk of each.
    capture_id, hook_point, model
        For readers that know nothing of us.

    Returns
    -------
    dict
        Path relative to ``data.zarr`` → bytes; a function of the arguments and of zarr's release.
    """
    specs = []

    def per_row(name: str, attributes: dict[str, Any]) -> ArraySpec:
        shape = (n_rows, len(layers))
        return ArraySpec(name=name, shape=shape, chunks=shape, dtype="<f4", attributes=attributes)

    for feature, dtype, chunk_rows in arrays:
        about = {"feature": feature.value, "layers": list(layers)}
        projected = feature is Feature.PROJECTIONS
        quantity = (
            "share of a layer in the score under a profile" if projected else "neuron activations, reduced per sample"
        )
        stored_as = {"stored_as": dtype.value, "values": _VALUES[dtype]} if dtype.is_coded else {}
        specs.append(
            ArraySpec(
                name=feature.value,
                shape=(n_rows, len(layers), n_neurons),
                chunks=(chunk_rows, 1, n_neurons),
                dtype=numpy_dtype(dtype).str,
                attributes={**about, **stored_as, "quantity": quantity},
                axes=("sample", "layer", "profile" if projected else "neuron"),
            )
        )
        norm = {**about, "quantity": "Euclidean norm over the neurons of a layer"}
        specs.append(per_row(norms_name(feature), norm))
        if dtype is StoredDtype.INT8:
            scale = {**about, "quantity": "value of one unit of the stored integers"}
            specs.append(per_row(scales_name(feature), scale))
    attributes = {
        "nait_store_segment": segment_id,
        "capture_id": capture_id,
        "hook_point": hook_point.value,
        "model": model,
        "layers": list(layers),
    }
    return zarr_metadata(specs, attributes)


@dataclass(frozen=True)
class RawGrid:
    """An array whose chunk files are plain little-endian C-ordered numbers.

    Attributes
    ----------
    shape
        (n, L, J), or (n, L).
    chunk_rows
        Rows of a (rows, 1, J) chunk, or of an (rows, L) chunk.
    dtype
        Element type.
    """

    shape: tuple[int, ...]
    chunk_rows: int
    dtype: np.dtype[Any]


def raw_grid(document: bytes, where: str) -> RawGrid | None:
    """Read an array's ``zarr.json`` and say whether its chunk files can be mapped as they are.

    Returns
    -------
    RawGrid or None
        None where anything differs from what :class:`SegmentWriter` writes (compression, sharding, another
        endianness, key encoding or chunk shape): zarr has to read it then.

    Raises
    ------
    FormatError
        Not a Zarr v3 array.
    """
    try:
        meta = json.loads(document)
        if meta["zarr_format"] != 3 or meta["node_type"] != "array":
            raise FormatError(f"{where} does not describe a Zarr v3 array")
        shape = tuple(meta["shape"])
        chunks = tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])
        plain = (
            len(shape) in (2, 3)
            and meta["chunk_grid"]["name"] == "regular"
            and chunks[1:] == ((1, shape[2]) if len(shape) == 3 else (shape[1],))
            and meta["data_type"] in _PLAIN_TYPES
            and meta["chunk_key_encoding"]["name"] == "default"
            and meta["chunk_key_encoding"].get("configuration", {}).get("separator", "/") == "/"
            and meta["codecs"] in _PLAIN_CODECS[_PLAIN_TYPES[meta["data_type"]].itemsize]
            and not meta.get("storage_transformers")
        )
        if not plain:
            return None
        return RawGrid(shape, int(chunks[0]), _PLAIN_TYPES[meta["data_type"]])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise FormatError(
            f"{where} is not valid Zarr v3 metadata: {type(error).__name__}",
            next_step="run 'nait-store verify' to see what else is damaged",
        ) from error
