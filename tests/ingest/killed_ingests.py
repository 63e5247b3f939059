"""Kills ingests with SIGKILL at every sync of a file or folder, and checks what the next one makes of it.

Run as a script: it imports everything once and forks a process for each trial before any thread has started.
``killed_ingests.py FOLDER SOURCE`` prints the number of trials, or what went wrong.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

# what the libraries import at first use, so that the forks need not
import fsspec.implementations.local  # noqa: F401
import numpy.random  # noqa: F401
import pandas  # noqa: F401
import zarr  # noqa: F401

from nait_store.activations.reader import SegmentReader
from nait_store.activations.verify import Severity, verify_set
from nait_store.activations.versions import ActivationSets
from nait_store.ingest.adoption import find_abandoned
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import FlushPolicy, IngestRequest
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import fake_identity

N_SAMPLES = 8


def run_forked(work: Callable[[], int]) -> int:
    """Run ``work`` in a fork; its result, at most 100, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            os._exit(101)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def run_ingest(url: str, source: str) -> FakeCapture:
    capture = FakeCapture(batch_samples=2)
    request = IngestRequest((source,), "pool", id_field="id", flush=FlushPolicy(rows=4))
    ingest(Location(url), capture, request)
    return capture


def killed_ingest(url: str, source: str, point: int) -> int:
    """Ingest, but die at sync number ``point``; returns the number of syncs if there are fewer."""
    sync = os.fsync
    n = 0

    def sync_or_die(descriptor: int) -> None:
        nonlocal n
        if n == point:
            os.kill(os.getpid(), signal.SIGKILL)
        n += 1
        sync(descriptor)

    os.fsync = sync_or_die
    run_ingest(url, source)
    return n


def check_after_kill(url: str) -> int:
    """Check the store as a reader finds it; returns the number of acknowledged samples."""
    location = Location(url)
    sets = ActivationSets(location)
    for name in sets.names():
        assert sets.open(name).n_samples == N_SAMPLES, "a partial version is visible"
    errors = [f for f in verify_set(sets, "pool") if f.severity is Severity.ERROR] if sets.names() else []
    assert errors == [], errors
    found, warnings = find_abandoned(
        location, "pool", features=[Feature.MEAN], layers=[0, 1], capture_id=fake_identity().capture_id
    )
    assert warnings == [], warnings
    ids: set[str] = set()
    for abandoned in found:
        for record in abandoned.segments:
            ids |= set(SegmentReader(location, record, verify=True).samples(["sample_id"]).column(0).to_pylist())
    return len(ids)


def check_resume(url: str, source: str, n_acknowledged: int) -> int:
    """Run the same ingest again and check that it is complete, without loss, repetition or needless work."""
    sets = ActivationSets(Location(url))
    committed = bool(sets.names())
    capture = run_ingest(url, source)
    expected = 0 if committed else N_SAMPLES - n_acknowledged
    assert capture.n_captured == expected, f"captured {capture.n_captured} instead of {expected}"
    version = sets.open("pool")
    assert sorted(version.sample_ids()) == sorted(f"r{i}" for i in range(N_SAMPLES))
    assert version.number == 1
    errors = [f for f in verify_set(sets, "pool") if f.severity is Severity.ERROR]
    assert errors == [], errors
    again = run_ingest(url, source)
    assert again.n_captured == 0
    return 0


def main(folder: str, source: str) -> int:
    point = 0
    while True:
        url = f"{folder}/{point}"
        status = run_forked(lambda url=url, point=point: killed_ingest(url, source, point))
        if status != -signal.SIGKILL:
            assert status == point, f"{status} syncs, {point} kills"
            break
        resumed = run_forked(lambda url=url: check_resume(url, source, check_after_kill(url)))
        assert resumed == 0, f"after the kill at {point}"
        point += 1
    print(point)
    return 0


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(
        "".join(json.dumps({"id": f"r{i}", "instruction": f"do {i}", "output": "x"}) + "\n" for i in range(N_SAMPLES))
    )
    sys.exit(main(sys.argv[1], sys.argv[2]))
