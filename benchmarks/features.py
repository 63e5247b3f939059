"""One neuron of every sample, and a sample's neighbours, beside NumPy and DuckDB over files of the same numbers.

One ``.npy`` of float16 [N, L, J] that NumPy maps, and one Parquet file with a list column of float32 for every layer,
which DuckDB reads without a Python between. *Cold* means that the page cache was told to forget the files; what is
counted then is what the system read from the disk for a fresh process (``/proc/self/io``, Linux only).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.harness import Options, Report, interleave, ratio, run, run_fresh, workspace
from benchmarks.page_cache import bytes_from_disk, forget
from benchmarks.scan import Size, write_npy, write_set
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.catalog.build import Catalog
from nait_store.progress import ProgressEvent, ignore_progress
from nait_store.query.session import QuerySession
from nait_store.registry.profiles import ProfileRegistry
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location

FULL = Size(8192, 16, 4096)  # 1.1 GB
TOY = Size(512, 4, 64)
LAYER, NEURON = 2, 17
_BLOCK_ROWS = 256


@dataclass(frozen=True)
class Files:
    """The same activations three times.

    Attributes
    ----------
    store, npy, parquet
        Paths.
    size
        Their shape.
    """

    store: str
    npy: str
    parquet: str
    size: Size

    def paths(self) -> Iterator[Path]:
        """Every file."""
        yield from (path for path in Path(self.store).rglob("*") if path.is_file())
        yield from (Path(self.npy), Path(self.parquet))


def body(options: Options, report: Report) -> None:
    """Write the files, then read one neuron warm and cold, then find neighbours."""
    size = TOY if options.toy else FULL
    if options.extra.rows:
        size = Size(options.extra.rows, size.n_layers, size.n_neurons)
    with workspace(options, 4 * size.n_bytes) as folder:
        files = Files(str(folder / "store"), str(folder / "a.npy"), str(folder / "a.parquet"), size)
        version = write_set(Location(files.store), size)
        write_npy(version, Path(files.npy))
        write_parquet(version, Path(files.parquet))
        neuron_warm(files, options, report)
        neuron_cold(files, options, report)
        neighbours(files, options, report)


def neuron_warm(files: Files, options: Options, report: Report) -> None:
    """Time one neuron of every sample, and count the bytes of the chunks that were read."""
    size = files.size
    events: list[ProgressEvent] = []
    with opened(files.store, events) as session, duckdb.connect() as bare:
        cases: dict[str, Callable[[], Any]] = {
            "DuckDB, Parquet lists": lambda: parquet_neuron(bare, files),
            "NumPy memmap": lambda: memmap_neuron(files),
            "neuron()": lambda: store_neuron(session),
            "neuron(), 10 samples by id": lambda: session.sql(
                f"SELECT activation FROM neuron('pool', {LAYER}, {NEURON}) WHERE sample_id IN ({some_ids(size, 10)})"
            ).arrow(),
        }
        expected = cases["NumPy memmap"]()
        for name in ("DuckDB, Parquet lists", "neuron()"):
            np.testing.assert_array_equal(cases[name](), expected, err_msg=name)
        n_bytes = events[-1].bytes_done
        times = interleave(cases, options.rounds)
    report.timings(
        f"One neuron of {size.n:,} samples × {size.n_layers} layers × {size.n_neurons:,} neurons, warm",
        times,
        reference="DuckDB, Parquet lists",
        note="NumPy gives bare numbers in the order of the array; the others give them with their sample ids.",
    )
    report.limit("neuron(): bytes of chunks read / bytes of the set, times L", "≤", 1.5, n_bytes / of_set(size))
    report.limit(
        "neuron() against DuckDB over Parquet lists", "≥", 1, ratio(times["DuckDB, Parquet lists"], times["neuron()"])
    )


def neuron_cold(files: Files, options: Options, report: Report) -> None:
    """Time one neuron in fresh processes whose files are on the disk alone, and count what the disk gave."""
    rows = []
    for name in ("parquet", "memmap", "store"):
        seconds, read = [], []
        for _ in range(1 if options.toy else 3):
            forget(files.paths())
            fresh = run_fresh("benchmarks.features:read_cold", name, files.store, files.npy, files.parquet)
            seconds.append(fresh.seconds)
            read.append(fresh.result)
        share = f"{np.median(read) / files.size.n_bytes:.3f}"
        rows.append((NAMES[name], f"{np.median(seconds) * 1e3:,.0f}", f"{np.median(read) / 1e6:,.1f}", share))
    report.table(
        "The same, cold, in fresh processes",
        ("what", "ms", "MB from the disk", "share of the set's bytes"),
        rows,
        note="A map of the whole array faults in pages of every row, and the system reads around each.",
    )


def neighbours(files: Files, options: Options, report: Report) -> None:
    """Time the search for the ten nearest samples over all layers."""
    size = files.size
    sample = 5
    with opened(files.store) as session:
        query = f"SELECT row_id FROM similar('pool', 's{sample:07d}') ORDER BY rank"
        cases: dict[str, Callable[[], Any]] = {
            "memmap + numpy astype @": lambda: memmap_neighbours(files, sample),
            "similar()": lambda: session.sql(query).arrow().column("row_id").to_numpy(),
        }
        found, cosines = cases["similar()"](), memmap_neighbours(files, sample)
        if len(found) != 10 or (np.sort(cosines)[-10:][::-1] - cosines[found] > 1e-6).any():
            raise ArithmeticError("similar() and the script disagree")
        times = interleave(cases, options.rounds)
    report.timings(
        f"The 10 nearest of {size.n:,} samples over all layers, {size.n_bytes / 1e9:.2f} GB, warm",
        times,
        reference="memmap + numpy astype @",
        work_bytes=size.n_bytes,
    )


@contextmanager
def opened(url: str, events: list[ProgressEvent] | None = None) -> Iterator[QuerySession]:
    """Open a session on the store."""
    location = Location(url)
    listener = ignore_progress if events is None else events.append
    with QuerySession(
        location, ActivationSets(location), ProfileRegistry(location), Catalog(location), listener
    ) as session:
        yield session


def store_neuron(session: QuerySession) -> NDArray[np.float32]:
    """Ask the store."""
    table = session.sql(f"SELECT sample_id, activation FROM neuron('pool', {LAYER}, {NEURON})").arrow()
    values: NDArray[np.float32] = table.column("activation").to_numpy()
    return values


def memmap_neuron(files: Files) -> NDArray[np.float32]:
    """Map the array and take a column of it."""
    array = np.load(files.npy, mmap_mode="r")
    values: NDArray[np.float32] = array[:, LAYER * files.size.n_neurons + NEURON].astype(np.float32)
    return values


def parquet_neuron(connection: duckdb.DuckDBPyConnection, files: Files) -> NDArray[np.float32]:
    """Let DuckDB read the layer's column."""
    query = f"SELECT sample_id, layer_{LAYER}[{NEURON + 1}] AS activation FROM '{files.parquet}'"
    values: NDArray[np.float32] = connection.sql(query).to_arrow_table().column("activation").to_numpy()
    return values


