"""Where an export goes: one file, local or on any fsspec URL, that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs

from nait_store.errors import AlreadyExistsError, InvalidInputError, ReadOnlyError, StorageError

_COPY_BLOCK_BYTES = 1 << 20


class Destination:
    """A file to be written.

    Parameters
    ----------
    url
        Local path or fsspec URL.
    overwrite
        Whether an existing file may be replaced.

    Attributes
    ----------
    url
        As users would write it again; absolute where it is local.
    is_local
        Whether it is on this machine's file system.

    Raises
    ------
    InvalidInputError
        The URL names no file, or its filesystem is not installed.
    AlreadyExistsError
        The file exists and ``overwrite`` is off.
    """

    def __init__(self, url: str, *, overwrite: bool = False) -> None:
        if not url.strip() or "\x00" in url:
            raise InvalidInputError(f"{url!r} is not a file to write to", next_step="give a path, e.g. --out top.jsonl")
        try:
            fs, path = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InvalidInputError(
                f"cannot write to {url!r}: {error}", next_step="give a path or a URL of an installed fsspec filesystem"
            ) from error
        self._fs: Any = fs
        self._path = str(path)
        self._overwrite = overwrite
        protocols = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
        self.is_local = "file" in protocols
        self.url = self._path if self.is_local else str(fs.unstrip_protocol(self._path))
        with self._errors():
            if url.endswith("/") or fs.isdir(self._path):
                raise InvalidInputError(f"{self.url} is a folder", next_step="name a file in it, e.g. top.jsonl")
            if not overwrite and fs.exists(self._path):
                raise self._exists()

    def read(self) -> bytes | None:
        """What the file holds now; None where there is none."""
        with self._errors():
            if not self._fs.exists(self._path):
                return None
            data: bytes = self._fs.cat_file(self._path)
            return data

    def beside(self) -> list[str]:
        """Sorted names of everything in its folder, its own among them where it is there."""
        parent = self._path.rpartition("/")[0]
        with self._errors():
            if not parent or not self._fs.isdir(parent):
                return []
            return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in self._fs.ls(parent, detail=False))

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open for writing; the file appears under its name only if the block ends normally.

        Raises
        ------
        AlreadyExistsError
            Somebody else created the file meanwhile.
        ReadOnlyError, StorageError
            It could not be written.
        """
        parent, _, name = self._path.rpartition("/")
        temporary = (
            f"{parent}/.tmp-{uuid.uuid4().hex[:12]}-{name}" if parent else f".tmp-{uuid.uuid4().hex[:12]}-{name}"
        )
        with self._errors():
            try:
                if self.is_local:
                    with self._local(Path(temporary)) as handle:
                        yield handle
                else:
                    with self._fs.open(temporary, "wb") as handle:
                        yield handle
                    if not self._overwrite and self._fs.exists(self._path):
                        raise self._exists()
                    self._fs.mv(temporary, self._path)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._fs.rm(temporary)
                raise

    @contextlib.contextmanager
    def _local(self, temporary: Path) -> Iterator[BinaryIO]:
        target = Path(self._path)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        if self._overwrite:
            temporary.replace(target)
            return
        try:
            os.link(temporary, target)
        except FileExistsError as error:
            raise self._exists() from error
        except OSError:  # a filesystem without hard links: rename, and accept the narrow race
            if target.exists():
                raise self._exists() from None
            temporary.rename(target)
            return
        temporary.unlink()

    def _exists(self) -> AlreadyExistsError:
        return AlreadyExistsError(f"{self.url} exists already", next_step="choose another file, or add --force")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except PermissionError as error:
            raise ReadOnlyError(
                f"no permission to write {self.url}", next_step="choose a folder that you may write to"
            ) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidInputError(
                f"cannot write {self.url}: {error.strerror or error}", next_step="check the folder's path"
            ) from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise StorageError(
                f"could not write {self.url}: {error.strerror or error}; no partial file is left",
                next_step="free some disk space and try again"
                if full
                else "check the disk or the network and try again",
            ) from error


class BytesTarget:
    """An open binary stream, standard output for example, with the interface of a destination."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self.url = name

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Give the stream itself; it is flushed, never closed."""
        yield self._stream
        self._stream.flush()


def copy_into(source: BinaryIO, target: BinaryIO) -> None:
    """Copy a whole stream in blocks."""
    shutil.copyfileobj(source, target, _COPY_BLOCK_BYTES)
