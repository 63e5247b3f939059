"""Reading many parts of files at a time, in order, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass


@dataclass(frozen=True)
class FilePart:
    """A file to read, whole or in part.

    Attributes
    ----------
    path
        Relative to the location.
    length_bytes
        How many bytes that is, which bounds the memory in use.
    start
        First byte; None for the whole file.
    """

    path: str
    length_bytes: int
    start: int | None = None


def fetch_parts(
    read: Callable[[FilePart], bytes], parts: Iterable[FilePart], *, limit_bytes: int, n_readers: int
) -> Iterator[tuple[FilePart, bytes]]:
    """Read parts concurrently and yield them in order; see :meth:`nait_store.storage.location.Location.read_many`."""
    waiting: deque[tuple[FilePart, Future[bytes]]] = deque()
    held_bytes = 0
    pool = ThreadPoolExecutor(n_readers, thread_name_prefix="nait-read")
    try:
        for part in parts:
            while waiting and held_bytes + part.length_bytes > limit_bytes:
                done, data = waiting.popleft()
                held_bytes -= done.length_bytes
                yield done, data.result()
            waiting.append((part, pool.submit(read, part)))
            held_bytes += part.length_bytes
        while waiting:
            done, data = waiting.popleft()
            yield done, data.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
