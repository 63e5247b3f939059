"""How a set with a long history opens: 10,000 versions, 2,000 segments.

Every fifth version appends a segment of its own, the others delete a sample, as a team's set would grow over years.
The documents are made by the code that commits them, and written without waiting for the disk.

    python -m benchmarks.faults.many_versions --versions 10000 --segments 2000
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nait_store
from nait_store.activations.changes import Change, Contents, manifest_of
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.schemas.activation_set import Operation, SegmentRef
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

ROWS_PER_SEGMENT = 8
OPENING_SECONDS = 1.0
MANIFEST_BYTES = 100e6
_OPEN = "import sys, nait_store; v = nait_store.open(sys.argv[1]).sets.open('pool'); print(v.n_samples, v.features)"


def build_history(location: Location, n_versions: int, n_segments: int) -> None:
    """Commit ``n_versions`` versions of the set ``pool``, of which ``n_segments`` append a segment."""
    sets = ActivationSets(location)
    record = sets.create(fake_set_record("pool", n_layers=1, n_neurons=4))
    contents = Contents((Feature.MEAN,), (0,))
    activations = np.ones((ROWS_PER_SEGMENT, 1, 4), np.float32)
    every = n_versions // n_segments
    current: SetVersion | None = None
    n_appended = 0
    for number in range(1, n_versions + 1):
        if (number - 1) % every == 0 and n_appended < n_segments:
            rows = [fake_row(f"s{n_appended * ROWS_PER_SEGMENT + i}") for i in range(ROWS_PER_SEGMENT)]
            segment = build_segment(location, "pool", rows, {Feature.MEAN: activations})
            ref = SegmentRef(
                segment_id=segment.segment_id,
                ordinal=n_appended,
                n_rows=ROWS_PER_SEGMENT,
                record_sha256=segment.digest(),
            )
            change = Change(Operation.INGEST, contents, message="nightly", added=(ref,))
            n_appended += 1
        else:
            ordinal, row = divmod((number * 7919) % (n_appended * ROWS_PER_SEGMENT), ROWS_PER_SEGMENT)
            hidden = {ordinal: np.array([row], np.int64)}
            change = Change(Operation.DELETE_SAMPLES, contents, details={"n_deleted": 1}, hidden=hidden)
        manifest = manifest_of(location, "pool", current, number, n_appended, change)
        sets.log.commit("pool", number, manifest)
        refs = (*(current.refs if current else ()), *change.added)
        current = SetVersion(location, record, manifest, refs)


def seconds_of(work: Callable[[], object], rounds: int) -> list[float]:
    """Wall-clock seconds of each of some runs."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return taken


def measure(folder: Path, n_versions: int, n_segments: int, rounds: int) -> bool:
    """Build the history, print the table, and say whether the promises hold."""
    url = str(folder / "store")
    nait_store.open(url, create=True)
    began = time.perf_counter()
    build_history(Location(url), n_versions, n_segments)
    print(f"{n_versions:,} versions, {n_segments:,} segments, built in {time.perf_counter() - began:.0f} s\n")
    versions = folder / "store" / "activations" / "pool"
    n_bytes = sum(path.stat().st_size for path in (versions / "versions").iterdir())
    tombstone_folder = versions / "tombstones"
    n_tombstone_bytes = sum(p.stat().st_size for p in tombstone_folder.iterdir()) if tombstone_folder.exists() else 0

    def opened() -> object:
        version = nait_store.open(url).sets.open("pool")
        return version.n_samples, version.features, version.layers

    store = nait_store.open(url)
    rows = {
        "open the store and the latest version": seconds_of(opened, rounds),
        "the same in a new process, Python's start included": seconds_of(
            lambda: subprocess.run([sys.executable, "-c", _OPEN, url], check=True, capture_output=True), rounds
        ),
        "open version 1,234 of the set": seconds_of(lambda: store.sets.open(f"pool@{min(1234, n_versions)}"), rounds),
        "first SQL: count the samples": seconds_of(lambda: _count(url), 1),
        "the same with the catalog there, new session": seconds_of(lambda: _count(url), rounds),
    }
    print(f"{'':<52}  {'median s':>9}  {'slowest s':>9}")
    for name, taken in rows.items():
        print(f"{name:<52}  {statistics.median(taken):9.3f}  {max(taken):9.3f}")
    print(f"\nmanifests together: {n_bytes / 1e6:.1f} MB; tombstone files: {n_tombstone_bytes / 1e6:.1f} MB")
    fast = statistics.median(rows["open the store and the latest version"]) <= OPENING_SECONDS
    small = n_bytes <= MANIFEST_BYTES
    print(f"opens in ≤ {OPENING_SECONDS:.0f} s: {_yes(fast)}; manifests ≤ 100 MB: {_yes(small)}")
    return small


def _yes(kept: bool) -> str:
    return "yes" if kept else "NO"


def _count(url: str) -> object:
    return nait_store.open(url).sql("SELECT count(*) FROM samples('pool')").fetchone()


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 1 where the manifests are larger than promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--segments", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nait-store-versions-") as folder:
        return 0 if measure(Path(folder), options.versions, options.segments, options.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
