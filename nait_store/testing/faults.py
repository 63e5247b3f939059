"""Faults on purpose: every step that changes a store, counted, and failed or killed at will.

A *step* is one primitive that changes what is on the disk, or one request that changes an object store: opening a
file for writing, each half of a write, syncing, linking, renaming, removing an entry; ``PutObject``,
``DeleteObjects`` and their like. Code under test runs unchanged; its steps are numbered from 0 in the order in which
they are taken::

    with write_steps(url) as steps:                      # count
        ingest(...)
    for step in steps:
        with write_steps(url, before=kill_at(step.number)):  # in a forked process: die right before it
            ingest(...)
        with write_steps(url, before=no_space_from(step.number)), pytest.raises(StorageError):
            ingest(...)
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import functools
import io
import os
import shutil  # noqa: F401  (it looks at os when it is imported: it must see the functions as they are)
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["Hook", "Step", "kill_at", "no_space_at", "no_space_from", "write_steps"]

T = TypeVar("T")
_FREES_SPACE = frozenset({"unlink", "rmdir", "DeleteObject", "DeleteObjects", "AbortMultipartUpload"})
_REQUESTS = frozenset(
    {
        "PutObject",
        "CopyObject",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
        "DeleteObject",
        "DeleteObjects",
    }
)
# name in os → which of its arguments is the path that changes
_CALLS = {"mkdir": 0, "rmdir": 0, "unlink": 0, "remove": 0, "link": 1, "rename": 1, "replace": 1}
_F_GETPATH = 50  # fcntl of macOS


@dataclass(frozen=True)
class Step:
    """One change to a store.

    Attributes
    ----------
    number
        Counts from 0.
    what
        ``open``, ``write``, ``fsync``, ``link``, ``replace``, ``rename``, ``mkdir``, ``unlink`` or ``rmdir`` on a
        local disk; ``write`` or ``unlink`` in memory; the operation, e.g. ``PutObject``, on an object store.
    path
        What it changes: an absolute path, or bucket and key.
    """

    number: int
    what: str
    path: str

    @property
    def takes_space(self) -> bool:
        """Whether a full disk can refuse it."""
        return self.what not in _FREES_SPACE


Hook = Callable[[Step], None]


def kill_at(number: int) -> Hook:
    """Kill this process with SIGKILL at a step."""

    def kill(step: Step) -> None:
        if step.number == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def no_space_at(number: int) -> Hook:
    """Let the disk be full at one step, and have room again for the next."""

    def fail(step: Step) -> None:
        if step.number == number and step.takes_space:
            raise _full(step)

    return fail


def no_space_from(number: int) -> Hook:
    """Let the disk be full at a step and all later ones; removing files goes on to work."""

    def fail(step: Step) -> None:
        if step.number >= number and step.takes_space:
            raise _full(step)

    return fail


@contextlib.contextmanager
def write_steps(url: str, *, before: Hook | None = None, after: Hook | None = None) -> Iterator[list[Step]]:
    """Intercept every step that changes something below a location, in all threads of this process.

    What other libraries write with code of their own (DuckDB its files) is not seen, nor is anything elsewhere.

    Parameters
    ----------
    url
        A local folder, ``memory://…`` or ``s3://…``; it need not exist.
    before
        Called before each step is taken. What it raises is what the primitive seems to raise.
    after
        Called once it is done.

    Yields
    ------
    list of Step
        Grows as steps are taken.
    """
    steps = _Steps(before, after)
    with contextlib.ExitStack() as patches:
        if url.startswith(("s3://", "s3a://")):
            _intercept_s3(patches, steps, url.partition("://")[2].strip("/"))
        elif url.startswith("memory://"):
            _intercept_memory(patches, steps, "/" + url.removeprefix("memory://").strip("/"))
        else:
            _intercept_local(patches, steps, os.path.realpath(url))
        yield steps.taken


class _Steps:
    def __init__(self, before: Hook | None, after: Hook | None) -> None:
        self.taken: list[Step] = []
        self._before = before
        self._after = after
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def step(self, what: str, path: str) -> Iterator[None]:
        with self._lock:
            step = Step(len(self.taken), what, path)
            self.taken.append(step)
        if self._before is not None:
            self._before(step)
        yield
        if self._after is not None:
            self._after(step)


def _full(step: Step) -> Exception:
    if step.what not in _REQUESTS:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), step.path)
    from botocore.exceptions import ClientError

    # as MinIO says it; AWS is never full, and others invent codes of their own
    answer = {
        "Error": {
            "Code": "XMinioStorageFull",
            "Message": "Storage backend has reached its minimum free drive threshold",
        },
        "ResponseMetadata": {"HTTPStatusCode": 507},
    }
    error: Exception = ClientError(answer, step.what)
    return error


def _patch(patches: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    own = name in vars(owner)
    original = getattr(owner, name)
    setattr(owner, name, value)
    patches.callback(
        functools.partial(setattr, owner, name, original) if own else functools.partial(delattr, owner, name)
    )


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")


# --- local disks -------------------------------------------------------------------------------------------------


class _Writer(io.BufferedWriter):
    """A file whose every write is two steps, so that a half-written file can be left behind."""

    def __init__(self, raw: io.FileIO, steps: _Steps, path: str) -> None:
        super().__init__(raw)
        self._steps = steps
        self._path = path

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        middle = len(view) // 2
        for part in (view[:middle], view[middle:]) if middle else (view,):
            with self._steps.step("write", self._path):
                super().write(part)
                self.flush()  # a killed process takes its buffers along, and the next step may be a kill
        return len(view)


def _intercept_local(patches: contextlib.ExitStack, steps: _Steps, root: str) -> None:
    for name, position in _CALLS.items():
        _patch(patches, os, name, _counted_call(getattr(os, name), name, position, steps, root))
    _patch(patches, os, "fsync", _counted_fsync(os.fsync, steps, root))
    _patch(patches, os, "open", _counted_descriptor(os.open, steps, root))
    opener = _counted_open(io.open, steps, root)
    _patch(patches, io, "open", opener)
    _patch(patches, builtins, "open", opener)


def _counted_call(real: Callable[..., T], name: str, position: int, steps: _Steps, root: str) -> Callable[..., T]:
    what = {"remove": "unlink"}.get(name, name)

    @functools.wraps(real)
    def call(*arguments: Any, **options: Any) -> T:
        folder = options.get("dir_fd", options.get("dst_dir_fd"))
        path = _resolve(arguments[position], folder) if len(arguments) > position else None
        if path is None or not _is_below(path, root) or _changes_nothing(what, path):
            return real(*arguments, **options)
        with steps.step(what, path):
            return real(*arguments, **options)

    return call


def _changes_nothing(what: str, path: str) -> bool:
    """Whether the call is certain to be refused: such attempts are common, and no steps."""
    if what == "mkdir":
        return os.path.lexists(path)
    if what == "unlink":
        return not os.path.lexists(path) or (Path(path).is_dir() and not Path(path).is_symlink())
    return False


def _counted_fsync(real: Callable[[int], None], steps: _Steps, root: str) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        path = _path_of(descriptor)
        if not _is_below(path, root):
            return real(descriptor)
        with steps.step("fsync", path):
            return real(descriptor)

    return fsync


def _counted_descriptor(real: Callable[..., int], steps: _Steps, root: str) -> Callable[..., int]:
    def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        where = _resolve(path, options.get("dir_fd")) if flags & os.O_CREAT else None
        if where is None or not _is_below(where, root):
            return real(path, flags, *arguments, **options)
        with steps.step("open", where):
            return real(path, flags, *arguments, **options)

    return call


def _counted_open(real: Callable[..., Any], steps: _Steps, root: str) -> Callable[..., Any]:
    def call(file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **options: Any) -> Any:
        path = None if isinstance(file, int) or not set(mode) & set("wxa+") else _resolve(file, None)
        if path is None or not _is_below(path, root):
            return real(file, mode, buffering, *arguments, **options)
        with steps.step("open", path):
            if "b" not in mode or "+" in mode:
                return real(file, mode, buffering, *arguments, **options)
            return _Writer(io.FileIO(file, mode), steps, path)

    return call


def _resolve(path: Any, folder_descriptor: int | None) -> str | None:
    if isinstance(path, int):
        return None
    text = os.fsdecode(path)
    if folder_descriptor is not None:
        text = f"{_path_of(folder_descriptor)}/{text}"
    # not the last part: it may be a link, which is what changes
    parent, name = os.path.split(text.rstrip("/"))
    return str(Path(parent).resolve() / name)


def _path_of(descriptor: int) -> str:
    try:
        if sys.platform == "darwin":
            import fcntl

            return os.fsdecode(fcntl.fcntl(descriptor, _F_GETPATH, bytes(1024)).rstrip(b"\0"))
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


# --- memory and object stores ------------------------------------------------------------------------------------


def _intercept_memory(patches: contextlib.ExitStack, steps: _Steps, root: str) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    for name, what in (("pipe_file", "write"), ("rm_file", "unlink")):
        _patch(patches, MemoryFileSystem, name, _counted_method(getattr(MemoryFileSystem, name), what, steps, root))


def _counted_method(real: Callable[..., T], what: str, steps: _Steps, root: str) -> Callable[..., T]:
    def call(fs: Any, path: str, *arguments: Any, **options: Any) -> T:
        if not _is_below(fs._strip_protocol(path), root):
            return real(fs, path, *arguments, **options)
        with steps.step(what, path):
            return real(fs, path, *arguments, **options)

    return call


def _intercept_s3(patches: contextlib.ExitStack, steps: _Steps, root: str) -> None:
    from aiobotocore.client import AioBaseClient

    real = AioBaseClient._make_api_call

    async def request(client: Any, operation: str, parameters: Any) -> Any:
        if operation not in _REQUESTS:
            return await real(client, operation, parameters)
        keys = [each["Key"] for each in parameters.get("Delete", {}).get("Objects", [])] or [parameters.get("Key", "")]
        path = f"{parameters.get('Bucket', '')}/{keys[0]}"
        if not _is_below(path, root):
            return await real(client, operation, parameters)
        with steps.step(operation, path):
            return await real(client, operation, parameters)

    _patch(patches, AioBaseClient, "_make_api_call", request)
