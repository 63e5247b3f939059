"""Remote files kept on the local disk: immutable ones only, by digest, the least recently used go first.

A file's name is its SHA-256, so that nothing in the cache can be out of date, and stores that share files share them
here too. What arrives is hashed before it is kept. Losing the cache, or any part of it, loses nothing.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import CorruptChunkError, InvalidInputError, NotFoundError
from nait_store.schemas.record import FileDigest
from nait_store.storage.cache_folder import cache_folder
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location

SIZE_VARIABLE = "NAIT_STORE_CACHE_SIZE"
DEFAULT_LIMIT_BYTES = 10_000_000_000
_LEFT_FREE_BYTES = 1 << 30
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)(i?)B?\s*\Z", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class ObjectCache:
    """Keeps files of remote stores. Safe to use from several threads and processes.

    Parameters
    ----------
    folder
        Where to keep them; created when first needed.
    limit_bytes
        Most bytes to keep, exceeded by a sixteenth at times. With 0 nothing is kept.

    Attributes
    ----------
    limit_bytes
        As given.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._n_new_bytes: int | None = None
        """Bytes kept by this process since it last looked at them all; None before it has."""

    def read(self, location: Location, folder: str, file: FileDigest, *, keep: bool = True) -> NDArray[np.uint8]:
        """Read an immutable file whole: from the cache, or from the store and then into the cache.

        Parameters
        ----------
        location, folder
            Where the file lies.
        file
            Its record; ``path`` relative to ``folder``.
        keep
            Whether to keep what came from the store; what is not kept is not hashed.

        Returns
        -------
        ndarray, uint8
            Its bytes, read-only; memory-mapped where they come from the cache.

        Raises
        ------
        CorruptChunkError
            It is missing, or differs from its record.
        """
        kept = self.path(file) if self.limit_bytes else None
        if kept is not None:
            with contextlib.suppress(OSError, ValueError):  # taken away in this moment
                return _map(kept, file.size_bytes)
        path = f"{folder}/{file.path}" if folder else file.path
        try:
            data = location.read_bytes(path)
        except NotFoundError as error:
            raise CorruptChunkError(f"{location.url_of(path)} is missing") from error
        if len(data) != file.size_bytes:
            raise CorruptChunkError(
                f"{location.url_of(path)} has {len(data):,} bytes, its record says {file.size_bytes:,}"
            )
        if keep and self.limit_bytes:
            if sha256_bytes(data) != file.sha256:
                raise CorruptChunkError(f"{location.url_of(path)} differs from its recorded SHA-256")
            self._keep(file, data)
        return np.frombuffer(data, np.uint8)

    def path(self, file: FileDigest) -> Path | None:
        """Where a file is kept, now used most recently; None where it is not."""
        path = self._path(file.sha256)
        try:
            if path.stat().st_size != file.size_bytes:
                return None
        except OSError:
            return None
        with contextlib.suppress(OSError):  # what cannot be marked can be read nevertheless
            os.utime(path)
        return path

    def remove(self, digests: Iterable[str]) -> int:
        """Forget files, e.g. because they were purged; returns how many were there."""
        n_removed = 0
        for digest in digests:
            with contextlib.suppress(OSError):
                self._path(digest).unlink()
                n_removed += 1
        return n_removed

    def size_bytes(self) -> int:
        """Bytes kept now."""
        return sum(size for _, size, _ in self._files())

    def _keep(self, file: FileDigest, data: bytes) -> None:
        target = self._path(file.sha256)
        temporary = target.parent / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            usage = os.statvfs(target.parent)
            if usage.f_bavail * usage.f_frsize < file.size_bytes + _LEFT_FREE_BYTES:
                return
            temporary.write_bytes(data)
            temporary.replace(target)
        except OSError:  # a cache that cannot be written is no reason to fail
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            return
        with self._lock:
            if self._n_new_bytes is None or self._n_new_bytes + file.size_bytes > self.limit_bytes // 16:
                self._evict()
                self._n_new_bytes = 0
            else:
                self._n_new_bytes += file.size_bytes

    def _evict(self) -> None:
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) - self.limit_bytes
        for _, size, path in files:
            if excess <= 0:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                excess -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    stat = path.stat()
                    found.append((stat.st_mtime, stat.st_size, path))
        return found

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


def object_cache() -> ObjectCache:
    """Return this user's cache, of the size that ``NAIT_STORE_CACHE_SIZE`` says (``20GB``; 0 for none).

    Raises
    ------
    InvalidInputError
        The variable holds something else.
    """
    text = os.environ.get(SIZE_VARIABLE, "")
    limit = DEFAULT_LIMIT_BYTES
    if text.strip():
        match = _SIZE.match(text)
        if match is None:
            raise InvalidInputError(
                f"{SIZE_VARIABLE} is {text!r}", next_step="set it to a size, e.g. 20GB, or to 0 for no cache"
            )
        limit = int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])
    key = (cache_folder() / "objects", limit)
    with _caches_lock:
        return _caches.setdefault(key, ObjectCache(*key))


_caches: dict[tuple[Path, int], ObjectCache] = {}
_caches_lock = threading.Lock()


def _map(path: Path, size_bytes: int) -> NDArray[np.uint8]:
    with path.open("rb") as handle:
        if not size_bytes:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(handle.fileno(), size_bytes, prot=mmap.PROT_READ), np.uint8)
