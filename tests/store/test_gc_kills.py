"""gc killed before every step, and on a full disk: what is left is sound, and goes with the next run."""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nait_store
from nait_store.activations.changes import Change, Contents
from nait_store.errors import StorageError
from nait_store.ingest.journal import IngestJournal
from nait_store.schemas.activation_set import IngestPlan, Operation
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage.provenance import current_provenance, new_ulid, now
from nait_store.store.garbage import collection
from nait_store.testing.faults import Step, kill_at, no_space_from, write_steps
from nait_store.testing.object_store import ObjectStore
from nait_store.testing.stores import build_segment, build_set, fake_identity, fake_row
from tests.store.gc_stores import LATER, below, contents, files, problems, put_old_file

SHAPE = {"n_layers": 1, "n_neurons": 4}


class Killed(Exception):  # noqa: N818 - s3fs loses exceptions of other bases
    """Stands for the end of the process."""


def garbage_of_every_kind(url: str) -> nait_store.Store:
    """A set with a deleted version that has a segment, tombstones and a journal of its own; a profile, scores."""
    store = nait_store.open(url, create=True)
    build_set(store.location, "pool", 4, **SHAPE)  # type: ignore[arg-type]
    sets = store.sets.versions
    plan = IngestPlan(
        ingest_id=new_ulid(),
        set_name="pool",
        capture_id=fake_identity().capture_id,
        sources=(),
        features=(Feature.MEAN,),
        layers=(0,),
        dtype=StoredDtype.FLOAT16,
        provenance=current_provenance(),
    )
    with IngestJournal(store.location, plan) as journal:
        rows = [fake_row(f"late{i}", i) for i in range(4)]
        record = build_segment(store.location, "pool", rows, {Feature.MEAN: np.ones((4, 1, 4), np.float32)})
        journal.acknowledge(record)
        version = sets.commit("pool", [record], ingest_ids=[journal.ingest_id])
        journal.finish(version.number)
    sets.advance(
        "pool",
        lambda current, _: Change(Operation.DELETE_SAMPLES, Contents((Feature.MEAN,), (0,)), hidden={0: np.array([1])}),
    )
    store.profiles.build("math", source="pool@1")
    store.profiles.build("math", source="pool@1", limit=3)
    store.score("pool@2", "math@1")
    for number in (2, 3):
        sets.log.delete("pool", number)
    store.profiles.registry.log.delete("math", 2)
    return store


def gc(url: str) -> None:
    collection.gc(nait_store.open(url), clock=now() + LATER)


def killed_at(url: str, number: int) -> bool:
    """Collect in a process of its own, which dies at a step; whether it came that far."""
    child = os.fork()
    if child == 0:
        try:
            with write_steps(url, before=kill_at(number)):
                gc(url)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def without_markers(found: dict[str, int]) -> set[str]:
    """Names; a marker that was written twice has the same name."""
    return {path for path in found if "/.tmp-" not in path}


def test_killed_at_every_step_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    origin = garbage_of_every_kind(str(tmp_path / "origin"))
    before = contents(origin)
    whole = shutil.copytree(tmp_path / "origin", tmp_path / "whole")
    with write_steps(str(whole)) as steps:
        gc(str(whole))
    expected = without_markers(files(nait_store.open(str(whole))))
    assert len(steps) > 40
    assert {"unlink", "rmdir", "link"} <= {step.what for step in steps}
    for number in range(len(steps)):
        url = str(shutil.copytree(tmp_path / "origin", tmp_path / f"killed-{number}"))
        assert killed_at(url, number), number
        store = nait_store.open(url)
        assert (number, problems(store)) == (number, [])
        if number % 5 == 0:
            assert contents(store) == before
        gc(url)
        assert without_markers(files(store)) == expected
        assert contents(store) == before
        shutil.rmtree(url)


def dies_at_every(url: Callable[[], str], numbers: Callable[[int], list[int]]) -> None:
    """The exception goes through everything as the end of a process would, for nothing handles it."""
    whole = garbage_of_every_kind(url())
    with write_steps(whole.url) as steps:
        gc(whole.url)
    n_files = len(files(whole))
    for number in numbers(len(steps)):
        store = garbage_of_every_kind(url())
        before = contents(store)
        with write_steps(store.url, before=_die_at(number)), pytest.raises(Killed):
            gc(store.url)
        assert (number, problems(store)) == (number, [])
        gc(store.url)
        assert contents(store) == before
        assert len(files(store)) == n_files


def test_killed_at_every_step_in_memory() -> None:
    dies_at_every(lambda: f"memory://{new_ulid().lower()}", lambda n: list(range(n)))


def test_killed_on_an_object_store(object_store: ObjectStore) -> None:
    dies_at_every(object_store.new_url, lambda n: [0, n // 2, n - 2])


def _die_at(number: int) -> Callable[[Step], None]:
    def die(step: Step) -> None:
        if step.number >= number:
            raise Killed

    return die


def test_a_full_disk_is_rid_of_orphans_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the marks of collected versions need room."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    store = garbage_of_every_kind(str(tmp_path / "store"))
    rows = [fake_row(f"orphan{i}", i) for i in range(4)]
    orphan = build_segment(store.location, "pool", rows, {Feature.MEAN: np.ones((4, 1, 4), np.float32)})
    put_old_file(store, "activations/pool/.tmp-17-0123456789ab")
    with write_steps(store.url, before=no_space_from(0)), pytest.raises(StorageError, match="No space left"):
        gc(store.url)
    assert orphan.segment_id not in below(store, "activations/pool/segments")
    assert "activations/pool/.tmp-17-0123456789ab" not in files(store)
    assert problems(store) == []


def test_a_full_disk_is_a_clear_error_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    store = garbage_of_every_kind(str(tmp_path / "store"))
    before = contents(store)
    with write_steps(store.url, before=no_space_from(0)), pytest.raises(StorageError, match="No space left"):
        gc(store.url)
    assert problems(store) == []
    assert contents(store) == before
    gc(store.url)
    assert contents(store) == before
    assert problems(store) == []


@pytest.mark.parametrize("part", [lambda n: 0, lambda n: n // 2, lambda n: n - 1], ids=["first", "middle", "last"])
def test_a_half_deleted_segment_is_no_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Callable[[int], int]
) -> None:
    """``segment.json`` goes first: what is left of the folder says nothing, and readers ask for that file first."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    store = garbage_of_every_kind(str(tmp_path / "store"))
    gone = store.sets.versions.version("pool", 2).refs[-1].segment_id
    whole = shutil.copytree(tmp_path / "store", tmp_path / "whole")
    with write_steps(str(whole)) as steps:
        gc(str(whole))
    of_segment = [step.number for step in steps if gone in step.path]
    assert steps[of_segment[0]].path.endswith("segment.json")
    assert killed_at(store.url, of_segment[1:][part(len(of_segment) - 1)])
    assert not (tmp_path / "store/activations/pool/segments" / gone / "segment.json").exists()
    assert problems(store) == []
