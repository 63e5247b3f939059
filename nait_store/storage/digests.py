"""SHA-256 of bytes and stored files, and verification against records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from nait_store.errors import CorruptChunkError, NotFoundError
from nait_store.schemas.record import FileDigest
from nait_store.storage.location import Location
from nait_store.storage.readable_files import ReadableFiles

_BLOCK_BYTES = 1 << 22
_WRITTEN_AT_ONCE = 4


def sha256_bytes(data: bytes | memoryview) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(location: Location, path: str) -> str:
    """SHA-256 of a stored file, read in blocks."""
    digest = hashlib.sha256()
    with location.open_read(path) as handle:
        while block := handle.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class HashedFile:
    """A file handle that hashes what is written through it, front to back.

    Parameters
    ----------
    handle
        Where it goes.

    Attributes
    ----------
    size_bytes
        Written so far.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._digest = hashlib.sha256()
        self._kept: bytearray | None = None
        self.size_bytes = 0

    @property
    def closed(self) -> bool:
        """Whether the handle is closed."""
        return self._handle.closed

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Write and hash all of ``data``."""
        self._handle.write(data)
        view = memoryview(data)
        self._digest.update(view)
        self.size_bytes += view.nbytes
        if self._kept is not None:
            self._kept += view
        return view.nbytes

    def keep(self) -> bytearray:
        """Keep what is written from now on; it grows in what is returned."""
        self._kept = bytearray()
        return self._kept

    def flush(self) -> None:
        """Hand everything to the system."""
        self._handle.flush()

    def close(self) -> None:
        """Leave the handle open: it belongs to somebody else."""


def write_payload_file(location: Location, folder: str, path: str, data: bytes | memoryview) -> FileDigest:
    """Write one file of an immutable payload and return its digest record."""
    location.write_bytes(f"{folder}/{path}", data)
    return FileDigest(path=path, size_bytes=len(memoryview(data).cast("B")), sha256=sha256_bytes(data))


def write_payload_files(
    location: Location, folder: str, files: Sequence[tuple[str, bytes | memoryview]]
) -> list[FileDigest]:
    """Write files of a payload and return their records in the same order; returns when all of them are durable.

    Several at once: what each waits for, a disk to say that it has the bytes or a remote store to answer, is waited for
    together.
    """
    # The first one makes the folders that they share, and no two threads make the same one.
    records = [write_payload_file(location, folder, *file) for file in files[:1]]
    if len(files) > 1:
        with ThreadPoolExecutor(_WRITTEN_AT_ONCE, thread_name_prefix="nait-write") as pool:
            records += pool.map(lambda file: write_payload_file(location, folder, *file), files[1:])
    return records


def check_file(location: Location, folder: str, expected: FileDigest, *, hashed: bool) -> None:
    """Compare one payload file with its record.

    Parameters
    ----------
    location, folder
        Where the payload lies.
    expected
        Its record; ``path`` relative to ``folder``.
    hashed
        Whether to read and hash every byte, or only compare sizes.

    Raises
    ------
    CorruptChunkError
        Missing, of another size, or of other content; the message names the file.
    """
    check_size(location, folder, expected)
    path = f"{folder}/{expected.path}"
    if hashed and sha256_file(location, path) != expected.sha256:
        raise CorruptChunkError(f"{location.url_of(path)} differs from its recorded SHA-256")


def check_size(files: ReadableFiles, folder: str, expected: FileDigest) -> None:
    """Compare the size of one payload file with its record; CorruptChunkError where it is missing or differs."""
    path = f"{folder}/{expected.path}"
    try:
        size_bytes = files.size_bytes(path)
    except NotFoundError as error:
        raise CorruptChunkError(f"{files.url_of(path)} is missing") from error
    if size_bytes != expected.size_bytes:
        raise CorruptChunkError(
            f"{files.url_of(path)} has {size_bytes:,} bytes, its record says {expected.size_bytes:,}"
        )
