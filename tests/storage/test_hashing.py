"""Hashing many files at once, local and remote."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from nait_store.storage import hashing
from nait_store.storage.hashing import hash_files
from nait_store.storage.location import Location


@pytest.fixture
def files(location: Location, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Sizes around every border: block, batch, part."""
    monkeypatch.setattr(hashing, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(hashing, "_BATCH_BYTES", 5000)
    monkeypatch.setattr(hashing, "_PART_BYTES", 700)
    draw = random.Random(0)
    sizes = [0, 1, 699, 700, 701, 999, 1000, 1001, 1400, 2101, 5000, 5001, *(draw.randrange(3000) for _ in range(80))]
    contents = {f"folder/{i:03}.bin": draw.randbytes(size) for i, size in enumerate(sizes)}
    for path, data in contents.items():
        location.write_bytes(path, data)
    return contents


@pytest.mark.parametrize("n_threads", [1, 3])
def test_every_digest_is_right_and_in_order(location: Location, files: dict[str, bytes], n_threads: int) -> None:
    found = list(hash_files(location, [(path, len(data)) for path, data in files.items()], n_threads))
    expected = [(path, len(data), hashlib.sha256(data).hexdigest(), "") for path, data in files.items()]
    assert [(file.path, file.size_bytes, file.sha256, file.problem) for file in found] == expected


def test_a_file_that_is_gone_has_no_digest_and_stops_nothing(location: Location, files: dict[str, bytes]) -> None:
    paths = list(files)
    for path in (paths[0], paths[10], paths[-1]):
        location.delete(path)
    found = {file.path: file for file in hash_files(location, [(path, len(data)) for path, data in files.items()], 2)}
    assert list(found) == paths
    assert [path for path, file in found.items() if not file.sha256] == [paths[0], paths[10], paths[-1]]
    assert all(not file.problem for file in found.values())


def test_a_file_that_changed_its_size_since_it_was_listed_has_another_digest(
    location: Location, files: dict[str, bytes]
) -> None:
    sizes = [(path, len(data)) for path, data in files.items()]
    location.write_bytes(sizes[8][0], files[sizes[8][0]][:-1])
    found = {file.path: file.sha256 for file in hash_files(location, sizes, 2)}
    wrong = [path for path, data in files.items() if found[path] != hashlib.sha256(data).hexdigest()]
    assert wrong == [sizes[8][0]]


def test_what_cannot_be_read_on_a_local_disk_stops_nothing(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "b").unlink()
    (tmp_path / "b").mkdir()
    found = list(hash_files(Location(str(tmp_path)), [("a", 1), ("b", 1), ("c", 1)], 2))
    assert [bool(file.sha256) for file in found] == [True, False, True]
