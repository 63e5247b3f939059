from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nait_store.errors import CorruptChunkError, InvalidInputError
from nait_store.schemas.record import FileDigest
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location
from nait_store.storage.object_cache import DEFAULT_LIMIT_BYTES, ObjectCache, object_cache


@pytest.fixture
def remote() -> Location:
    return Location(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path / "objects", 1_000_000)


def _put(remote: Location, path: str, data: bytes) -> FileDigest:
    remote.write_bytes(f"folder/{path}", data)
    return FileDigest(path=path, size_bytes=len(data), sha256=sha256_bytes(data))


def test_a_file_is_fetched_once(remote: Location, cache: ObjectCache) -> None:
    file = _put(remote, "a", b"abc")
    assert cache.path(file) is None
    assert cache.read(remote, "folder", file).tobytes() == b"abc"
    remote.delete("folder/a")
    assert cache.read(remote, "folder", file).tobytes() == b"abc"
    kept = cache.path(file)
    assert kept is not None
    assert kept.read_bytes() == b"abc"


def test_an_empty_file_can_be_kept(remote: Location, cache: ObjectCache) -> None:
    file = _put(remote, "empty", b"")
    for _ in range(2):
        assert cache.read(remote, "folder", file).tobytes() == b""
    assert cache.path(file) is not None


def test_what_came_changed_over_the_network_is_refused_and_not_kept(remote: Location, cache: ObjectCache) -> None:
    file = _put(remote, "a", b"abc")
    remote.write_bytes("folder/a", b"abd")
    with pytest.raises(CorruptChunkError, match="folder/a differs from its recorded SHA-256"):
        cache.read(remote, "folder", file)
    remote.write_bytes("folder/a", b"ab")
    with pytest.raises(CorruptChunkError, match="has 2 bytes, its record says 3"):
        cache.read(remote, "folder", file)
    remote.delete("folder/a")
    with pytest.raises(CorruptChunkError, match="folder/a is missing"):
        cache.read(remote, "folder", file)
    assert cache.size_bytes() == 0


def test_a_truncated_copy_is_fetched_again(remote: Location, cache: ObjectCache) -> None:
    file = _put(remote, "a", b"abc")
    cache.read(remote, "folder", file)
    kept = cache.path(file)
    assert kept is not None
    kept.write_bytes(b"a")
    assert cache.read(remote, "folder", file).tobytes() == b"abc"
    assert kept.read_bytes() == b"abc"


def test_the_least_recently_used_files_go_first(remote: Location, tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 100_000)
    files = [_put(remote, f"f{i}", bytes([i]) * 10_000) for i in range(30)]
    for i, file in enumerate(files):
        cache.read(remote, "folder", file)
        if (path := cache.path(file)) is not None:
            os.utime(path, (1000 + i, 1000 + i))
        if (first := cache.path(files[0])) is not None:
            os.utime(first, (5000 + i, 5000 + i))  # used all the time
    assert cache.size_bytes() <= 100_000 * 17 / 16 + 10_000
    assert cache.path(files[0]) is not None
    assert cache.path(files[-1]) is not None
    assert cache.path(files[1]) is None


def test_a_cache_of_size_zero_keeps_nothing(remote: Location, tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "objects", 0)
    file = _put(remote, "a", b"abc")
    assert cache.read(remote, "folder", file).tobytes() == b"abc"
    assert not (tmp_path / "objects").exists()


def test_what_is_not_to_be_kept_is_not(remote: Location, cache: ObjectCache) -> None:
    file = _put(remote, "a", b"abc")
    assert cache.read(remote, "folder", file, keep=False).tobytes() == b"abc"
    assert cache.path(file) is None


def test_a_folder_that_cannot_be_written_is_no_error(remote: Location, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = ObjectCache(tmp_path / "file" / "objects", 1_000_000)
    file = _put(remote, "a", b"abc")
    assert cache.read(remote, "folder", file).tobytes() == b"abc"


def test_removed_files_are_gone(remote: Location, cache: ObjectCache) -> None:
    files = [_put(remote, name, name.encode()) for name in "abc"]
    for file in files:
        cache.read(remote, "folder", file)
    assert cache.remove([files[0].sha256, files[2].sha256, "0" * 64]) == 2
    assert [cache.path(file) is None for file in files] == [True, False, True]


def test_threads_reading_at_once_get_whole_files(remote: Location, tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 200_000)
    files = [_put(remote, f"f{i}", os.urandom(1) * 20_000) for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda file: cache.read(remote, "folder", file).tobytes(), files * 10))
    assert [sha256_bytes(data) for data in found] == [file.sha256 for file in files * 10]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("", DEFAULT_LIMIT_BYTES),
        ("0", 0),
        ("1000", 1000),
        ("20GB", 20_000_000_000),
        ("1.5 MiB", 1_572_864),
        ("2t", 2 * 10**12),
    ],
)
def test_the_environment_says_how_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, limit: int) -> None:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path))
    monkeypatch.setenv("NAIT_STORE_CACHE_SIZE", text)
    assert object_cache().limit_bytes == limit


@pytest.mark.parametrize("text", ["much", "-1", "1 GB or so", "1e9", "inf"])
def test_a_size_that_is_none_is_an_error_that_says_what_to_write(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("NAIT_STORE_CACHE_SIZE", text)
    with pytest.raises(InvalidInputError, match="NAIT_STORE_CACHE_SIZE"):
        object_cache()


def test_a_cache_that_cannot_be_written_serves_what_it_has(
    remote: Location, cache: ObjectCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError

    file = _put(remote, "a", b"abc")
    cache.read(remote, "folder", file)
    remote.delete("folder/a")
    monkeypatch.setattr(os, "utime", refuse)
    assert cache.read(remote, "folder", file).tobytes() == b"abc"
