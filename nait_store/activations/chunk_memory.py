"""Where a pass over many chunks has them: in the page cache, mapped, or else read into memory that is used again.

Pages that are cached are mapped, which copies nothing. Pages that are not are read with large reads into one buffer a
thread: through a map they would come in by page faults, each as large as the disk's read-ahead is set (128 KiB on most
systems), one after the other. Measured on 2 cores, cold, an ext4 file system on a disk with 128 KiB of read-ahead, in
rounds of reading 0.8 GB (seconds): ``dd bs=8M`` 2.6, two threads that map 2.7, the same with ``MADV_WILLNEED`` four
chunks ahead 2.4, two threads that read 0.9; with 8 MiB of read-ahead mapping and reading are equal. Warm, of CPU
seconds for 2.2 GB: mapping 0.16 where the pages are large (as those of files that were written in one piece are) and
0.31 where they are not, reading into used memory 0.27 and 0.31, mapping with ``MADV_POPULATE_READ`` 0.18 and 0.34.
``MADV_HUGEPAGE`` makes the next pass 2.5 times as fast, but the first one up to twice as slow, since it waits for such
pages.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class ChunkMemory:
    """Memory for chunks that are read one after the other by each of several threads."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def read(self, descriptor: int, n_bytes: int) -> NDArray[np.uint8]:
        """Read the beginning of a file.

        Parameters
        ----------
        descriptor
            Of the file, open for reading.
        n_bytes
            How much of it.

        Returns
        -------
        ndarray, uint8
            Read-only; valid until the same thread reads again.

        Raises
        ------
        OSError
            It cannot be read, or ends before.
        """
        buffer: NDArray[np.uint8] | None = getattr(self._of_thread, "buffer", None)
        if buffer is None or len(buffer) < n_bytes:
            # Not np.empty: what the kernel copies into NumPy's huge pages costs it twice the time.
            buffer = self._of_thread.buffer = np.frombuffer(mmap.mmap(-1, n_bytes), np.uint8)
        data = buffer[:n_bytes]
        done = 0
        while done < n_bytes:
            n_read = os.preadv(descriptor, [data[done:].data], done)
            if n_read == 0:
                raise OSError(errno.EIO, "the file ended while it was read")
            done += n_read
        data.setflags(write=False)  # of this view; the buffer stays writable
        return data


def is_cached(mapped: NDArray[np.uint8]) -> bool | None:
    """Whether a mapped file is in the page cache, going by its first and last page; None where nobody can tell.

    It asks and reads nothing: reading a byte without waiting would begin a read-ahead that is not wanted.
    """
    look = _mincore()
    if look is None:
        return None
    state = ctypes.create_string_buffer(1)
    begin = mapped.ctypes.data
    for at in (0, (len(mapped) - 1) // mmap.PAGESIZE * mmap.PAGESIZE):
        if look(begin + at, 1, state) != 0:
            return None
        if not state.raw[0] & 1:
            return False
    return True


@functools.cache
def _mincore() -> Callable[..., int] | None:
    function = getattr(ctypes.CDLL(None), "mincore", None)
    if function is not None:
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
        function.restype = ctypes.c_int
    return function
