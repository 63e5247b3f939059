"""Create-if-absent on local disks, the primitive that concurrent commits rest on.

fsspec's ``mode="create"`` is not atomic there (several of 8 racing writers win), so files are written under a
temporary name, synced, and hard-linked to their final one: ``link`` fails if it exists. Where the filesystem has no
hard links they are renamed by the system call that refuses to replace.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
import uuid
from pathlib import Path

from nait_store.errors import ReadOnlyError

TEMPORARY_PREFIX = ".tmp-"
"""Names that begin with this are files being written, or left by a crash; they are never listed."""

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
_NO_SUCH_RENAME = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_RENAME_NOREPLACE = 1  # Linux
_RENAME_EXCL = 4  # macOS
_AT_FDCWD = -100


def temporary_name() -> str:
    """Return a name for a file being written that no other writer chooses."""
    return f"{TEMPORARY_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}"


def create_local(path: str, data: bytes) -> None:
    """Create a local file with its whole content, or raise ``FileExistsError``.

    Raises
    ------
    FileExistsError
        Somebody else created it; it is left as it was.
    ReadOnlyError
        The filesystem can neither link nor rename without replacing.
    """
    target = Path(path)
    temporary = _write_temporary(target, data)
    try:
        try:
            os.link(temporary, target)
        except OSError as error:
            # A network filesystem may carry the link out, lose the answer and try again: then it is there, and ours.
            if not _is_same_file(temporary, target):
                if error.errno not in _NO_HARD_LINKS:
                    raise
                _rename_without_replacing(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


def replace_local(target: Path, data: bytes | memoryview) -> None:
    """Write a local file whole under its final name, over whatever was there."""
    temporary = _write_temporary(target, data)
    try:
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably: a synced file in a folder whose name is lost is lost too."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    with contextlib.suppress(OSError):  # some network filesystems cannot sync a folder; the link itself is done
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_temporary(target: Path, data: bytes | memoryview) -> Path:
    make_folder(target.parent)
    temporary = target.parent / temporary_name()
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _is_same_file(temporary: Path, target: Path) -> bool:
    try:
        return temporary.samefile(target)
    except OSError:
        return False


def _rename_without_replacing(temporary: Path, target: Path) -> None:
    code = _rename_exclusively(os.fsencode(temporary), os.fsencode(target))
    if code in _NO_SUCH_RENAME:
        raise ReadOnlyError(
            f"the filesystem of {target.parent} has neither hard links nor a rename that refuses to replace, "
            "so concurrent commits could be lost",
            next_step="put the store on another local filesystem or NFS, or on s3://",
        )
    if code:
        raise OSError(code, os.strerror(code), str(target))


def _rename_exclusively(source: bytes, target: bytes) -> int:
    """Rename unless the target exists; 0, or the error number."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        call, arguments = getattr(library, "renamex_np", None), (source, target, ctypes.c_uint(_RENAME_EXCL))
    else:
        call = getattr(library, "renameat2", None)
        arguments = (_AT_FDCWD, source, _AT_FDCWD, target, ctypes.c_uint(_RENAME_NOREPLACE))
    if call is None:
        return errno.ENOSYS
    return 0 if call(*arguments) == 0 else ctypes.get_errno()
