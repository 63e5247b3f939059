"""Files written in pieces that appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from nait_store.errors import ReadOnlyError, StorageError
from nait_store.storage.atomic import make_folder, sync_folder, temporary_name
from nait_store.storage.location import Location


class PendingFile:
    """A file being written; :meth:`publish` puts it in its place, replacing what was there.

    As a context manager it discards whatever was not published. On a local store the pieces go to a temporary
    file beside the target, elsewhere to one in the system's temporary folder that is then uploaded.

    Parameters
    ----------
    location
        The store's root.
    path
        Final path relative to it.
    durable
        Whether the content must be on the disk before the name is: not for caches whose readers see damage.

    Attributes
    ----------
    handle
        Where to write.

    Raises
    ------
    ReadOnlyError
        Nothing can be written there.
    StorageError
        The disk is full, or failed.
    """

    def __init__(self, location: Location, path: str, *, durable: bool = True) -> None:
        location.require_writable()
        self._location = location
        self._path = path
        self._durable = durable
        target = location.local_path(path)
        self._target = target
        with self.errors():
            if target is None:
                descriptor, name = tempfile.mkstemp(prefix="nait-store-")
                self._temporary = Path(name)
                self.handle: BinaryIO = os.fdopen(descriptor, "wb")
            else:
                make_folder(target.parent)
                self._temporary = target.parent / temporary_name()
                self.handle = self._temporary.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def publish(self) -> None:
        """Make the file appear, whole, under its name."""
        try:
            with self.errors():
                if self._target is None:
                    self.handle.close()
                    self._location.write_file(self._path, self._temporary)
                    self._temporary.unlink()
                else:
                    self.handle.flush()
                    if self._durable:
                        os.fsync(self.handle.fileno())
                    self.handle.close()
                    self._temporary.replace(self._target)
                    if self._durable:
                        sync_folder(self._target.parent)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was written; nothing happens after :meth:`publish`."""
        with contextlib.suppress(OSError):  # closing flushes, and the disk may be full
            self.handle.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn an ``OSError`` of writing to :attr:`handle` into the library's own."""
        try:
            yield
        except OSError as error:
            url = self._location.url_of(self._path)
            if self._target is None:  # the pieces lie here until they are uploaded
                url = f"{tempfile.gettempdir()} (TMPDIR), where {url} is put together"
            if isinstance(error, PermissionError) or error.errno == errno.EROFS:
                raise ReadOnlyError(
                    f"no permission to write {url}", next_step="check who owns the folder and its mode"
                ) from error
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise StorageError(
                f"could not write {url}: {error.strerror or error}",
                next_step="free some disk space and run the same command again"
                if full
                else "check the disk or the network and run the same command again",
            ) from error
