"""What a store asks of a filesystem, and how local disks, memory and any other fsspec filesystem do it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from nait_store.errors import NaitStoreError, NotFoundError, ReadOnlyError, StorageError
from nait_store.storage.atomic import create_local, replace_local

READING = frozenset({"read", "open", "look up", "list"})
"""The verbs of messages about operations that change nothing."""

_ATTEMPTS = 100  # at listing what other threads write to


@dataclass(frozen=True)
class StoredFile:
    """A file as a listing shows it.

    Attributes
    ----------
    path
        Relative to the location that was listed.
    size_bytes
        Its size.
    modified_at
        When it was last written, by the clock of the machine that keeps it; None where the filesystem does not say.
    """

    path: str
    size_bytes: int
    modified_at: datetime | None


class Backend:
    """Any fsspec filesystem: readable; writable only where a subclass knows an atomic create-if-absent.

    Paths are absolute as fsspec writes them. Methods raise ``OSError``, or one of :attr:`failures`, which
    :meth:`explain` puts into words.

    Parameters
    ----------
    fs
        The filesystem.
    protocol
        As in its URLs.
    """

    failures: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    can_create: ClassVar[bool] = False
    commits_whole: ClassVar[bool] = False

    def __init__(self, fs: Any, protocol: str) -> None:
        self._fs = fs
        self.protocol = protocol

    @property
    def fs(self) -> Any:
        """The fsspec filesystem, usable in this process."""
        return self._fs

    def url(self, root: str) -> str:
        """Spell a path as users would write it."""
        return str(self.fs.unstrip_protocol(root))

    def place(self, root: str) -> str:
        """Spell a path whatever revision of it was named, where there are such."""
        return self.url(root)

    def join(self, root: str, path: str) -> str:
        """Return the absolute path of ``path`` below ``root``."""
        if not path:
            return root
        return f"{root}/{path}" if root else f"{self.fs.root_marker}{path}"

    def check_writable(self, root: str) -> None:  # noqa: ARG002
        """Raise ReadOnlyError where commits below ``root`` could be lost."""
        if not self.can_create:
            raise ReadOnlyError(
                f"stores on {self.protocol}:// can be read but not written: "
                "this release knows no atomic create-if-absent there, so concurrent commits could be lost",
                next_step="write to a local folder or to s3://bucket/prefix (or to memory:// within one process)",
            )

    def read(self, path: str) -> bytes:
        """Read a whole file."""
        return bytes(self.fs.cat_file(path))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes from ``start``, fewer at the file's end."""
        return bytes(self.fs.cat_file(path, start=start, end=start + length))

    def open_read(self, path: str) -> BinaryIO:
        """Open for random access."""
        handle: BinaryIO = self.fs.open(path, "rb")
        return handle

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a file whole, over whatever was there."""
        self.fs.pipe_file(path, bytes(data))

    def write_file(self, path: str, source: Path) -> None:
        """Write a file whole from a local one."""
        self.write(path, source.read_bytes())

    def create(self, path: str, data: bytes) -> None:
        """Create a file whole if it is absent, else raise ``FileExistsError``."""
        raise NotImplementedError

    def check_can_commit(self, root: str) -> None:
        """Raise ReadOnlyError where :meth:`commit` would be refused."""
        raise NotImplementedError

    def commit(self, files: Mapping[str, bytes], message: str, description: str) -> bool:
        """Write files at once upon what was read; False, and nothing written, if that is not the last any more."""
        raise NotImplementedError

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """Size in bytes of those of many files that exist."""
        found = {}
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                found[path] = self.size(path)
        return found

    def kind(self, path: str) -> str | None:
        """``"file"``, ``"folder"`` or None."""
        try:
            info = self.fs.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return "file" if info["type"] == "file" else "folder"

    def is_file(self, path: str) -> bool:
        """Whether it is a file."""
        return self.kind(path) == "file"

    def size(self, path: str) -> int:
        """Size of a file in bytes."""
        info = self.fs.info(path)
        if info["type"] != "file":
            raise FileNotFoundError(path)
        return int(info["size"])

    def names(self, path: str) -> set[str]:
        """Names of what lies directly in a folder; empty where there is none."""
        try:
            self.fs.invalidate_cache(path)
            entries = self._listed(self.fs.ls, path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries if str(entry).rstrip("/") != path}

    def present(self, path: str, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that lie directly in a folder."""
        found = self.names(path)
        return [name for name in names if name in found]

    def files(self, path: str) -> Iterator[StoredFile]:
        """Yield every file below a folder, sorted by its path relative to it."""
        if self.kind(path) is None:
            return
        for found, info in sorted(self._listed(self.fs.find, path, detail=True).items()):
            if str(found) == path:  # a file, not a folder
                continue
            written = next((info[key] for key in ("LastModified", "mtime", "created") if key in info), None)
            yield StoredFile(str(found)[len(path) :].lstrip("/"), int(info["size"]), _as_time(written))

    def _listed(self, listing: Callable[..., Any], path: str, **options: Any) -> Any:
        """What one of the filesystem's ways to list gives."""
        return listing(path, **options)

    def delete(self, path: str) -> None:
        """Delete a file, or a folder with all that is in it; nothing happens where there is none."""
        raise NotImplementedError

    def free_bytes(self, root: str) -> int | None:  # noqa: ARG002
        """Free space for new files, or None where the filesystem does not say."""
        return None

    def explain(self, error: Exception, verb: str, url: str) -> NaitStoreError:
        """Put a failure into words: what, where, and what to do."""
        reading = verb in READING
        if isinstance(error, FileNotFoundError) or (
            reading and isinstance(error, IsADirectoryError | NotADirectoryError)
        ):
            return NotFoundError(f"{url} does not exist")
        number = getattr(error, "errno", None)
        if isinstance(error, PermissionError) or number == errno.EROFS:
            return ReadOnlyError(f"no permission to {verb} {url}", next_step="check who owns the folder and its mode")
        full = number in (errno.ENOSPC, errno.EDQUOT)
        return StorageError(
            f"could not {verb} {url}: {getattr(error, 'strerror', None) or error or type(error).__name__}",
            next_step="free some disk space and run the same command again: what was flushed is kept"
            if full
            else "check the disk or the network and run the same command again",
        )


