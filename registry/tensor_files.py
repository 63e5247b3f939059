"""Named arrays in one safetensors or npz file, written for anybody and read as if from an enemy.

Nothing is unpickled and nothing is allocated for a size that the file merely claims: every array is compared with
the bytes that are there.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from nait_store.errors import InvalidInputError

HEADER = "nait_store_profile"
"""Key of the text beside the arrays: of the metadata of a safetensors file, of a text array of an npz file."""
MAX_FILE_BYTES = 1 << 30
MAX_ARRAYS = 4096
MAX_HEADER_CHARACTERS = 1 << 22

_NPY_HEADER_BYTES = 10_000
_PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
_ACCEPTED = "float64, float32, float16, bfloat16, int64 and int32"
_MAX_AXES = 4
_NPY_LENGTHS = {b"\x93NUMPY\x01\x00": 10, b"\x93NUMPY\x02\x00": 12}
"""Beginning of an array → where its header begins, behind the header's length."""
_NPY_HEADER = re.compile(
    rb"\s*\{\s*'descr':\s*'(?P<dtype>[<>|][a-zA-Z][0-9]{0,8})',\s*'fortran_order':\s*(?P<order>True|False),\s*"
    rb"'shape':\s*\((?P<shape>[0-9, ]{0,200})\)\s*,?\s*\}\s*"
)
_NPY_TYPES = {"f8", "f4", "f2", "i8", "i4"}
_LOCAL_ENTRY = 30  # bytes of an entry's header in a zip file, before its name


class TensorFormat(StrEnum):
    """How arrays are laid out in the file."""

    SAFETENSORS = "safetensors"
    NPZ = "npz"


@dataclass(frozen=True)
class TensorFile:
    """What a file holds.

    Attributes
    ----------
    format
        How it was laid out.
    arrays
        By name; float64, float32, float16, int64 or int32. bfloat16 is float32 here.
    header
        The text beside them, if it has one.
    """

    format: TensorFormat
    arrays: Mapping[str, NDArray[Any]]
    header: str | None


def tensor_format(name: str) -> TensorFormat:
    """Tell the format by a file's name.

    Raises
    ------
    InvalidInputError
        It ends in neither ``.safetensors`` nor ``.npz``.
    """
    suffix = PurePosixPath(name).suffix.lower()
    for known in TensorFormat:
        if suffix == f".{known}":
            return known
    if suffix in _PICKLES:
        raise InvalidInputError(
            f"{name} may be a pickle, which can run code when it is opened, so it is not",
            next_step="convert it: safetensors.torch.save_file({name: tensor, ...}, 'directions.safetensors')",
        )
    raise InvalidInputError(
        f"{name!r} does not say its format", next_step="name a file that ends in .safetensors or .npz"
    )


