from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from nait_store.storage.fetching import FilePart, fetch_parts


def test_no_more_bytes_are_in_flight_than_allowed() -> None:
    lock = threading.Lock()
    fetched = taken = most = 0

    def read(part: FilePart) -> bytes:
        nonlocal fetched, most
        with lock:
            fetched += part.length_bytes
            most = max(most, fetched - taken)
        return b"x" * part.length_bytes

    parts = [FilePart(str(n), 100) for n in range(200)]
    for _, data in fetch_parts(read, parts, limit_bytes=1_000, n_readers=8):
        with lock:
            taken += len(data)
    assert taken == 20_000
    assert most <= 1_100  # the one just handed over is still counted as fetched


def test_several_are_read_at_a_time() -> None:
    together = threading.Barrier(4)

    def read(part: FilePart) -> bytes:
        together.wait(timeout=30)
        return b"1"

    assert len(list(fetch_parts(read, [FilePart(str(n), 1) for n in range(8)], limit_bytes=100, n_readers=4))) == 8


def test_a_part_larger_than_the_limit_is_let_through_alone() -> None:
    parts = [FilePart("small", 1), FilePart("large", 50), FilePart("small", 1)]
    found = list(fetch_parts(lambda part: b"x" * part.length_bytes, parts, limit_bytes=10, n_readers=4))
    assert [len(data) for _, data in found] == [1, 50, 1]


def test_what_is_asked_is_not_taken_ahead_of_what_fits() -> None:
    asked = 0

    def parts() -> Iterator[FilePart]:
        nonlocal asked
        for number in range(1_000):
            asked += 1
            yield FilePart(str(number), 10)

    found = fetch_parts(lambda part: b"x" * 10, parts(), limit_bytes=50, n_readers=4)
    next(found)
    assert asked <= 7
    found.close()  # type: ignore[attr-defined]


def test_an_error_comes_at_its_part_and_ends_the_reading() -> None:
    def read(part: FilePart) -> bytes:
        if part.path == "2":
            raise ValueError("broken")
        return part.path.encode()

    found = fetch_parts(read, [FilePart(str(n), 1) for n in range(5)], limit_bytes=100, n_readers=2)
    assert [next(found)[1], next(found)[1]] == [b"0", b"1"]
    with pytest.raises(ValueError, match="broken"):
        next(found)
    assert list(found) == []
