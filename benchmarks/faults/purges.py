"""Kills a purge and a repair with SIGKILL between every pair of write steps, and looks at what is left.

The store has a set in three versions, one of them deleted, what a dead ingest flushed, lists of rejects, scores, a
profile and a selection. After each kill a reader reads every version and everything is verified; then the same command
is run again, and has to finish the work.

    python -m benchmarks.faults.purges --backend local
    python -m benchmarks.faults.purges --backend s3 --points 60
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import nait_store
from benchmarks.faults.forks import Tell, preload, run_forked
from benchmarks.faults.trials import files_of, put_files
from benchmarks.json_lines import write_json_lines
from benchmarks.report import Table
from nait_store.activations.versions import ActivationSets
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import FlushPolicy, IngestRequest
from nait_store.schemas.capture import Feature
from nait_store.schemas.selection import SELECTION_SCHEMA
from nait_store.selection.choosing import Selection
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.strategies import parse_profiles
from nait_store.storage.location import Location
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.faults import kill_at, write_steps
from nait_store.testing.object_store import object_store

GONE = ("gone-1", "gone-5", "gone-9")
ROTTEN = ("r0", "gone-1", "r2", "r3")
VERSIONS = {1: range(4), 2: range(8), 3: range(8)}
"""Version → numbers of the records whose samples it has."""


class _StoppedError(Exception):
    pass


@dataclass
class Tally:
    """What came of the kills of one command."""

    n_steps: int = 0
    n_kills: int = 0
    found: Counter[str] = field(default_factory=Counter)
    stories: list[str] = field(default_factory=list)

    def broken(self, what: str, story: str) -> None:
        """Note a broken promise."""
        self.found[what] += 1
        self.stories.append(f"{what}: {story}")


@dataclass(frozen=True)
class Command:
    """A command to be killed.

    Attributes
    ----------
    name
        For the table.
    prepare
        Changes a fresh store before it.
    run
        The command.
    gone
        Samples that nobody may see once it is done.
    """

    name: str
    prepare: Callable[[Location], None]
    run: Callable[[nait_store.Store], object]
    gone: frozenset[str]


def build(folder: Path) -> None:
    """Build the store that every trial begins with."""
    store = nait_store.open(str(folder / "store"), create=True)
    for name, numbers in (("a", range(4)), ("b", range(4, 8)), ("c", range(8, 12))):
        _write(folder / f"{name}.jsonl", numbers)
    _ingest(store.location, folder / "a.jsonl")
    _ingest(store.location, folder / "b.jsonl")
    store.profiles.build("math", source="pool@1", method="mean")
    store.score("pool", "math")
    store.sets.delete_samples("pool", ids=["r7"])
    store.sets.versions.log.delete("pool", 2)
    ids = ["r0", "gone-1", "r4", "gone-5"]
    rows = pa.table({"rank": [1, 2, 3, 4], "sample_id": ids, "score": [1.0] * 4}, schema=SELECTION_SCHEMA)
    selection = Selection(rows, SelectionRequest("pool@1", parse_profiles("math@1"), top=4), 8, "SELECT 1")
    store.selections.save("best", selection)
    with mock.patch.object(ActivationSets, "commit", side_effect=_StoppedError), contextlib.suppress(_StoppedError):
        _ingest(store.location, folder / "c.jsonl")
    (folder / "store" / "catalog.duckdb").unlink(missing_ok=True)


def _write(path: Path, numbers: range) -> None:
    records = []
    for i in numbers:
        sample_id = f"gone-{i}" if f"gone-{i}" in GONE else f"r{i}"
        records.append({"id": sample_id, "instruction": f"about {sample_id}", "output": str(i)})
        if sample_id in GONE:
            records.append({"id": sample_id, "instruction": "<empty>", "output": f"about {sample_id}"})
    write_json_lines(path, records)


def _ingest(location: Location, source: Path) -> None:
    request = IngestRequest((str(source),), "pool", id_field="id", on_error="skip", flush=FlushPolicy(rows=4))
    ingest(location, FakeCapture(batch_samples=4), request)


def _rot(location: Location) -> None:
    """Damage a chunk of the segment that holds ROTTEN, its norms, and a document."""
    sets = ActivationSets(location)
    segment = next(s for s in sets.open("pool").segments if "r0" in s.samples(["sample_id"]).column(0).to_pylist())
    folder = f"activations/pool/segments/{segment.segment_id}"
    for path in (f"{folder}/data.zarr/mean/c/0/1/0", f"{folder}/data.zarr/mean_norms/c/0/0"):
        data = bytearray(location.read_bytes(path))
        for at in (3, 9, 14):
            data[at] ^= 1
        location.write_bytes(path, bytes(data))
    document = bytearray(location.read_bytes("activations/pool/versions/1.json"))
    document[300] ^= 4
    location.write_bytes("activations/pool/versions/1.json", bytes(document))


def _repair(store: nait_store.Store, rejects: str) -> None:
    store.repair(rejects=rejects)


def holders(location: Location) -> list[str]:
    """Files that name a purged sample, Parquet decompressed."""
    found = []
    for file in [*location.files(), *location.leftovers()]:
        data = location.read_bytes(file.path)
        if file.path.endswith(".parquet"):
            data += str(pq.ParquetFile(io.BytesIO(data)).read().to_pydict()).encode()
        if any(sample_id.encode() in data for sample_id in GONE):
            found.append(file.path)
    return found


def look(url: str, gone: frozenset[str], *, done: bool) -> list[str]:
    """Read every version, and say what is wrong with it."""
    store = nait_store.open(url)
    sets = store.sets.versions
    capture = FakeCapture()
    wrong = []
    for number in sets.log.listing("pool").documents:
        version = sets.version("pool", number)
        ids = version.sample_ids()
        numbers = VERSIONS.get(number, range(8))
        every = {f"gone-{i}" if f"gone-{i}" in GONE else f"r{i}" for i in numbers}
        every -= {"r7"} if number >= 3 else set()
        seen = set(ids)
        if len(ids) != len(seen) or version.n_samples != len(ids):
            wrong.append(f"pool@{number} counts {version.n_samples} of {sorted(ids)}")
        if not every - gone <= seen <= every or (done and seen != every - gone):
            wrong.append(f"pool@{number} has {sorted(seen)}")
        for segment in version.segments:
            mask = version.visible_rows(segment)
            for row, sample_id in enumerate(segment.samples(["sample_id"]).column(0).to_pylist()):
                if (mask is not None and not mask[row]) or sample_id in gone:
                    continue
                stored = segment.read(Feature.MEAN, slice(row, row + 1))[0]
                expected = np.stack([capture.vector(sample_id, Feature.MEAN, layer) for layer in capture.layers])
                if not np.array_equal(stored, expected.astype(stored.dtype)):
                    wrong.append(f"pool@{number} has other numbers for {sample_id}")
    return wrong


def trial(url: str, template: dict[str, bytes], command: Command, number: int, tally: Tally) -> bool:
    """Kill the command right before a write step; False where it has fewer steps."""

    def kill(tell: Tell) -> None:
        put_files(url, template)
        command.prepare(Location(url))
        with write_steps(url, before=kill_at(number)) as steps:
            command.run(nait_store.open(url))
        tell({"steps": len(steps)})

    def examine(tell: Tell) -> None:
        verified = command.name == "purge"
        tell(look(url, command.gone, done=False) if verified else [])
        tell([f"{f.path}: {f.problem}" for f in nait_store.open(url).verify().errors] if verified else [])
        command.run(nait_store.open(url))
        tell(look(url, command.gone, done=True))
        tell([f"{f.path}: {f.problem}" for f in nait_store.open(url).verify().errors])
        tell(holders(Location(url)) if command.name == "purge" else [])

    ended = run_forked(kill)
    if not ended.was_killed:
        if ended.error:
            tally.broken("the command failed", ended.error)
        return False
    tally.n_kills += 1
    seen = run_forked(examine)
    if seen.error:
        tally.broken("unreadable, or not finished", f"step {number}: {seen.error}")
    what = (
        "wrong after the kill",
        "damaged after the kill",
        "wrong in the end",
        "damaged in the end",
        "left in the end",
    )
    for problem, told in zip(what, seen.told, strict=False):
        if told:
            tally.broken(problem, f"step {number}: {told}")
    return True


def kill_everywhere(root: str, template: dict[str, bytes], command: Command, points: int) -> Tally:
    """Kill the command at its write steps, at most ``points`` of them evenly spread (0: at all)."""
    tally = Tally()
    url = f"{root}/{command.name}"

    def count(tell: Tell) -> None:
        put_files(f"{url}-count", template)
        command.prepare(Location(f"{url}-count"))
        with write_steps(f"{url}-count") as steps:
            command.run(nait_store.open(f"{url}-count"))
        wrong = look(f"{url}-count", command.gone, done=True)
        nait_store.open(f"{url}-count").verify()
        tell({"steps": len(steps), "modules": sorted(sys.modules), "wrong": wrong})

    counted: Any = run_forked(count).result
    preload(counted["modules"])
    if counted["wrong"]:
        tally.broken("wrong without any kill", str(counted["wrong"]))
    tally.n_steps = counted["steps"]
    every = max(1, tally.n_steps // points) if points else 1
    for number in range(0, tally.n_steps, every):
        where = f"{url}-{number}"
        if not trial(where, template, command, number, tally):
            break
        if "://" not in where:
            shutil.rmtree(where, ignore_errors=True)
    return tally


@contextlib.contextmanager
def _root(backend: str, folder: Path) -> Iterator[str]:
    if backend == "local":
        yield str(folder / "stores")
        return
    with object_store() as server:
        yield server.new_url()


def main(arguments: list[str] | None = None) -> int:
    """Run the trials, print the table."""
    parser = argparse.ArgumentParser(description="kill -9 a purge and a repair at every write step")
    parser.add_argument("--backend", choices=("local", "s3"), default="local")
    parser.add_argument("--points", type=int, default=0, help="kills of each command; 0: at every write step")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nait-purges-") as name:
        folder = Path(name)
        run_forked(lambda _: build(folder))
        template = files_of(folder / "store")
        commands = (
            Command(
                "purge", lambda _: None, lambda store: store.purge("pool", ids=GONE, reason="asked"), frozenset(GONE)
            ),
            Command("repair", _rot, partial(_repair, rejects=str(folder / "rejects.jsonl")), frozenset(ROTTEN)),
        )
        with _root(options.backend, folder) as root:
            tallies = {c.name: kill_everywhere(root, template, c, options.points) for c in commands}
    columns = ("command", "backend", "write steps", "kills", "broken promises")
    rows = tuple(
        (name, options.backend, str(tally.n_steps), str(tally.n_kills), str(sum(tally.found.values())))
        for name, tally in tallies.items()
    )
    print(Table("kill -9 during a purge and a repair", columns, rows).markdown())
    for tally in tallies.values():
        for story in tally.stories[:20]:
            print(story)
    print(f"\n{time.monotonic() - began:.0f} s")
    return int(any(tally.found for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
