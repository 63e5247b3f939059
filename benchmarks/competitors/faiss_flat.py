"""FAISS: flat indexes, of halves and of bytes, mapped from their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.competitors.competitor import Competitor, Scan, flat, flat_blocks

_TRAINING_ROWS = 1024


class FaissHalves(Competitor):
    """A flat index of halves, searched for all rows."""

    name = "FAISS, flat fp16"
    packages = ("faiss-cpu",)
    setup = (
        "IndexScalarQuantizer, QT_fp16, inner product, search for all rows; mapped (IO_FLAG_MMAP_IFC) when warm, "
        "plain read_index when cold"
    )
    quantizer: ClassVar[str] = "QT_fp16"

    def write(self, activations: NDArray[np.float16], folder: Path) -> None:
        """Write the index."""
        import faiss

        kind = getattr(faiss.ScalarQuantizer, self.quantizer)
        index = faiss.IndexScalarQuantizer(activations[0].size, kind, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            n = len(activations)
            chosen = np.linspace(0, n - 1, min(n, _TRAINING_ROWS)).astype(int)
            index.train(activations[chosen].reshape(len(chosen), -1).astype(np.float32))
        for block in flat_blocks(activations):
            index.add(block.astype(np.float32))
        faiss.write_index(index, str(folder / "pool.faiss"))

    def open(self, folder: Path) -> Scan:
        """Map the index: plain ``read_index`` copies all of it into memory first, and is no faster afterwards."""
        import faiss

        return self._opened(folder, faiss.IO_FLAG_MMAP_IFC)

    def open_once(self, folder: Path) -> Scan:
        """Read the index in one go: a search in a mapped one reads the disk here and there."""
        return self._opened(folder, 0)

    def _opened(self, folder: Path, flags: int) -> Scan:
        import faiss

        index = faiss.read_index(str(folder / "pool.faiss"), flags)

        def scan(directions: NDArray[np.float32]) -> NDArray[Any]:
            queries = np.ascontiguousarray(flat(directions))
            found, numbers = index.search(queries, index.ntotal)
            scores = np.empty((index.ntotal, len(queries)), np.float32)
            np.put_along_axis(scores.T, numbers, found, axis=1)
            return scores

        return scan


class FaissBytes(FaissHalves):
    """The same of one byte a number."""

    name = "FAISS, SQ8"
    setup = "the same with QT_8bit: half of the bytes, rounded"
    tolerance = 0.1
    quantizer = "QT_8bit"
