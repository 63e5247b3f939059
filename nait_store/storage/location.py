"""A folder on any fsspec filesystem, with the few operations that the store is built of."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs

from nait_store.errors import AlreadyExistsError, InvalidInputError, NotFoundError, ReadOnlyError, StorageError
from nait_store.storage.atomic import creator_for, replace_local


class Location:
    """A folder on an fsspec filesystem; every path given to a method is relative to it, ``/``-separated.

    Parameters
    ----------
    url
        ``./folder``, ``file:///folder``, ``memory://name`` or any other fsspec URL.

    Attributes
    ----------
    url
        As users would write it again.
    """

    def __init__(self, url: str) -> None:
        if not url.strip() or "\x00" in url:
            raise InvalidInputError(
                f"{url!r} is not a location", next_step="give a folder or an fsspec URL, e.g. ./store"
            )
        try:
            fs, root = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InvalidInputError(
                f"cannot open the location {url!r}: {error}",
                next_step="give a folder or a URL of an installed fsspec filesystem, e.g. ./store or memory://store",
            ) from error
        self._fs: Any = fs
        self._root: str = str(root).rstrip("/")
        protocols = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
        self.protocol: str = protocols[0]
        self.is_local: bool = "file" in protocols
        self.url: str = self._root if self.is_local else str(fs.unstrip_protocol(self._root))
        self._create = creator_for(fs, protocols)
        self._read_only: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"Location({self.url!r})"

    def sub(self, path: str) -> Location:
        """Return the location of a folder below this one."""
        other = object.__new__(Location)
        other.__dict__.update(self.__dict__)
        other._root = self._absolute(path)
        other.url = self.url_of(path)
        return other

    def read_only(self, reason: str, next_step: str) -> Location:
        """Return this location with every write refused for ``reason``."""
        other = self.sub("")
        other._read_only = (reason, next_step)
        return other

    def url_of(self, path: str) -> str:
        """Return the full URL or local path of ``path``, for messages and other libraries."""
        return f"{self.url}/{path}" if path else self.url

    def local_path(self, path: str = "") -> Path | None:
        """Return the path on the local disk, or None where the filesystem is not local."""
        return Path(self._absolute(path)) if self.is_local else None

    @property
    def can_create_atomically(self) -> bool:
        """Whether create-if-absent is known to be atomic here, which every write to a store needs."""
        return self._create is not None and self._read_only is None

    def require_writable(self) -> None:
        """Refuse a filesystem on which commits could be lost.

        Raises
        ------
        ReadOnlyError
            No atomic create-if-absent is known for this filesystem, or the location was made read-only.
        """
        if self._read_only is not None:
            reason, next_step = self._read_only
            raise ReadOnlyError(reason, next_step=next_step)
        if self._create is None:
            raise ReadOnlyError(
                f"stores on {self.protocol}:// can be read but not written: "
                "this release knows no atomic create-if-absent there, so concurrent commits could be lost",
                next_step="write to a local folder (or memory:// within one process)",
            )

    def read_bytes(self, path: str) -> bytes:
        """Read a whole file.

        Raises
        ------
        NotFoundError
            There is no such file.
        StorageError
            Reading failed.
        """
        with self._errors("read", path):
            return bytes(self._fs.cat_file(self._absolute(path)))

    def open_read(self, path: str) -> BinaryIO:
        """Open a file for random access; the caller closes it."""
        with self._errors("open", path):
            handle: BinaryIO = self._fs.open(self._absolute(path), "rb")
            return handle

    def write_bytes(self, path: str, data: bytes | memoryview) -> None:
        """Write a file whole, replacing what was there; readers see the old bytes or the new.

        Raises
        ------
        ReadOnlyError
            The filesystem cannot be written safely or permission is missing.
        StorageError
            Writing failed (disk full, network).
        """
        self.require_writable()
        with self._errors("write", path):
            if self.is_local:
                replace_local(Path(self._absolute(path)), data)
            else:
                self._fs.pipe_file(self._absolute(path), bytes(data))

    def create_bytes(self, path: str, data: bytes) -> None:
        """Create a file atomically if, and only if, it is absent: the primitive that commits are made of.

        Raises
        ------
        AlreadyExistsError
            The file exists; it is left as it was.
        ReadOnlyError, StorageError
            As for :meth:`write_bytes`.
        """
        self.require_writable()
        assert self._create is not None
        with self._errors("create", path):
            try:
                self._create(self._absolute(path), data)
            except FileExistsError as error:
                raise AlreadyExistsError(f"{self.url_of(path)} exists already") from error

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        with self._errors("look up", path):
            return bool(self._fs.exists(self._absolute(path)))

    def is_file(self, path: str) -> bool:
        """Whether it is a file."""
        with self._errors("look up", path):
            return bool(self._fs.isfile(self._absolute(path)))

    def size_bytes(self, path: str) -> int:
        """Size of a file; NotFoundError where there is none."""
        with self._errors("look up", path):
            info = self._fs.info(self._absolute(path))
            if info["type"] != "file":
                raise FileNotFoundError(path)
            return int(info["size"])

    def names(self, path: str = "") -> list[str]:
        """Sorted names of the files and folders directly below ``path``; empty where there is none."""
        with self._errors("list", path):
            try:
                self._fs.invalidate_cache(self._absolute(path))
                entries = self._fs.ls(self._absolute(path), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
            found = {str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries}
            return sorted(name for name in found if not name.startswith(".tmp-"))

    def walk(self, path: str = "") -> Iterator[tuple[str, int]]:
        """Yield (path relative to this location, size in bytes) of every file below ``path``."""
        with self._errors("list", path):
            top = self._absolute(path)
            if not self._fs.exists(top):
                return
            found = self._fs.find(top, detail=True)
        for absolute, info in sorted(found.items()):
            relative = str(absolute)[len(self._root) :].lstrip("/")
            if not relative.rsplit("/", 1)[-1].startswith(".tmp-"):
                yield relative, int(info["size"])

    def delete(self, path: str) -> None:
        """Delete a file or a whole folder; nothing happens where there is none."""
        if self._read_only is not None:
            self.require_writable()
        with self._errors("delete", path), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._absolute(path), recursive=True)

    def free_bytes(self) -> int | None:
        """Free space for new files, or None where the filesystem does not say."""
        if not self.is_local:
            return None
        folder = Path(self._root)
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        usage = os.statvfs(folder)
        return usage.f_bavail * usage.f_frsize

    def _absolute(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    @contextlib.contextmanager
    def _errors(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.url_of(path)} does not exist") from error
        except PermissionError as error:
            raise ReadOnlyError(
                f"no permission to {verb} {self.url_of(path)}", next_step="check who owns the folder and its mode"
            ) from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise StorageError(
                f"could not {verb} {self.url_of(path)}: {error.strerror or error}",
                next_step="free some disk space and run the same command again: what was flushed is kept"
                if full
                else "check the disk or the network and run the same command again",
            ) from error