class LocalBackend(Backend):
    """Folders of this machine, network filesystems included. Names are taken literally: no globs, no ``~``."""

    can_create = True

    @property
    def fs(self) -> Any:
        """The fsspec filesystem; nothing here needs it."""
        if self._fs is None:
            from fsspec.implementations.local import LocalFileSystem

            self._fs = LocalFileSystem()
        return self._fs

    def url(self, root: str) -> str:
        """Return the path itself."""
        return root

    def join(self, root: str, path: str) -> str:
        """Return the absolute path of ``path`` below ``root``."""
        return f"{root}/{path}" if path else root

    def read(self, path: str) -> bytes:
        """Read a whole file."""
        return Path(path).read_bytes()

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes from ``start``, fewer at the file's end."""
        with Path(path).open("rb", buffering=0) as handle:
            handle.seek(start)
            return handle.read(length)

    def open_read(self, path: str) -> BinaryIO:
        """Open for random access."""
        return Path(path).open("rb")

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a file whole, over whatever was there."""
        replace_local(Path(path), data)

    def create(self, path: str, data: bytes) -> None:
        """Create a file whole if it is absent, else raise ``FileExistsError``."""
        create_local(path, data)

    def kind(self, path: str) -> str | None:
        """``"file"``, ``"folder"`` or None."""
        try:  # once: between two looks somebody could make the folder
            mode = Path(path).stat().st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None
            raise
        return "folder" if stat.S_ISDIR(mode) else "file"

    def size(self, path: str) -> int:
        """Size of a file in bytes."""
        if Path(path).is_dir():
            raise FileNotFoundError(path)
        return Path(path).stat().st_size

    def names(self, path: str) -> set[str]:
        """Names of what lies directly in a folder; empty where there is none."""
        try:
            return set(os.listdir(path))  # noqa: PTH208 - the names are all that is asked for
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def present(self, path: str, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that lie directly in a folder; for a few names that is quicker than to list it."""
        return [name for name in names if os.access(f"{path}/{name}", os.F_OK)]

    def files(self, path: str) -> Iterator[StoredFile]:
        """Yield every file below a folder, sorted by its path relative to it."""
        if not Path(path).is_dir():
            return
        found = []
        for folder, _, names in os.walk(path, onerror=_raise_unless_gone):
            for name in names:
                file = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile by somebody else
                    stat = file.stat()
                    written = datetime.fromtimestamp(stat.st_mtime, UTC)
                    found.append(StoredFile(file.relative_to(path).as_posix(), stat.st_size, written))
        yield from sorted(found, key=lambda each: each.path)

    def delete(self, path: str) -> None:
        """Delete a file, or a folder with all that is in it; nothing happens where there is none."""
        import shutil

        try:
            Path(path).unlink(missing_ok=True)
        except (IsADirectoryError, PermissionError):  # macOS says the latter of folders
            if not Path(path).is_dir():
                raise
            while Path(path).exists():
                with contextlib.suppress(FileNotFoundError):  # somebody else deletes it at the same time
                    shutil.rmtree(path)
        except NotADirectoryError:
            return

    def free_bytes(self, root: str) -> int | None:
        """Free space for this user."""
        folder = Path(root)
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        usage = os.statvfs(folder)
        return usage.f_bavail * usage.f_frsize


class MemoryBackend(Backend):
    """``memory://``: within one process."""

    can_create = True
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def open_read(self, path: str) -> BinaryIO:
        """Open what the file is now; fsspec would give the one object that everybody else has open too."""
        return io.BytesIO(self.read(path))

    def _listed(self, listing: Callable[..., Any], path: str, **options: Any) -> Any:
        """List; fsspec's copy of its dictionary, which comes first, fails where another thread writes in between."""
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(RuntimeError):
                return listing(path, **options)
        return listing(path, **options)

    def create(self, path: str, data: bytes) -> None:
        """Create a file whole if it is absent, else raise ``FileExistsError``."""
        with self._lock:
            if self.fs.exists(path):
                raise FileExistsError(path)
            self.fs.pipe_file(path, data)

    def delete(self, path: str) -> None:
        """Delete a file, or a folder with all that is in it; nothing happens where there is none."""
        for found in self._listed(self.fs.find, path):  # fsspec's own rm would take a name for a glob
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(found)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _as_time(value: Any) -> datetime | None:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return value if isinstance(value, datetime) else None


def protocols_of(fs: Any) -> Sequence[str]:
    """Every protocol that a filesystem answers to."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
