"""What every competitor of the scan does: write the array once, open it, score it; and the arithmetic of the readers.

A competitor is set up as its own developers would: halves where it can hold them, chunks or blocks of the size that it
likes, all cores, the next reads in flight while the last block is multiplied.
"""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 64
"""Rows that are multiplied at once: 45 MB of halves at the width of a 7B model."""

BLOCKS_AHEAD = 2
"""Blocks that are read while one is multiplied."""

Scan = Callable[[NDArray[np.float32]], NDArray[Any]]
"""From directions, [P, L, J] float32, to scores Σ_l A_l·v_l, [n, P] in the order of the rows written."""


class Competitor(ABC):
    """One way to keep activations and to score them.

    Attributes
    ----------
    name
        As the tables show it.
    packages
        Distributions that it needs; where one is not installed, the competitor is absent.
    setup
        How it is set up, in a sentence without a full stop.
    tolerance
        Largest error of its scores, in standard deviations of the exact ones: above it the run is an error.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    setup: ClassVar[str]
    tolerance: ClassVar[float] = 1e-3

    @abstractmethod
    def write(self, activations: NDArray[np.float16], folder: Path) -> None:
        """Write ``activations``, [n, L, J], a memory map, to files in the empty ``folder``."""

    @abstractmethod
    def open(self, folder: Path) -> Scan:
        """Open what was written; what a program does once before many scans."""

    def open_once(self, folder: Path) -> Scan:
        """Open for one scan of what is not in the page cache; overridden where another way reads disks better."""
        return self.open(folder)


def missing(competitor: type[Competitor]) -> tuple[str, ...]:
    """Packages of a competitor that are not installed."""
    return tuple(package for package in competitor.packages if not installed(package))


def installed(package: str) -> bool:
    """Whether a distribution is installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row_blocks(n_rows: int, block_rows: int = BLOCK_ROWS) -> list[slice]:
    """Consecutive blocks of rows."""
    return [slice(start, min(start + block_rows, n_rows)) for start in range(0, n_rows, block_rows)]


def read_ahead(
    read: Callable[[slice], NDArray[Any]], blocks: Iterable[slice], ahead: int = BLOCKS_AHEAD
) -> Iterator[NDArray[Any]]:
    """Yield each block in turn, the next ones being read in threads meanwhile."""
    waiting: deque[Future[NDArray[Any]]] = deque()
    with ThreadPoolExecutor(ahead) as pool:
        for block in blocks:
            waiting.append(pool.submit(read, block))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def multiply(blocks: Iterable[NDArray[Any]], directions: NDArray[np.float32]) -> NDArray[Any]:
    """Score blocks of [b, L·J] halves: torch converts them into one buffer and multiplies.

    Converting each block into new memory, as ``.float()`` does, takes longer than the arithmetic.
    """
    import torch

    V = torch.from_numpy(flat(directions).T.copy())
    buffer = torch.empty(0)
    scores = []
    with warnings.catch_warnings():
        # Readers that hand out their own memory hand it out read-only; nothing writes to it here.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        for block in blocks:
            if len(buffer) < len(block):
                buffer = torch.empty(block.shape)
            converted = buffer[: len(block)].copy_(torch.from_numpy(block))
            scores.append((converted @ V).numpy())
    return np.concatenate(scores)


def flat(directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Directions with their layers one after the other, [P, L·J]."""
    return directions.reshape(len(directions), -1)


def flat_blocks(activations: NDArray[np.float16], block_rows: int = BLOCK_ROWS) -> Iterator[NDArray[np.float16]]:
    """Blocks of [b, L·J], copied out of the map."""
    for rows in row_blocks(len(activations), block_rows):
        yield np.array(activations[rows]).reshape(rows.stop - rows.start, -1)


def rows_of_bytes(width: int, n_bytes: int) -> int:
    """Rows of ``width`` halves that fit into ``n_bytes``; at least one."""
    return max(1, n_bytes // (2 * width))
