"""The best of a million samples in SQL, beside bare DuckDB over the same two tables.

The statement is the natural one, ``FROM alignment(…) JOIN samples(…) USING (sample_id) ORDER BY score DESC LIMIT k``,
with its scores in sidecars. The reference is DuckDB alone over two Parquet files of the same content, with the
statement that an expert writes: order and limit the scores first, then join. *as written* joins first.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.harness import Options, Report, interleave, ratio, run, workspace
from nait_store.activations.versions import ActivationSets
from nait_store.activations.writer import SegmentWriter
from nait_store.catalog.build import Catalog
from nait_store.query.session import QuerySession
from nait_store.registry.profiles import ProfileRegistry
from nait_store.registry.recipes import RECIPES
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.record import json_digest
from nait_store.schemas.samples import SampleRow
from nait_store.storage.location import Location
from nait_store.testing.stores import ENVIRONMENT, SETTINGS, fake_identity, fake_set_record

ROWS = 1_000_000
TOY_ROWS = 4_000
SEGMENTS = 8
TOPS = (5, 5200)
_LAYERS, _NEURONS = 1, 8
_BYTES_PER_ROW = 1500
_AT_ONCE = 25_000
_TEXT = (
    "name the largest river of a country explain why leaves fall write short poem about rain sort these numbers "
    "translate sentence into French give three reasons compare two cities describe how engine works summarise text"
)

NATURAL = (
    "SELECT sample_id, instruction, score FROM alignment('pool', 'math') JOIN samples('pool') USING (sample_id) "
    "ORDER BY score DESC LIMIT {k}"
)
EXPERT = (
    "SELECT sample_id, instruction, score FROM (FROM {alignment} ORDER BY score DESC LIMIT {k}) "
    "JOIN {samples} USING (sample_id) ORDER BY score DESC"
)


def body(options: Options, report: Report) -> None:
    """Build the store and its copies, check that all agree, time them."""
    n_rows = options.extra.rows or (TOY_ROWS if options.toy else ROWS)
    with workspace(options, n_rows * _BYTES_PER_ROW) as folder:
        location = Location(str(folder / "store"))
        build_store(location, n_rows)
        with opened(location) as session:
            export_copies(session, folder)
        tables = {"alignment": f"'{folder}/alignment.parquet'", "samples": f"'{folder}/samples.parquet'"}
        for k in TOPS:
            measure(k, n_rows, location, folder, tables, options, report)


def measure(
    k: int, n_rows: int, location: Location, folder: Path, tables: dict[str, str], options: Options, report: Report
) -> None:
    """Time one k."""
    k = min(k, n_rows // 4)
    natural, expert = NATURAL.format(k=k), EXPERT.format(k=k, **tables)
    own = EXPERT.format(k=k, alignment="copy.alignment", samples="copy.samples")
    joined_first = natural.replace("alignment('pool', 'math')", tables["alignment"])
    joined_first = joined_first.replace("samples('pool')", tables["samples"])
    with opened(location) as session, closing(duckdb.connect()) as bare:
        bare.execute(f"ATTACH '{folder}/copy.duckdb' AS copy (READ_ONLY)").fetchall()

        def fresh_session() -> Any:
            with opened(location) as other:
                return other.sql(natural).fetchall()

        def fresh_bare() -> Any:
            with closing(duckdb.connect()) as other:
                return other.sql(expert).fetchall()

        cases: dict[str, Callable[[], Any]] = {
            "bare DuckDB, Parquet": lambda: bare.sql(expert).fetchall(),
            "bare DuckDB, Parquet, as written": lambda: bare.sql(joined_first).fetchall(),
            "bare DuckDB, its own tables": lambda: bare.sql(own).fetchall(),
            "nait-store": lambda: session.sql(natural).fetchall(),
            "bare DuckDB, Parquet, new connection": fresh_bare,
            "nait-store, new session": fresh_session,
        }
        expected = cases["bare DuckDB, Parquet"]()
        for name, case in cases.items():
            if sorted(case()) != sorted(expected):
                raise SystemExit(f"{name} gives other rows than bare DuckDB")
        times = interleave(cases, options.rounds)
    report.timings(
        f"Top {k:,} of {n_rows:,} samples in {SEGMENTS} segments",
        times,
        reference="bare DuckDB, Parquet",
        note="A session keeps the scores in memory; a new one opens the store and reads manifests, records, directions "
        "and sidecars again. The files are in the page cache throughout. DuckDB's own tables are "
        "loaded once, which is not timed.",
    )
    report.limit(
        f"top {k:,}: nait-store / bare DuckDB, Parquet",
        "≤",
        4,
        ratio(times["nait-store"], times["bare DuckDB, Parquet"]),
    )
    report.limit(
        f"top {k:,}: nait-store / bare DuckDB, its own tables",
        "≤",
        4,
        ratio(times["nait-store"], times["bare DuckDB, its own tables"]),
    )
    report.limit(
        f"top {k:,}: new session / new connection",
        "≤",
        4,
        ratio(times["nait-store, new session"], times["bare DuckDB, Parquet, new connection"]),
    )


@contextmanager
def opened(location: Location) -> Iterator[QuerySession]:
    """Open a session that knows nothing yet."""
    with QuerySession(location, ActivationSets(location), ProfileRegistry(location), Catalog(location)) as session:
        yield session


def build_store(location: Location, n_rows: int) -> None:
    """Write a set of tiny activations with real-looking samples, and a profile of its first segment."""
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_layers=_LAYERS, n_neurons=_NEURONS))
    rng = np.random.default_rng(0)
    bounds = np.linspace(0, n_rows, SEGMENTS + 1).astype(int).tolist()
    records = []
    for begin, end in itertools.pairwise(bounds):
        writer = SegmentWriter(
            location,
            "pool",
            identity=fake_identity(),
            layers=range(_LAYERS),
            n_neurons=_NEURONS,
            features=[Feature.MEAN],
            dtype=StoredDtype.FLOAT32,
            settings=SETTINGS,
            environment=ENVIRONMENT,
            expected_rows=end - begin,
        )
        for start in range(begin, end, _AT_ONCE):
            stop = min(start + _AT_ONCE, end)
            array = rng.standard_normal((stop - start, _LAYERS, _NEURONS), dtype=np.float32)
            writer.append(list(sample_rows(start, stop, rng)), {Feature.MEAN: array})
        record = writer.close()
        if record is None:
            raise SystemExit("no rows")
        records.append(record)
    version = sets.commit("pool", records, ingest_ids=())
    ProfileRegistry(location).build(
        "math",
        version,
        recipe=RECIPES["default"],
        rows={0: np.arange(min(500, records[0].n_rows))},
        where=None,
        limit=None,
        seed=0,
        background=None,
    )


def sample_rows(start: int, stop: int, rng: np.random.Generator) -> Iterator[SampleRow]:
    """Make rows of the size of instruction data."""
    vocabulary = _TEXT.split()
    lengths = rng.integers(5, 80, stop - start)
    for i, length in zip(range(start, stop), lengths.tolist(), strict=True):
        words = [vocabulary[(i * 7 + j * j) % len(vocabulary)] for j in range(length)]
        fields = {"instruction": f"{i}: " + " ".join(words[:20]), "output": " ".join(words)}
        digest = json_digest(fields)
        yield SampleRow(
            sample_id=digest[:32],
            content_hash=digest,
            source_uri="pool.jsonl",
            source_index=i,
            n_tokens=length + 10,
            n_content_tokens=length,
            truncated=False,
            record=json.dumps(fields, sort_keys=True),
            fields=fields,
        )


def export_copies(session: QuerySession, folder: Path) -> None:
    """Write what the two table functions give as Parquet files and as DuckDB tables."""
    with closing(duckdb.connect(str(folder / "copy.duckdb"))) as connection:
        for name, call in (("alignment", "alignment('pool', 'math')"), ("samples", "samples('pool')")):
            connection.register("rows", session.sql(f"FROM {call}").arrow())
            connection.execute(f"COPY (FROM rows) TO '{folder}/{name}.parquet' (COMPRESSION zstd)").fetchall()
            connection.execute(f"CREATE TABLE {name} AS FROM rows").fetchall()
            connection.unregister("rows")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples (default {ROWS:,}, toy {TOY_ROWS:,})")


if __name__ == "__main__":
    run(__doc__, body, packages=("duckdb", "pyarrow"), add_arguments=_arguments)
