"""Working ahead in several threads, in order and with bounded memory; reading many parts of files that way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


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
    return work_ahead(
        read, parts, size_bytes=lambda part: part.length_bytes, limit_bytes=limit_bytes, n_threads=n_readers
    )


def work_ahead(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    size_bytes: Callable[[T], int],
    limit_bytes: int,
    n_threads: int,
) -> Iterator[tuple[T, R]]:
    """Do something for many items concurrently and yield what comes of each, in order.

    Parameters
    ----------
    work
        What to do; called in other threads.
    items
        Taken from the iterable as work goes on.
    size_bytes
        How much memory an item takes until it is yielded.
    limit_bytes
        Most bytes that are held for items not yet yielded; one item is always let through.
    n_threads
        Most items that are worked on at a time.

    Yields
    ------
    item, result
        What ``work`` raises comes at the item concerned; items behind it that have not begun are dropped.
    """
    waiting: deque[tuple[T, int, Future[R]]] = deque()
    held_bytes = 0
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="nait-read")
    try:
        for item in items:
            n_bytes = size_bytes(item)
            while waiting and held_bytes + n_bytes > limit_bytes:
                done, n_done, result = waiting.popleft()
                held_bytes -= n_done
                yield done, result.result()
            waiting.append((item, n_bytes, pool.submit(work, item)))
            held_bytes += n_bytes
        while waiting:
            done, _, result = waiting.popleft()
            yield done, result.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
