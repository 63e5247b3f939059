"""How a command that has something to finish meets Ctrl-C and SIGTERM, which batch schedulers send."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from nait_store.cli.main import EXIT_TERMINATED
from nait_store.errors import IngestInterrupted

_ONCE_MORE = b"\nstopping: what was captured is written and committed; once more stops at once\n"


class IngestTerminated(IngestInterrupted):
    """SIGTERM during an ingest, with the exit code that it has everywhere: 128 + 15."""

    exit_code = EXIT_TERMINATED


@contextlib.contextmanager
def stoppable(*, quiet: bool) -> Iterator[None]:
    """Let SIGTERM do within the block what Ctrl-C does, and say at the first of them that a second one would hurry.

    Raises
    ------
    IngestTerminated
        Instead of what the interruption raised, where SIGTERM was the cause.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1 and not quiet:
            with contextlib.suppress(OSError):
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _ONCE_MORE)  # print() might be at work
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, known in before.items():
        if known not in (signal.SIG_IGN, None):  # ignored as under nohup, or not Python's
            signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        if received[:1] == [signal.SIGTERM]:
            raise IngestTerminated(
                "terminated before anything was captured", next_step="run the same command again"
            ) from None
        raise
    except IngestInterrupted as interrupted:
        if received[:1] == [signal.SIGTERM]:
            raise IngestTerminated(interrupted.what, next_step=interrupted.next_step) from None
        raise
    finally:
        for number, known in before.items():
            if known is not None:
                signal.signal(number, known)
