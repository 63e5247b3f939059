"""A folder on any fsspec filesystem, with the few operations that the store is built of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from nait_store.errors import AlreadyExistsError, ReadOnlyError
from nait_store.storage.atomic import TEMPORARY_PREFIX
from nait_store.storage.backend import Backend, StoredFile
from nait_store.storage.connect import connect
from nait_store.storage.fetching import FilePart, fetch_parts


class Location:
    """A folder on an fsspec filesystem; every path given to a method is relative to it, ``/``-separated.

    Names that begin with ``.tmp-`` are files being written, or left by a crash, and are never listed.
    A location may be used by several threads, and, if no other thread is using it at that moment, after a fork.

    Parameters
    ----------
    url
        ``./folder``, ``file:///folder``, ``memory://name``, ``s3://bucket/prefix`` or any other fsspec URL.

    Attributes
    ----------
    url
        As users would write it again.

    Raises
    ------
    InvalidInputError
        No location, no installed filesystem, or credentials in the URL: they come from the environment alone.
    MissingExtraError
        The URL needs an extra that is not installed.
    """

    def __init__(self, url: str) -> None:
        self._backend: Backend
        self._backend, self._root = connect(url)
        self.protocol: str = self._backend.protocol
        self.is_local: bool = self.protocol == "file"
        self.url: str = self._backend.url(self._root)
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
    def is_remote(self) -> bool:
        """Whether reading waits for a network, so that it pays to ask for much at once and to keep what came."""
        return not self.is_local and self.protocol != "memory"

    @property
    def can_create_atomically(self) -> bool:
        """Whether an atomic create-if-absent, which every write to a store needs, is known for this filesystem.

        On S3 only :meth:`require_writable` finds out whether the endpoint honours it.
        """
        return self._backend.can_create and self._read_only is None

    def require_writable(self) -> None:
        """Refuse a filesystem on which commits could be lost.

        On S3 the first call of a process for a bucket tries it out with an object that it deletes again.

        Raises
        ------
        ReadOnlyError
            No atomic create-if-absent is known for this filesystem, the endpoint ignores it, permission is missing,
            or the location was made read-only.
        StorageError
            The network or the endpoint failed.
        """
        self._refuse_if_read_only()
        with self._errors("write", ""):
            self._backend.check_writable(self._root)

    @property
    def place(self) -> str:
        """The URL without the revision that it may name: two URLs of one place are equal in this."""
        return self._backend.place(self._root)

    @property
    def commits_whole(self) -> bool:
        """Whether it is a repository of the Hugging Face hub, which is written by :meth:`commit` alone."""
        return self._backend.commits_whole

    def require_committable(self) -> None:
        """Raise ReadOnlyError where :meth:`commit` would be refused: a pinned revision, or nobody is logged in."""
        self._refuse_if_read_only()
        self._backend.check_can_commit(self._root)

    def commit(self, files: Mapping[str, bytes], message: str, description: str = "") -> bool:
        """Write several files at once, all or none; only where :attr:`commits_whole`.

        What this location has read stays what it was: to see the commit, make a new one.

        Parameters
        ----------
        files
            Path → bytes.
        message, description
            Of the commit.

        Returns
        -------
        bool
            False, and nothing is written, if somebody else has committed since this location first read anything.

        Raises
        ------
        NotFoundError
            No such repository, or not for this account.
        ReadOnlyError
            A pinned revision, nobody is logged in, or the account may not write.
        StorageError
            The network or the hub failed.
        """
        self.require_committable()
        with self._errors("write", ""):
            return self._backend.commit({self._absolute(path): files[path] for path in files}, message, description)

    def sizes_bytes(self, paths: Sequence[str]) -> dict[str, int]:
        """Path → size of those of many files that exist; in few requests where each file costs one."""
        absolute = {self._absolute(path): path for path in paths}
        with self._errors("look up", ""):
            return {absolute[path]: size for path, size in self._backend.sizes(list(absolute)).items()}

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
            return self._backend.read(self._absolute(path))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes from byte ``start``, fewer at the file's end; errors as for :meth:`read_bytes`."""
        with self._errors("read", path):
            return self._backend.read_range(self._absolute(path), start, length)

    def read_many(
        self, parts: Iterable[FilePart], *, limit_bytes: int = 128 << 20, n_readers: int = 16
    ) -> Iterator[tuple[FilePart, bytes]]:
        """Read many files or parts of files concurrently; yields them in the order given.

        Parameters
        ----------
        parts
            What to read; taken from the iterable as reading goes on.
        limit_bytes
            Most bytes that are fetched, or being fetched, and not yet yielded; one part is always let through.
        n_readers
            Most parts that are being fetched at a time.

        Yields
        ------
        part, data
            ``data`` is shorter than ``part.length_bytes`` where the file is.

        Raises
        ------
        NotFoundError, StorageError
            As for :meth:`read_bytes`, at the part concerned; what is being fetched behind it is dropped.
        """

        def read(part: FilePart) -> bytes:
            if part.start is None:
                return self.read_bytes(part.path)
            return self.read_range(part.path, part.start, part.length_bytes)

        return fetch_parts(read, parts, limit_bytes=limit_bytes, n_readers=n_readers)

    def open_read(self, path: str) -> BinaryIO:
        """Open a file for random access; the caller closes it."""
        with self._errors("open", path):
            return self._backend.open_read(self._absolute(path))

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
            self._backend.write(self._absolute(path), data)

    def write_file(self, path: str, source: Path) -> None:
        """Write a file whole from one on the local disk, a few pieces in memory at a time.

        Errors are those of :meth:`write_bytes`; readers see the old bytes or the new.
        """
        self.require_writable()
        with self._errors("write", path):
            self._backend.write_file(self._absolute(path), source)

    def create_bytes(self, path: str, data: bytes) -> None:
        """Create a file atomically if, and only if, it is absent: the primitive that commits are made of.

        Where an answer was lost on the way, the file itself tells whether this call created it: its winner never
        gets an AlreadyExistsError.

        Raises
        ------
        AlreadyExistsError
            The file exists; it is left as it was.
        ReadOnlyError, StorageError
            As for :meth:`write_bytes`.
        """
        self.require_writable()
        with self._errors("create", path):
            try:
                self._backend.create(self._absolute(path), data)
            except FileExistsError as error:
                raise AlreadyExistsError(f"{self.url_of(path)} exists already") from error

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        with self._errors("look up", path):
            return self._backend.kind(self._absolute(path)) is not None

    def is_file(self, path: str) -> bool:
        """Whether it is a file."""
        with self._errors("look up", path):
            return self._backend.is_file(self._absolute(path))

    def size_bytes(self, path: str) -> int:
        """Size of a file; NotFoundError where there is none."""
        with self._errors("look up", path):
            return self._backend.size(self._absolute(path))

    def names(self, path: str = "") -> list[str]:
        """Sorted names of the files and folders directly below ``path``; empty where there is none."""
        with self._errors("list", path):
            found = self._backend.names(self._absolute(path))
        return sorted(name for name in found if not name.startswith(TEMPORARY_PREFIX))

    def names_of_each(self, paths: Sequence[str]) -> list[list[str]]:
        """:meth:`names` of many folders, in their order; quicker than a call for each where listing is quick."""
        with self._errors("list", paths[0] if paths else ""):
            found = [self._backend.names(self._absolute(path)) for path in paths]
        return [sorted([name for name in names if not name.startswith(TEMPORARY_PREFIX)]) for names in found]

    def present(self, path: str, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that a file or folder directly below ``path`` bears; one request where that costs one."""
        return self.present_in_each([path], names)[0]

    def present_in_each(self, paths: Sequence[str], names: Sequence[str]) -> list[list[str]]:
        """:meth:`present` for many folders, in their order."""
        with self._errors("look up", paths[0] if paths else ""):
            return [self._backend.present(self._absolute(path), names) for path in paths]

    def walk(self, path: str = "") -> Iterator[tuple[str, int]]:
        """Yield (path relative to this location, size in bytes) of every file below ``path``, sorted by path."""
        for file in self.files(path):
            yield file.path, file.size_bytes

    def files(self, path: str = "") -> Iterator[StoredFile]:
        """Yield every file below ``path``, sorted by path, which is relative to this location."""
        return (file for file in self._all_files(path) if not _is_temporary(file.path))

    def leftovers(self, path: str = "") -> Iterator[StoredFile]:
        """Yield the hidden files below ``path``: those being written now, and those that crashes left."""
        return (file for file in self._all_files(path) if _is_temporary(file.path))

    def delete(self, path: str) -> None:
        """Delete a file or a whole folder; nothing happens where there is none."""
        self._refuse_if_read_only()
        if not self._backend.can_create:
            self.require_writable()
        with self._errors("delete", path):
            self._backend.delete(self._absolute(path))

    def free_bytes(self) -> int | None:
        """Free space for new files, or None where the filesystem does not say."""
        with self._errors("look up", ""):
            return self._backend.free_bytes(self._root)

    def _all_files(self, path: str) -> Iterator[StoredFile]:
        with self._errors("list", path):
            for file in self._backend.files(self._absolute(path)):
                full = f"{path}/{file.path}" if path else file.path
                yield StoredFile(full, file.size_bytes, file.modified_at)

    def _absolute(self, path: str) -> str:
        return self._backend.join(self._root, path)

    def _refuse_if_read_only(self) -> None:
        if self._read_only is not None:
            reason, next_step = self._read_only
            raise ReadOnlyError(reason, next_step=next_step)

    @contextlib.contextmanager
    def _errors(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except self._backend.failures as error:
            raise self._backend.explain(error, verb, self.url_of(path)) from error


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(TEMPORARY_PREFIX)
