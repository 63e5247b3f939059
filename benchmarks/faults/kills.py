"""Kills an ingest with SIGKILL between every pair of write steps and at random moments, and looks at what is left.

The ingest finds an earlier version and adopts what a dead ingest flushed; it writes several segments and a list of
rejects. After each kill a reader opens the store, everything is verified, and the same ingest is run again.

    python -m benchmarks.faults.kills --backend local --points 200 --real-model 10
    python -m benchmarks.faults.kills --backend s3 --points 200
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nait_store
from benchmarks.faults import trials
from benchmarks.faults.forks import Ended, Tell, preload, run_forked
from benchmarks.faults.trials import BASE, EVERYTHING, NEW, Sources
from benchmarks.report import Table
from nait_store.activations.versions import ActivationSets
from nait_store.storage.location import Location
from nait_store.testing.faults import kill_at, write_steps
from nait_store.testing.object_store import object_store

_BROKEN = ("lost", "partial", "unreadable", "duplicates", "captured again")


@dataclass
class Backend:
    """Where the trials run.

    Attributes
    ----------
    name
        ``local`` or ``s3``.
    root
        Folder or URL below which each trial has its store.
    template
        The files that every store begins with.
    sources
        Input of the ingests.
    """

    name: str
    root: str
    template: dict[str, bytes]
    sources: Sources

    def url(self, trial: object) -> str:
        """Where one trial's store is."""
        return f"{self.root}/{trial}"

    def forget(self, trial: object) -> None:
        """Make room: moto looks at every object that it has to list some."""
        if self.name == "local":
            shutil.rmtree(self.url(trial), ignore_errors=True)
        else:
            run_forked(lambda _: Location(self.url(trial)).delete(""))


