"""What every backend that a store may be written to must do; subclass one of the classes for yours."""

from __future__ import annotations

import contextlib
import datetime
import io
import multiprocessing
import pickle
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nait_store.errors import AlreadyExistsError, NotFoundError, ReadOnlyError
from nait_store.storage.fetching import FilePart
from nait_store.storage.location import Location
from nait_store.storage.pending import PendingFile

WRITERS = 8
ROUNDS = 20
ODD_NAMES = [
    "a b",
    "ü",
    "%20",
    "#x",
    "+",
    "x*",
    "[a]",
    "back\\slash",
    "'\"",
    "a=b&c",
    "~",
    "$HOME",
    "日本",
    "-",
    "a" * 200,
]


class StorageContract:
    """Tests that read and write through a :class:`Location`, and look past it with another client.

    A subclass gives a fresh location and the raw operations, which use nothing of the code under test.
    """

    @pytest.fixture
    def location(self) -> Location:
        """Return a location with nothing in it."""
        raise NotImplementedError

    def raw_write(self, location: Location, path: str, data: bytes) -> None:
        """Write a file by other means."""
        raise NotImplementedError

    def raw_read(self, location: Location, path: str) -> bytes | None:
        """Read a file by other means; None where there is none."""
        raise NotImplementedError

    def raw_delete(self, location: Location, path: str) -> None:
        """Delete a file by other means."""
        raise NotImplementedError

    # What is written is read

    @pytest.mark.parametrize("n_bytes", [0, 1, 100_000, 20_000_000])
    def test_what_is_written_lies_there_whole(self, location: Location, n_bytes: int) -> None:
        """Bytes arrive as they were given."""
        data = bytes(range(256)) * (n_bytes // 256 + 1)
        location.write_bytes("deep/folder/file", memoryview(data)[:n_bytes])
        assert self.raw_read(location, "deep/folder/file") == data[:n_bytes]
        assert location.size_bytes("deep/folder/file") == n_bytes

    @pytest.mark.parametrize("n_bytes", [0, 1, 20_000_000])
    def test_what_is_created_lies_there_whole(self, location: Location, n_bytes: int) -> None:
        """Creation takes files of any size."""
        data = b"x" * n_bytes
        location.create_bytes("deep/folder/file", data)
        assert self.raw_read(location, "deep/folder/file") == data

    def test_what_another_client_wrote_is_read(self, location: Location) -> None:
        """Nothing of ours is needed to make a file."""
        self.raw_write(location, "a/b", b"0123456789")
        assert location.read_bytes("a/b") == b"0123456789"

    def test_writing_again_replaces(self, location: Location) -> None:
        """The old content is gone, also where it was longer."""
        location.write_bytes("x", b"long content")
        location.write_bytes("x", b"new")
        assert self.raw_read(location, "x") == b"new"

    def test_a_reader_of_a_file_being_replaced_sees_one_content_or_the_other(self, location: Location) -> None:
        """No mixture and no absence."""
        contents = {letter * 300_000 for letter in (b"a", b"b")}
        location.write_bytes("x", b"a" * 300_000)
        stop = threading.Event()

        def replace() -> None:
            while not stop.is_set():
                for content in sorted(contents):
                    location.write_bytes("x", content)

        writer = threading.Thread(target=replace)
        writer.start()
        try:
            seen = {location.read_bytes("x") for _ in range(30)}
        finally:
            stop.set()
            writer.join()
        assert seen <= contents

    def test_a_local_file_is_written_whole_and_left(self, location: Location, tmp_path: Path) -> None:
        """`write_file` copies."""
        source = tmp_path / "source.bin"
        source.write_bytes(bytes(range(256)) * 100_000)
        location.write_file("deep/file", source)
        assert self.raw_read(location, "deep/file") == source.read_bytes()

    def test_reading_what_is_not_there_names_it(self, location: Location) -> None:
        """By every way to read."""
        self.raw_write(location, "folder/file", b"1")
        for path in ("nowhere.bin", "folder", "folder/file/below"):
            for read in (
                location.read_bytes,
                location.open_read,
                location.size_bytes,
                lambda path: location.read_range(path, 0, 1),
            ):
                with pytest.raises(NotFoundError, match=path):
                    read(path)

    @pytest.mark.parametrize(
        ("start", "length", "expected"), [(0, 4, b"0123"), (3, 2, b"34"), (8, 9, b"89"), (10, 5, b""), (99, 5, b"")]
    )
    def test_ranges_end_with_the_file(self, location: Location, start: int, length: int, expected: bytes) -> None:
        """A range that begins behind the end is empty."""
        self.raw_write(location, "x", b"0123456789")
        assert location.read_range("x", start, length) == expected

    def test_an_open_file_is_read_at_random(self, location: Location) -> None:
        """Positions relative to the start, here and the end."""
        data = bytes(range(256)) * 20_000
        self.raw_write(location, "x", data)
        with location.open_read("x") as handle:
            assert handle.seek(4_000_000) == 4_000_000
            assert handle.read(10) == data[4_000_000:4_000_010]
            handle.seek(-3, io.SEEK_END)
            assert handle.read() == data[-3:]
            handle.seek(0)
            assert handle.read(2_000_000) == data[:2_000_000]

    def test_many_parts_are_read_in_the_order_asked(self, location: Location) -> None:
        """Whole files and ranges, with less memory than they need together."""
        for number in range(20):
            self.raw_write(location, f"f{number}", bytes([number]) * 1_000)
        wanted = [FilePart(f"f{n}", 1_000) for n in range(19, -1, -1)] + [FilePart("f3", 10, start=995)]
        found = list(location.read_many(wanted, limit_bytes=3_000))
        assert [part for part, _ in found] == wanted
        assert [data for _, data in found[:-1]] == [bytes([n]) * 1_000 for n in range(19, -1, -1)]
        assert found[-1][1] == b"\x03" * 5

    def test_a_missing_part_among_many_is_named_when_its_turn_comes(self, location: Location) -> None:
        """What lies before it is still read."""
        self.raw_write(location, "a", b"1")
        found = location.read_many([FilePart("a", 1), FilePart("gone", 1)])
        assert next(found)[1] == b"1"
        with pytest.raises(NotFoundError, match="gone"):
            next(found)

    # Create once

    def test_creating_again_fails_and_leaves_the_first(self, location: Location) -> None:
        """Also with the same content, and after another client's write."""
        location.create_bytes("versions/1.json", b"first")
        self.raw_write(location, "versions/2.json", b"second")
        for number, content in ((1, b"first"), (1, b"other"), (2, b"other")):
            with pytest.raises(AlreadyExistsError, match=rf"{number}\.json exists already"):
                location.create_bytes(f"versions/{number}.json", content)
        assert self.raw_read(location, "versions/1.json") == b"first"
        assert self.raw_read(location, "versions/2.json") == b"second"

    def test_what_was_deleted_can_be_created_again(self, location: Location) -> None:
        """Deletion leaves no trace."""
        location.create_bytes("x", b"1")
        location.delete("x")
        location.create_bytes("x", b"2")
        assert self.raw_read(location, "x") == b"2"

    def test_exactly_one_of_8_threads_creates_a_file(self, location: Location) -> None:
        """20 rounds; what lies there is the winner's content, whole."""
        won: list[tuple[int, int]] = []
        barrier = threading.Barrier(WRITERS)
        threads = [
            threading.Thread(target=race, args=(location, writer, barrier, won.append)) for writer in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.check_race(location, won)

    def check_race(self, location: Location, won: list[tuple[int, int]]) -> None:
        """Compare what lies there with who believes to have won."""
        assert sorted(number for number, _ in won) == list(range(ROUNDS))
        for number, writer in won:
            assert self.raw_read(location, f"versions/{number}.json") == content_of(writer)

    # Listings

    def test_names_are_sorted_and_direct_children_only(self, location: Location) -> None:
        """Files and folders; nothing for a file or an absent folder."""
        for path in ("d/b", "d/a", "d/sub/deep", "d-not/x", "other"):
            self.raw_write(location, path, b"")
        assert location.names("d") == ["a", "b", "sub"]
        assert location.names() == ["d", "d-not", "other"]
        assert location.names("absent") == []
        assert location.names("d/a") == []

    def test_present_names_are_those_that_lie_there(self, location: Location) -> None:
        """Files and folders, in the order asked for; none in a file or an absent folder."""
        for path in ("d/b", "d/sub/deep", "d-not/x", "x"):
            self.raw_write(location, path, b"")
        assert location.present("d", ["x", "sub", "deep", "b"]) == ["sub", "b"]
        assert location.present("", ["d", "b", "x"]) == ["d", "x"]
        assert location.present("d", []) == []
        assert location.present("absent", ["b"]) == []
        assert location.present("d/b", ["b"]) == []

    def test_listings_follow_what_another_client_does(self, location: Location) -> None:
        """Nothing is remembered between two questions."""
        assert location.names("d") == []
        assert not location.exists("d/new")
        self.raw_write(location, "d/new", b"12")
        assert location.names("d") == ["new"]
        assert location.exists("d/new")
        assert location.is_file("d/new")
        assert location.size_bytes("d/new") == 2
        assert list(location.walk()) == [("d/new", 2)]
        self.raw_write(location, "d/new", b"123")
        assert location.size_bytes("d/new") == 3
        self.raw_delete(location, "d/new")
        assert location.names("d") == []
        assert not location.exists("d/new")
        assert list(location.walk()) == []

    def test_a_folder_exists_and_is_no_file(self, location: Location) -> None:
        """As soon as something lies in it."""
        assert not location.exists("folder")
        self.raw_write(location, "folder/file", b"1")
        assert location.exists("folder")
        assert not location.is_file("folder")
        assert not location.exists("fold")

    def test_walk_gives_every_file_with_its_size(self, location: Location) -> None:
        """Sorted, relative to the location asked."""
        for path, size_bytes in (("top/b/c", 2), ("top/a", 1), ("top-not/a", 4), ("elsewhere", 3)):
            self.raw_write(location, path, b"x" * size_bytes)
        assert list(location.walk("top")) == [("top/a", 1), ("top/b/c", 2)]
        assert list(location.sub("top").walk()) == [("a", 1), ("b/c", 2)]
        assert list(location.walk("absent")) == []
        assert list(location.walk("elsewhere")) == []

    def test_files_tell_when_they_were_written(self, location: Location) -> None:
        """Within the second that some filesystems round to, and clocks differ by."""
        before = datetime.datetime.now(datetime.UTC)
        location.write_bytes("x", b"1")
        (file,) = location.files()
        assert file.modified_at is not None
        assert abs(file.modified_at - before) < datetime.timedelta(minutes=1)

    def test_odd_names_are_taken_literally(self, location: Location) -> None:
        """No globs, no escapes, no home folders."""
        for name in ODD_NAMES:
            location.create_bytes(f"odd/{name}", name.encode())
        for name in ODD_NAMES:
            assert self.raw_read(location, f"odd/{name}") == location.read_bytes(f"odd/{name}") == name.encode()
        assert location.names("odd") == sorted(ODD_NAMES)
        assert [path for path, _ in location.walk("odd")] == sorted(f"odd/{name}" for name in ODD_NAMES)
        for gone in ("x*", "[a]", "~"):
            location.delete(f"odd/{gone}")
        assert location.names("odd") == sorted(set(ODD_NAMES) - {"x*", "[a]", "~"})

    def test_files_being_written_are_hidden(self, location: Location) -> None:
        """They are leftovers once their writer is gone."""
        self.raw_write(location, "d/a", b"1")
        self.raw_write(location, "d/.tmp-1-abc", b"left by a crash")
        assert location.names("d") == ["a"]
        assert [path for path, _ in location.walk()] == ["d/a"]
        assert [(file.path, file.size_bytes) for file in location.leftovers()] == [("d/.tmp-1-abc", 15)]

    def test_nothing_is_left_over_by_writes_that_end(self, location: Location) -> None:
        """Neither by successful nor by refused ones."""
        location.write_bytes("d/a", b"1")
        location.create_bytes("d/b", b"1")
        with pytest.raises(AlreadyExistsError):
            location.create_bytes("d/b", b"2")
        assert list(location.leftovers()) == []

    # Deletion

    def test_deleting_a_folder_takes_all_of_it_and_nothing_else(self, location: Location) -> None:
        """Neither neighbours of the same beginning."""
        for path in ("gone/a/b", "gone/c", "gone-not/a", "gone.json"):
            self.raw_write(location, path, b"1")
        location.delete("gone")
        assert [path for path, _ in location.walk()] == ["gone-not/a", "gone.json"]

    def test_deleting_a_file_leaves_its_folder_mates(self, location: Location) -> None:
        """One file only."""
        self.raw_write(location, "d/a", b"1")
        self.raw_write(location, "d/ab", b"1")
        location.delete("d/a")
        assert location.names("d") == ["ab"]

    def test_deleting_what_is_not_there_does_nothing(self, location: Location) -> None:
        """Deletion is repeatable."""
        self.raw_write(location, "x", b"1")
        location.delete("never-was")
        location.delete("x/below")
        assert location.names() == ["x"]

    # Files in pieces

    def test_a_pending_file_appears_whole_when_published(self, location: Location) -> None:
        """And not before."""
        with PendingFile(location, "d/x") as pending:
            pending.handle.write(b"12")
            pending.handle.write(b"34")
            assert location.names("d") == []
            pending.publish()
        assert self.raw_read(location, "d/x") == b"1234"
        assert list(location.leftovers()) == []

    def test_a_discarded_pending_file_leaves_nothing(
        self, location: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither in the store nor in the temporary folder."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        (tmp_path / "tmp").mkdir()
        with contextlib.suppress(RuntimeError), PendingFile(location, "d/x") as pending:
            pending.handle.write(b"12")
            raise RuntimeError
        assert not location.exists("d/x")
        assert list(location.leftovers()) == []
        assert list((tmp_path / "tmp").iterdir()) == []

    # Locations

    def test_sub_locations_share_the_files(self, location: Location) -> None:
        """A sub-location is a prefix."""
        location.sub("x").write_bytes("y", b"1")
        assert location.read_bytes("x/y") == b"1"
        assert location.sub("x").url == location.url + "/x"
        assert Location(location.sub("x").url).read_bytes("y") == b"1"

    def test_a_read_only_location_refuses_every_write_with_its_reason(self, location: Location) -> None:
        """Reading goes on."""
        location.write_bytes("x", b"1")
        sealed = location.read_only("this store is sealed", "unseal it")
        assert sealed.read_bytes("x") == b"1"
        writes: list[Callable[[], None]] = [
            lambda: sealed.write_bytes("y", b"2"),
            lambda: sealed.create_bytes("y", b"2"),
            lambda: sealed.sub("d").create_bytes("y", b"2"),
            lambda: sealed.delete("x"),
        ]
        for write in writes:
            with pytest.raises(ReadOnlyError, match="this store is sealed"):
                write()
        assert location.names() == ["x"]

    def test_a_location_travels_to_other_processes(self, location: Location) -> None:
        """It can be pickled."""
        location.write_bytes("x", b"1")
        again: Location = pickle.loads(pickle.dumps(location))
        assert again.url == location.url
        assert again.read_bytes("x") == b"1"


class SharedStorageContract(StorageContract):
    """The same for storage that other processes see."""

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_exactly_one_of_8_processes_creates_a_file(self, location: Location) -> None:
        """20 rounds; what lies there is the winner's content, whole."""
        context = multiprocessing.get_context("fork")
        barrier, won = context.Barrier(WRITERS), context.Queue()
        processes = [
            context.Process(target=_race_in_child, args=(location.url, writer, barrier, won))
            for writer in range(WRITERS)
        ]
        for process in processes:
            process.start()
        winners = [won.get(timeout=120) for _ in range(ROUNDS)]
        for process in processes:
            process.join(timeout=60)
        assert [process.exitcode for process in processes] == [0] * WRITERS
        assert won.empty()
        self.check_race(location, winners)


def content_of(writer: int) -> bytes:
    """What a writer of a race writes."""
    return f"writer {writer}".encode() * 1_000


def race(location: Location, writer: int, barrier: Any, won: Any) -> None:
    """Try to create one file a round, at the same time as the others."""
    for number in range(ROUNDS):
        barrier.wait(timeout=60)
        try:
            location.create_bytes(f"versions/{number}.json", content_of(writer))
        except AlreadyExistsError:
            continue
        won((number, writer))


def _race_in_child(url: str, writer: int, barrier: Any, won: Any) -> None:
    race(Location(url), writer, barrier, won.put)


def unused_name() -> str:
    """Return a name that no other test chooses."""
    return uuid.uuid4().hex
