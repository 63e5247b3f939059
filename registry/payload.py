"""``directions.zarr`` of a profile: a Zarr v3 group that any Zarr reader opens and that we read byte by byte.

A payload may come from anywhere, so nothing in it is believed: sizes are compared before a file is read, the
metadata must be exactly of the one form that the format allows (uncompressed little-endian float32 in one chunk),
and the numbers must be finite and of the recorded digest. No codec runs and nothing is unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import CorruptChunkError, FormatError
from nait_store.schemas.profile import ProfileRecord
from nait_store.schemas.record import FileDigest
from nait_store.scoring.targets import directions_sha256
from nait_store.storage.digests import check_size, write_payload_file
from nait_store.storage.location import Location
from nait_store.storage.readable_files import ReadableFiles

DIRECTIONS_FOLDER = "directions.zarr"
PROFILE_FILE = "profile.json"
CARD_FILE = "card.json"
MAX_RECORD_BYTES = 16 << 20
MAX_CARD_BYTES = 4 << 20
MAX_ARRAY_BYTES = 1 << 30
_MAX_METADATA_BYTES = 1 << 16
_FILES = re.compile(r"(profile|card)\.json|directions\.zarr/(zarr\.json|(directions|offset)/(zarr\.json|c/0/0))")
_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}]


@dataclass(frozen=True)
class ProfileArrays:
    """What a profile consists of numerically.

    Attributes
    ----------
    directions
        v, [L, J] float32, read-only.
    offset
        What candidates are centred on, [L, J] float32, read-only, or None.
    """

    directions: NDArray[np.float32]
    offset: NDArray[np.float32] | None

    def digest(self, layers: Sequence[int]) -> str:
        """Digest of layers, directions and offset, as in ``profile.json`` and the keys of score sidecars."""
        return directions_sha256(layers, self.directions, self.offset)


def write_arrays(
    location: Location, folder: str, arrays: ProfileArrays, layers: Sequence[int], attributes: dict[str, Any]
) -> tuple[FileDigest, ...]:
    """Write ``directions.zarr`` below ``folder``.

    Parameters
    ----------
    location, folder
        Where the payload goes.
    arrays
        The numbers.
    layers
        Zero-based decoder layers of the rows.
    attributes
        Plain JSON values for readers that know nothing of us; attributes of the group.

    Returns
    -------
    tuple of FileDigest
        One per file, paths relative to ``folder``.
    """
    group = {"attributes": {**attributes, "layers": list(layers)}, "zarr_format": 3, "node_type": "group"}
    documents: dict[str, bytes] = {"zarr.json": _json(group)}
    for name, values in (("directions", arrays.directions), ("offset", arrays.offset)):
        if values is not None:
            documents[f"{name}/zarr.json"] = _json(_array_metadata(values.shape, layers))
            documents[f"{name}/c/0/0"] = np.ascontiguousarray(values, dtype="<f4").tobytes()
    return tuple(
        write_payload_file(location, folder, f"{DIRECTIONS_FOLDER}/{path}", data) for path, data in documents.items()
    )


def read_arrays(location: ReadableFiles, folder: str, record: ProfileRecord) -> ProfileArrays:
    """Read and check ``directions.zarr``.

    Parameters
    ----------
    location, folder
        Where the payload lies.
    record
        Its ``profile.json``.

    Returns
    -------
    ProfileArrays
        Of the recorded shape and digest, all finite.

    Raises
    ------
    CorruptChunkError
        A file is missing or of another size, or the numbers are of another digest.
    FormatError
        Metadata of another form, another shape than recorded, NaN or infinity, or more than 1 GiB.
    """
    known = {file.path: file for file in record.files}
    shape = (len(record.layers), record.n_neurons)
    directions = _read_array(location, folder, "directions", shape, known)
    offset = _read_array(location, folder, "offset", shape, known) if record.has_offset else None
    arrays = ProfileArrays(directions, offset)
    if arrays.digest(record.layers) != record.directions_sha256:
        raise CorruptChunkError(f"{location.url_of(folder)}/{DIRECTIONS_FOLDER} differs from its recorded SHA-256")
    return arrays


def size_limit_bytes(path: str) -> int | None:
    """Largest size that a file of a payload may have; None for a file that no payload has.

    Parameters
    ----------
    path
        Relative to the payload's folder.
    """
    if _FILES.fullmatch(path) is None:
        return None
    if path == PROFILE_FILE:
        return MAX_RECORD_BYTES
    if path == CARD_FILE:
        return MAX_CARD_BYTES
    return MAX_ARRAY_BYTES if path.endswith("/c/0/0") else _MAX_METADATA_BYTES


def read_limited(location: ReadableFiles, path: str, limit_bytes: int) -> bytes:
    """Read a file that must not be larger than ``limit_bytes``.

    Raises
    ------
    FormatError
        It is larger.
    NotFoundError
        It does not exist.
    """
    size_bytes = location.size_bytes(path)
    if size_bytes > limit_bytes:
        raise FormatError(f"{location.url_of(path)} has {size_bytes:,} bytes, more than the {limit_bytes:,} allowed")
    return location.read_bytes(path)


def _read_array(
    location: ReadableFiles, folder: str, name: str, shape: tuple[int, int], known: dict[str, FileDigest]
) -> NDArray[np.float32]:
    expected_bytes = 4 * shape[0] * shape[1]
    where = f"{location.url_of(folder)}/{DIRECTIONS_FOLDER}/{name}"
    if expected_bytes == 0 or expected_bytes > MAX_ARRAY_BYTES:
        raise FormatError(f"{where}: shape {shape} is empty or larger than {MAX_ARRAY_BYTES:,} bytes")
    paths = {part: f"{DIRECTIONS_FOLDER}/{name}/{part}" for part in ("zarr.json", "c/0/0")}
    for path in paths.values():
        if path not in known:
            raise FormatError(f"{location.url_of(folder)}/{PROFILE_FILE} does not list the file {path}")
        check_size(location, folder, known[path])
    metadata = read_limited(location, f"{folder}/{paths['zarr.json']}", _MAX_METADATA_BYTES)
    _check_metadata(metadata, shape, f"{where}/zarr.json")
    data = read_limited(location, f"{folder}/{paths['c/0/0']}", expected_bytes)
    if len(data) != expected_bytes:
        raise CorruptChunkError(f"{where}/c/0/0 has {len(data):,} bytes instead of {expected_bytes:,}")
    values = np.frombuffer(data, dtype="<f4").reshape(shape)
    if not np.isfinite(values).all():
        raise FormatError(f"{where} holds NaN or infinity", next_step="build the profile again; do not use this one")
    return values


def _check_metadata(document: bytes, shape: tuple[int, int], where: str) -> None:
    try:
        found = json.loads(document)
        form = {key: found[key] for key in _array_metadata(shape, ()) if key != "attributes"}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{where} is not valid Zarr v3 metadata: {type(error).__name__}") from error
    expected = {key: value for key, value in _array_metadata(shape, ()).items() if key != "attributes"}
    different = sorted(key for key in expected if form[key] != expected[key])
    if different or found.get("storage_transformers"):
        shown = ", ".join(different) or "storage_transformers"
        raise FormatError(f"{where} is not of the form that docs/format.md prescribes for a profile: {shown}")


def _array_metadata(shape: Sequence[int], layers: Sequence[int]) -> dict[str, Any]:
    return {
        "shape": list(shape),
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0,
        "codecs": _CODECS,
        "attributes": {"layers": list(layers)},
        "dimension_names": ["layer", "neuron"],
        "zarr_format": 3,
        "node_type": "array",
    }


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode()
