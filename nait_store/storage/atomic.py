"""Create-if-absent, the one primitive that concurrent commits rest on.

fsspec's ``mode="create"`` is not atomic on local disks (several of 8 racing writers win), so local files are
written under a temporary name, synced, and hard-linked to their final one: ``link`` fails if it exists.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Creator = Callable[[str, bytes], None]

_memory_lock = threading.Lock()


def creator_for(fs: Any, protocols: Sequence[str]) -> Creator | None:
    """Return the filesystem's atomic create-if-absent, or None where none is known.

    The returned function raises ``FileExistsError`` for the loser of a race.
    """
    if "file" in protocols:
        return create_local
    if "memory" in protocols:

        def create_in_memory(path: str, data: bytes) -> None:
            with _memory_lock:
                if fs.exists(path):
                    raise FileExistsError(path)
                fs.pipe_file(path, data)

        return create_in_memory
    return None


def create_local(path: str, data: bytes) -> None:
    """Create a local file with its whole content, or raise ``FileExistsError``."""
    target = Path(path)
    temporary = _write_temporary(target, data)
    try:
        os.link(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def replace_local(target: Path, data: bytes | memoryview) -> None:
    """Write a local file whole under its final name, over whatever was there."""
    temporary = _write_temporary(target, data)
    try:
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_temporary(target: Path, data: bytes | memoryview) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:12]}"
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some network filesystems cannot sync a folder; the link itself is done
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
