"""What the sandbox costs a query, and how fast it refuses one.

The same queries on one store, trusted (in the process, by an open session) and untrusted (each in a process of its own
that opens the store anew, checks, runs, and sends the rows back). Besides: a query that is refused, and the first query
of a process, which starts the fork server.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import nait_store
from benchmarks.harness import Options, Report, interleave, run, run_fresh, workspace
from nait_store.errors import ForbiddenError
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.registry.recipes import RECIPES
from nait_store.store.facade import Store
from nait_store.testing.stores import build_set

ROWS, TOY_ROWS = 100_000, 400
SEGMENTS = 8
_BYTES_PER_ROW = 1000
LIMITS = SandboxLimits(wall_seconds=60, output_bytes=256 << 20)
QUERIES = {
    "a constant": "SELECT 42",
    "the best five": "SELECT sample_id, instruction, score FROM alignment('pool', 'math') JOIN samples('pool') "
    "USING (sample_id) ORDER BY score DESC LIMIT 5",
    "a sum over all": "SELECT domain, count(*), round(avg(score), 6) FROM alignment('pool', 'math') "
    "JOIN samples('pool') USING (sample_id) GROUP BY ALL ORDER BY ALL",
    "all rows": "SELECT sample_id, score FROM alignment('pool', 'math') ORDER BY sample_id",
}
REFUSED = "WITH x AS (SELECT 1) SELECT * FROM x, read_text('/etc/passwd')"


def body(options: Options, report: Report) -> None:
    """Build a scored store, check that both ways agree, time them."""
    n_rows = options.extra.rows or (TOY_ROWS if options.toy else ROWS)
    with workspace(options, n_rows * _BYTES_PER_ROW) as folder:
        url = str(folder / "store")
        store = nait_store.open(url, create=True)
        build_store(store, n_rows)
        for name, query in QUERIES.items():
            measure(store, name, query, n_rows, options, report)
        refusing: dict[str, Callable[[], Any]] = {"untrusted, refused": lambda: refuse(store)}
        report.timings("A query that is refused", interleave(refusing, options.rounds), reference="untrusted, refused")
        first: dict[str, Callable[[], Any]] = {
            "trusted": lambda: run_fresh("benchmarks.sandbox:ask", url, False),
            "untrusted": lambda: run_fresh("benchmarks.sandbox:ask", url, True),
        }
        times = interleave(first, 1 if options.toy else options.rounds, warmups=0)
        report.timings("A new Python process that asks one query", times, reference="trusted")


def measure(store: Store, name: str, query: str, n_rows: int, options: Options, report: Report) -> None:
    """Time one query."""
    cases: dict[str, Callable[[], Any]] = {
        "trusted": lambda: store.sql(query).arrow(),
        "untrusted": lambda: store.sql(query, sandbox=LIMITS).arrow(),
    }
    if cases["trusted"]().to_pylist() != cases["untrusted"]().to_pylist():
        raise SystemExit(f"{name}: the sandbox gives other rows")
    times = interleave(cases, options.rounds)
    report.timings(f"{name.capitalize()}, {n_rows:,} samples in {SEGMENTS} segments", times, reference="trusted")


def refuse(store: Store) -> None:
    """Have a query refused."""
    try:
        store.sql(REFUSED, sandbox=LIMITS)
    except ForbiddenError:
        return
    raise SystemExit("a query that reads a file was not refused")


def ask(url: str, sandbox: bool) -> None:
    """Ask the first query of a process."""
    nait_store.open(url).sql(QUERIES["a constant"], sandbox=LIMITS if sandbox else False)


def build_store(store: Store, n_rows: int) -> None:
    """Write a set of tiny activations, and a profile of it, scored."""
    domains = [("maths", "code", "chat")[i % 3] for i in range(n_rows)]
    build_set(store.location, "pool", n_rows, 1, 8, n_segments=SEGMENTS, user_fields={"domain": domains})
    version = store.sets.versions.open("pool")
    store.profiles.registry.build(
        "math", version, recipe=RECIPES["default"], rows=None, where=None, limit=500, seed=0, background=None
    )
    store.sql("FROM alignment('pool', 'math'), activation_sets LIMIT 1")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples (default {ROWS:,}, toy {TOY_ROWS:,})")


if __name__ == "__main__":
    run(__doc__, body, packages=("duckdb", "pyarrow"), add_arguments=_arguments)