@dataclass
class Tally:
    """What came of the kills."""

    between: int = 0
    at_random: int = 0
    found: Counter[str] = field(default_factory=Counter)
    stories: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many."""
        return self.between + self.at_random

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return not self.found

    def broken(self, what: str, story: str) -> None:
        """Note a broken promise."""
        self.found[what] += 1
        self.stories.append(f"{what}: {story}")


@contextlib.contextmanager
def backend(name: str, folder: Path) -> Iterator[Backend]:
    """Set up a backend; nothing in this process connects to it."""
    sources = Sources.write(folder)
    trials.build_template(str(folder / "template"), sources)
    template = trials.files_of(folder / "template")
    if name == "local":
        yield Backend(name, str(folder / "stores"), template, sources)
        return
    with object_store() as server:
        yield Backend(name, server.new_url(), template, sources)


def count_steps(where: Backend) -> tuple[int, float]:
    """Write steps of the whole ingest, and the seconds that it takes; imports here what the trials will import."""

    def work(tell: Tell) -> None:
        url = where.url("count")
        trials.put_files(url, where.template)
        with write_steps(url) as steps:
            began = time.monotonic()
            trials.run_ingest(url, where.sources.pool)
            seconds = time.monotonic() - began
        look(url, lambda _: None)
        tell({"steps": len(steps), "seconds": seconds, "modules": sorted(sys.modules)})

    found = run_forked(work).result
    preload(found["modules"])
    where.forget("count")
    return found["steps"], found["seconds"]


def kill_at_step(where: Backend, number: int) -> Ended:
    """Ingest, killed right before a write step."""

    def work(tell: Tell) -> None:
        url = where.url(f"step-{number}")
        trials.put_files(url, where.template)
        with write_steps(url, before=kill_at(number)):
            trials.ingest_and_tell(url, where.sources.pool, tell)

    return run_forked(work)


def kill_at_random(where: Backend, trial: int, seconds: float) -> Ended:
    """Ingest, killed from outside after some time."""

    def work(tell: Tell) -> None:
        url = where.url(f"random-{trial}")
        trials.put_files(url, where.template)
        trials.ingest_and_tell(url, where.sources.pool, tell)

    return run_forked(work, kill_after_seconds=seconds)


def look(url: str, tell: Tell) -> None:
    """Tell what a reader finds after a kill."""
    store = nait_store.open(url)
    sets = ActivationSets(store.location)
    versions = {}
    for number in sets.numbers("pool"):
        version = sets.open(f"pool@{number}")
        assert list(trials.wrong_values(version)) == [], f"pool@{number} has values that nobody measured"
        versions[str(number)] = version.sample_ids()
    acknowledged = {segment: sorted(ids) for segment, ids in trials.acknowledged_segments(store.location).items()}
    tell({"versions": versions, "acknowledged": acknowledged, "errors": trials.verify_errors(url)})


def resume(url: str, source: str, tell: Tell, *, verified: bool) -> None:
    """Run the same ingest again and tell what there is then."""
    _, capture = trials.run_ingest(url, source)
    version = ActivationSets(Location(url)).open("pool")
    wrong = list(trials.wrong_values(version))
    errors = trials.verify_errors(url) if verified else []
    tell({"captured": capture.n_captured, "ids": version.sample_ids(), "wrong": wrong, "errors": errors})


def examine(where: Backend, trial: str, told: list[Any], tally: Tally) -> None:
    """Compare what a kill left, and what the next ingest makes of it, with what must be."""
    url = where.url(trial)

    def work(tell: Tell) -> None:
        look(url, tell)
        resume(url, where.sources.pool, tell, verified=tally.kills % 5 == 0)  # as slow as all the rest

    ended = run_forked(work)
    seen, after = (*ended.told, None, None)[:2]
    if seen is None or seen["errors"]:
        tally.broken("unreadable", f"{trial}: {seen['errors'] if seen else ended.error}")
    if seen is None:
        return
    for number, ids in seen["versions"].items():
        if set(ids) != (set(BASE) if number == "1" else EVERYTHING):
            tally.broken("partial", f"{trial}: pool@{number} has {sorted(ids)}")
        if len(ids) != len(set(ids)):
            tally.broken("duplicates", f"{trial}: pool@{number} has {sorted(ids)}")
    # the process knew, by its own account, that these were safe
    unknown = {message["acknowledged"] for message in told if isinstance(message, dict)} - set(seen["acknowledged"])
    if unknown:
        tally.broken("lost", f"{trial}: acknowledged, and without a flush record: {sorted(unknown)}")
    if after is None or after["errors"] or after["wrong"]:
        tally.broken("unreadable", f"{trial}, resumed: {after or ended.error}")
    if after is None:
        return
    ids = after["ids"]
    if EVERYTHING - set(ids):
        tally.broken("lost", f"{trial}, resumed: {sorted(EVERYTHING - set(ids))} are missing")
    if len(ids) != len(set(ids)) or set(ids) - EVERYTHING:
        tally.broken("duplicates", f"{trial}, resumed: {sorted(ids)}")
    safe = set().union(*seen["acknowledged"].values(), *seen["versions"].values())
    needed = len(set(NEW) - safe) + 1  # and the one that is rejected each time
    if after["captured"] != needed:
        tally.broken("captured again", f"{trial}: {after['captured']} captured where {needed} were missing")


def kill_everywhere(where: Backend, n_points: int, seed: int, tally: Tally) -> int:
    """Kill between write steps, as evenly as ``n_points`` allows, and at random for the rest; returns the steps."""
    n_steps, seconds = count_steps(where)
    n_between = min(n_steps, max(1, 4 * n_points // 5))
    for i in range(n_between):
        number = i * n_steps // n_between
        ended = kill_at_step(where, number)
        if not ended.was_killed:
            raise RuntimeError(f"step {number} of {n_steps} did not come: {ended.error}")
        tally.between += 1
        examine(where, f"step-{number}", ended.told, tally)
        where.forget(f"step-{number}")
    moments = random.Random(seed)
    for trial in range(10 * n_points):
        if tally.kills >= n_points:
            break
        ended = kill_at_random(where, trial, moments.uniform(0, 1.2 * seconds))
        if not ended.was_killed:  # it was faster: so is the machine by now
            seconds *= 0.9
        else:
            tally.at_random += 1
            examine(where, f"random-{trial}", ended.told, tally)
        where.forget(f"random-{trial}")
    return n_steps


def show(rows: list[tuple[str, Tally]]) -> int:
    """Print the table and what was broken; returns the exit code."""
    cells = tuple(
        (name, str(tally.kills), str(tally.between), str(tally.at_random), *(str(tally.found[b]) for b in _BROKEN))
        for name, tally in rows
    )
    columns = ("ingest", "kills", "between write steps", "at random", *_BROKEN)
    print(Table("kill -9 at every moment", columns, cells).markdown())
    for _, tally in rows:
        for story in tally.stories:
            print(f"\n{story}", file=sys.stderr)
    return 0 if all(tally.kept for _, tally in rows) else 1


def main(arguments: list[str] | None = None) -> int:
    """Run the trials, print the table."""
    parser = argparse.ArgumentParser(description="kill -9 an ingest at every moment")
    parser.add_argument("--backend", choices=("local", "s3"), default="local")
    parser.add_argument("--points", type=int, default=200, help="kills of an ingest with a fake capture")
    parser.add_argument("--real-model", type=int, default=0, metavar="N", help="kills of the program with a real model")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="nait-kills-") as folder:
        began = time.monotonic()
        if options.points:
            tally = Tally()
            with backend(options.backend, Path(folder)) as where:
                n_steps = kill_everywhere(where, options.points, options.seed, tally)
            rows.append((f"fake capture, {options.backend}, {n_steps} write steps", tally))
        if options.real_model:
            from benchmarks.faults.real_kills import kill_program

            rows.append(
                ("nait-store ingest, a real model", kill_program(Path(folder), options.real_model, options.seed))
            )
    code = show(rows)
    print(f"\n{time.monotonic() - began:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
