"""One selection, written for this store and for what people would use instead.

The best 10 % of the samples by s = Σ_l A_l·v_l among those of fewer than 512 tokens, with the samples' columns; every
system gets the same activations (float16 [N, L·J], float32 where it cannot hold halves) and samples, searches exactly,
and must choose the same samples. What each builds beforehand is not timed; its size is given. All files are in the page
cache.

- *nait-store*: one SQL statement; without sidecars (and a new session, since a session remembers), and with them.
- *LanceDB*: a vector column, a flat search by dot product with a prefilter.
- *DuckDB*: a Parquet file with a list column, ``list_inner_product`` over it, or over it cast to an array.
- *FAISS + pandas*: a flat index of halves, searched among the rows that the data frame's filter leaves; loaded from its
  files as a script begins, and with index and data frame held in memory, which the other systems do not ask for.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.harness import Options, Report, Timing, interleave, ratio, run, workspace
from benchmarks.scan import Size
from benchmarks.sql import opened
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.activations.writer import SegmentWriter
from nait_store.query.session import QuerySession
from nait_store.registry.profiles import ProfileRegistry
from nait_store.registry.recipes import choose_recipe
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.samples import SampleRow
from nait_store.storage.location import Location
from nait_store.testing.stores import ENVIRONMENT, SETTINGS, fake_identity, fake_row, fake_set_record

FULL = Size(2048, 24, 4096)  # 0.4 GB; a language model of half a billion parameters is about that wide
TOY = Size(600, 4, 64)
SHARE = 0.10
MAX_TOKENS = 512
TYPICAL_TOKENS, SPREAD_TOKENS, MOST_TOKENS = 110, 0.9, 2048  # lognormal, as instruction data are
MUST = 3.0
MUST_AGREE = 0.999
COLUMNS = ("sample_id", "instruction", "output", "n_tokens")
OURS, KEPT, KEPT_NEW = "nait-store, no sidecars", "nait-store, sidecars", "nait-store, sidecars, new session"
IN_MEMORY = "FAISS + pandas, held in memory"
_AT_ONCE = 256
_SPREAD = 3.0  # how far samples differ along what the in-domain samples share, in standard deviations of the rest

NATURAL = (
    f"SELECT {', '.join(COLUMNS)}, score FROM alignment('pool', 'math') JOIN samples('pool') USING (sample_id) "
    f"WHERE n_tokens < {MAX_TOKENS} ORDER BY score DESC LIMIT $k"
)

Rows = pa.Table | pd.DataFrame


@dataclass(frozen=True)
class Task:
    """What every system gets.

    Attributes
    ----------
    folder
        Where its files go.
    version
        The activations.
    samples
        Rows in the same order, with :data:`COLUMNS`.
    direction
        v, [L·J] float32.
    k
        How many samples to choose.
    """

    folder: Path
    version: SetVersion
    samples: pa.Table
    direction: NDArray[np.float32]
    k: int

    @property
    def width(self) -> int:
        """L·J."""
        return len(self.direction)

    def parts(self) -> Iterator[tuple[pa.Table, NDArray[np.float16]]]:
        """Some samples at a time, and their concatenated layers, [n, L·J]."""
        [segment] = self.version.segments
        for start in range(0, segment.n_rows, _AT_ONCE):
            block = segment.read(Feature.MEAN, slice(start, min(start + _AT_ONCE, segment.n_rows)))
            yield self.samples.slice(start, len(block)), block.reshape(len(block), -1)


@dataclass(frozen=True)
class Case:
    """One way to choose, and the bytes of what it chooses from."""

    name: str
    select: Callable[[], Rows]
    held_bytes: int


def body(options: Options, report: Report) -> None:
    """Build everything, check that all choose the same samples, time them in turn."""
    size = TOY if options.toy else FULL
    if options.extra.rows:
        size = dataclasses.replace(size, n=options.extra.rows)
    with workspace(options, 5 * size.n_bytes) as folder:
        location = Location(str(folder / "store"))
        task = build_task(location, folder, size)

        def remove_sidecars(name: str) -> None:
            if name == OURS:
                shutil.rmtree(folder / "store" / "scores", ignore_errors=True)

        with opened(location) as session:
            cases = [*our_cases(task, location, session), lancedb_case(task), *duckdb_cases(task), *faiss_cases(task)]
            agreement = check_agreement(cases, task.k)
            times = interleave({case.name: case.select for case in cases}, options.rounds, before=remove_sidecars)
    others = [times[case.name] for case in cases if not case.name.startswith("nait-store")]
    best = min((timing for timing in others if timing.name != IN_MEMORY), key=_median)
    report.timings(
        f"The best {task.k:,} of {size.n:,} samples × {size.n_layers} layers × {size.n_neurons:,} neurons, "
        f"n_tokens < {MAX_TOKENS}, page cache warm",
        times,
        reference=best.name,
        work_bytes=size.n_bytes,
    )
    report.table(
        "What each chooses from",
        ("what", "MB of activations and samples", "chosen alike"),
        [(case.name, f"{case.held_bytes / 1e6:,.0f}", f"{agreement[case.name]:.2%}") for case in cases],
        note="Held in memory, FAISS takes as much of it as of the disk, for as long as the process lives.",
    )
    report.limit(f"{best.name} / {OURS}", "≥", MUST, ratio(best, times[OURS]))
    report.limit(f"{best.name} / {KEPT_NEW}", "≥", MUST, ratio(best, times[KEPT_NEW]))
    report.limit(f"{IN_MEMORY} / {KEPT}", "≥", 1, ratio(times[IN_MEMORY], times[KEPT]))
    report.limit(f"{OURS} / {KEPT_NEW}", "≥", 1, ratio(times[OURS], times[KEPT_NEW]))


def check_agreement(cases: Sequence[Case], k: int) -> dict[str, float]:
    """Share of the samples that each case and the first one choose, which must be all but a few: scores are rounded."""
    expected = chosen_ids(cases[0].select())
    if len(expected) != k:
        raise SystemExit(f"{len(expected)} samples were chosen instead of {k}")
    shares = {case.name: len(expected & chosen_ids(case.select())) / k for case in cases}
    for name, share in shares.items():
        if share < MUST_AGREE:
            raise SystemExit(f"{name} chooses other samples: {share:.2%} of them are those of {cases[0].name}")
    return shares


def chosen_ids(rows: Rows) -> set[str]:
    """Ids of an answer, which must have all the columns."""
    frame = rows if isinstance(rows, pd.DataFrame) else rows.to_pandas()
    return set(frame[[*COLUMNS, "score"]]["sample_id"])


def our_cases(task: Task, location: Location, held: QuerySession) -> Iterator[Case]:
    """Run one statement, in a session that is held open and in new ones."""

    def choose(session: QuerySession) -> pa.Table:
        return session.sql(NATURAL, {"k": task.k}).arrow()

    def in_new_session() -> pa.Table:
        with opened(location) as session:
            return choose(session)

    n_bytes = size_bytes(task.folder / "store" / "activations")
    yield Case(OURS, in_new_session, n_bytes)
    yield Case(KEPT, lambda: choose(held), n_bytes)
    yield Case(KEPT_NEW, in_new_session, n_bytes)


def lancedb_case(task: Task) -> Case:
    """Search a LanceDB table; its distance is 1 − A·v."""
    import lancedb

    vectors = pa.field("vector", pa.list_(pa.float16(), task.width))

    def batches() -> Iterator[pa.RecordBatch]:
        for samples, block in task.parts():
            array = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), task.width)
            yield from samples.append_column(vectors, array).combine_chunks().to_batches()

    schema = task.samples.schema.append(vectors)
    table = lancedb.connect(task.folder / "lance").create_table("pool", data=batches(), schema=schema)

    def select() -> pa.Table:
        search = table.search(task.direction.astype(np.float16), vector_column_name="vector").distance_type("dot")
        search = search.where(f"n_tokens < {MAX_TOKENS}", prefilter=True).limit(task.k)
        found = search.select([*COLUMNS, "_distance"]).to_arrow()
        score = pa.array(1 - found.column("_distance").to_numpy())
        return found.drop_columns("_distance").append_column("score", score)

    return Case("LanceDB, float16", select, size_bytes(task.folder / "lance"))


def duckdb_cases(task: Task) -> Iterator[Case]:
    """Scan a Parquet file with a list column of float32."""
    path = task.folder / "pool.parquet"
    lists = pa.field("activation", pa.list_(pa.float32()))
    schema = task.samples.schema.append(lists)
    # Activations do not compress, and do not repeat.
    compression = {**dict.fromkeys(task.samples.column_names, "zstd"), "activation.list.element": "none"}
    with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=False) as writer:
        for samples, block in task.parts():
            offsets = pa.array(np.arange(0, block.size + 1, task.width, dtype=np.int32))
            array = pa.ListArray.from_arrays(offsets, pa.array(block.astype(np.float32).reshape(-1)))
            writer.write_table(samples.append_column(lists, array))
    connection = duckdb.connect()
    v = task.direction.tolist()
    products = {
        "list_inner_product": "list_inner_product(activation, $v::FLOAT[])",
        "array_inner_product": f"array_inner_product(activation::FLOAT[{task.width}], $v::FLOAT[{task.width}])",
    }
    for name, product in products.items():

        def select(product: str = product) -> pa.Table:
            query = (
                f"SELECT {', '.join(COLUMNS)}, {product} AS score FROM '{path}' "
                f"WHERE n_tokens < {MAX_TOKENS} ORDER BY score DESC LIMIT {task.k}"
            )
            return connection.sql(query, params={"v": v}).to_arrow_table()

        yield Case(f"DuckDB, {name}", select, size_bytes(path))


def faiss_cases(task: Task) -> Iterator[Case]:
    """Search a flat FAISS index among the rows that the data frame's filter leaves."""
    import faiss

    built = faiss.IndexScalarQuantizer(task.width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for _, block in task.parts():
        built.add(block.astype(np.float32))
    index_file, samples_file = task.folder / "pool.faiss", task.folder / "samples.parquet"
    faiss.write_index(built, str(index_file))
    pq.write_table(task.samples, samples_file, compression="zstd")

    def choose(index: Any, frame: pd.DataFrame) -> pd.DataFrame:
        allowed = np.flatnonzero(frame["n_tokens"].to_numpy() < MAX_TOKENS)
        parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(allowed))
        scores, rows = index.search(task.direction[None], task.k, params=parameters)
        return frame.iloc[rows[0]].assign(score=scores[0])

    def from_files() -> pd.DataFrame:
        return choose(faiss.read_index(str(index_file)), pd.read_parquet(samples_file))

    n_bytes = size_bytes(index_file) + size_bytes(samples_file)
    held = task.samples.to_pandas()
    yield Case("FAISS + pandas", from_files, n_bytes)
    yield Case(IN_MEMORY, lambda: choose(built, held), n_bytes)


