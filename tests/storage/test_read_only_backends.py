"""Filesystems without a known create-if-absent: readable, refused for writing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from nait_store.errors import ReadOnlyError
from nait_store.storage.location import Location
from nait_store.storage.pending import PendingFile


class ForgetfulFileSystem(MemoryFileSystem):
    """Stands for any cloud that fsspec knows and this release has no create-if-absent for."""

    protocol = "forgetful"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("forgetful://", "memory://")))


@pytest.fixture(params=["zip", "forgetful"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    files = {"store.json": b"{}", "d/a": b"0123456789", "d/sub/b": b"22"}
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "store.zip", "w") as archive:
            for path, data in files.items():
                archive.writestr(path, data)
        return Location(f"zip://::file://{tmp_path}/store.zip")
    fsspec.register_implementation("forgetful", ForgetfulFileSystem, clobber=True)
    for path, data in files.items():
        fsspec.filesystem("forgetful").pipe_file(f"/root/{path}", data)
    return Location("forgetful://root")


def test_it_is_read(location: Location) -> None:
    assert location.names() == ["d", "store.json"]
    assert location.names("d") == ["a", "sub"]
    assert list(location.walk()) == [("d/a", 10), ("d/sub/b", 2), ("store.json", 2)]
    assert location.read_bytes("d/a") == b"0123456789"
    assert location.read_range("d/a", 2, 3) == b"234"
    assert location.size_bytes("d/sub/b") == 2
    assert location.exists("d/sub")
    assert not location.is_file("d/sub")
    assert not location.exists("nowhere")
    with location.open_read("d/a") as handle:
        handle.seek(7)
        assert handle.read() == b"789"


def test_every_way_to_write_is_refused_with_the_reason_and_what_can_be_written(location: Location) -> None:
    assert not location.can_create_atomically
    for write in (
        lambda: location.write_bytes("x", b"1"),
        lambda: location.create_bytes("x", b"1"),
        lambda: location.write_file("x", Path(__file__)),
        lambda: location.delete("store.json"),
        lambda: PendingFile(location, "x"),
    ):
        with pytest.raises(ReadOnlyError, match="no atomic create-if-absent") as caught:
            write()
        assert "s3://bucket/prefix" in str(caught.value)
    assert location.names() == ["d", "store.json"]
