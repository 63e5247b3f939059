"""How the caller of an untrusted query and its process talk: frames of a kind, a length and bytes, over two pipes."""

from __future__ import annotations

import os
import select
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

from nait_store.query.sandbox.limits import SandboxLimits, over_time

_HEADER = struct.Struct("<BQ")
_PIECE_BYTES = 1 << 16
MESSAGE_LIMIT_BYTES = 1 << 20
"""Most bytes of any frame that a process which ran untrusted SQL may send."""


class FrameKind(IntEnum):
    """What a frame carries."""

    REQUEST = 1
    """To the process: a JSON document, followed by its tables."""
    TABLE = 2
    """To the process: Arrow IPC stream of the parameters or of a table."""
    NEEDS = 3
    """From the process: JSON, what it needs before it can go on."""
    GO = 4
    """To the process: JSON, the needs are met."""
    ROWS = 5
    """From the process: a piece of an Arrow IPC stream."""
    DONE = 6
    """From the process: JSON, all rows were sent."""
    ERROR = 7
    """From the process: JSON, the query ended without an answer."""


class BrokenConversationError(Exception):
    """The other side closed its end or said what it must not say at this point."""


@dataclass(frozen=True)
class Frame:
    """One message."""

    kind: FrameKind
    data: bytes


def write_frame(stream: BinaryIO, kind: FrameKind, data: bytes | memoryview) -> None:
    """Write one frame, waiting as long as it takes."""
    stream.write(_HEADER.pack(kind, len(data)))
    stream.write(data)
    stream.flush()


def read_frame(stream: BinaryIO, *kinds: FrameKind) -> Frame:
    """Read one frame from a caller that is trusted.

    Raises
    ------
    BrokenConversationError
        The caller went away, or sent a frame of another kind.
    """
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise BrokenConversationError("the caller went away")
    number, size = _HEADER.unpack(header)
    data = stream.read(size)
    if len(data) < size or number not in kinds:
        raise BrokenConversationError("the caller went away")
    return Frame(FrameKind(number), data)


class Conversation:
    """The caller's side: nothing waits longer than the query may take, and nothing that arrives is trusted.

    Parameters
    ----------
    read_fd, write_fd
        Ends of the pipes from and to the process; closed by :meth:`close`.
    limits
        How long the process may work, in all.
    """

    def __init__(self, read_fd: int, write_fd: int, limits: SandboxLimits) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._limits = limits
        self._left_seconds = limits.wall_seconds
        self._pending = bytearray()
        for fd in (read_fd, write_fd):
            os.set_blocking(fd, False)

    def close(self) -> None:
        """Close both pipes."""
        for fd in (self._read_fd, self._write_fd):
            os.close(fd)

    def send(self, kind: FrameKind, data: bytes | memoryview) -> None:
        """Send one frame.

        Raises
        ------
        LimitExceededError
            The process did not take it in the time that it has.
        BrokenConversationError
            The process is gone.
        """
        for part in (memoryview(_HEADER.pack(kind, len(data))), memoryview(data)):
            rest = part
            while len(rest):
                self._wait(self._write_fd, select.POLLOUT)
                try:
                    rest = rest[os.write(self._write_fd, rest[:_PIECE_BYTES]) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError as error:
                    raise BrokenConversationError("the process is gone") from error

    def receive(self) -> Frame:
        """Receive one frame.

        Raises
        ------
        LimitExceededError
            The process took too long.
        BrokenConversationError
            The process is gone, or sent what is no frame, or one that is too large.
        """
        kind, size = _HEADER.unpack(self._take(_HEADER.size))
        if kind not in FrameKind._value2member_map_ or size > MESSAGE_LIMIT_BYTES:
            raise BrokenConversationError(f"the process sent a frame of kind {kind} and {size} bytes")
        return Frame(FrameKind(kind), self._take(size))

    def _take(self, n_bytes: int) -> bytes:
        while len(self._pending) < n_bytes:
            self._wait(self._read_fd, select.POLLIN)
            try:
                piece = os.read(self._read_fd, _PIECE_BYTES)
            except BlockingIOError:
                continue
            if not piece:
                raise BrokenConversationError("the process is gone")
            self._pending += piece
        taken = bytes(self._pending[:n_bytes])
        del self._pending[:n_bytes]
        return taken

    def _wait(self, fd: int, event: int) -> None:
        """Wait until a pipe is ready; the time counts as time that the process works."""
        poll = select.poll()
        poll.register(fd, event)
        started = time.monotonic()
        ready = poll.poll(max(self._left_seconds, 0) * 1000)
        self._left_seconds -= time.monotonic() - started
        if not ready or self._left_seconds <= 0:
            raise over_time(self._limits)
