"""Zarr v3 arrays of halves, read by zarr-python, by its zarrs codec pipeline, and by tensorstore.

All read the same layout, which suits a scan of everything: chunks of whole rows, 8 MB, uncompressed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.competitors.competitor import (
    BLOCKS_AHEAD,
    Competitor,
    Scan,
    flat_blocks,
    multiply,
    n_cores,
    read_ahead,
    row_blocks,
    rows_of_bytes,
)

_CHUNK_BYTES = 8 << 20
_CHUNKS_A_BLOCK = 5  # about the 64 rows of the others
_IN_FLIGHT = 64


class ZarrPython(Competitor):
    """zarr-python with its own codec pipeline."""

    name = "zarr-python"
    packages = ("zarr", "torch")
    setup = f"Zarr v3, uncompressed chunks of whole rows, 8 MB, {BLOCKS_AHEAD} blocks of {_CHUNKS_A_BLOCK} read ahead"
    config: ClassVar[dict[str, Any]] = {"async.concurrency": _IN_FLIGHT}

    def write(self, activations: NDArray[np.float16], folder: Path) -> None:
        """Write the array."""
        import zarr

        n, width = len(activations), activations[0].size
        rows = min(n, rows_of_bytes(width, _CHUNK_BYTES))
        array = zarr.create_array(
            folder / "pool.zarr", shape=(n, width), chunks=(rows, width), dtype="float16", compressors=None
        )
        first = 0
        for block in flat_blocks(activations, rows):
            array[first : first + len(block)] = block
            first += len(block)

    def open(self, folder: Path) -> Scan:
        """Open it; an array keeps the codec pipeline that it was opened with."""
        import zarr

        with zarr.config.set(self.config):
            array = zarr.open_array(folder / "pool.zarr", mode="r")

        def scan(directions: NDArray[np.float32]) -> NDArray[Any]:
            with zarr.config.set(self.config):
                blocks = row_blocks(array.shape[0], _CHUNKS_A_BLOCK * array.chunks[0])
                return multiply(read_ahead(lambda rows: np.asarray(array[rows]), blocks), directions)

        return scan


class Zarrs(ZarrPython):
    """zarr-python with the pipeline of zarrs, which is written in Rust."""

    name = "zarrs"
    packages = ("zarr", "zarrs", "torch")
    setup = "the same array through zarr-python with the zarrs codec pipeline"
    config: ClassVar[dict[str, Any]] = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}


class TensorStore(ZarrPython):
    """tensorstore's zarr3 driver."""

    name = "tensorstore"
    packages = ("tensorstore", "zarr", "torch")
    setup = "the same array through the zarr3 driver, no cache, a limit of all cores and 64 reads in flight"

    def open(self, folder: Path) -> Scan:
        """Open it."""
        import tensorstore

        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(folder / "pool.zarr")},
            "context": {
                "cache_pool": {"total_bytes_limit": 0},
                "data_copy_concurrency": {"limit": n_cores()},
                "file_io_concurrency": {"limit": _IN_FLIGHT},
            },
        }
        store = tensorstore.open(spec, read=True).result()
        chunk_rows = store.chunk_layout.read_chunk.shape[0]

        def scan(directions: NDArray[np.float32]) -> NDArray[Any]:
            blocks = row_blocks(store.shape[0], _CHUNKS_A_BLOCK * chunk_rows)
            return multiply(read_ahead(lambda rows: store[rows].read().result(), blocks), directions)

        return scan
