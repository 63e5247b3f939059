"""A compaction killed, and given a full disk, at every one of its write steps.

After each, the store must read as before the compaction or as after it, every sample with the same digest; the old
version must read; verify must find nothing; and the same compaction must then succeed and carry every score over.

    python -m benchmarks.faults.compaction            # every step
    python -m benchmarks.faults.compaction --every 10
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nait_store
from nait_store.activations.changes import Change, Contents
from nait_store.activations.compaction import compact
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.errors import NaitStoreError
from nait_store.schemas.activation_set import Operation
from nait_store.schemas.capture import Feature
from nait_store.scoring.completion import ensure_scores
from nait_store.storage.location import Location
from nait_store.testing.faults import kill_at, no_space_from, write_steps
from nait_store.testing.sample_digests import sample_digests
from nait_store.testing.scores import random_target
from nait_store.testing.stores import build_set

TARGET = random_target(1, layers=(0, 1), n_neurons=8)


def filled(url: str) -> None:
    """Make a store with a set of six segments, two of whose 24 samples are deleted, and its scores."""
    nait_store.open(url, create=True)
    location = Location(url)
    build_set(location, "pool", 12, n_segments=3, features=(Feature.MEAN, Feature.DRIFT))
    build_set(location, "pool", 12, n_segments=3, features=(Feature.MEAN, Feature.DRIFT), first=12)

    def hide(current: SetVersion | None, next_ordinal: int) -> Change:  # noqa: ARG001
        assert current is not None
        hidden = {0: np.array([1]), 4: np.array([0])}
        return Change(Operation.DELETE_SAMPLES, Contents(current.features, current.layers), hidden=hidden)

    version = ActivationSets(location).advance("pool", hide)
    assert version is not None
    ensure_scores(location, version, [TARGET])


def compacted(url: str) -> None:
    """Compact the set."""
    compact(ActivationSets(Location(url)), "pool")


def killed_at(url: str, step: int) -> bool:
    """Compact in a forked process that kills itself right before a step; whether it came to that."""
    child = os.fork()
    if child == 0:
        try:
            with write_steps(url, before=kill_at(step)):
                compacted(url)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def outcome(before_url: str, url: str) -> list[str]:
    """What is wrong with a store after a compaction that may not have ended; nothing, if all is well.

    Parameters
    ----------
    before_url
        The same store as it was before.
    url
        The store; its set is compacted once more.
    """
    problems = []
    before = sample_digests(ActivationSets(Location(before_url)).open("pool"))
    location = Location(url)
    sets = ActivationSets(location)
    if sample_digests(sets.open("pool")) != before:
        problems.append("the latest version has other samples")
    if sample_digests(sets.open("pool@3")) != before:
        problems.append("the version before has other samples")
    problems += [f"verify: {f.path} {f.problem}" for f in nait_store.open(url).verify().errors]
    compacted(url)
    after = sets.open("pool")
    if len(after.refs) != 1 or sample_digests(after) != before:
        problems.append("the second compaction made something else")
    if ensure_scores(location, after, [TARGET]).n_computed:
        problems.append("scores were not carried over")
    return problems


def _full_disk(url: str, step: int) -> bool:
    try:
        with write_steps(url, before=no_space_from(step)):
            compacted(url)
    except NaitStoreError as error:
        if "No space left" not in str(error):
            raise
        return True
    return False


def measure(every: int) -> bool:
    """Do it at every ``every``-th step, print the table, and say whether all went well."""
    cases: dict[str, Callable[[str, int], bool]] = {"kill -9": killed_at, "full disk": _full_disk}
    good = True
    with tempfile.TemporaryDirectory() as folder:
        store, copy = Path(folder, "store"), Path(folder, "copy")
        filled(str(store))
        shutil.copytree(store, copy)
        with write_steps(str(copy)) as steps:
            compacted(str(copy))
        print(f"{len(steps)} write steps\n\n{'':<12}{'points':>8}{'came to it':>12}{'damaged':>9}{'seconds':>9}")
        for name, fault in cases.items():
            began = time.monotonic()
            points = range(0, len(steps), every)
            n_met = n_damaged = 0
            for step in points:
                shutil.rmtree(copy)
                shutil.copytree(store, copy)
                n_met += fault(str(copy), step)
                problems = outcome(str(store), str(copy))
                n_damaged += bool(problems)
                for problem in problems:
                    print(f"{name} at step {step}: {problem}", file=sys.stderr)
            print(f"{name:<12}{len(points):>8}{n_met:>12}{n_damaged:>9}{time.monotonic() - began:>9.0f}")
            good = good and not n_damaged
    return good


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every so many steps")
    return 0 if measure(parser.parse_args().every) else 1


if __name__ == "__main__":
    sys.exit(main())
