from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from nait_store.activations.verify import verify_set
from nait_store.activations.versions import ActivationSets
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

# imports once, then forks before any library has started threads
_COMMITTERS = """
import os, sys, traceback
import numpy as np
import zarr
from nait_store.activations.versions import ActivationSets
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, fake_row

url, n_writers, n_commits = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def commit(writer):
    location = Location(url)
    sets = ActivationSets(location)
    for k in range(n_commits):
        rows = [fake_row(i) for i in (f"w{writer}-{k}", f"shared-{k}")]
        segment = build_segment(location, "pool", rows, {Feature.MEAN: np.ones((2, 1, 4), np.float32)})
        sets.commit("pool", [segment], ingest_ids=())

children = []
for writer in range(n_writers):
    child = os.fork()
    if child == 0:
        try:
            commit(writer)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def test_8_processes_committing_at_once_are_all_visible_exactly_once(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    ActivationSets(location).create(fake_set_record("pool", n_layers=1, n_neurons=4))
    n_writers, n_commits = 8, 5
    subprocess.run(
        [sys.executable, "-c", _COMMITTERS, str(tmp_path), str(n_writers), str(n_commits)], check=True, timeout=300
    )
    sets = ActivationSets(location)
    version = sets.open("pool")
    expected = {f"w{i}-{k}" for i in range(n_writers) for k in range(n_commits)}
    expected |= {f"shared-{k}" for k in range(n_commits)}
    assert sorted(version.sample_ids()) == sorted(expected)
    assert version.number == n_writers * n_commits
    assert [m.number for m in sets.manifests("pool")] == list(range(1, version.number + 1))
    assert verify_set(sets, "pool") == []


def test_threads_committing_at_once_are_all_visible_exactly_once(location: Location) -> None:
    ActivationSets(location).create(fake_set_record("pool", n_layers=1, n_neurons=4))
    barrier = threading.Barrier(6)
    errors: list[BaseException] = []

    def commit(writer: int) -> None:
        try:
            sets = ActivationSets(location)
            barrier.wait()
            for k in range(3):
                rows = [fake_row(f"{writer}-{k}")]
                segment = build_segment(location, "pool", rows, {Feature.MEAN: np.ones((1, 1, 4), np.float32)})
                sets.commit("pool", [segment], ingest_ids=())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=commit, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    ids = ActivationSets(location).open("pool").sample_ids()
    assert sorted(ids) == sorted(f"{i}-{k}" for i in range(6) for k in range(3))


@pytest.mark.parametrize("n_lost", [1, 3])
@pytest.mark.parametrize("brought", ["something else", "the same sample"])
def test_the_loser_of_a_race_rebases_and_leaves_no_tombstone_file(
    location: Location, monkeypatch: pytest.MonkeyPatch, n_lost: int, brought: str
) -> None:
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_layers=1, n_neurons=4))
    array = {Feature.MEAN: np.ones((2, 1, 4), np.float32)}
    sets.commit("pool", [build_segment(location, "pool", [fake_row("a"), fake_row("b")], array)], ingest_ids=())
    mine = build_segment(location, "pool", [fake_row("b"), fake_row("mine")], array)
    # with tombstones of their own, so that those of the lost attempts are rewritten
    samples = [[fake_row("a"), fake_row(f"other {i}")] for i in range(n_lost)]
    if brought == "the same sample":
        samples[0][0] = fake_row("mine")  # the last to commit, so that nothing is left to bring
    others = [build_segment(location, "pool", rows, array) for rows in samples]
    create = Location.create_bytes

    def lose(self: Location, path: str, data: bytes) -> None:
        if "/versions/" in path and others:
            other = others.pop()
            with monkeypatch.context() as patch:
                patch.setattr(Location, "create_bytes", create)
                ActivationSets(location).commit("pool", [other], ingest_ids=())
        create(self, path, data)

    monkeypatch.setattr(Location, "create_bytes", lose)
    version = sets.commit("pool", [mine], ingest_ids=())
    assert version.number == 1 + n_lost + (brought == "something else")
    assert sorted(version.sample_ids()) == sorted(["a", "b", "mine", *(f"other {i}" for i in range(n_lost))])
    referenced = {m.tombstones.path for m in sets.manifests("pool") if m.tombstones}
    assert {f"tombstones/{name}" for name in location.names("activations/pool/tombstones")} == referenced
