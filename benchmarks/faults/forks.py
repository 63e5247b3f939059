"""Work in forked processes that may be killed, and what they tell before they end."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Tell = Callable[[Any], None]
"""Sends a JSON value to the parent; what was sent is received even if the process is killed right after."""

STARTED = "started"
"""The message from which on the time to a kill counts."""


@dataclass(frozen=True)
class Ended:
    """A child process that is over.

    Attributes
    ----------
    told
        Its messages, in order.
    was_killed
        Whether SIGKILL ended it.
    error
        Traceback of the exception that ended it, else "".
    """

    told: list[Any]
    was_killed: bool
    error: str

    @property
    def result(self) -> Any:
        """Its last message.

        Raises
        ------
        RuntimeError
            It failed.
        """
        if self.error or self.was_killed or not self.told:
            raise RuntimeError(self.error or "the process was killed, or told nothing")
        return self.told[-1]


def run_forked(work: Callable[[Tell], object], *, kill_after_seconds: float | None = None) -> Ended:
    """Run ``work`` in a fork of this process, which must have one thread only.

    Parameters
    ----------
    work
        Called with the means to tell something.
    kill_after_seconds
        Kill it this long after it told :data:`STARTED`.
    """
    return Fork(work).wait(kill_after_seconds)


def preload(modules: Iterable[str]) -> None:
    """Import what a child has imported, so that later ones need not.

    Private modules are left to those that they belong to. In the order of names they would come first, and ``_asyncio``
    before asyncio keeps a register of running tasks that asyncio does not know.
    """
    for name in modules:
        if name.startswith("_"):
            continue
        with contextlib.suppress(Exception):  # those that cannot be imported by name are nobody's to import
            importlib.import_module(name)


class Fork:
    """A forked process at work.

    Parameters
    ----------
    work
        As for :func:`run_forked`.
    """

    def __init__(self, work: Callable[[Tell], object]) -> None:
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reader)
            _work(work, writer)
        os.close(writer)

    def wait(self, kill_after_seconds: float | None = None) -> Ended:
        """Listen until it ends, by itself or killed."""
        data = bytearray()
        deadline: float | None = None
        while True:
            if kill_after_seconds is not None and deadline is None and f'"{STARTED}"\n'.encode() in data:
                deadline = time.monotonic() + kill_after_seconds
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._reader], [], [], left)[0]:
                os.kill(self.pid, signal.SIGKILL)
                deadline = kill_after_seconds = None
                continue
            block = os.read(self._reader, 1 << 16)
            if not block:
                break
            data += block
        os.close(self._reader)
        status = os.waitpid(self.pid, 0)[1]
        told = [json.loads(line) for line in data.splitlines()]
        failed = bool(told) and isinstance(told[-1], dict) and "traceback" in told[-1]
        return Ended(
            told=[message for message in told[: len(told) - failed] if message != STARTED],
            was_killed=os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
            error=told[-1]["traceback"] if failed else "",
        )


def _work(work: Callable[[Tell], object], writer: int) -> None:
    lock = threading.Lock()

    def tell(message: Any) -> None:
        with lock:
            os.write(writer, json.dumps(message).encode() + b"\n")

    code = 0
    try:
        work(tell)
    except BaseException:
        tell({"traceback": traceback.format_exc()})
        code = 1
    finally:
        os._exit(code)
