"""Files that can only be read, wherever they lie: what arrives from elsewhere is checked before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class ReadableFiles(Protocol):
    """The half of :class:`~nait_store.storage.location.Location` that reads, with its errors."""

    @property
    def url(self) -> str:
        """Where they are, as users would write it."""

    def url_of(self, path: str) -> str:
        """Full URL or path of a file, for messages."""

    def read_bytes(self, path: str) -> bytes:
        """Read a whole file; NotFoundError where there is none."""

    def size_bytes(self, path: str) -> int:
        """Size of a file; NotFoundError where there is none."""

    def names(self, path: str = "") -> Sequence[str]:
        """Sorted names of the files and folders directly in a folder; empty where there is none."""
