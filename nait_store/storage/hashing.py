"""SHA-256 of many stored files: on every core where they are local, fetched ahead where they are not."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from nait_store.errors import NotFoundError, ReadOnlyError, StorageError
from nait_store.storage.fetching import FilePart
from nait_store.storage.location import Location

_BLOCK_BYTES = 1 << 20  # of each thread; hashlib lets go of the interpreter while it works on one
_BATCH_BYTES = 4 << 20  # small files go to a thread together
_BATCH_FILES = 64
_PART_BYTES = 8 << 20


@dataclass(frozen=True)
class FileHash:
    """What came of hashing one file.

    Attributes
    ----------
    path, size_bytes
        As given.
    sha256
        64 hexadecimal digits; empty where the file could not be read to its end.
    problem
        Why not, in words; empty where it could, or where the file is gone.
    """

    path: str
    size_bytes: int
    sha256: str
    problem: str = ""


def hash_files(location: Location, files: Iterable[tuple[str, int]], n_threads: int) -> Iterator[FileHash]:
    """Hash files, in the order given, in memory that does not depend on their sizes.

    Leaving the iteration early, by Ctrl-C for example, stops the threads within one block.

    Parameters
    ----------
    location
        The store's root.
    files
        Path and size of each.
    n_threads
        Threads that hash local files.

    Raises
    ------
    StorageError
        A remote filesystem failed; what fails to be read on a local one is a ``problem`` of its file.
    """
    return _hash_local(location, files, n_threads) if location.is_local else _hash_remote(location, list(files))


def _hash_local(location: Location, files: Iterable[tuple[str, int]], n_threads: int) -> Iterator[FileHash]:
    stop = threading.Event()
    buffers = threading.local()

    def hash_batch(batch: Sequence[tuple[str, int]]) -> list[FileHash]:
        if not hasattr(buffers, "block"):
            buffers.block = memoryview(bytearray(_BLOCK_BYTES))
        return [_hash_one(location, path, size, buffers.block, stop) for path, size in batch if not stop.is_set()]

    waiting: deque[Future[list[FileHash]]] = deque()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="nait-hash")
    try:
        for batch in _batches(files):
            while len(waiting) > 4 * n_threads:
                yield from waiting.popleft().result()
            waiting.append(pool.submit(hash_batch, batch))
        while waiting:
            yield from waiting.popleft().result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _batches(files: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    batch: list[tuple[str, int]] = []
    n_bytes = 0
    for path, size in files:
        batch.append((path, size))
        n_bytes += size
        if n_bytes >= _BATCH_BYTES or len(batch) >= _BATCH_FILES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def _hash_one(location: Location, path: str, size: int, block: memoryview, stop: threading.Event) -> FileHash:
    digest = hashlib.sha256()
    try:
        with location.open_read(path) as handle:
            while n := handle.readinto(block):  # type: ignore[attr-defined]
                digest.update(block[:n])
                if stop.is_set():
                    return FileHash(path, size, "")
    except NotFoundError:
        return FileHash(path, size, "")
    except (StorageError, ReadOnlyError) as error:
        return FileHash(path, size, "", error.what)
    except OSError as error:
        return FileHash(path, size, "", f"it cannot be read: {error.strerror or error}")
    return FileHash(path, size, digest.hexdigest())


def _hash_remote(location: Location, files: list[tuple[str, int]]) -> Iterator[FileHash]:
    first = 0
    while first < len(files):
        digest = hashlib.sha256()
        try:
            for part, data in location.read_many(_parts(files[first:])):
                digest.update(data)
                path, size = files[first]
                if (part.start or 0) + part.length_bytes >= size:
                    yield FileHash(path, size, digest.hexdigest())
                    first += 1
                    digest = hashlib.sha256()
        except NotFoundError:  # gone since it was listed: on with those behind it
            path, size = files[first]
            yield FileHash(path, size, "")
            first += 1


def _parts(files: Iterable[tuple[str, int]]) -> Iterator[FilePart]:
    for path, size in files:
        if size <= _PART_BYTES:
            yield FilePart(path, size)
        else:
            for start in range(0, size, _PART_BYTES):
                yield FilePart(path, min(_PART_BYTES, size - start), start)
