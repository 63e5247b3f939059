"""Vectors laid out for the compiled kernels: panels of eight or sixteen side by side, and as 16-bit codes for int8."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 8
WIDE_PANEL = 2 * LANES
"""Vectors of a panel; the last one has half as many where those are enough."""

CODE_STRIP = 128
"""Neurons that share a quantisation step, and whose products with int8 are summed up as 32-bit integers.

Such a sum cannot overflow, in whatever order: 128 · 128 · 32,767 < 2^29. Longer strips have larger steps, which the few
large coefficients of real directions make.
"""
_LARGEST_CODE = 32767
_TOO_LARGE = 1e38
_STEP_BITS = 9  # and 15 of a code: float32 holds their product exactly


@dataclass(frozen=True, eq=False)
class VectorCodes:
    """Vectors as integers: v[p, j] = steps[j // CODE_STRIP, p] · code[p, j] + residuals[p, j].

    A step is about the 32,767th part of the strip's largest coefficient, so a coefficient is off by at most the
    65,400th part of that: 250 times less than int8 activations are off, which have 127 steps.

    Attributes
    ----------
    codes
        int16: [P, J'], filled up with zeros to whole strips; or flat panels of WIDE_PANEL or LANES vectors, in each
        [⌈J/2⌉, width, 2], for every pair of neurons the codes of all vectors.
    steps
        [⌈J/CODE_STRIP⌉, P] float64, or as many columns as the panels have vectors.
    residuals
        [P, J] float32, exact.
    """

    codes: NDArray[np.int16]
    steps: NDArray[np.float64]
    residuals: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PackedVectors:
    """Vectors that meet many chunks: what a kernel needs of them is laid out when first asked for, and kept.

    Attributes
    ----------
    vectors
        [P, J] float32, C-contiguous; see :func:`pack`.
    room
        Where to put panels, flat, float32, large enough; of one's own if None.
    """

    vectors: NDArray[np.float32]
    room: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def n_columns(self) -> int:
        """Vectors in the panels: P rounded up to LANES."""
        return n_panel_columns(len(self.vectors))

    @cached_property
    def have_codes(self) -> bool:
        """Whether all coefficients are finite, and not so large that a code's rounding could end beyond float32."""
        return bool((np.abs(self.vectors) < _TOO_LARGE).all())

    @cached_property
    def fours(self) -> NDArray[np.float32]:
        """[P', J], rows of zeros added up to a multiple of four."""
        missing = np.zeros((-len(self.vectors) % 4, self.vectors.shape[1]), np.float32)
        return np.concatenate([self.vectors, missing]) if len(missing) else self.vectors

    @cached_property
    def panels(self) -> NDArray[np.float32]:
        """Flat float32: panels of WIDE_PANEL or LANES vectors, in each [J, width]."""
        return self._side_by_side(self.vectors, self.room)

    @cached_property
    def code_rows(self) -> VectorCodes:
        """The vectors as integers, one after the other."""
        n_vectors, n_neurons = self.vectors.shape
        strips = np.zeros((n_vectors, -(-n_neurons // CODE_STRIP), CODE_STRIP), np.float32)
        flat = strips.reshape(n_vectors, -1)
        flat[:, :n_neurons] = self.vectors
        fraction, exponent = np.frexp(np.maximum(strips.max(axis=2), -strips.min(axis=2)) / np.float32(_LARGEST_CODE))
        steps = np.ldexp(np.ceil(np.ldexp(fraction, _STEP_BITS)), exponent - _STEP_BITS)  # [P, strips]
        values = strips / np.where(steps > 0, steps, np.float32(1))[:, :, None]
        np.rint(values, out=values)
        codes = values.astype(np.int16).reshape(n_vectors, -1)
        values *= steps[:, :, None]
        strips -= values
        return VectorCodes(codes, np.ascontiguousarray(steps.T, np.float64), np.ascontiguousarray(flat[:, :n_neurons]))

    @cached_property
    def code_panels(self) -> VectorCodes:
        """The vectors as integers, side by side."""
        rows = self.code_rows
        n_vectors, n_neurons = self.vectors.shape
        pairs = rows.codes.view(np.int32)[:, : -(-n_neurons // 2)]
        panels = self._side_by_side(pairs)
        steps = np.zeros((len(rows.steps), self.n_columns))
        steps[:, :n_vectors] = rows.steps
        return VectorCodes(panels.view(np.int16), steps, rows.residuals)

    def _side_by_side(self, values: NDArray[Any], room: NDArray[Any] | None = None) -> NDArray[Any]:
        """Panels of values [P, n], in each [n, width]; flat, the last one filled up with zeros."""
        n_values = values.shape[1]
        size = self.n_columns * n_values
        flat = np.empty(size, values.dtype) if room is None else room[:size]
        for start in range(0, self.n_columns, WIDE_PANEL):
            width = min(WIDE_PANEL, self.n_columns - start)
            panel = flat[start * n_values :][: n_values * width].reshape(n_values, width)
            vectors = values[start : start + width]
            # An assignment is copied in the order of what is read, which takes a tenth of a ravel of the transpose.
            panel[:, : len(vectors)] = vectors.T
            panel[:, len(vectors) :] = 0
        return flat


def n_panel_columns(n_vectors: int) -> int:
    """How many vectors the panels of so many have room for."""
    return -(-n_vectors // LANES) * LANES


def pack(vectors: NDArray[np.float32]) -> PackedVectors:
    """Vectors [P, J] for the kernels, which take them as often as there are chunks."""
    return PackedVectors(np.ascontiguousarray(vectors, dtype=np.float32))