def tensor_bytes(kind: TensorFormat, arrays: Mapping[str, NDArray[Any]], header: str) -> bytes:
    """Lay out arrays (float32 or int64) and a text; equal input gives equal bytes."""
    if kind is TensorFormat.SAFETENSORS:
        return bytes(
            safetensors.numpy.save(
                {name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata={HEADER: header}
            )
        )
    named = {**arrays, HEADER: np.array(header)}
    stream = io.BytesIO()
    np.savez(stream, **named)  # type: ignore[arg-type]
    return stream.getvalue()


def parse_tensors(data: bytes, kind: TensorFormat, name: str) -> TensorFile:
    """Read the bytes of a file.

    Parameters
    ----------
    data
        The whole file.
    kind
        Its format.
    name
        What to call it in errors.

    Raises
    ------
    InvalidInputError
        It is not whole, too large, holds objects or types that no direction has, or claims more than is there.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInputError(
            f"{name} is larger than {MAX_FILE_BYTES:,} bytes", next_step="give a file that holds directions only"
        )
    try:
        if kind is TensorFormat.SAFETENSORS:
            arrays, header = _of_safetensors(data)
        else:
            arrays, header = _of_npz(data)
    except _UnusableError as error:
        raise InvalidInputError(f"{name} cannot be used: {error}", next_step=error.next_step) from error
    return TensorFile(kind, arrays, header)


class _UnusableError(Exception):
    def __init__(self, why: str, next_step: str = "write or download the file again") -> None:
        super().__init__(why)
        self.next_step = next_step


def _of_safetensors(data: bytes) -> tuple[dict[str, NDArray[Any]], str | None]:
    try:
        # compares all shapes and offsets with the bytes that are there
        found = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise _UnusableError(f"it is not a whole safetensors file ({error})") from error
    if len(found) > MAX_ARRAYS:
        raise _UnusableError(f"it holds {len(found):,} tensors, more than the {MAX_ARRAYS:,} allowed")
    arrays = {}
    for name, tensor in found:
        dtype = _DTYPES.get(tensor["dtype"])
        if dtype is None:
            raise _of_no_use(name, tensor["dtype"])
        array = _shaped(np.frombuffer(tensor["data"], dtype=dtype), tensor["shape"], name)
        arrays[name] = _from_bfloat16(array) if tensor["dtype"] == "BF16" else array
    header = metadata.get(HEADER)
    return arrays, _checked_header(header) if header is not None else None


def _of_npz(data: bytes) -> tuple[dict[str, NDArray[Any]], str | None]:
    arrays: dict[str, NDArray[Any]] = {}
    header = None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name, content in _entries(archive, len(data)):
                if name in arrays:
                    raise _UnusableError(f"it holds {name!r} twice")
                array = _parse_npy(content, name)
                if name == HEADER:
                    header = _checked_header(str(array[()]) if array.shape == () and array.dtype.kind == "U" else None)
                elif array.dtype.kind == "U":
                    raise _of_no_use(name, "text")
                else:
                    arrays[name] = array
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise _UnusableError(f"it is not a whole npz file ({error})") from error
    return arrays, header


def _entries(archive: zipfile.ZipFile, size_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the arrays; no more is unpacked than is allowed for a file."""
    entries = archive.infolist()
    if len(entries) > min(MAX_ARRAYS, size_bytes // _LOCAL_ENTRY):
        raise _UnusableError(f"it holds {len(entries):,} arrays, more than the {MAX_ARRAYS:,} allowed")
    unpacked_bytes = sum(entry.file_size for entry in entries)
    if unpacked_bytes > MAX_FILE_BYTES:
        raise _UnusableError(f"it unpacks to {unpacked_bytes:,} bytes, more than the {MAX_FILE_BYTES:,} allowed")
    for entry in entries:
        if not entry.filename.endswith(".npy"):
            raise _UnusableError(f"it holds {entry.filename!r:.80}, which is no array")
        yield entry.filename.removesuffix(".npy"), archive.read(entry)


def _parse_npy(content: bytes, name: str) -> NDArray[Any]:
    start = _NPY_LENGTHS.get(content[:8], 0)
    end = start + int.from_bytes(content[8:start], "little")
    # no eval, and not NumPy's parser, which tries harder than is good with what was not written by NumPy
    header = _NPY_HEADER.fullmatch(content[start:end]) if start and end <= _NPY_HEADER_BYTES else None
    if header is None:
        raise _UnusableError(f"{name!r:.80} is not a NumPy array of numbers")
    code, extents = header["dtype"].decode(), header["shape"].decode()
    if code[1] == "O":
        raise _UnusableError(f"{name!r:.80} holds Python objects, which can run code when they are opened")
    if code[1:] not in _NPY_TYPES and not (code[1] == "U" and code[2:].strip("0")):
        raise _of_no_use(name, code)
    dtype, body = np.dtype(code), content[end:]
    shape = [int(extent) for extent in extents.split(",") if extent.strip()]
    # the shape is anybody's claim; Python's integers do not overflow, and the bytes are there already
    if math.prod(shape) * dtype.itemsize != len(body):
        raise _UnusableError(f"{name!r:.80} claims the shape {shape!s:.80}, which its {len(body):,} bytes do not have")
    return _shaped(np.frombuffer(body, dtype=dtype), shape, name, "F" if header["order"] == b"True" else "C")


def _shaped(flat: NDArray[Any], shape: Sequence[int], name: str, order: Literal["C", "F"] = "C") -> NDArray[Any]:
    if flat.size == 0 or len(shape) > _MAX_AXES:
        raise _UnusableError(f"{name!r:.80} of shape {shape!s:.80} is empty or has more than {_MAX_AXES} axes")
    return flat.reshape(shape, order=order)


def _from_bfloat16(bits: NDArray[Any]) -> NDArray[np.float32]:
    wide: NDArray[np.float32] = (bits.astype(np.uint32) << 16).view(np.float32)
    return wide


def _checked_header(header: Any) -> str:
    if not isinstance(header, str) or len(header) > MAX_HEADER_CHARACTERS:
        raise _UnusableError(f"its {HEADER} is not a text of at most {MAX_HEADER_CHARACTERS:,} characters")
    return header


def _of_no_use(name: str, dtype: str) -> _UnusableError:
    return _UnusableError(f"{name!r:.80} is of type {dtype:.40}", f"keep arrays of {_ACCEPTED} only")
