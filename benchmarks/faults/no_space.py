"""Lets the disk be full from every write step of every operation on, and looks at what the operation makes of it.

It must say so in words, with exit code 10; the store must verify and read as before, full as the disk is; and with
space again the same operation must complete.

    python -m benchmarks.faults.no_space
    python -m benchmarks.faults.no_space --backend s3 --points 10
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import nait_store
from benchmarks.faults import trials
from benchmarks.faults.forks import Tell, preload, run_forked
from benchmarks.faults.kills import Backend, backend
from benchmarks.faults.trials import BASE, DEAD, EVERYTHING
from benchmarks.report import Table
from nait_store.activations.versions import ActivationSets
from nait_store.errors import NaitStoreError
from nait_store.storage.location import Location
from nait_store.testing.faults import no_space_from, write_steps

_WORDS = ("No space left", "StorageFull")


@dataclass(frozen=True)
class Operation:
    """Something that writes.

    Attributes
    ----------
    name
        As in the table.
    prepare
        Given the store's URL and the trials' sources, makes what it needs, with space.
    run
        Does it.
    expected
        Samples of the latest version when it is done.
    """

    name: str
    prepare: Callable[[str, trials.Sources], object]
    run: Callable[[str, trials.Sources], object]
    expected: frozenset[str]


@dataclass
class Tally:
    """What came of it."""

    steps: int = 0
    trials: int = 0
    clear: int = 0
    unaffected: int = 0
    sound: int = 0
    resumed: int = 0
    stories: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return self.clear + self.unaffected == self.sound == self.resumed == self.trials and self.clear > 0


def _adopt(url: str, sources: trials.Sources) -> None:
    trials.run_ingest(url, sources.base)  # nothing new in it: what the dead ingest flushed is committed


def _profile(url: str, sources: trials.Sources) -> None:
    trials.run_ingest(url, sources.pool)
    nait_store.open(url).profiles.build("math", source="pool")


def _many_segments(url: str, sources: trials.Sources) -> None:
    trials.run_ingest(url, sources.pool)
    nait_store.open(url).score("pool", *_build_if_new(url))
    nait_store.open(url).sets.delete_samples("pool", ids=[BASE[0]])


def _build_if_new(url: str) -> list[str]:
    nait_store.open(url).profiles.build("math", source="pool")
    return ["math"]


def _garbage(url: str, sources: trials.Sources) -> None:
    _many_segments(url, sources)
    sets = nait_store.open(url).sets
    sets.compact("pool")
    for number in (1, 2):
        sets.delete(f"pool@{number}", reason="superseded", force=True)


def _delete(url: str, _: trials.Sources) -> None:
    sets = nait_store.open(url).sets
    sets.delete_samples("pool", ids=[BASE[0]], ignore_missing=True)


OPERATIONS = (
    Operation("ingest", lambda *_: None, lambda u, s: trials.run_ingest(u, s.pool), EVERYTHING),
    Operation("commit", lambda *_: None, _adopt, frozenset({*BASE, *DEAD})),
    Operation("score", _profile, lambda u, _: nait_store.open(u).score("pool", "math"), EVERYTHING),
    Operation("compact", _many_segments, lambda u, _: nait_store.open(u).sets.compact("pool"), EVERYTHING - {BASE[0]}),
    Operation("gc", _garbage, lambda u, _: nait_store.open(u).gc(grace=timedelta()), EVERYTHING - {BASE[0]}),
    Operation("delete-samples", lambda u, s: trials.run_ingest(u, s.pool), _delete, EVERYTHING - {BASE[0]}),
)


def starve(where: Backend, operation: Operation, n_points: int | None) -> Tally:
    """Try one operation with every write step, or ``n_points`` of them, as the first that finds the disk full."""
    template = _template(where, operation)
    tally = Tally()

    def count(tell: Tell) -> None:
        url = where.url(f"{operation.name}-count")
        trials.put_files(url, template)
        with write_steps(url) as steps:
            operation.run(url, where.sources)
        _samples(url)
        trials.verify_errors(url)
        tell({"steps": [step.number for step in steps if step.takes_space], "modules": sorted(sys.modules)})

    found = run_forked(count).result
    preload(found["modules"])
    numbers = found["steps"]
    tally.steps = len(numbers)
    if n_points is not None and n_points < len(numbers):
        numbers = [numbers[i * len(numbers) // n_points] for i in range(n_points)]
    for number in numbers:
        _try(where, operation, template, number, tally)
    return tally


def _try(where: Backend, operation: Operation, template: dict[str, bytes], number: int, tally: Tally) -> None:
    name = f"{operation.name}-{number}"
    url = where.url(name)

    def work(tell: Tell) -> None:
        trials.put_files(url, template)
        before = _samples(url)
        failed: Exception | None = None
        with write_steps(url, before=no_space_from(number)):
            try:
                operation.run(url, where.sources)
            except Exception as error:
                failed = error
            while_full = _samples(url)
        tell({"error": _describe(failed), "clear": _is_clear(failed)})
        errors = trials.verify_errors(url)
        sound = not errors and all(while_full.get(version) == ids for version, ids in before.items() if _stays(version))
        tell({"sound": sound, "errors": errors, "before": before, "after": while_full})
        operation.run(url, where.sources)
        latest = _samples(url)
        newest = latest[max(latest, key=int)]
        tell({"resumed": newest == sorted(operation.expected) and not trials.verify_errors(url), "latest": latest})

    def _stays(version: str) -> bool:
        return operation.name != "gc" or version not in ("1", "2")

    ended = run_forked(work)
    where.forget(name)
    told: dict[str, Any] = {key: value for message in ended.told for key, value in message.items()}
    tally.trials += 1
    tally.unaffected += "error" in told and told["error"] == ""
    tally.clear += bool(told.get("clear"))
    tally.sound += bool(told.get("sound"))
    tally.resumed += bool(told.get("resumed"))
    if ended.error or not (told["sound"] and told["resumed"] and (told["clear"] or not told["error"])):
        tally.stories.append(f"{name}: {told} {ended.error}")


def _template(where: Backend, operation: Operation) -> dict[str, bytes]:
    """Files of the store that an operation begins with, made on the local disk."""
    with tempfile.TemporaryDirectory(prefix="nait-no-space-") as folder:
        url = str(Path(folder) / "store")

        def prepare(tell: Tell) -> None:
            trials.put_files(url, where.template)
            operation.prepare(url, where.sources)
            tell({"modules": sorted(sys.modules)})

        preload(run_forked(prepare).result["modules"])
        files = trials.files_of(Path(url))
    return {path: data for path, data in files.items() if not path.startswith("catalog.")}


def _samples(url: str) -> dict[str, list[str]]:
    sets = ActivationSets(Location(url))
    return {str(number): sorted(sets.open(f"pool@{number}").sample_ids()) for number in sets.numbers("pool")}


def _describe(error: Exception | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {error}"


def _is_clear(error: Exception | None) -> bool:
    return (
        isinstance(error, NaitStoreError)
        and error.exit_code == 10
        and any(word in error.what for word in _WORDS)
        and "space" in (error.next_step or "")
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the trials, print the table."""
    parser = argparse.ArgumentParser(description="a full disk at every write step")
    parser.add_argument("--backend", choices=("local", "s3"), default="local")
    parser.add_argument("--points", type=int, help="steps of each operation to try; all if omitted")
    parser.add_argument("--operations", default="", help="separated by commas; all if omitted")
    options = parser.parse_args(arguments)
    chosen = [o for o in OPERATIONS if not options.operations or o.name in options.operations.split(",")]
    rows: list[tuple[str, Tally]] = []
    with tempfile.TemporaryDirectory(prefix="nait-no-space-") as folder:
        os.environ["NAIT_STORE_CACHE"] = f"{folder}/cache"
        with backend(options.backend, Path(folder)) as where:
            for operation in chosen:
                rows.append((operation.name, starve(where, operation, options.points)))
                print(f"{rows[-1][0]}: {'kept' if rows[-1][1].kept else 'BROKEN'}", file=sys.stderr)
    cells = tuple(
        (name, *(str(n) for n in (t.steps, t.trials, t.clear, t.unaffected, t.sound, t.resumed))) for name, t in rows
    )
    columns = ("operation", "steps", "tried", "clear errors", "went on without", "sound stores", "resumed")
    print(Table(f"A full disk at every write step ({options.backend})", columns, cells).markdown())
    for _, tally in rows:
        for story in tally.stories:
            print(f"\n{story}", file=sys.stderr)
    return 0 if all(tally.kept for _, tally in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
