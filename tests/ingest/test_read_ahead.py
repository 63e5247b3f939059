"""Reading ahead of a consumer: order, bounds, errors, and the end of the thread."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Generator, Iterator

import pytest

from nait_store.ingest.read_ahead import ReadAhead

_NAME = "reads-ahead"


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread for thread in threading.enumerate() if thread.name == _NAME] == []


def _ahead(items: Generator[int, None, None], capacity: int = 4) -> ReadAhead[int]:
    return ReadAhead(items, weigh=lambda item: item, capacity=capacity, name=_NAME)


def _ones(n: int, pulled: list[str] | None = None, enough: threading.Semaphore | None = None) -> Iterator[int]:
    for _ in range(n):
        if pulled is not None:
            pulled.append(threading.current_thread().name)
        if enough is not None:
            enough.release()
        yield 1


def test_items_come_in_their_order_out_of_another_thread() -> None:
    pulled: list[str] = []

    def items() -> Generator[int, None, None]:
        yield from _ones(1, pulled)
        yield from range(50)

    with _ahead(items()) as ahead:
        assert list(ahead) == [1, *range(50)]
    assert pulled == [_NAME]


def test_it_reads_no_further_than_the_buffer_holds() -> None:
    pulled: list[str] = []
    enough = threading.Semaphore(0)

    def items() -> Generator[int, None, None]:
        yield from _ones(100, pulled, enough)

    with _ahead(items(), capacity=4) as ahead:
        for _ in range(5):  # four in the buffer, one that waits for room
            assert enough.acquire(timeout=30)
        assert not enough.acquire(timeout=0.05)
        assert next(ahead) == 1
        assert enough.acquire(timeout=30)
        assert len(pulled) == 6


def test_an_item_that_is_heavier_than_the_buffer_passes_alone() -> None:
    def items() -> Generator[int, None, None]:
        yield from [1, 99, 1, 99]

    with _ahead(items(), capacity=4) as ahead:
        assert list(ahead) == [1, 99, 1, 99]


def test_an_error_comes_after_what_was_read_before_it_with_its_traceback() -> None:
    def items() -> Generator[int, None, None]:
        yield from [1, 2]
        _fail_in_a_known_place()

    with _ahead(items()) as ahead:
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(LookupError, match="no such record") as caught:
            next(ahead)
        with pytest.raises(StopIteration):
            next(ahead)
    assert "_fail_in_a_known_place" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def _fail_in_a_known_place() -> None:
    raise LookupError("no such record")


def test_leaving_the_block_early_closes_the_generator_in_its_own_thread() -> None:
    closed: list[str] = []

    def items() -> Generator[int, None, None]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with _ahead(items()) as ahead:
        next(ahead)
    assert closed == [_NAME]


def test_after_stop_the_buffer_is_still_given_out() -> None:
    enough = threading.Semaphore(0)

    def items() -> Generator[int, None, None]:
        yield from _ones(100, None, enough)

    with _ahead(items(), capacity=2) as ahead:
        for _ in range(3):
            assert enough.acquire(timeout=30)
        ahead.stop()
        assert list(ahead) == [1, 1, 1]


def test_ctrl_c_while_a_hanging_read_is_waited_for_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()

    def items() -> Generator[int, None, None]:
        yield 1
        goes_on.wait(30)

    def interrupt(thread: threading.Thread, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    ahead = _ahead(items())
    with ahead, monkeypatch.context() as patch:
        next(ahead)
        patch.setattr(threading.Thread, "join", interrupt)
        error = ValueError("the first error")
        ahead.__exit__(ValueError, error, None)  # returns: what is under way is that error
        with pytest.raises(KeyboardInterrupt):
            ahead.__exit__(None, None, None)
        goes_on.set()
