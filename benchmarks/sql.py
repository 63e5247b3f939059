"""The best of a million samples in SQL, beside bare DuckDB over the same two tables.

The statement is the natural one, ``FROM alignment(…) JOIN samples(…) USING (sample_id) ORDER BY score DESC LIMIT k``,
with its scores in sidecars. The reference is DuckDB alone over two Parquet files of the same content, with the
statement that an expert writes: order and limit the scores first, then join. *as written* joins first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.harness import Options, Report, interleave, ratio, run, workspace
from benchmarks.large_pool import BYTES_PER_ROW, build_pool
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.catalog.build import Catalog
from nait_store.query.sample_relation import SampleRelation
from nait_store.query.session import QuerySession
from nait_store.registry.profiles import ProfileRegistry
from nait_store.registry.recipes import RECIPES
from nait_store.storage.location import Location

ROWS = 1_000_000
TOY_ROWS = 4_000
SEGMENTS = 8
TOPS = (5, 5200)
MUST = 3.0

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
    with workspace(options, n_rows * 5 * BYTES_PER_ROW) as folder:
        location = Location(str(folder / "store"))
        version = build_store(location, n_rows)
        export_copies(location, version, folder)
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
        f"top {k:,} of {n_rows:,}: nait-store / bare DuckDB, Parquet",
        "≤",
        MUST,
        ratio(times["nait-store"], times["bare DuckDB, Parquet"]),
    )
    report.limit(
        f"top {k:,} of {n_rows:,}: nait-store / bare DuckDB, its own tables",
        "≤",
        MUST,
        ratio(times["nait-store"], times["bare DuckDB, its own tables"]),
    )
    report.limit(
        f"top {k:,} of {n_rows:,}: new session / new connection",
        "≤",
        MUST,
        ratio(times["nait-store, new session"], times["bare DuckDB, Parquet, new connection"]),
    )


@contextmanager
def opened(location: Location) -> Iterator[QuerySession]:
    """Open a session that knows nothing yet."""
    with QuerySession(location, ActivationSets(location), ProfileRegistry(location), Catalog(location)) as session:
        yield session


def build_store(location: Location, n_rows: int) -> SetVersion:
    """Write a set of tiny activations with real-looking samples, and a profile of its first rows."""
    version = build_pool(location, "pool", n_rows, SEGMENTS)
    ProfileRegistry(location).build(
        "math",
        version,
        recipe=RECIPES["default"],
        rows={0: np.arange(min(500, version.segments[0].n_rows))},
        where=None,
        limit=None,
        seed=0,
        background=None,
    )
    return version


def export_copies(location: Location, version: SetVersion, folder: Path) -> None:
    """Write what the two table functions give as Parquet files and as DuckDB tables."""
    samples = SampleRelation(location, version).sql()
    with opened(location) as session, closing(duckdb.connect(str(folder / "copy.duckdb"))) as connection:
        connection.register("scores", session.sql("FROM alignment('pool', 'math')").arrow())
        for name, rows in (("alignment", "FROM scores"), ("samples", samples)):
            connection.execute(f"COPY ({rows}) TO '{folder}/{name}.parquet' (COMPRESSION zstd)").fetchall()
            connection.execute(f"CREATE TABLE {name} AS FROM '{folder}/{name}.parquet'").fetchall()
        connection.unregister("scores")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples (default {ROWS:,}, toy {TOY_ROWS:,})")


if __name__ == "__main__":
    run(__doc__, body, packages=("duckdb", "pyarrow"), add_arguments=_arguments)
