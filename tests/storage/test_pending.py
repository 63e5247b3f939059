from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nait_store.errors import ReadOnlyError, StorageError
from nait_store.storage import pending as pending_module
from nait_store.storage.location import Location
from nait_store.storage.pending import PendingFile


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    with (
        pytest.raises(StorageError, match=r"could not write .*/d/x: No space left") as caught,
        PendingFile(location, "d/x") as pending,
        pending.errors(),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "free some disk space" in str(caught.value)
    assert list((tmp_path / "d").iterdir()) == []


def test_a_full_temporary_folder_is_named_where_the_store_is_remote() -> None:
    with (
        pytest.raises(StorageError, match=r"TMPDIR.*memory:///x/d/y is put together") as caught,
        PendingFile(Location("memory://x"), "d/y") as pending,
        pending.errors(),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "No space left" in str(caught.value)


def test_a_failure_to_publish_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    pending = PendingFile(Location(str(tmp_path)), "x")
    pending.handle.write(b"1")
    with pytest.raises(StorageError, match="Input/output error"):
        pending.publish()
    assert list(tmp_path.iterdir()) == []


def test_a_cache_need_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("synced")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(pending_module, "sync_folder", fail)
    with PendingFile(Location(str(tmp_path)), "x", durable=False) as pending:
        pending.handle.write(b"1")
        pending.publish()
    assert (tmp_path / "x").read_bytes() == b"1"


def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ReadOnlyError, match="no permission to write"),
        PendingFile(Location(str(tmp_path)), "x") as pending,
        pending.errors(),
    ):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