def memmap_neighbours(files: Files, sample: int) -> NDArray[np.float64]:
    """Mean cosine of every sample to one, itself left out as −1, by blocks of the mapped array."""
    size = files.size
    array = np.load(files.npy, mmap_mode="r").reshape(size.n, size.n_layers, size.n_neurons)
    mine = array[sample].astype(np.float32)
    mine /= np.linalg.norm(mine, axis=1, keepdims=True)
    found = np.empty(size.n)
    for start in range(0, size.n, _BLOCK_ROWS):
        block = array[start : start + _BLOCK_ROWS].astype(np.float32)
        terms = np.einsum("nlj,lj->nl", block, mine) / np.sqrt(np.einsum("nlj,nlj->nl", block, block))
        found[start : start + _BLOCK_ROWS] = terms.mean(axis=1)
    found[sample] = -1
    return found


def read_cold(how: str, store: str, npy: str, parquet: str) -> int:
    """Read the neuron in one way; returns the bytes that the disk gave. Run in a fresh process."""
    version = pq.ParquetFile(parquet).metadata  # its shape alone
    n_neurons = int((version.metadata or {})[b"n_neurons"])
    files = Files(store, npy, parquet, Size(version.num_rows, version.num_columns - 1, n_neurons))
    before = bytes_from_disk()
    if how == "store":
        with opened(store) as session:
            store_neuron(session)
    elif how == "memmap":
        memmap_neuron(files)
    else:
        with duckdb.connect() as bare:
            parquet_neuron(bare, files)
    return bytes_from_disk() - before


NAMES = {"parquet": "DuckDB, Parquet lists", "memmap": "NumPy memmap", "store": "neuron(), opening the store included"}


def write_parquet(version: SetVersion, path: Path) -> None:
    """Write a list column for every layer, and the sample ids."""
    [segment] = version.segments
    width = segment.record.n_neurons
    lists = [pa.field(f"layer_{layer}", pa.list_(pa.float32())) for layer in segment.layers]
    schema = pa.schema([("sample_id", pa.string()), *lists], metadata={"n_neurons": str(width)})
    ids = segment.samples(["sample_id"]).column("sample_id").combine_chunks()
    # Random numbers do not compress.
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for rows in segment.blocks(Feature.MEAN):
            array = segment.read(Feature.MEAN, rows).astype(np.float32)  # [n, L, J]
            offsets = pa.array(np.arange(0, len(array) * width + 1, width, dtype=np.int32))
            columns = [
                pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(array[:, i]).reshape(-1)))
                for i in range(len(segment.layers))
            ]
            writer.write_batch(pa.record_batch([ids.slice(rows.start, len(array)), *columns], schema=schema))


def some_ids(size: Size, n: int) -> str:
    """Sample ids spread over the set, as SQL."""
    return ", ".join(f"'s{i:07d}'" for i in np.linspace(0, size.n - 1, n).astype(int).tolist())


def of_set(size: Size) -> float:
    """Bytes of one of L layers."""
    return size.n_bytes / size.n_layers


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples (default {FULL.n:,}, toy {TOY.n:,})")


if __name__ == "__main__":
    run(__doc__, body, packages=("duckdb", "pyarrow", "numba"), add_arguments=_arguments)
