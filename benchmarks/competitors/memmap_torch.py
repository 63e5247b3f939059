"""The script that people write: one ``.npy`` of halves, mapped, and torch; and the same by one who has timed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.competitors.competitor import BLOCK_ROWS, Competitor, Scan, flat, multiply, row_blocks

_SCRIPT_ROWS = 256


class MemmapTorch(Competitor):
    """``torch.from_numpy(memmap[block]).float() @ V.T`` over blocks of 256 rows."""

    name = "memmap + torch .float() @"
    packages = ("torch",)
    setup = f"one .npy of float16, mapped; blocks of {_SCRIPT_ROWS} rows, as people write it"

    def write(self, activations: NDArray[np.float16], folder: Path) -> None:
        """Write the file."""
        np.save(folder / "activations.npy", activations.reshape(len(activations), -1))

    def open(self, folder: Path) -> Scan:
        """Map it."""
        import torch

        blocks = mapped_blocks(folder / "activations.npy", _SCRIPT_ROWS)

        def scan(directions: NDArray[np.float32]) -> NDArray[Any]:
            V = torch.from_numpy(flat(directions).T.copy())
            return np.concatenate([(torch.from_numpy(block).float() @ V).numpy() for block in blocks])

        return scan


class MemmapBuffer(MemmapTorch):
    """The same with one float32 buffer for all blocks, as every reader here multiplies."""

    name = "memmap + torch, one buffer"
    setup = f"the same file; blocks of {BLOCK_ROWS} rows converted into one float32 buffer, as for the readers below"

    def open(self, folder: Path) -> Scan:
        """Map it."""
        blocks = mapped_blocks(folder / "activations.npy", BLOCK_ROWS)
        return lambda directions: multiply(blocks, directions)


def mapped_blocks(path: Path, block_rows: int) -> list[NDArray[np.float16]]:
    """Blocks of a mapped file; copy-on-write, since torch warns about arrays that are read-only."""
    mapped = np.load(path, mmap_mode="c")
    return [mapped[rows] for rows in row_blocks(len(mapped), block_rows)]
