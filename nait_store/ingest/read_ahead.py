"""Reading ahead: an iterator that runs in a thread of its own, as far ahead of its consumer as a buffer allows."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Iterates over items that a thread takes out of a generator meanwhile, in their order.

    A context manager: when the block ends the thread has ended too, and with it the generator, which is closed in the
    thread that ran it.

    Parameters
    ----------
    items
        Run in the thread alone. What it raises is raised here, where its items end.
    weigh
        What an item takes of the buffer.
    capacity
        What the buffer holds; an item that is heavier waits for it to be empty.
    name
        Of the thread.
    """

    def __init__(self, items: Generator[T, None, None], *, weigh: Callable[[T], int], capacity: int, name: str) -> None:
        self._items = items
        self._weigh = weigh
        self._capacity = capacity
        self._waiting: deque[tuple[T, int]] = deque()
        self._weight = 0
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> ReadAhead[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        try:
            self._thread.join()
        except KeyboardInterrupt:
            # Its current read hangs, and the user will not wait; the thread ends with the read, or the process.
            if kind is None:
                raise

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """Return the next item; waits for it.

        Raises
        ------
        BaseException
            Whatever ended the generator, as it was raised there.
        """
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait()
            if self._waiting:
                item, weight = self._waiting.popleft()
                self._weight -= weight
                self._changed.notify_all()
                return item
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def stop(self) -> None:
        """Read no further; returns at once, the thread stops when it has read its current item."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            with contextlib.closing(self._items):
                for item in self._items:
                    if not self._put(item):
                        break
        except BaseException as raised:
            error = raised
        with self._changed:
            self._error = error
            self._ended = True
            self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Add an item when there is room for it; returns whether more are wanted."""
        weight = self._weigh(item)
        with self._changed:
            while not self._stopped and self._waiting and self._weight + weight > self._capacity:
                self._changed.wait()
            self._waiting.append((item, weight))
            self._weight += weight
            self._changed.notify_all()
            return not self._stopped
