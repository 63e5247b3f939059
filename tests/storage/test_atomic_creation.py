"""Create-if-absent on local filesystems that are not quite like the usual ones."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from nait_store.errors import AlreadyExistsError, ReadOnlyError, StorageError
from nait_store.storage import atomic
from nait_store.storage.location import Location
from nait_store.testing.storage_contract import ROUNDS, WRITERS, race

_LINK = os.link


def _no_links(source: Path, target: Path) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_link_whose_answer_was_lost_counts_as_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS: the server links, its answer is lost, the client tries again and is told that the name exists."""

    def link_twice(source: Path, target: Path) -> None:
        _LINK(source, target)
        _LINK(source, target)

    monkeypatch.setattr(os, "link", link_twice)
    Location(str(tmp_path)).create_bytes("x", b"mine")
    assert (tmp_path / "x").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_name_taken_by_an_equal_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"same")
    with pytest.raises(AlreadyExistsError):
        Location(str(tmp_path)).create_bytes("x", b"same")


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS])
def test_without_hard_links_a_rename_that_never_replaces_creates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    location = Location(str(tmp_path))
    location.create_bytes("x", b"first")
    with pytest.raises(AlreadyExistsError):
        location.create_bytes("x", b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"first")]


def test_without_hard_links_still_one_of_8_threads_creates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    won: list[tuple[int, int]] = []
    barrier = threading.Barrier(WRITERS)
    location = Location(str(tmp_path))
    threads = [threading.Thread(target=race, args=(location, n, barrier, won.append)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in won) == list(range(ROUNDS))


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_with_neither_the_folder_is_refused_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    monkeypatch.setattr(atomic, "_rename_exclusively", lambda source, target: code)
    with pytest.raises(ReadOnlyError, match="neither hard links nor a rename that refuses to replace"):
        Location(str(tmp_path)).create_bytes("x", b"1")
    assert list(tmp_path.iterdir()) == []


def test_other_failures_to_link_are_storage_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        Location(str(tmp_path)).create_bytes("x", b"1")
    assert list(tmp_path.iterdir()) == []


def test_new_folders_are_synced_into_those_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A synced file in a folder whose own name is not on the disk yet would be lost with it."""
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync_folder", synced.append)
    Location(str(tmp_path)).write_bytes("a/b/x", b"1")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
