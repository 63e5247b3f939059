from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nait_store.activations import chunk_memory
from nait_store.activations.chunk_memory import ChunkMemory, is_cached
from nait_store.activations.reader import SegmentReader
from nait_store.errors import StorageError
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, fake_row

CONTENT = np.random.default_rng(0).integers(0, 256, 3 * mmap.PAGESIZE + 5).astype(np.uint8)


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "chunk"
    path.write_bytes(CONTENT.tobytes())
    opened = os.open(path, os.O_RDONLY)
    os.fdatasync(opened)
    yield opened
    os.close(opened)


def test_what_is_read_is_the_file(descriptor: int) -> None:
    found = ChunkMemory().read(descriptor, len(CONTENT))
    assert np.array_equal(found, CONTENT)
    assert not found.flags.writeable


def test_a_thread_reads_into_the_same_memory_again(descriptor: int) -> None:
    memory = ChunkMemory()
    first = memory.read(descriptor, len(CONTENT))
    assert np.shares_memory(first, memory.read(descriptor, 100))
    assert np.shares_memory(first, memory.read(descriptor, len(CONTENT)))


def test_each_thread_has_memory_of_its_own(descriptor: int) -> None:
    memory = ChunkMemory()
    here, there = memory.read(descriptor, len(CONTENT)), []
    thread = threading.Thread(target=lambda: there.append(memory.read(descriptor, len(CONTENT))))
    thread.start()
    thread.join()
    assert not np.shares_memory(here, there[0])
    assert np.array_equal(here, there[0])


def test_a_file_that_ends_too_early_is_an_error(descriptor: int) -> None:
    with pytest.raises(OSError, match="ended while it was read"):
        ChunkMemory().read(descriptor, len(CONTENT) + 1)


def _mapped(descriptor: int) -> NDArray[np.uint8]:
    return np.frombuffer(mmap.mmap(descriptor, len(CONTENT), prot=mmap.PROT_READ), np.uint8)


def test_a_file_that_was_just_read_is_cached(descriptor: int) -> None:
    ChunkMemory().read(descriptor, len(CONTENT))
    assert is_cached(_mapped(descriptor))


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot be asked to forget pages")
def test_asking_whether_a_file_is_cached_does_not_read_it(descriptor: int) -> None:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if is_cached(_mapped(descriptor)):
        pytest.skip("this file system keeps what it has")
    assert not is_cached(_mapped(descriptor))


def test_where_nobody_can_tell_chunks_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_memory, "_mincore", lambda: None)
    location = Location(str(tmp_path))
    activations = np.random.default_rng(1).standard_normal((5, 2, 8)).astype(np.float32)
    record = build_segment(location, "pool", [fake_row(f"s{i}", i) for i in range(5)], {Feature.MEAN: activations})
    memory = ChunkMemory()
    monkeypatch.setattr(memory, "read", lambda *_: pytest.fail("read into memory"))
    chunk = SegmentReader(location, record).chunk(Feature.MEAN, 1, 0, memory=memory)
    assert np.array_equal(chunk, activations[:, 1].astype(np.float16))


def test_a_chunk_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = Location(str(tmp_path))
    activations = np.ones((5, 2, 8), np.float32)
    record = build_segment(location, "pool", [fake_row(f"s{i}", i) for i in range(5)], {Feature.MEAN: activations})
    monkeypatch.setattr("nait_store.activations.segment_files.is_cached", lambda _: False)

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(StorageError, match=r"could not read .*data.zarr/mean/c/0/1/0: Input/output error"):
        SegmentReader(location, record).chunk(Feature.MEAN, 1, 0, memory=ChunkMemory())
