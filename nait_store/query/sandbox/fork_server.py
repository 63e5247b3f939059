"""A process that has everything imported and forks one confined process for each untrusted query.

Importing takes seconds, forking milliseconds; and since it never sees a query itself, no query can leave anything
behind for the next one. It talks with its caller over a socket: the caller sends the ends of two pipes and gets back a
handle of the process that reads and writes their other ends.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from nait_store.query.sandbox.runner import Runner

MESSAGE_BYTES = 1 << 16
READY = b"ready"
_ORPHAN_CHECK_SECONDS = 5.0
_IDLE_SECONDS = 600.0
"""After which it ends; whoever asks again starts another."""

_REAP_SECONDS, _REAP_TRIES = 1.0, 500
_UNNEEDED = frozenset({"pandas", "polars", "torch", "transformers", "numba"})
"""Heavy packages that others import if they can; rows travel as Arrow."""


Serve = Callable[[dict[str, Any], int, int], None]


class _Unneeded(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname.partition(".")[0] in _UNNEEDED:
            raise ModuleNotFoundError(f"{fullname} is not needed here", name=fullname)
        return None


def main(arguments: dict[str, Any]) -> None:
    """Serve the caller until it goes away, or asks for nothing any more.

    Parameters
    ----------
    arguments
        ``socket``: number of the inherited socket; ``parent``: process id of the caller; ``runner``: what opens a
        runner, ``module:function``; ``modules``: what to import besides; ``network``: whether the processes need sockets.
    """
    connection = socket.socket(fileno=arguments["socket"])
    sys.meta_path.insert(0, _Unneeded())
    module, _, function = arguments["runner"].partition(":")
    for name in arguments["modules"]:
        importlib.import_module(name)
    open_runner = getattr(importlib.import_module(module), function)
    from nait_store.query.sandbox import confinement, worker
    from nait_store.query.sandbox.limits import SandboxLimits

    def serve(message: dict[str, Any], request_fd: int, answer_fd: int) -> None:
        limits = SandboxLimits(**message["limits"])

        def begin() -> Runner:
            confinement.confine(limits, server, network=arguments["network"])
            runner: Runner = open_runner(message["option"])
            return runner

        worker.serve(begin, limits, request_fd, answer_fd)

    server = os.getpid()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    os.close(quiet)
    gc.collect()
    gc.freeze()
    connection.settimeout(_ORPHAN_CHECK_SECONDS)
    connection.send(READY)
    last_used = time.monotonic()
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 2)
        except TimeoutError:
            # The caller's end may live on in a process that it forked.
            if os.getppid() != arguments["parent"] or time.monotonic() - last_used > _IDLE_SECONDS:
                return
            continue
        if not data:
            return
        last_used = time.monotonic()
        message = json.loads(data)
        if "reap" in message:
            connection.send(json.dumps({"exit_code": _reap(message["reap"])}).encode())
            continue
        pid = os.fork()
        if pid == 0:
            _become_worker(connection, serve, message, fds)
        for fd in fds:
            os.close(fd)
        handle = os.pidfd_open(pid)
        socket.send_fds(connection, [json.dumps({"pid": pid}).encode()], [handle])
        os.close(handle)


def _become_worker(connection: socket.socket, serve: Serve, message: dict[str, Any], fds: Sequence[int]) -> None:
    """Never returns: what the fork server does after a fork must not happen twice."""
    try:
        connection.close()
        serve(message, *fds)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    finally:
        os._exit(0)


def _reap(pid: int) -> int:
    """Wait for a process that is ending; negative for the signal that ended it."""
    for _ in range(_REAP_TRIES):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_REAP_SECONDS / _REAP_TRIES)
    return 0
