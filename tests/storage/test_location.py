from __future__ import annotations

import errno
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nait_store.errors import InvalidInputError, ReadOnlyError, StorageError
from nait_store.storage import atomic
from nait_store.storage.location import Location


@pytest.mark.parametrize("url", ["", "  ", "a\0b", "nosuchscheme://x"])
def test_unusable_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        Location(url)


def test_a_full_disk_is_a_storage_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(target: Path, data: bytes) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "_write_temporary", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        Location(str(tmp_path)).write_bytes("x", b"1")
    assert caught.value.next_step is not None
    assert "free some disk space" in caught.value.next_step


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_missing_permission_to_write_says_whom_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(target: Path, data: bytes) -> Path:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic, "_write_temporary", refuse)
    location = Location(str(tmp_path))
    for write in (location.write_bytes, location.create_bytes):
        with pytest.raises(ReadOnlyError, match="no permission") as caught:
            write("x", b"1")
        assert caught.value.next_step == "check who owns the folder and its mode"


def test_missing_permission_to_delete_or_list_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    location = Location(str(tmp_path))
    location.write_bytes("d/x", b"1")
    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ReadOnlyError, match="no permission to delete"):
        location.delete("d/x")
    with pytest.raises(ReadOnlyError, match="no permission to list"):
        location.names("d")


def test_two_may_delete_the_same_folder_at_the_same_time(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    for number in range(300):
        (tmp_path / "d" / str(number % 7)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / str(number % 7) / str(number)).touch()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: location.delete("d"), range(4)))
    assert not location.exists("d")


def test_a_folder_that_vanishes_while_it_is_walked_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location(str(tmp_path))
    for path in ("a/x", "b/y", "c"):
        location.write_bytes(path, b"1")
    scandir = os.scandir

    def vanish(folder: str) -> object:
        if str(folder).endswith("/a"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", vanish)
    assert [path for path, _ in location.walk()] == ["b/y", "c"]


def test_a_failed_write_leaves_the_old_content_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location(str(tmp_path))
    location.write_bytes("x", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError):
        location.write_bytes("x", b"new")
    assert location.read_bytes("x") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_free_space_is_told_before_the_folder_exists(tmp_path: Path) -> None:
    free = Location(str(tmp_path / "not" / "yet")).free_bytes()
    assert free is not None
    assert free > 0
    assert Location("memory://x").free_bytes() is None


def test_memory_is_listed_while_another_thread_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    location = Location(f"memory://{uuid.uuid4().hex}")
    location.write_bytes("a/b", b"1")
    backend = location._backend
    real, failures = backend.fs.find, iter([RuntimeError("dictionary changed size during iteration")] * 2)

    def find(path: str, **options: Any) -> Any:
        for failure in failures:
            raise failure
        return real(path, **options)

    monkeypatch.setattr(backend.fs, "find", find)
    assert [path for path, _ in location.walk("a")] == ["a/b"]


def test_a_folder_that_is_made_meanwhile_is_never_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    real = Path.is_dir

    def is_dir(path: Path) -> bool:
        found = real(path)
        folder.mkdir(exist_ok=True)
        return found

    monkeypatch.setattr(Path, "is_dir", is_dir)
    assert not Location(str(folder)).is_file("")
