"""Appends, deletions and restores at once: every version is what its own record says it did to the one before."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from nait_store.activations.history import delete_samples, doomed_by_ids, restore
from nait_store.activations.verify import verify_set
from nait_store.activations.versions import ActivationSets
from nait_store.schemas.activation_set import Operation
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, build_set, fake_row

N_WRITERS, N_CHANGES, N_FIRST = 3, 4, 40

# imports once, then forks before any library has started threads
_WRITERS = """
import os, sys, traceback
import numpy as np
import zarr
from nait_store.activations.history import delete_samples, doomed_by_ids, restore
from nait_store.activations.versions import ActivationSets
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, fake_row

url, n_writers, n_changes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def append(sets, writer, k):
    rows = [fake_row(f"w{writer}-{k}")]
    segment = build_segment(sets.location, "pool", rows, {Feature.MEAN: np.ones((1, 2, 8), np.float32)})
    sets.commit("pool", [segment], ingest_ids=())

def delete(sets, writer, k):
    doomed, _ = doomed_by_ids(sets, sets.open("pool"), [f"s{writer * n_changes + k:06d}"])
    delete_samples(sets, doomed, details={"doomed": f"s{writer * n_changes + k:06d}"}, message="", allow_empty=False)

def again(sets, writer, k):
    restore(sets, "pool", 1 + (writer + k) % 2, message="")

def run(kind, writer):
    for k in range(n_changes):
        kind(ActivationSets(Location(url)), writer, k)

children = []
for kind in [globals()[name] for name in sys.argv[4:]]:
    for writer in range(n_writers):
        child = os.fork()
        if child == 0:
            try:
                run(kind, writer)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def run_writers(url: Path, *kinds: str) -> ActivationSets:
    location = Location(str(url))
    build_set(location, "pool", N_FIRST, first=0)
    build_set(location, "pool", 2, first=900, seed=2)
    subprocess.run(
        [sys.executable, "-c", _WRITERS, str(url), str(N_WRITERS), str(N_CHANGES), *kinds], check=True, timeout=400
    )
    return ActivationSets(location)


def test_processes_that_append_and_delete_all_have_their_way(tmp_path: Path) -> None:
    sets = run_writers(tmp_path, "append", "delete")
    expected = {f"s{i:06d}" for i in (*range(N_WRITERS * N_CHANGES, N_FIRST), 900, 901)}
    expected |= {f"w{writer}-{k}" for writer in range(N_WRITERS) for k in range(N_CHANGES)}
    version = sets.open("pool")
    assert sorted(version.sample_ids()) == sorted(expected)
    assert version.number == 2 + 2 * N_WRITERS * N_CHANGES
    assert verify_set(sets, "pool") == []


def test_every_version_is_what_its_record_says_it_did_to_the_one_before(tmp_path: Path) -> None:
    sets = run_writers(tmp_path, "append", "delete", "again")
    contents = {1: set(sets.open("pool@1").sample_ids()), 2: set(sets.open("pool@2").sample_ids())}
    manifests = sets.manifests("pool")
    for manifest in manifests[2:]:
        number, before = manifest.number, contents[manifest.number - 1]
        ids = sets.open(f"pool@{number}").sample_ids()
        contents[number] = set(ids)
        assert manifest.parent == number - 1
        assert len(ids) == len(contents[number]) == manifest.n_samples
        if manifest.operation is Operation.INGEST:
            assert len(contents[number] - before) == 1
            assert before < contents[number]
        elif manifest.operation is Operation.DELETE_SAMPLES:
            assert before - contents[number] == {manifest.details["doomed"]}
            assert contents[number] < before
        else:
            assert contents[number] == contents[manifest.details["restored"]]
    operations = [manifest.operation for manifest in manifests]
    assert operations.count(Operation.INGEST) == 2 + N_WRITERS * N_CHANGES
    assert Operation.RESTORE in operations
    files = {f"tombstones/{name}" for name in sets.location.names("activations/pool/tombstones")}
    assert files == {manifest.tombstones.path for manifest in manifests if manifest.tombstones}
    assert verify_set(sets, "pool") == []


def test_threads_that_append_delete_and_restore_lose_nothing(location: Location) -> None:
    """Each thread deletes what it appended itself, so that at the end only the first samples are left."""
    build_set(location, "pool", 4)
    barrier = threading.Barrier(4)
    errors: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            sets = ActivationSets(location)
            barrier.wait()
            for k in range(3):
                rows = [fake_row(f"{writer}-{k}")]
                segment = build_segment(location, "pool", rows, {Feature.MEAN: np.ones((1, 2, 8), np.float32)})
                version = sets.commit("pool", [segment], ingest_ids=())
                assert f"{writer}-{k}" in version.sample_ids()
                doomed, missing = doomed_by_ids(sets, sets.open("pool"), [f"{writer}-{k}"])
                assert missing == []
                _, n_deleted = delete_samples(sets, doomed, details={}, message="", allow_empty=False)
                assert n_deleted == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    sets = ActivationSets(location)
    assert sets.open("pool").sample_ids() == sets.open("pool@1").sample_ids()
    assert sets.open("pool").number == 1 + 4 * 3 * 2
    restored, created = restore(sets, "pool", 1, message="")
    assert (restored.n_samples, created) == (4, True)
