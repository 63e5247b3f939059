"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

from nait_store.errors import AlreadyExistsError, InvalidInputError, ReadOnlyError, StorageError
from nait_store.selection.destination import Destination


def write_and_fail(url: str, error: BaseException, *, overwrite: bool = False) -> None:
    with Destination(url, overwrite=overwrite).open() as stream:
        stream.write(b"half")
        raise error


def write(url: str, data: bytes) -> None:
    with Destination(url).open() as stream:
        stream.write(data)


def write_while_another_does(url: str) -> None:
    mine, other = Destination(url), Destination(url)
    with mine.open() as stream:
        stream.write(b"mine")
        with other.open() as theirs:
            theirs.write(b"theirs")


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "new" / "top.jsonl")
    return f"memory://{tmp_path.name}/top.jsonl"


def read(url: str) -> bytes:
    with fsspec.open(url, "rb") as handle:
        return bytes(handle.read())


def siblings(url: str) -> list[str]:
    fs, path = fsspec.core.url_to_fs(url)
    parent = path.rpartition("/")[0]
    return sorted(str(p).rsplit("/", 1)[-1] for p in fs.ls(parent, detail=False)) if fs.exists(parent) else []


def test_writes_whole_and_leaves_nothing_else(url: str) -> None:
    with Destination(url).open() as stream:
        stream.write(b"one\n")
        assert "top.jsonl" not in siblings(url)
        stream.write(b"two\n")
    assert read(url) == b"one\ntwo\n"
    assert siblings(url) == ["top.jsonl"]


def test_a_failing_block_leaves_no_file(url: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(url, KeyboardInterrupt())
    assert siblings(url) == []


def test_existing_file_is_refused_before_anything_is_computed(url: str) -> None:
    with Destination(url).open() as stream:
        stream.write(b"old")
    with pytest.raises(AlreadyExistsError, match="exists already") as caught:
        Destination(url)
    assert "--force" in str(caught.value.next_step)
    assert read(url) == b"old"


def test_overwriting_replaces_whole(url: str) -> None:
    for content in (b"old and long", b"new"):
        with Destination(url, overwrite=True).open() as stream:
            stream.write(content)
    assert read(url) == b"new"
    assert siblings(url) == ["top.jsonl"]


def test_a_failing_overwrite_keeps_the_old_file(url: str) -> None:
    with Destination(url).open() as stream:
        stream.write(b"old")
    with pytest.raises(ZeroDivisionError):
        write_and_fail(url, ZeroDivisionError(), overwrite=True)
    assert read(url) == b"old"
    assert siblings(url) == ["top.jsonl"]


def test_a_file_that_appears_meanwhile_is_not_replaced(url: str) -> None:
    with pytest.raises(AlreadyExistsError):
        write_while_another_does(url)
    assert read(url) == b"theirs"
    assert siblings(url) == ["top.jsonl"]


def test_filesystem_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "top.jsonl"
    with Destination(str(target)).open() as stream:
        stream.write(b"data")
    assert target.read_bytes() == b"data"
    assert [p.name for p in tmp_path.iterdir()] == ["top.jsonl"]


def test_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no partial file is left") as caught:
        write_and_fail(str(tmp_path / "top.jsonl"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert "free some disk space" in str(caught.value.next_step)
    assert list(tmp_path.iterdir()) == []


def test_folder_is_refused(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"{tmp_path}/new/"):
        with pytest.raises(InvalidInputError, match="is a folder"):
            Destination(url)


@pytest.mark.parametrize("url", ["", " ", "a\x00b", "nosuchprotocol://x/y"])
def test_no_file_name(url: str) -> None:
    with pytest.raises(InvalidInputError):
        Destination(url)


def test_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((InvalidInputError, StorageError)):
        write(str(tmp_path / "file" / "top.jsonl"), b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_missing_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ReadOnlyError):
        write(str(tmp_path / "x" / "top.jsonl"), b"x")
    tmp_path.chmod(0o700)
