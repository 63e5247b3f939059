"""Vectors laid out for the compiled kernels: panels of eight or sixteen side by side, and as 16-bit codes for int8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 8
WIDE_PANEL = 2 * LANES
"""Vectors of a panel; the last one has half as many where those are enough."""

CODE_STRIP = 512
"""Neurons that share a quantisation step, and whose products with int8 are summed up as 32-bit integers.

Such a sum cannot overflow, in whatever order: 512 · 128 · 32,767 = 2,147,418,112 < 2^31.
"""
_LARGEST_CODE = 32767


@dataclass(frozen=True, eq=False)
class VectorCodes:
    """Vectors as integers: v[p, j] ≈ steps[j // CODE_STRIP, p] · code[p, j].

    A step is the 32,767th part of the strip's largest coefficient, so a coefficient is off by at most the 65,534th part
    of it: 250 times less than int8 activations are off, which have 127 steps.

    Attributes
    ----------
    codes
        int16: [P, J'], filled up with zeros to whole strips; or flat panels of WIDE_PANEL or LANES vectors, in each
        [⌈J/2⌉, width, 2], for every pair of neurons the codes of all vectors.
    steps
        [⌈J/CODE_STRIP⌉, P] float64, or as many columns as the panels have vectors.
    """

    codes: NDArray[np.int16]
    steps: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PackedVectors:
    """Vectors that meet many chunks: what a kernel needs of them is laid out when first asked for, and kept.

    Attributes
    ----------
    vectors
        [P, J] float32, C-contiguous; see :func:`pack`.
    """

    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def n_columns(self) -> int:
        """Vectors in the panels: P rounded up to LANES."""
        return -(-len(self.vectors) // LANES) * LANES

    @cached_property
    def are_finite(self) -> bool:
        """Whether all coefficients are finite numbers; others have no codes."""
        return bool(np.isfinite(self.vectors).all())

    @cached_property
    def fours(self) -> NDArray[np.float32]:
        """[P', J], rows of zeros added up to a multiple of four."""
        missing = np.zeros((-len(self.vectors) % 4, self.vectors.shape[1]), np.float32)
        return np.concatenate([self.vectors, missing]) if len(missing) else self.vectors

    @cached_property
    def panels(self) -> NDArray[np.float32]:
        """Flat float32: panels of WIDE_PANEL or LANES vectors, in each [J, width]."""
        return np.concatenate([panel.T.ravel() for panel in self._split(self.vectors)])

    @cached_property
    def code_rows(self) -> VectorCodes:
        """The vectors as integers, one after the other."""
        return self._coded()

    @cached_property
    def code_residuals(self) -> NDArray[np.float32]:
        """What the codes leave of the vectors, [P, J]: v - steps · code."""
        rows = self._coded()
        values = (np.repeat(rows.steps.T, CODE_STRIP, axis=1) * rows.codes)[:, : self.vectors.shape[1]]
        return (self.vectors - values).astype(np.float32)

    @cached_property
    def code_panels(self) -> VectorCodes:
        """The vectors as integers, side by side."""
        rows = self._coded()
        n_vectors, n_neurons = self.vectors.shape
        n_pairs = -(-n_neurons // 2)
        pairs = rows.codes[:, : 2 * n_pairs].reshape(n_vectors, n_pairs, 2)
        panels = [panel.transpose(1, 0, 2).ravel() for panel in self._split(pairs)]
        steps = np.zeros((len(rows.steps), self.n_columns))
        steps[:, :n_vectors] = rows.steps
        return VectorCodes(np.concatenate(panels), steps)

    def _coded(self) -> VectorCodes:
        n_vectors, n_neurons = self.vectors.shape
        n_strips = -(-n_neurons // CODE_STRIP)
        strips = np.zeros((n_vectors, n_strips, CODE_STRIP))
        strips.reshape(n_vectors, -1)[:, :n_neurons] = self.vectors
        steps = np.abs(strips).max(axis=2) / _LARGEST_CODE  # [P, strips]
        scaled = np.divide(strips, steps[:, :, None], out=np.zeros_like(strips), where=steps[:, :, None] > 0)
        codes = np.rint(scaled).astype(np.int16).reshape(n_vectors, -1)
        return VectorCodes(codes, np.ascontiguousarray(steps.T))

    def _split(self, values: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Panels of values [P, …], the last one filled up with zeros."""
        missing = np.zeros((self.n_columns - len(values), *values.shape[1:]), values.dtype)
        columns = np.concatenate([values, missing])
        for start in range(0, self.n_columns, WIDE_PANEL):
            yield columns[start : start + WIDE_PANEL]


def pack(vectors: NDArray[np.float32]) -> PackedVectors:
    """Vectors [P, J] for the kernels, which take them as often as there are chunks."""
    return PackedVectors(np.ascontiguousarray(vectors, dtype=np.float32))
