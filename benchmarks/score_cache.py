"""What a query reads again after a set has changed: after appending 1 %, and after deleting samples.

The natural query runs on a set whose scores are kept, in a new session each time. The reference is scoring all of it
again, which is what a cache per version, or none, would do. Bytes are those of activations, as the scan reports them.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import nait_store
from benchmarks.harness import Options, Report, interleave, ratio, run, workspace
from nait_store.progress import ProgressEvent
from nait_store.scoring.sidecar_files import delete_sidecar
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.testing.stores import build_set

APPENDED_SHARE = 0.01
DELETED_SHARE = 0.05
SEGMENTS = 8
QUERY = "SELECT sample_id, score FROM alignment($set, 'math') ORDER BY score DESC"
FIRST, APPENDED, DELETED, AGAIN = (
    "first query, nothing kept",
    "second query, 1 % appended",
    "third query, 5 % deleted",
    "scoring everything again",
)


@dataclass(frozen=True)
class Size:
    """[n, L, J] float16."""

    n: int
    n_layers: int
    n_neurons: int

    @property
    def sample_bytes(self) -> int:
        """Of one sample's activations."""
        return 2 * self.n_layers * self.n_neurons


FULL, TOY = Size(2840, 32, 11008), Size(400, 2, 64)


def body(options: Options, report: Report) -> None:
    """Build a scored set, change it, and query each state."""
    size = TOY if options.toy else Size(options.extra.rows or FULL.n, FULL.n_layers, FULL.n_neurons)
    n_appended = max(1, round(size.n * APPENDED_SHARE))
    n_deleted = max(1, round(size.n * DELETED_SHARE))
    set_bytes = (size.n + n_appended) * size.sample_bytes
    with workspace(options, int(1.1 * set_bytes)) as folder:
        url = str(folder / "store")
        fill(url, size, n_appended, n_deleted)
        bench = Bench(url)
        check(bench, size.n + n_appended, n_deleted)
        cases: dict[str, Callable[[], object]] = {
            name: lambda name=name: bench.query(name)  # type: ignore[misc]
            for name in (FIRST, APPENDED, DELETED, AGAIN)
        }
        times = interleave(cases, options.rounds, before=bench.prepare)
    report.table(
        f"Activations read, of a set of {set_bytes / 1e9:.2f} GB in {SEGMENTS} segments and the appended one",
        ("query", "bytes read", "of the set"),
        [(name, f"{n:,}", f"{n / set_bytes:.2%}") for name, n in bench.bytes_read.items()],
    )
    report.timings(
        f"The same queries, {size.n + n_appended:,} samples × {size.n_layers} layers × {size.n_neurons:,} neurons",
        times,
        reference=AGAIN,
        note="A new session each time, opening the store included. Pages of the arrays are in the page cache.",
    )
    share = 100 * bench.bytes_read[APPENDED] / set_bytes
    report.limit("bytes read after appending 1 %, of the set's", "≤", 1.5, share, unit=" %")
    report.limit("bytes read after deleting samples", "≤", 0, bench.bytes_read[DELETED], unit=" B")
    report.limit("second query / first query", "≤", 0.5, ratio(times[APPENDED], times[FIRST]))


def fill(url: str, size: Size, n_appended: int, n_deleted: int) -> None:
    """Write pool@1, pool@2 with 1 % more, pool@3 without the first samples of that, and a profile of some of them."""
    store = nait_store.open(url, create=True)
    build_set(store.location, "pool", size.n, size.n_layers, size.n_neurons, n_segments=SEGMENTS)
    build_set(store.location, "pool", n_appended, size.n_layers, size.n_neurons, seed=1, first=size.n)
    store.sets.delete_samples("pool", ids=[f"s{i:06d}" for i in range(n_deleted)])
    store.profiles.build("math", source="pool@1", limit=64)


class Bench:
    """Puts the kept scores into the state that a query finds, runs it, and counts what it reads."""

    def __init__(self, url: str) -> None:
        self.bytes_read: dict[str, int] = {}
        self._url = url
        store = nait_store.open(url)
        self._target = store.profiles.open("math").target()
        self._appended = store.sets.open("pool@2").segments[-1]
        self._location = store.location

    def prepare(self, name: str) -> None:
        """Make the cache what it is before the query."""
        if name in (FIRST, AGAIN):
            shutil.rmtree(Path(self._url) / "scores", ignore_errors=True)
            return
        nait_store.open(self._url).score("pool@2", "math")
        if name == APPENDED:
            delete_sidecar(self._location, ScoreSidecars.key(self._appended, self._target).key)

    def query(self, name: str) -> dict[str, float]:
        """Run the query in a new session."""
        set_ref = {FIRST: "pool@1", APPENDED: "pool@2", DELETED: "pool@3", AGAIN: "pool@2"}[name]
        n_bytes = 0

        def listen(event: ProgressEvent) -> None:
            nonlocal n_bytes
            n_bytes = max(n_bytes, event.bytes_done) if event.stage == "score" else n_bytes

        store = nait_store.open(self._url, progress=listen)
        with store.session:
            found = dict(store.sql(QUERY, {"set": set_ref}).fetchall())
        if self.bytes_read.setdefault(name, n_bytes) != n_bytes:
            raise SystemExit(f"{name} reads {n_bytes:,} bytes, and read {self.bytes_read[name]:,} before")
        return found


def check(bench: Bench, n: int, n_deleted: int) -> None:
    """Make sure that the kept scores are those that scoring everything gives."""
    found = {}
    for name in (AGAIN, APPENDED, DELETED):
        bench.prepare(name)
        found[name] = bench.query(name)
    if len(found[APPENDED]) != n or len(found[DELETED]) != n - n_deleted:
        raise SystemExit("a query gives another number of samples than the set has")
    for name in (APPENDED, DELETED):
        kept = np.array(list(found[name].values()))
        again = np.array([found[AGAIN][sample_id] for sample_id in found[name]])
        if np.abs(kept - again).max() > 1e-6 * again.std():
            raise SystemExit(f"{name}: kept scores are not those of scoring everything")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples (default {FULL.n:,}, toy {TOY.n:,})")


if __name__ == "__main__":
    run(__doc__, body, packages=("duckdb", "pyarrow", "numba"), add_arguments=_arguments)
