"""Folders of this machine are located without fsspec, where fsspec would have located them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from nait_store.storage.backend import LocalBackend
from nait_store.storage.connect import connect
from nait_store.storage.location import Location


@pytest.mark.parametrize(
    "url",
    ["store", "./store", "./.nait-store", ".", "./", "..", "../store", "a/../b", "a//b/", "./a/./b", "/x//y/", "a b",
     "x:y", "a\\b", "glob*?[x]", "~", "~/store", "file:///x/y"],
)  # fmt: skip
def test_a_path_means_what_it_means_to_fsspec(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backend, root = connect(url)
    assert isinstance(backend, LocalBackend)
    assert root == str(url_to_fs(url)[1]).rstrip("/")


def test_its_filesystem_is_there_for_who_asks(tmp_path: Path) -> None:
    backend, _ = connect(str(tmp_path))
    assert isinstance(backend.fs, LocalFileSystem)


@pytest.mark.parametrize("url", ["{tmp_path}", "memory://names-of-each"])
def test_many_folders_at_once_have_the_names_of_each(url: str, tmp_path: Path) -> None:
    location = Location(url.format(tmp_path=tmp_path))
    for path in ("a/x.json", "a/b/y.json", "c/.tmp-z", "c/d"):
        location.write_bytes(path, b"")
    folders = ["a", "c", "nowhere", "a/x.json"]
    assert location.names_of_each(folders) == [location.names(folder) for folder in folders]
    assert location.names_of_each(folders) == [["b", "x.json"], ["d"], [], []]
    assert location.present_in_each(["a", "c", "nowhere"], ["d", "b", "x.json"]) == [["b", "x.json"], ["d"], []]
    assert location.names_of_each([]) == []
