"""Many processes append to one set at once, while others read it with SQL.

Each append is an ingest of its own: one sample that nobody else has, and one that all of them bring. Each reader asks
again and again for the number of rows and of distinct samples, which must be those of one version, and never fewer.

    python -m benchmarks.faults.appends --backend local --processes 8 --appends 25
    python -m benchmarks.faults.appends --backend s3 --processes 8 --appends 25
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nait_store
from benchmarks.faults.forks import Fork, Tell, preload, run_forked
from benchmarks.json_lines import write_json_lines
from benchmarks.report import Table
from nait_store.activations.versions import ActivationSets
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import IngestRequest
from nait_store.storage.location import Location
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.object_store import object_store

SHARED = "shared"
_QUERY = "SELECT count(*), count(DISTINCT sample_id) FROM samples('pool')"


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes
    ----------
    visible, duplicates
        Of the appends' own samples in the last version.
    errors
        Of appends that failed.
    reads, read_errors
        Answers that readers got, and those that were errors or of no single version.
    stories
        What was wrong, in words.
    seconds
        From the first append to the last.
    """

    visible: int
    duplicates: int
    errors: int
    reads: int
    read_errors: int
    stories: tuple[str, ...]
    seconds: float


def append_many(url: str, folder: str, process: int, n_appends: int, tell: Tell) -> None:
    """Run one process's ingests."""
    for i in range(n_appends):
        source = Path(folder, f"{process}-{i}.jsonl")
        records = [{"id": sample, "instruction": f"do {sample}", "output": "x"} for sample in (own(process, i), SHARED)]
        write_json_lines(source, records)
        ingest(Location(url), FakeCapture(n_model_layers=1), IngestRequest((str(source),), "pool", id_field="id"))
    tell("done")


def own(process: int, i: int) -> str:
    """The sample of one append."""
    return f"p{process}-{i}"


def read_many(url: str, stop: str, tell: Tell) -> None:
    """Ask until told to stop."""
    store = nait_store.open(url)
    answers: list[list[int]] = []
    errors: list[str] = []
    while not Path(stop).exists() or not answers:
        try:
            ((rows, distinct),) = store.sql(_QUERY).fetchall()
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
        else:
            answers.append([rows, distinct])
        time.sleep(0.02)  # or readers alone would keep a small machine busy
    tell({"answers": answers, "errors": errors})


def run_appends(url: str, folder: Path, *, n_processes: int, n_appends: int, n_readers: int) -> Outcome:
    """Append and read at once, then count; every process is forked from this one."""

    def begin(tell: Tell) -> None:
        nait_store.open(url, create=True)
        append_many(url, str(folder), -1, 1, tell)
        read_many(url, str(folder), tell)  # a folder that exists: one answer
        tell({"modules": sorted(sys.modules)})

    preload(run_forked(begin).result["modules"])
    stop = folder / "stop"
    readers = [Fork(lambda tell: read_many(url, str(stop), tell)) for _ in range(n_readers)]
    began = time.monotonic()
    writers = [
        Fork(lambda tell, process=process: append_many(url, str(folder), process, n_appends, tell))  # type: ignore[misc]
        for process in range(n_processes)
    ]
    ended = [writer.wait() for writer in writers]
    seconds = time.monotonic() - began
    stop.touch()
    read = [reader.wait() for reader in readers]

    def count(tell: Tell) -> None:
        sets = ActivationSets(Location(url))
        tell([sets.open("pool").sample_ids(), [manifest.n_samples for manifest in sets.manifests("pool")]])

    ids, sizes = run_forked(count).result
    seen = Counter(ids)
    wanted = [own(process, i) for process in range(n_processes) for i in range(n_appends)]
    stories = [one.error for one in ended if one.error]
    n_reads = n_wrong = 0
    for one in read:
        told: dict[str, Any] = one.told[-1] if one.told else {"answers": [], "errors": [one.error]}
        wrong = list(told["errors"]) + _inconsistencies(told["answers"], set(sizes))
        n_reads += len(told["answers"]) + len(told["errors"])
        n_wrong += len(wrong)
        stories += wrong
    return Outcome(
        visible=sum(seen[sample] == 1 for sample in wanted),
        duplicates=sum(n - 1 for n in seen.values()),
        errors=sum(bool(one.error) for one in ended),
        reads=n_reads,
        read_errors=n_wrong,
        stories=tuple(stories),
        seconds=seconds,
    )


def _inconsistencies(answers: list[list[int]], sizes: set[int]) -> list[str]:
    wrong = []
    last = 0
    for rows, distinct in answers:
        if rows != distinct or rows not in sizes or rows < last:
            wrong.append(f"a reader saw {rows} rows of {distinct} samples after {last} rows")
        last = max(last, rows)
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Run it, print the table."""
    parser = argparse.ArgumentParser(description="append to one set from many processes")
    parser.add_argument("--backend", choices=("local", "s3"), default="local")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--appends", type=int, default=25, help="by each process")
    parser.add_argument("--readers", type=int, default=2, help="processes that query meanwhile")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nait-appends-")))
        os.environ["NAIT_STORE_CACHE"] = str(folder / "cache")
        server = stack.enter_context(object_store()) if options.backend == "s3" else None
        url = server.new_url() if server else str(folder / "store")
        found = run_appends(
            url, folder, n_processes=options.processes, n_appends=options.appends, n_readers=options.readers
        )
    n_appends = options.processes * options.appends
    row = (
        f"{options.processes} × {options.appends}, {options.backend}",
        f"{found.visible}/{n_appends}",
        *(str(n) for n in (found.duplicates, found.errors, found.reads, found.read_errors)),
        f"{found.seconds:.0f}",
    )
    columns = ("appends", "visible", "duplicates", "failed", "reads", "read errors", "seconds")
    print(Table("Concurrent appends to one set, with readers", columns, (row,)).markdown())
    for story in found.stories:
        print(f"\n{story}", file=sys.stderr)
    kept = found.visible == n_appends and not (found.duplicates or found.errors or found.read_errors)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
