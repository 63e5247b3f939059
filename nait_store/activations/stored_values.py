"""Between numbers as they are stored and the values they stand for; what goes into norms arrays and ``max_abs``.

Stored numbers say by their NumPy type what they are: ``<f2`` and ``<f4`` are the values, ``<u2`` are the bits of
bfloat16 numbers, ``|i1`` are int8 codes, whose values are the products with the scale of their row and layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.chunks import numpy_dtype
from nait_store.schemas.capture import StoredDtype

INT8_STEPS = 127
"""Codes go from -127 to 127."""

# The smallest magnitude that cannot be stored: it would round to infinity. A little of float32's range is left to
# int8, because 127 times a rounded scale may be more than what came.
_OVERFLOW = {
    StoredDtype.FLOAT16: np.float32(65520.0),
    StoredDtype.BFLOAT16: np.uint32(0x7F7F8000).view(np.float32),
    StoredDtype.INT8: np.float32(3.4e38),
    StoredDtype.FLOAT32: np.float32(np.inf),
}


def overflow_of(dtype: StoredDtype) -> np.float32:
    """The smallest magnitude that a dtype cannot hold."""
    return np.float32(_OVERFLOW[dtype])


def encode(
    values: NDArray[np.floating[Any]], dtype: StoredDtype, out: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Round values of one layer to a dtype.

    Parameters
    ----------
    values
        [n, J], finite and below :func:`overflow_of`.
    dtype
        What to store.
    out
        Where to put the stored numbers.

    Returns
    -------
    stored, scales
        [n, J] in :func:`~nait_store.activations.chunks.numpy_dtype`, and [n] float32 for int8, else None. A row's
        numbers do not depend on the rows beside it.
    """
    stored = np.empty(values.shape, numpy_dtype(dtype)) if out is None else out
    scales = None
    if dtype is StoredDtype.BFLOAT16:
        bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
        stored[...] = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16  # to the nearest, ties to even
    elif dtype is StoredDtype.INT8:
        exact = values.astype(np.float32, copy=False)
        scales = np.maximum(exact.max(axis=1), -exact.min(axis=1)) / np.float32(INT8_STEPS)
        units = np.divide(exact, scales[:, None], out=np.zeros_like(exact), where=scales[:, None] > 0)
        np.rint(units, out=units)
        # beyond only where the scale itself is denormal and so imprecise
        stored[...] = np.clip(units, -INT8_STEPS, INT8_STEPS, out=units)
    else:
        stored[...] = values
    return stored, scales


def decode(stored: NDArray[Any], scales: NDArray[np.float32] | None = None) -> NDArray[Any]:
    """The values of stored numbers.

    Parameters
    ----------
    stored
        [..., J], as they lie on disk.
    scales
        [...], of int8 codes.

    Returns
    -------
    ndarray
        float32 for bfloat16 and int8; others as they came.
    """
    if stored.dtype == np.uint16:
        wide = stored.astype("<u4")
        wide <<= 16
        return wide.view("<f4")
    if stored.dtype == np.int8:
        if scales is None:
            raise AssertionError("int8 codes have no values without their scales")
        values: NDArray[np.float32] = stored * scales[..., None]
        return values
    return stored


def row_norms(stored: NDArray[Any], scales: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Euclidean norm of each row's values, [n, J] → [n] float32; ``scales`` as for :func:`decode`.

    Of what is stored, not of what came: a cosine over the stored numbers must be exact. A row's norm does not
    depend on the rows beside it, so norms that are taken again have the same bits.
    """
    exact = (stored if scales is not None else decode(stored)).astype(np.float32)
    np.square(exact, out=exact)
    norms: NDArray[np.float32] = np.sqrt(exact.sum(axis=1))
    return norms if scales is None else norms * scales


def row_scales(stored: NDArray[Any], norms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales of int8 codes [n, J] whose norms [n] are known; they differ from those that were by rounding only."""
    lengths = row_norms(stored, np.ones(len(stored), np.float32))
    return np.divide(norms, lengths, out=np.zeros_like(norms), where=lengths > 0)


def largest_magnitude(stored: NDArray[Any]) -> float:
    """Largest absolute value of finite stored numbers, 0 where there are none; of int8 codes, the largest code."""
    if not stored.size:
        return 0.0
    if stored.dtype == np.int8:
        return float(np.abs(stored).max())  # -128 is no code
    # without its sign bit, a larger IEEE number is a larger integer: many times faster than abs() of float16
    bits = np.ascontiguousarray(stored).view(f"<u{stored.dtype.itemsize}")
    without_sign = bits & bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    return float(decode(without_sign.max().reshape(1).view(stored.dtype))[0])


def largest_scaled(scales: NDArray[np.float32]) -> float:
    """Largest absolute value of int8 codes with these scales: a row's largest code is 127."""
    return float(scales.max(initial=np.float32(0)) * np.float32(INT8_STEPS))
