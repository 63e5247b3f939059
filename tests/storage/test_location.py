from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nait_store.errors import (
    InvalidInputError,
    StorageError,
)
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
