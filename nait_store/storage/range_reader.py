"""A remote file as a stream: what is read of it is fetched by ranges."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nait_store.storage.backend import Backend


class RangeReader(io.RawIOBase):
    """A file of a backend that is read by ranges, for remote ones; wrap it in ``io.BufferedReader``.

    Parameters
    ----------
    backend, path
        The file.
    size_bytes
        Its size.
    """

    def __init__(self, backend: Backend, path: str, size_bytes: int, url: str) -> None:
        super().__init__()
        self._backend = backend
        self._path = path
        self._size_bytes = size_bytes
        self._url = url
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fetch as much as fits the buffer."""
        wanted = min(len(buffer), max(0, self._size_bytes - self._position))
        if not wanted:
            return 0
        try:
            data = self._backend.read_range(self._path, self._position, wanted)
        except self._backend.failures as error:
            raise self._backend.explain(error, "read", self._url) from error
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
