"""DuckDB over a Parquet file: a list of halves a row, and ``list_inner_product``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.competitors.competitor import Competitor, Scan, flat, flat_blocks


class DuckDbParquet(Competitor):
    """A scan of the lists, joined to the table of profiles."""

    name = "DuckDB over Parquet"
    packages = ("duckdb", "pyarrow")
    setup = (
        "a list column of Parquet FLOAT16, uncompressed (activations do not compress), row groups of 64 rows, "
        "list_inner_product, profiles in a joined table"
    )

    def write(self, activations: NDArray[np.float16], folder: Path) -> None:
        """Write the file; halves neither compress nor repeat."""
        schema = pa.schema([pa.field("row", pa.int64()), pa.field("activation", pa.list_(pa.float16()))])
        first = 0
        with pq.ParquetWriter(folder / "pool.parquet", schema, compression="none", use_dictionary=False) as writer:
            for block in flat_blocks(activations):
                numbers = np.arange(first, first + len(block))
                writer.write_table(pa.table({"row": numbers, "activation": lists(block)}, schema=schema))
                first += len(block)

    def open(self, folder: Path) -> Scan:
        """Connect."""
        import duckdb

        connection = duckdb.connect()
        query = f"SELECT row, p, list_inner_product(activation, v) AS score FROM '{folder / 'pool.parquet'}', profiles"

        def scan(directions: NDArray[np.float32]) -> NDArray[Any]:
            profiles = pa.table({"p": np.arange(len(directions)), "v": lists(flat(directions))})
            connection.register("profiles", profiles)
            found = connection.sql(query).fetchnumpy()
            scores = np.empty((int(found["row"].max()) + 1, len(directions)), np.float32)
            scores[found["row"], found["p"]] = found["score"]
            return scores

        return scan


def lists(block: NDArray[Any]) -> pa.ListArray:
    """Rows of a matrix as an Arrow array of lists."""
    offsets = pa.array(np.arange(0, block.size + 1, block.shape[1], dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(block).reshape(-1)))