def build_task(location: Location, folder: Path, size: Size) -> Task:
    """Write the store and say what the others get."""
    version = build_store(location, size)
    with opened(location) as session:
        samples = session.sql(f"SELECT {', '.join(COLUMNS)} FROM samples('pool') ORDER BY row_id").arrow()
    direction = ProfileRegistry(location).open("math").target().directions.reshape(-1)
    return Task(folder, version, samples, direction, round(SHARE * size.n))


def build_store(location: Location, size: Size) -> SetVersion:
    """Write the set ``pool``, and a profile of the samples that are furthest along a common direction."""
    rng = np.random.default_rng(0)
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_layers=size.n_layers, n_neurons=size.n_neurons))
    writer = SegmentWriter(
        location,
        "pool",
        identity=fake_identity(),
        layers=range(size.n_layers),
        n_neurons=size.n_neurons,
        features=[Feature.MEAN],
        dtype=StoredDtype.FLOAT16,
        settings=SETTINGS,
        environment=ENVIRONMENT,
        expected_rows=size.n,
    )
    common = rng.standard_normal((size.n_layers, size.n_neurons), dtype=np.float32)
    common /= np.linalg.norm(common, axis=1, keepdims=True)
    share = _SPREAD * rng.standard_normal(size.n, dtype=np.float32)
    n_tokens = (
        np.clip(rng.lognormal(np.log(TYPICAL_TOKENS), SPREAD_TOKENS, size.n), 8, MOST_TOKENS).astype(int).tolist()
    )
    for start in range(0, size.n, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, size.n))
        rest = rng.standard_normal((len(numbers), *common.shape), dtype=np.float32)
        A = rest + share[numbers.start : numbers.stop, None, None] * common
        writer.append([sample_row(i, n_tokens[i]) for i in numbers], {Feature.MEAN: A})
    record = writer.close()
    if record is None:
        raise RuntimeError("no rows were written")
    version = sets.commit("pool", [record], ingest_ids=())
    ProfileRegistry(location).build(
        "math",
        version,
        recipe=choose_recipe(metric="dot"),
        rows={0: np.sort(np.argsort(share)[-max(32, size.n // 100) :])},
        where=None,
        limit=None,
        seed=0,
        background=None,
    )
    return version


def sample_row(number: int, n_tokens: int) -> SampleRow:
    """Make a sample with about a word a token."""
    words = [f"word{(number * 31 + j * j) % 997}" for j in range(n_tokens)]
    fields = {"instruction": " ".join(words[:20]), "output": " ".join(words[20:])}
    return dataclasses.replace(fake_row(f"s{number:07d}", number, fields), n_tokens=n_tokens)


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(file.stat().st_size for file in files)


def _median(timing: Timing) -> float:
    return timing.median


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples (default {FULL.n:,}, toy {TOY.n:,})")


if __name__ == "__main__":
    run(
        __doc__,
        body,
        packages=("lancedb", "faiss-cpu", "duckdb", "pandas", "pyarrow", "numba"),
        add_arguments=_arguments,
    )
