"""Kills pushes and pulls with SIGKILL at every moment, and lets two processes publish the same name at once.

After each kill everybody sees the version whole or not at all, and the next push or pull moves what is missing and
nothing else: its bytes are counted below the library, where files are read and written. In the race two processes
build a profile of one name, each from samples of its own, and push it: into one registry from two stores, and
from one store.

    python -m benchmarks.faults.sharing --points 50 --rounds 50
    python -m benchmarks.faults.sharing --backend s3 --points 50 --rounds 10
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import nait_store
from benchmarks.faults.forks import STARTED, Ended, Fork, Tell, preload, run_forked
from benchmarks.faults.trials import files_of, put_files
from benchmarks.report import Table
from nait_store.errors import ConflictError, NotFoundError
from nait_store.registry.sharing.shared_registry import SharedRegistry
from nait_store.schemas.sharing import Publication
from nait_store.storage.location import Location
from nait_store.testing.faults import kill_at, write_steps
from nait_store.testing.object_store import object_store
from nait_store.testing.stores import build_set

_SIZE = {"n_layers": 4, "n_neurons": 256}


@dataclass
class Tally:
    """What came of the trials of one kind."""

    name: str
    n_steps: int = 0
    n_between: int = 0
    n_at_random: int = 0
    found: Counter[str] = field(default_factory=Counter)
    stories: list[str] = field(default_factory=list)

    def broken(self, what: str, story: str) -> None:
        """Note a broken promise."""
        self.found[what] += 1
        self.stories.append(f"{self.name}: {what}: {story}")


@dataclass(frozen=True)
class Place:
    """Where one trial happens: a store to push from, a store to pull into, and the registry."""

    ours: str
    theirs: str
    registry: str


@dataclass(frozen=True)
class Transfer:
    """A push or a pull that is killed.

    Attributes
    ----------
    name
        For the table.
    watched
        Location whose write steps are counted.
    prepare, run
        Done before, and what is killed.
    arrived
        Digests of the files that the transfer need not move any more.
    """

    name: str
    watched: Callable[[Place], str]
    prepare: Callable[[Place], object]
    run: Callable[[Place], object]
    arrived: Callable[[Place], set[str]]


def build(folder: Path) -> None:
    """Build the store that every trial begins with."""
    store = nait_store.open(str(folder / "template"), create=True)
    build_set(store.location, "gsm8k", 64, mean=np.ones(_SIZE["n_neurons"], np.float32), **_SIZE)
    store.profiles.build("math", source="gsm8k", method="mean")


def push(place: Place) -> None:
    """Publish the profile, with the records of its samples."""
    nait_store.open(place.ours).remotes.push("math", place.registry, reference_samples="full")


def pull(place: Place) -> None:
    """Take it."""
    nait_store.open(place.theirs).remotes.pull("math", place.registry)


def in_registry(place: Place) -> set[str]:
    """Digests of the objects that a killed push left whole."""
    location = Location(place.registry)
    return {_sha256(location.read_bytes(path)) for path, _ in location.walk("objects")}


def in_store(place: Place) -> set[str]:
    """Digests of the files that a killed pull left whole; ``profile.json`` is written last, just before the commit."""
    location = Location(place.theirs)
    if location.is_file("profiles/math/versions/1.json"):
        return {file.sha256 for file in _published(place).objects}
    paths = [
        path for path, _ in location.walk("profiles") if "/payloads/" in path and not path.endswith("profile.json")
    ]
    return {_sha256(location.read_bytes(path)) for path in paths}


PUSH = Transfer("push", lambda place: place.registry, lambda _: None, push, in_registry)
PULL = Transfer("pull", lambda place: place.theirs, push, pull, in_store)


@contextlib.contextmanager
def moved_objects(registry: str) -> Iterator[list[str]]:
    """Digests of the objects of a registry that are read or written whole, seen where files are read and written."""
    moved: list[str] = []
    root = Location(registry).url
    real_read, real_write = Location.read_bytes, Location.write_bytes

    def note(location: Location, path: str) -> None:
        url = location.url_of(path)
        if url.startswith(f"{root}/objects/"):
            moved.append(url.rpartition("/")[2])

    def read_bytes(self: Location, path: str) -> bytes:
        note(self, path)
        return real_read(self, path)

    def write_bytes(self: Location, path: str, data: bytes | memoryview) -> None:
        note(self, path)
        real_write(self, path, data)

    Location.read_bytes, Location.write_bytes = read_bytes, write_bytes  # type: ignore[method-assign]
    try:
        yield moved
    finally:
        Location.read_bytes, Location.write_bytes = real_read, real_write  # type: ignore[method-assign]


def look(place: Place, directions_sha256: str) -> list[str]:
    """Say what is half there: in the registry, for one who has nothing yet, and in the store."""
    wrong = []
    fresh = f"{place.theirs}-fresh"
    nait_store.open(fresh, create=True)
    try:
        profile = nait_store.open(fresh).remotes.pull("math", place.registry).profile
    except NotFoundError as error:
        if SharedRegistry(Location(place.registry)).numbers("math"):
            wrong.append(f"published, and not to be had: {error}")
    else:
        if profile.record.directions_sha256 != directions_sha256 or not np.isfinite(profile.directions()).all():
            wrong.append("published, and not what was pushed")
    shutil.rmtree(fresh)
    store = nait_store.open(place.theirs)
    for name in store.profiles.names():
        store.profiles.open(name).directions()
    wrong += [f"{finding.path}: {finding.problem}" for finding in store.verify().errors]
    return wrong


def examine(transfer: Transfer, place: Place, directions_sha256: str, story: str, tally: Tally) -> None:
    """Look at what a kill left, do the same again, and look again."""

    def work(tell: Tell) -> None:
        tell(look(place, directions_sha256))
        arrived = transfer.arrived(place)
        with moved_objects(place.registry) as moved:
            transfer.run(place)
        wanted = {file.sha256 for file in _published(place).objects} - arrived
        tell([] if sorted(moved) == sorted(wanted) else [f"moved {sorted(moved)}, missing were {sorted(wanted)}"])
        if transfer is PUSH:
            pull(place)
        tell(look(place, directions_sha256))
        profile = nait_store.open(place.theirs).profiles.open("math@1")
        tell([] if profile.record.directions_sha256 == directions_sha256 else ["another profile arrived"])

    ended = run_forked(work)
    if ended.error:
        tally.broken("not finished by the next", f"{story}: {ended.error}")
    promises = ("half there", "moved more or less than the rest", "half there in the end", "wrong")
    for what, told in zip(promises, ended.told, strict=False):
        if told:
            tally.broken(what, f"{story}: {told}")


def kill(transfer: Transfer, place: Place, template: dict[str, bytes], at: int | None, seconds: float | None) -> Ended:
    """Run the transfer, killed right before a write step or after some time."""

    def work(tell: Tell) -> None:
        lay_out(place, template)
        transfer.prepare(place)
        hook = kill_at(-1 if at is None else at)
        with write_steps(transfer.watched(place), before=hook):
            tell(STARTED)
            transfer.run(place)

    return run_forked(work, kill_after_seconds=seconds)


def lay_out(place: Place, template: dict[str, bytes]) -> None:
    """Make the stores of a trial."""
    put_files(place.ours, template)
    nait_store.open(place.theirs, create=True)


def kill_everywhere(transfer: Transfer, root: str, folder: Path, template: dict[str, bytes], points: int) -> Tally:
    """Kill at the write steps, as evenly as ``points`` allows, and at random for the rest."""
    tally = Tally(transfer.name)

    def place_of(trial: object) -> Place:
        stores = folder / f"{transfer.name}-{trial}"
        return Place(str(stores / "ours"), str(stores / "theirs"), f"{root}/{transfer.name}-{trial}")

    def count(tell: Tell) -> None:
        place = place_of("count")
        lay_out(place, template)
        transfer.prepare(place)
        began = time.monotonic()
        with write_steps(transfer.watched(place)) as steps:
            transfer.run(place)
        seconds = time.monotonic() - began
        if transfer is PUSH:
            pull(place)
        profile = nait_store.open(place.theirs).profiles.open("math")
        nait_store.open(place.theirs).verify()
        tell([len(steps), seconds, profile.record.directions_sha256, sorted(sys.modules)])

    n_steps, seconds, directions_sha256, modules = run_forked(count).result
    preload(modules)
    tally.n_steps = n_steps
    n_between = min(n_steps, points)
    for i in range(n_between):
        number = i * n_steps // n_between
        place = place_of(f"step-{number}")
        if not kill(transfer, place, template, number, None).was_killed:
            raise RuntimeError(f"{transfer.name}: step {number} of {n_steps} did not come")
        tally.n_between += 1
        examine(transfer, place, directions_sha256, f"step {number}", tally)
        shutil.rmtree(Path(place.ours).parent)
    moments = random.Random(0)
    for trial in range(20 * points):
        if tally.n_between + tally.n_at_random >= points:
            break
        place = place_of(f"random-{trial}")
        if kill(transfer, place, template, None, moments.uniform(0, seconds)).was_killed:
            tally.n_at_random += 1
            examine(transfer, place, directions_sha256, f"at random, {trial}", tally)
        else:
            seconds *= 0.9  # it was faster: so is the machine by now
        shutil.rmtree(Path(place.ours).parent)
    return tally


def race(root: str, folder: Path, template: dict[str, bytes], rounds: int, *, one_store: bool) -> Tally:
    """Two processes build and push the same name at once, round after round."""
    tally = Tally("race, one store" if one_store else "race, two stores")
    for number in range(rounds):
        trial = folder / f"race-{one_store}-{number}"
        registry = f"{root}/{trial.name}"
        urls = [str(trial / ("store" if one_store else f"store-{i}")) for i in range(2)]
        run_forked(lambda _, urls=urls: [put_files(url, template) for url in dict.fromkeys(urls)])
        start = time.time() + 0.05

        def publish(
            i: int, urls: list[str] = urls, registry: str = registry, start: float = start
        ) -> Callable[[Tell], None]:
            def work(tell: Tell) -> None:
                store = nait_store.open(urls[i])
                while time.time() < start:
                    pass
                profile, _ = store.profiles.build("race", source="gsm8k", method="mean", limit=20 + i)
                try:
                    published = store.remotes.push(profile.reference, registry).published
                except ConflictError:
                    published = ""
                tell([published, profile.record.directions_sha256])

            return work

        ended = [fork.wait() for fork in [Fork(publish(i)) for i in range(2)]]
        tally.n_at_random += 1
        failed = [one.error or "killed" for one in ended if one.error or not one.told]
        if failed:
            tally.broken("neither done nor a conflict", f"round {number}: {failed}")
            continue
        mine = dict(one.told[-1] for one in ended)
        published = {name: digest for name, digest in mine.items() if name}
        _judge_race(published, registry, f"round {number}", one_store=one_store, tally=tally)
        shutil.rmtree(trial)
    return tally


def _publish(tell: Tell, *, url: str, registry: str, limit: int, start: float) -> None:
    store = nait_store.open(url)
    while time.time() < start:  # at the same moment as the other
        pass
    profile, _ = store.profiles.build("race", source="gsm8k", method="mean", limit=limit)
    try:
        published = store.remotes.push(profile.reference, registry).published
    except ConflictError:
        published = ""
    tell([published, profile.record.directions_sha256])


def _judge_race(published: dict[str, str], registry: str, story: str, *, one_store: bool, tally: Tally) -> None:
    """Both versions where numbers differ, else one and a conflict; each whole, and all of one process's making."""
    if len(published) != (2 if one_store else 1):
        tally.broken("neither both nor one clear conflict", f"{story}: {published}")

    def work(tell: Tell) -> None:
        with tempfile.TemporaryDirectory() as fresh:
            store = nait_store.open(fresh, create=True)
            found = {}
            for one in store.remotes.show(registry):
                profile = store.remotes.pull(one.reference, registry).profile
                profile.directions()
                found[one.reference] = profile.record.directions_sha256
            tell(found)

    seen = run_forked(work)
    if seen.error or seen.told[-1] != published:
        tally.broken("mixed", f"{story}: {published} became {seen.error or seen.told[-1]}")


