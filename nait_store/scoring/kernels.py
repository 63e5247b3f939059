"""Dot products and distances between stored activations and a few vectors, as fast as this machine can.

Two implementations with one meaning: numba over the raw chunk bytes, and NumPy in float64 where numba cannot run.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.stored_values import decode
from nait_store.scoring.packed_vectors import PackedVectors, pack
from nait_store.storage.cache_folder import cache_folder

logger = logging.getLogger(__name__)

_NUMPY_ROWS = 64
_FEW = 12  # up to here, widening again for every four directions takes less time than filling up a panel of 16
_FEW_CODES = 4  # up to here, one direction after the other takes less time than a panel of eight

_EXACT = frozenset(
    {"project_codes_few", "project_codes_many"}
)  # in whatever company: no reordering of their float64 sums

# Arrays that each compiled kernel takes after the chunk: element type and number of axes; "!" where it writes.
_CENTERED = ("float32 1", "float64 1")
_ARGUMENTS = {
    "find_center": ("float32 2", "float32 1 !", "float64 1 !"),
    "project_one": (*_CENTERED, "float32 2", "float64 2 !"),
    "project_few": (*_CENTERED, "float32 2", "float64 2 !"),
    "project_many": (*_CENTERED, "float32 1", "float64 2 !"),
    "project_codes_few": ("int16 2", "float64 2", "float64 2 !"),
    "project_codes_many": ("int16 1", "float64 2", "float64 2 !"),
    "distances": ("float32 2", "float64 2 !"),
    "scaled_distances": ("float32 2", "float32 2", "float64 2 !"),
}
_compiling = threading.Lock()

Kernel = Callable[..., None]
Vectors = NDArray[np.float32] | PackedVectors


class Kernels(Protocol):
    """What the scan computes of one chunk. Safe to use from several threads; the GIL is released."""

    def project(
        self, chunk: NDArray[Any], vectors: Vectors, scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """Dot products of every row with every vector.

        Parameters
        ----------
        chunk
            [n, J], numbers as they are stored: float16 or float32, uint16 for the bits of bfloat16, int8.
        vectors
            [P, J]; :func:`~nait_store.scoring.packed_vectors.pack` saves laying them out for every chunk anew.
        scales
            [n], what the rows of an int8 chunk are multiplied by.

        Returns
        -------
        ndarray, shape (n, P), float64
        """
        ...

    def squared_distances(
        self, chunk: NDArray[Any], points: NDArray[np.float32], scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """‖A_i − o_q‖² of every row [n, J] and every point [Q, J]; shape (n, Q), float64."""
        ...


class NumpyKernels:
    """Float64 throughout: exact and slow."""

    def project(
        self, chunk: NDArray[Any], vectors: Vectors, scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """See :class:`Kernels`."""
        plain = vectors.vectors if isinstance(vectors, PackedVectors) else vectors
        out = np.empty((len(chunk), len(plain)))
        exact = plain.T.astype(np.float64)
        for rows, part in _parts(chunk, scales):
            out[rows] = part @ exact
        return out

    def squared_distances(
        self, chunk: NDArray[Any], points: NDArray[np.float32], scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """See :class:`Kernels`."""
        out = np.empty((len(chunk), len(points)))
        for rows, part in _parts(chunk, scales):
            for q, point in enumerate(points):
                out[rows, q] = np.square(part - point).sum(axis=1)
        return out


class NumbaKernels:
    """Compiled kernels; each is compiled, or loaded from the cache, when first used with an element type.

    Parameters
    ----------
    half_in_hardware
        Whether to widen float16 by the processor's instruction; found out if omitted.
    cached
        Whether to keep compiled code in the user's cache folder.
    """

    def __init__(self, *, half_in_hardware: bool | None = None, cached: bool = True) -> None:
        from nait_store.scoring import numba_kernels

        self._source = numba_kernels
        self._hardware = _has_half_instructions() if half_in_hardware is None else half_in_hardware
        self._cached = cached
        self._compiled: dict[tuple[str, str], Kernel] = {}

    def project(
        self, chunk: NDArray[Any], vectors: Vectors, scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """See :class:`Kernels`."""
        packed = vectors if isinstance(vectors, PackedVectors) else pack(vectors)
        bits = _bits(chunk)
        out = self._project_codes(bits, packed) if bits.dtype == np.int8 else self._project_numbers(bits, packed)
        # float32 sums of float32 activations can overflow where the float64 result would not.
        if out is None or not np.isfinite(out).all():
            return NumpyKernels().project(chunk, packed, scales)
        if scales is not None:
            out *= scales[:, None]
        return out

    def _project_numbers(self, bits: NDArray[Any], packed: PackedVectors) -> NDArray[np.float64]:
        """Float32 products of what differs between rows; see :mod:`nait_store.scoring.numba_kernels`."""
        n, n_vectors = len(bits), len(packed)
        center, common = np.empty(bits.shape[1], np.float32), np.zeros(packed.n_columns)
        self._kernel("find_center", bits)(bits, packed.vectors, center, common[:n_vectors])
        if n_vectors == 1:
            out = np.empty((n, 1))
            self._kernel("project_one", bits)(bits, center, common, packed.vectors, out)
        elif n_vectors <= _FEW:
            fours = packed.fours
            out = np.empty((n, len(fours)))
            self._kernel("project_few", bits)(bits, center, common, fours, out)
        else:
            out = self._out_of_tiles(n, packed)
            self._kernel("project_many", bits)(bits, center, common, packed.panels, out)
        return out[:n, :n_vectors]

    def _project_codes(self, codes: NDArray[np.int8], packed: PackedVectors) -> NDArray[np.float64] | None:
        """Sums of products of integers, which are exact; None if the vectors cannot be written as such."""
        if not packed.have_codes:
            return None
        few = len(packed) <= _FEW_CODES
        coded = packed.code_rows if few else packed.code_panels
        # What rounding the vectors took of what rows have in common, which can be far more than they differ by.
        center, common = np.empty(codes.shape[1], np.float32), np.empty(len(packed))
        self._kernel("find_center", codes)(codes, coded.residuals, center, common)
        out = np.empty((len(codes), len(packed))) if few else self._out_of_tiles(len(codes), packed)
        self._kernel("project_codes_few" if few else "project_codes_many", codes)(codes, coded.codes, coded.steps, out)
        found = out[: len(codes), : len(packed)]
        found += common
        return found

    def _out_of_tiles(self, n: int, packed: PackedVectors) -> NDArray[np.float64]:
        """Room for n rows and all vectors, and for what the last tile writes beyond."""
        rows = self._source.TALL_ROWS
        return np.empty((-(-n // rows) * rows, packed.n_columns))

    def squared_distances(
        self, chunk: NDArray[Any], points: NDArray[np.float32], scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """See :class:`Kernels`."""
        bits = _bits(chunk)
        out = np.empty((len(bits), len(points)))
        if scales is None:
            self._kernel("distances", bits)(bits, np.ascontiguousarray(points), out)
        else:
            factors = np.ascontiguousarray(scales, dtype=np.float32).reshape(-1, 1)
            self._kernel("scaled_distances", bits)(bits, factors, np.ascontiguousarray(points), out)
        return out if np.isfinite(out).all() else NumpyKernels().squared_distances(chunk, points, scales)

    def _kernel(self, name: str, bits: NDArray[Any]) -> Kernel:
        key = (name, bits.dtype.name)
        found = self._compiled.get(key)
        if found is None:
            with _compiling:
                found = self._compiled.get(key)
                if found is None:
                    found = self._compiled[key] = self._compile(*key)
        return found

    def _compile(self, name: str, element: str) -> Kernel:
        if self._cached:
            # Apart, because numba's cache looks at the kernel's own source, and not at what it is made of.
            variant = f"{'hardware' if self._hardware else 'software'}-{_parts_digest()}"
            with _numba_cache(variant) as usable:
                if usable:
                    # Whatever is wrong with the cache (full disk, damaged file), compiling anew is the way out.
                    with suppress(Exception):
                        return self._compile_now(name, element, cache=True)
        return self._compile_now(name, element, cache=False)

    def _compile_now(self, name: str, element: str, *, cache: bool) -> Kernel:
        import numba
        from numba import types

        def array(argument: str) -> Any:
            item, n_axes, *written = argument.split()
            return types.Array(getattr(types, item), int(n_axes), "C", readonly=not written)

        self._source.bind(half_in_hardware=self._hardware)
        signature = types.void(array(f"{element} 2"), *map(array, _ARGUMENTS[name]))
        fast: Any = False if name in _EXACT else self._source.FAST_MATH
        decorate = numba.njit([signature], fastmath=fast, nogil=True, cache=cache)
        compiled: Kernel = decorate(getattr(self._source, name))
        return compiled


@functools.cache
def default_kernels() -> Kernels:
    """Numba's kernels, proven on a small example; NumPy's, with a logged warning, where that fails."""
    try:
        kernels = NumbaKernels()
        rows = np.array([[1.0, -2.5, 6.1e-5], [0.0, 3.0, 0.25]], dtype=np.float16)
        found = kernels.project(rows, np.ones((1, 3), dtype=np.float32))[:, 0]
        if not np.allclose(found, rows.astype(np.float64).sum(axis=1), rtol=1e-6):
            raise ArithmeticError(f"the compiled kernel returned {found}")
    except Exception as error:
        logger.warning(
            "scoring falls back to NumPy, which is some 50 times slower: numba cannot be used here (%s: %s)",
            type(error).__name__,
            error,
        )
        return NumpyKernels()
    return kernels


@functools.cache
def _parts_digest() -> str:
    """Of the sources that compiled kernels take functions and constants from."""
    folder = Path(__file__).parent
    sources = [folder / name for name in ("numba_tiles.py", "packed_vectors.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def _bits(chunk: NDArray[Any]) -> NDArray[Any]:
    """C-contiguous, aligned and in the machine's byte order.

    numba has no type for 16 bits that are a number: halves are given as unsigned integers, and bfloat16 as signed ones.
    """
    native = chunk.dtype.newbyteorder("=")
    values = np.require(chunk, dtype=native, requirements=["C", "A"])
    if values.dtype == np.uint16:
        return values.view(np.int16)
    return values.view(np.uint16) if values.dtype == np.float16 else values


def _parts(chunk: NDArray[Any], scales: NDArray[np.float32] | None) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    for start in range(0, len(chunk), _NUMPY_ROWS):
        rows = slice(start, min(start + _NUMPY_ROWS, len(chunk)))
        part = (chunk[rows] if scales is not None else decode(chunk[rows])).astype(np.float64)
        if scales is not None:
            part *= scales[rows, None]
        yield rows, part


def _has_half_instructions() -> bool:
    """Whether numba's target widens a half itself; elsewhere LLVM would emit a call that cannot be resolved."""
    from llvmlite import binding
    from numba.core import config

    if config.CPU_NAME or config.CPU_FEATURES:  # the user chose a target other than this processor
        return False
    if platform.machine().lower() in ("aarch64", "arm64"):
        return True
    return bool(binding.get_host_cpu_features().get("f16c", False))


@contextmanager
def _numba_cache(variant: str) -> Iterator[bool]:
    """Let kernels compiled inside the block be cached in the user's cache folder; False where nothing can be.

    numba would use ``__pycache__`` beside the source, which may be part of a shared installation. ``NUMBA_CACHE_DIR``
    is respected.
    """
    from numba.core import config

    chosen = config.CACHE_DIR
    folder = (Path(chosen) if chosen else cache_folder() / "kernels") / variant
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        logger.info("compiled kernels are not cached: %s cannot be written (%s)", folder, error)
        yield False
        return
    config.CACHE_DIR = os.fspath(folder)
    try:
        yield True
    finally:
        config.CACHE_DIR = chosen
