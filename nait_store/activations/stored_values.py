"""Quantities of stored numbers: what goes into the norms arrays and into ``max_abs``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def row_norms(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Euclidean norm of each row, [n, J] → [n] float32.

    Of what is stored, not of what came: a cosine over the stored numbers must be exact. A row's norm does not
    depend on the rows beside it, so norms that are taken again have the same bits.
    """
    exact = stored.astype(np.float32)
    np.square(exact, out=exact)
    norms: NDArray[np.float32] = np.sqrt(exact.sum(axis=1))
    return norms


def largest_magnitude(stored: NDArray[Any]) -> float:
    """Largest absolute value of finite floating-point numbers, 0 where there are none."""
    if not stored.size:
        return 0.0
    # without its sign bit, a larger IEEE number is a larger integer: many times faster than abs() of float16
    bits = np.ascontiguousarray(stored).view(f"<u{stored.dtype.itemsize}")
    without_sign = bits & bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    return float(without_sign.max().reshape(1).view(stored.dtype)[0])
