from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest

from nait_store.errors import CorruptChunkError, StorageError
from nait_store.storage.digests import check_file, sha256_file, write_payload_file, write_payload_files
from nait_store.storage.location import Location


def test_a_payload_files_record_is_what_hashlib_says(location: Location) -> None:
    data = bytes(range(256)) * 40_000  # more than one block
    digest = write_payload_file(location, "p", "sub/data.bin", data)
    assert (digest.path, digest.size_bytes) == ("sub/data.bin", len(data))
    assert digest.sha256 == hashlib.sha256(data).hexdigest() == sha256_file(location, "p/sub/data.bin")


def test_arrays_are_written_as_they_lie_in_memory(location: Location) -> None:
    array = np.arange(24, dtype="<f2").reshape(2, 3, 4)
    digest = write_payload_file(location, "p", "a", array.data)
    assert location.read_bytes("p/a") == array.tobytes()
    assert digest.size_bytes == 48


def test_a_missing_a_short_and_a_changed_file_are_each_named(location: Location) -> None:
    digest = write_payload_file(location, "p", "data.bin", b"0123456789")
    check_file(location, "p", digest, hashed=True)
    location.write_bytes("p/data.bin", b"012345678X")
    check_file(location, "p", digest, hashed=False)
    with pytest.raises(CorruptChunkError, match=r"p/data\.bin differs from its recorded SHA-256"):
        check_file(location, "p", digest, hashed=True)
    location.write_bytes("p/data.bin", b"0123")
    with pytest.raises(CorruptChunkError, match=r"p/data\.bin has 4 bytes, its record says 10"):
        check_file(location, "p", digest, hashed=False)
    location.delete("p/data.bin")
    with pytest.raises(CorruptChunkError, match=r"p/data\.bin is missing"):
        check_file(location, "p", digest, hashed=False)


def test_files_that_are_written_at_once_are_recorded_in_their_order(location: Location) -> None:
    files = [(f"c/{i}", bytes([i]) * i) for i in range(20)]
    records = write_payload_files(location, "p", files)
    assert [record.path for record in records] == [path for path, _ in files]
    for record, (path, data) in zip(records, files, strict=True):
        assert record == write_payload_file(location, "q", path, data)
        assert location.read_bytes(f"p/{path}") == data
    assert write_payload_files(location, "p", []) == []


def test_an_error_of_one_of_several_files_is_raised_when_the_others_are_done(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Location.write_bytes

    def fail_on_three(self: Location, path: str, data: bytes) -> None:
        if path.endswith("/3"):
            raise StorageError("no space left")
        real(self, path, data)

    monkeypatch.setattr(Location, "write_bytes", fail_on_three)
    with pytest.raises(StorageError, match="no space left"):
        write_payload_files(location, "p", [(f"{i}", b"x") for i in range(8)])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nait-write")]
