"""The instrument itself: `nait_store.testing.faults` sees every step, and fails or kills at the one asked for."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest

from nait_store.errors import StorageError
from nait_store.storage.location import Location
from nait_store.storage.pending import PendingFile
from nait_store.testing.faults import no_space_at, no_space_from, write_steps
from nait_store.testing.object_store import object_store


def _some_writes(location: Location) -> None:
    location.create_bytes("a/created.json", b"12345678")
    location.write_bytes("a/written.bin", b"12345678")
    with PendingFile(location, "a/pieces.bin") as pending:
        pending.handle.write(b"1234")
        pending.publish()
    location.delete("a")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def test_every_step_on_a_local_disk_is_seen_in_order(folder: str) -> None:
    with write_steps(folder) as steps:
        _some_writes(Location(folder))
    assert [step.number for step in steps] == list(range(len(steps)))
    counts = Counter(step.what for step in steps)
    assert counts["open"] == 3
    assert counts["write"] == 6
    synced = [step.path for step in steps if step.what == "fsync"]
    assert sum(".tmp-" in path for path in synced) == 3
    assert f"{folder}/a" in synced  # the folder, for the names of what was created
    assert (counts["link"], counts["replace"]) == (1, 2)
    assert counts["unlink"] == 1 + 3  # the temporary file, the three in the folder
    assert counts["rmdir"] == 1
    assert all(step.path.startswith(folder) for step in steps)


def test_steps_elsewhere_are_not_seen_and_nothing_stays_patched(folder: str, tmp_path: Path) -> None:
    with write_steps(folder) as steps:
        _some_writes(Location(str(tmp_path / "other")))
    assert steps == []
    with write_steps(folder):
        pass
    _some_writes(Location(folder))
    assert steps == []


def test_every_step_in_memory_is_seen() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    with write_steps(url) as steps:
        location = Location(url)
        location.create_bytes("x", b"1")
        location.write_bytes("y", b"1")
        location.delete("x")
    assert [step.what for step in steps] == ["write", "write", "unlink"]
    with write_steps(url, before=no_space_at(0)), pytest.raises(StorageError, match="No space left"):
        Location(url).create_bytes("z", b"1")
    assert Location(url).names() == ["y"]


def test_a_disk_that_is_full_for_one_step(folder: str) -> None:
    location = Location(folder)
    location.write_bytes("y", b"")
    with write_steps(folder) as steps:
        location.write_bytes("x", b"12345678")
    steps = [step for step in steps if step.path != folder]  # some filesystems cannot sync a folder: not an error
    assert [step.what for step in steps] == ["open", "write", "write", "fsync", "replace"]
    for step in steps:
        location.delete("x")
        with write_steps(folder, before=no_space_at(step.number)):
            with pytest.raises(StorageError, match="No space left"):
                location.write_bytes("x", b"12345678")
            location.write_bytes("y", b"12345678")
        assert location.names() == ["y"]


def test_a_disk_that_stays_full(folder: str) -> None:
    location = Location(folder)
    location.write_bytes("old", b"1")
    with write_steps(folder, before=no_space_from(0)):
        for name in ("x", "y"):
            with pytest.raises(StorageError, match="No space left"):
                location.write_bytes(name, b"12345678")
        location.delete("old")
    assert list(location.walk()) == []


_KILLED = """
import sys
from nait_store.storage.location import Location
from nait_store.testing.faults import kill_at, write_steps

with write_steps(sys.argv[1], before=kill_at(int(sys.argv[2]))):
    Location(sys.argv[1]).write_bytes("x", b"12345678")
"""


def test_a_process_killed_between_two_steps_leaves_what_it_had_written(folder: str) -> None:
    location = Location(folder)
    location.write_bytes("first", b"")
    sizes = []
    for number in range(4):
        killed = subprocess.run(
            [sys.executable, "-c", _KILLED, folder, str(number)], capture_output=True, text=True, timeout=60
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        left = list(location.leftovers())
        sizes.append([file.size_bytes for file in left])
        for file in left:
            location.delete(file.path)
    assert sizes == [[], [0], [4], [8]]
    assert location.names() == ["first"]


def test_what_is_done_is_told_as_well(folder: str) -> None:
    log: list[tuple[str, int]] = []
    with write_steps(
        folder, before=lambda s: log.append(("before", s.number)), after=lambda s: log.append(("after", s.number))
    ) as steps:
        Location(folder).write_bytes("x", b"12")
    assert log == [(when, n) for n in range(len(steps)) for when in ("before", "after")]


def test_every_request_that_changes_an_object_store_is_seen_and_can_be_refused() -> None:
    with object_store() as server:
        url = server.new_url()
        location = Location(url)
        location.require_writable()
        with write_steps(url) as steps:
            _some_writes(location)
        assert [step.what for step in steps] == ["PutObject", "PutObject", "PutObject", "DeleteObjects"]
        with write_steps(url, before=no_space_at(0)), pytest.raises(StorageError, match="XMinioStorageFull"):
            location.create_bytes("x", b"1")
        with write_steps(url, before=no_space_at(0)), pytest.raises(StorageError, match="XMinioStorageFull"):
            location.write_bytes("x", b"1")
        assert location.names() == []
