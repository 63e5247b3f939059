"""Dot products and distances between stored activations and a few vectors, as fast as this machine can.

Two implementations with one meaning: numba over the raw chunk bytes, and NumPy in float64 where numba cannot run.
"""

from __future__ import annotations

import functools
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
from nait_store.storage.cache_folder import cache_folder

logger = logging.getLogger(__name__)

_NUMPY_ROWS = 64
_VECTORS_STEP = 4  # the compiled kernels' register tiles hold four
_compiling = threading.Lock()

Kernel = Callable[..., None]


class Kernels(Protocol):
    """What the scan computes of one chunk. Safe to use from several threads; the GIL is released."""

    def project(
        self, chunk: NDArray[Any], vectors: NDArray[np.float32], scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """Dot products of every row with every vector.

        Parameters
        ----------
        chunk
            [n, J], numbers as they are stored: float16 or float32, uint16 for the bits of bfloat16, int8.
        vectors
            [P, J]; a result of :func:`padded` saves a copy.
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
        self, chunk: NDArray[Any], vectors: NDArray[np.float32], scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """See :class:`Kernels`."""
        out = np.empty((len(chunk), len(vectors)))
        exact = vectors.T.astype(np.float64)
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
        self, chunk: NDArray[Any], vectors: NDArray[np.float32], scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """See :class:`Kernels`."""
        n_vectors = len(vectors)
        bits = _bits(chunk)
        if n_vectors == 1:
            out = np.empty((len(bits), 1))
            self._kernel("project_one", bits)(bits, vectors, out)
        else:
            wide = padded(vectors)
            out = np.empty((len(bits), len(wide)))
            self._kernel("project_many", bits)(bits, wide, out)
            out = out[:, :n_vectors]
        # float32 sums of float32 activations can overflow where the float64 result would not.
        if not np.isfinite(out).all():
            return NumpyKernels().project(chunk, vectors, scales)
        if scales is not None:
            out *= scales[:, None]
        return out

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
            # Apart, because the cache does not look at which way to widen a kernel calls.
            with _numba_cache("hardware" if self._hardware else "software") as usable:
                if usable:
                    # Whatever is wrong with the cache (full disk, damaged file), compiling anew is the way out.
                    with suppress(Exception):
                        return self._compile_now(name, element, cache=True)
        return self._compile_now(name, element, cache=False)

    def _compile_now(self, name: str, element: str, *, cache: bool) -> Kernel:
        import numba
        from numba import types

        def read_only(item: Any) -> Any:
            return types.Array(item, 2, "C", readonly=True)

        self._source.bind(half_in_hardware=self._hardware)
        inputs = [read_only(types.float32)] * (2 if name == "scaled_distances" else 1)
        signature = types.void(read_only(getattr(types, element)), *inputs, types.Array(types.float64, 2, "C"))
        decorate = numba.njit([signature], fastmath=self._source.FAST_MATH, nogil=True, cache=cache)
        compiled: Kernel = decorate(getattr(self._source, name))
        return compiled


def padded(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [P, J] with rows of zeros added, where P > 1, up to what the kernels take at once."""
    extra = -len(vectors) % _VECTORS_STEP if len(vectors) > 1 else 0
    if extra:
        vectors = np.concatenate([vectors, np.zeros((extra, vectors.shape[1]), np.float32)])
    return np.ascontiguousarray(vectors, dtype=np.float32)


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
