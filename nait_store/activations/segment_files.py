"""The files of one segment as bytes: mapped, fetched, or from the local cache, and compared with their records."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.chunk_memory import ChunkMemory, is_cached
from nait_store.activations.missing import missing_file
from nait_store.errors import CorruptChunkError, NaitStoreError, NotFoundError, StorageError
from nait_store.schemas.record import FileDigest
from nait_store.storage.digests import check_file, sha256_bytes
from nait_store.storage.location import Location
from nait_store.storage.object_cache import object_cache


class SegmentFiles:
    """Reads whole files of one segment. Safe to use from several threads.

    Parameters
    ----------
    location, folder
        The store, and the segment's folder below it.
    listed
        The files as the segment's record lists them.
    verify
        Hash every file that is read.

    Attributes
    ----------
    location, folder
        As given.
    """

    def __init__(self, location: Location, folder: str, listed: Sequence[FileDigest], *, verify: bool) -> None:
        self.location = location
        self.folder = folder
        self._listed = {file.path: file for file in listed}
        self._verify = verify
        self._cache = object_cache() if location.is_remote else None

    def url(self, path: str) -> str:
        """Full path or URL of a file, for messages and other readers."""
        return self.location.url_of(f"{self.folder}/{path}")

    def local_url(self, path: str) -> str:
        """Where other readers find a file: a path, or its URL where the local cache does not keep it."""
        if self._cache is not None and self.cached(path) is not None:
            kept = self._cache.path(self._listed[path])
            if kept is not None:
                return str(kept)
        return self.url(path)

    def read(self, path: str) -> bytes:
        """Read a small file.

        Raises
        ------
        CorruptChunkError
            It is missing, alone or with its segment.
        """
        cached = self.cached(path)
        if cached is not None:
            return cached.tobytes()
        try:
            return self.location.read_bytes(f"{self.folder}/{path}")
        except NotFoundError as error:
            raise missing_file(self.location, self.folder, path) from error

    def array(
        self, path: str, n_bytes: int, *, keep: bool = True, mapped: bool = True, memory: ChunkMemory | None = None
    ) -> NDArray[np.uint8]:
        """Read a file of a known size.

        Parameters
        ----------
        path
            Relative to the segment's folder.
        n_bytes
            What its size must be.
        keep
            Whether the local cache may keep a remote store's file.
        mapped
            Whether a local file is mapped instead of read.
        memory
            Where to read a local file that is to be mapped and is not in the page cache.

        Returns
        -------
        ndarray, uint8
            Read-only.

        Raises
        ------
        CorruptChunkError
            It is missing, of another size, or (under ``verify``) of other content than its record says.
        StorageError
            It cannot be mapped.
        """
        if mapped and self.location.is_local:
            data = self._map(path, n_bytes, memory)
        else:
            cached = self.cached(path, keep=keep)
            data = np.frombuffer(self.read(path), np.uint8) if cached is None else cached
            self._check_size(path, len(data), n_bytes)
        if self._verify:
            expected = self._listed.get(path)
            if expected is None or sha256_bytes(data.data) != expected.sha256:
                raise CorruptChunkError(f"{self.url(path)} differs from its recorded SHA-256")
        return data

    def piece(self, path: str, start_byte: int, length_bytes: int, n_bytes: int) -> NDArray[np.uint8]:
        """Read a part of a file of a known size, of a remote store that part alone; otherwise as :meth:`array`."""
        listed = self._listed.get(path)
        is_kept = self._cache is not None and listed is not None and self._cache.path(listed) is not None
        if self._verify or is_kept or not self.location.is_remote:
            return self.array(path, n_bytes)[start_byte : start_byte + length_bytes]
        try:
            data = self.location.read_range(f"{self.folder}/{path}", start_byte, length_bytes)
        except NotFoundError as error:
            raise missing_file(self.location, self.folder, path) from error
        if len(data) != length_bytes:
            raise CorruptChunkError(
                f"{self.url(path)} ends before byte {start_byte + length_bytes:,} of {n_bytes:,}",
                next_step="run 'nait-store verify' to see what else is damaged",
            )
        return np.frombuffer(data, np.uint8)

    def cached(self, path: str, *, keep: bool = True) -> NDArray[np.uint8] | None:
        """A remote store's file by way of the local cache; None for files of other stores, and those not listed."""
        listed = self._listed.get(path)
        if self._cache is None or listed is None:
            return None
        try:
            return self._cache.read(self.location, self.folder, listed, keep=keep)
        except CorruptChunkError as error:
            if isinstance(error.__cause__, NotFoundError):
                raise missing_file(self.location, self.folder, path) from error
            raise

    def check(self, prefix: str) -> None:
        """Compare the files below a prefix with their records: a generic reader takes a missing chunk for zeros."""
        for path, file in self._listed.items():
            if path.startswith(prefix):
                check_file(self.location, self.folder, file, hashed=self._verify)

    def is_in_page_cache(self, path: str, n_bytes: int) -> bool:
        """Whether a file of a known size lies in this machine's page cache, as far as can be told."""
        try:
            return self.location.is_local and is_cached(self._map(path, n_bytes, None)) is True
        except NaitStoreError:  # whoever reads it will hear of it
            return False

    def _map(self, path: str, n_bytes: int, memory: ChunkMemory | None) -> NDArray[np.uint8]:
        local = self.location.local_path(f"{self.folder}/{path}")
        try:
            descriptor = os.open(str(local), os.O_RDONLY)
        except FileNotFoundError as error:
            raise missing_file(self.location, self.folder, path) from error
        except OSError as error:
            raise self._unreadable(path, error) from error
        try:
            self._check_size(path, os.fstat(descriptor).st_size, n_bytes)
            mapped = mmap.mmap(descriptor, n_bytes, prot=mmap.PROT_READ)
            data = np.frombuffer(mapped, np.uint8)
            if memory is None:
                return data
            cached = is_cached(data)
            if cached is False:
                return memory.read(descriptor, n_bytes)
            if cached is None:
                mapped.madvise(mmap.MADV_WILLNEED)  # it will be gone through from end to end
            return data
        except OSError as error:
            raise self._unreadable(path, error) from error
        finally:
            os.close(descriptor)

    def _unreadable(self, path: str, error: OSError) -> StorageError:
        return StorageError(
            f"could not read {self.url(path)}: {error.strerror or error}",
            next_step="check permissions and the limits on open files and memory maps (ulimit -n)",
        )

    def _check_size(self, path: str, found: int, expected: int) -> None:
        if found != expected:
            raise CorruptChunkError(
                f"{self.url(path)} has {found:,} bytes instead of {expected:,}",
                next_step="run 'nait-store verify' to see what else is damaged",
            )
