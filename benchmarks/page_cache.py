"""The system's page cache: forgetting files, and what a process has read from the disk itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def can_forget() -> bool:
    """Whether this system can be asked to forget a file's pages."""
    return hasattr(os, "posix_fadvise")


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and in those below it."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def forget(paths: Iterable[Path]) -> None:
    """Have the page cache forget files, where the system can; pages that some process has mapped stay."""
    if not can_forget():
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)  # what is not on the disk yet is not forgotten
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def bytes_from_disk() -> int:
    """Bytes that this process has had read from disks so far; 0 where the system does not say."""
    with contextlib.suppress(OSError), Path("/proc/self/io").open() as counters:
        for line in counters:
            if line.startswith("read_bytes:"):
                return int(line.split()[1])
    return 0
