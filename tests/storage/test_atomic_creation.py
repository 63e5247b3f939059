from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest

from nait_store.errors import AlreadyExistsError
from nait_store.storage.location import Location

_ROUNDS = 20
_WRITERS = 8


def _race(url: str, writer: int, barrier: Any, won: Any) -> None:
    location = Location(url)
    for number in range(_ROUNDS):
        barrier.wait()
        try:
            location.create_bytes(f"versions/{number}.json", f"writer {writer}".encode() * 1000)
        except AlreadyExistsError:
            continue
        won.put((number, writer))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_exactly_one_of_8_processes_creates_a_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(_WRITERS), context.Queue()
    processes = [context.Process(target=_race, args=(str(tmp_path), i, barrier, won)) for i in range(_WRITERS)]
    for process in processes:
        process.start()
    winners = dict(won.get(timeout=60) for _ in range(_ROUNDS))
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert sorted(winners) == list(range(_ROUNDS))
    assert won.empty()
    for number, writer in winners.items():
        assert Location(str(tmp_path)).read_bytes(f"versions/{number}.json") == f"writer {writer}".encode() * 1000


def test_exactly_one_of_8_threads_creates_a_file(location: Location) -> None:
    barrier = threading.Barrier(_WRITERS)
    won: list[int] = []

    def create(writer: int) -> None:
        barrier.wait()
        try:
            location.create_bytes("versions/1.json", str(writer).encode())
        except AlreadyExistsError:
            return
        won.append(writer)

    threads = [threading.Thread(target=create, args=(i,)) for i in range(_WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert location.read_bytes("versions/1.json") == str(won[0]).encode()


@pytest.mark.parametrize("n_bytes", [0, 1, 5_000_000])
def test_what_is_created_is_whole(location: Location, n_bytes: int) -> None:
    location.create_bytes("deep/folder/file", b"x" * n_bytes)
    assert location.size_bytes("deep/folder/file") == n_bytes
