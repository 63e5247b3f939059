from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nait_store.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
)
from nait_store.storage import atomic
from nait_store.storage.location import Location


def test_what_is_written_is_read(location: Location) -> None:
    location.write_bytes("a/b/c.bin", b"123")
    assert location.read_bytes("a/b/c.bin") == b"123"
    assert location.size_bytes("a/b/c.bin") == 3
    with location.open_read("a/b/c.bin") as handle:
        handle.seek(1)
        assert handle.read() == b"23"


def test_writing_again_replaces(location: Location) -> None:
    location.write_bytes("x", b"long content")
    location.write_bytes("x", memoryview(b"new"))
    assert location.read_bytes("x") == b"new"


def test_creating_again_fails_and_leaves_the_first(location: Location) -> None:
    location.create_bytes("versions/1.json", b"first")
    with pytest.raises(AlreadyExistsError, match=r"1\.json exists already"):
        location.create_bytes("versions/1.json", b"second")
    assert location.read_bytes("versions/1.json") == b"first"


def test_missing_files_are_named(location: Location) -> None:
    for read in (location.read_bytes, location.open_read, location.size_bytes):
        with pytest.raises(NotFoundError, match=r"nowhere\.bin"):
            read("nowhere.bin")


def test_a_folder_has_no_size(location: Location) -> None:
    location.write_bytes("folder/file", b"1")
    with pytest.raises(NotFoundError):
        location.size_bytes("folder")


def test_names_are_sorted_and_direct_children_only(location: Location) -> None:
    for path in ("d/b", "d/a", "d/sub/deep", "other"):
        location.write_bytes(path, b"")
    assert location.names("d") == ["a", "b", "sub"]
    assert location.names("absent") == []


def test_names_see_what_was_written_since(location: Location) -> None:
    assert location.names("d") == []
    location.write_bytes("d/new", b"")
    assert location.names("d") == ["new"]


def test_walk_gives_every_file_with_its_size(location: Location) -> None:
    location.write_bytes("top/a", b"1")
    location.write_bytes("top/b/c", b"22")
    location.write_bytes("elsewhere", b"333")
    assert list(location.walk("top")) == [("top/a", 1), ("top/b/c", 2)]
    assert list(location.sub("top").walk()) == [("a", 1), ("b/c", 2)]
    assert list(location.walk("absent")) == []


def test_deleting_a_folder_takes_all_of_it_and_nothing_else(location: Location) -> None:
    location.write_bytes("gone/a/b", b"1")
    location.write_bytes("gone-not/a", b"1")
    location.delete("gone")
    location.delete("never-was")
    assert not location.exists("gone/a/b")
    assert location.exists("gone-not/a")


def test_sub_locations_share_the_files(location: Location) -> None:
    location.sub("x").write_bytes("y", b"1")
    assert location.read_bytes("x/y") == b"1"
    assert location.sub("x").url == location.url + "/x"


def test_no_temporary_files_are_left_or_listed(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    location.write_bytes("d/a", b"1")
    location.create_bytes("d/b", b"1")
    with pytest.raises(AlreadyExistsError):
        location.create_bytes("d/b", b"2")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["a", "b"]
    (tmp_path / "d" / ".tmp-1-abc").write_bytes(b"left by a crash")
    assert location.names("d") == ["a", "b"]
    assert [path for path, _ in location.walk()] == ["d/a", "d/b"]


@pytest.mark.parametrize("url", ["", "  ", "a\0b", "nosuchscheme://x"])
def test_unusable_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        Location(url)


def test_filesystems_without_atomic_creation_are_read_only() -> None:
    location = Location("data://")
    with pytest.raises(ReadOnlyError, match="no atomic create-if-absent"):
        location.write_bytes("x", b"1")
    with pytest.raises(ReadOnlyError):
        location.create_bytes("x", b"1")


def test_a_full_disk_is_a_storage_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(target: Path, data: bytes) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "_write_temporary", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        Location(str(tmp_path)).write_bytes("x", b"1")
    assert caught.value.next_step is not None
    assert "free some disk space" in caught.value.next_step


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


def test_a_read_only_location_refuses_every_write_with_its_reason(location: Location) -> None:
    location.write_bytes("x", b"1")
    sealed = location.read_only("this store is sealed", "unseal it")
    assert sealed.read_bytes("x") == b"1"
    for write in (sealed.write_bytes, sealed.create_bytes):
        with pytest.raises(ReadOnlyError, match="this store is sealed"):
            write("y", b"2")
    assert location.names() == ["x"]