def _published(place: Place) -> Publication:
    found = SharedRegistry(Location(place.registry)).find("math", 1)
    assert found is not None
    return found


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _root(backend: str, folder: Path) -> Iterator[str]:
    if backend == "local":
        yield str(folder / "registries")
        return
    with object_store() as server:
        yield server.new_url()


def main(arguments: list[str] | None = None) -> int:
    """Run the trials, print the table."""
    parser = argparse.ArgumentParser(description="kill -9 pushes and pulls at every moment; races of two pushes")
    parser.add_argument("--backend", choices=("local", "s3"), default="local", help="where the registry is")
    parser.add_argument("--points", type=int, default=50, help="kills of each")
    parser.add_argument("--rounds", type=int, default=50, help="of each race")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nait-sharing-") as name:
        folder = Path(name)
        run_forked(lambda _: build(folder))
        template = files_of(folder / "template")
        with _root(options.backend, folder) as root:
            tallies = [kill_everywhere(each, root, folder, template, options.points) for each in (PUSH, PULL)]
            for one_store in (False, True):
                tallies.append(race(root, folder, template, options.rounds, one_store=one_store))
    columns = ("trial", "registry", "write steps", "kills between them", "at random, or rounds", "broken promises")
    rows = tuple(
        (
            one.name,
            options.backend,
            str(one.n_steps),
            str(one.n_between),
            str(one.n_at_random),
            str(sum(one.found.values())),
        )
        for one in tallies
    )
    print(Table("kill -9 during a push and a pull, and pushes at once", columns, rows).markdown())
    for tally in tallies:
        for story in tally.stories[:20]:
            print(story)
    print(f"\n{time.monotonic() - began:.0f} s")
    return int(any(tally.found for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
