"""Lance and LanceDB: a column of vectors of halves, scanned, and searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.competitors.competitor import (
    BLOCK_ROWS,
    BLOCKS_AHEAD,
    Competitor,
    Scan,
    flat,
    flat_blocks,
    multiply,
)


class LanceScan(Competitor):
    """A scan of a Lance dataset in batches, multiplied by torch."""

    name = "Lance scan"
    packages = ("pylance", "torch")
    setup = f"a FixedSizeList column of float16, scanner with batches of {BLOCK_ROWS} rows read ahead"

    def write(self, activations: NDArray[np.float16], folder: Path) -> None:
        """Write a dataset."""
        import lance

        schema, batches = vectors(activations)
        lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), folder / "pool.lance")

    def open(self, folder: Path) -> Scan:
        """Open it."""
        import lance

        dataset = lance.dataset(folder / "pool.lance")

        def scan(directions: NDArray[np.float32]) -> NDArray[Any]:
            scanner = dataset.scanner(
                columns=["vector"], batch_size=BLOCK_ROWS, batch_readahead=BLOCKS_AHEAD, scan_in_order=True
            )
            return multiply((_block(batch) for batch in scanner.to_batches()), directions)

        return scan


class LanceDbSearch(Competitor):
    """A flat search by dot product for all rows; its distance is 1 − A·v."""

    name = "LanceDB flat search"
    packages = ("lancedb",)
    setup = "the same column, search with distance_type('dot'), no index, all queries, of float16, in one call"
    tolerance = 5e-3

    def write(self, activations: NDArray[np.float16], folder: Path) -> None:
        """Write a table."""
        import lancedb

        schema, batches = vectors(activations)
        lancedb.connect(folder).create_table("pool", data=batches, schema=schema)

    def open(self, folder: Path) -> Scan:
        """Open it."""
        import lancedb

        table = lancedb.connect(folder).open_table("pool")
        n_rows = table.count_rows()

        def scan(directions: NDArray[np.float32]) -> NDArray[Any]:
            queries = list(flat(directions).astype(np.float16))
            search = table.search(queries if len(queries) > 1 else queries[0], vector_column_name="vector")
            found = search.distance_type("dot").limit(n_rows).select(["row", "_distance"]).to_arrow()
            scores = np.empty((n_rows, len(queries)), np.float32)
            numbers = found["query_index"].to_numpy() if len(queries) > 1 else 0
            scores[found["row"].to_numpy(), numbers] = 1 - found["_distance"].to_numpy()
            return scores

        return scan


def vectors(activations: NDArray[np.float16]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Batches with a row number and a vector of halves, and their schema."""
    width = activations[0].size
    schema = pa.schema([pa.field("row", pa.int64()), pa.field("vector", pa.list_(pa.float16(), width))])

    def batches() -> Iterator[pa.RecordBatch]:
        first = 0
        for block in flat_blocks(activations):
            numbers = pa.array(np.arange(first, first + len(block)))
            lists = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), width)
            yield pa.record_batch([numbers, lists], schema=schema)
            first += len(block)

    return schema, batches()


def _block(batch: pa.RecordBatch) -> NDArray[np.float16]:
    return batch.column("vector").flatten().to_numpy().reshape(batch.num_rows, -1)
