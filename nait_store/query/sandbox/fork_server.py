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
from collections.abc import Sequence
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
"""Heavy packages that others import if they can. Rows travel as Arrow; numba is there for those who warm up."""


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
        runner, ``module:function``; ``modules``: what to import besides.
    """
    server = _Server(arguments)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    os.close(quiet)
    gc.collect()
    gc.freeze()
    server.serve()


class _Server:
    """Everything imported, and nothing else."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._connection = socket.socket(fileno=arguments["socket"])
        self._parent = arguments["parent"]
        self._unneeded = _Unneeded()
        sys.meta_path.insert(0, self._unneeded)
        for name in arguments["modules"]:
            importlib.import_module(name)
        name, _, self._opener = arguments["runner"].partition(":")
        self._module = importlib.import_module(name)
        # Not at the top of this file, which the caller imports, too.
        from nait_store.query.sandbox import confinement, worker
        from nait_store.query.sandbox.limits import SandboxLimits

        self._confine, self._reach = confinement.confine, confinement.Reach
        self._serve_query, self._limits = worker.serve, SandboxLimits
        self._is_warm = False
        self._workers: set[int] = set()

    def serve(self) -> None:
        """Do what the caller asks for, message by message."""
        self._connection.settimeout(_ORPHAN_CHECK_SECONDS)
        self._connection.send(READY)
        last_used = time.monotonic()
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._connection, MESSAGE_BYTES, 2)
            except TimeoutError:
                idle = not self._workers and time.monotonic() - last_used > _IDLE_SECONDS
                # The caller's end may live on in a process that it forked.
                if idle or os.getppid() != self._parent:
                    return
                continue
            if not data:
                return
            message = json.loads(data)
            if "reap" in message:
                self._workers.discard(message["reap"])
                self._connection.send(json.dumps({"exit_code": _reap(message["reap"])}).encode())
            else:
                self._fork(message, fds)
            last_used = time.monotonic()

    def _fork(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        if message["warm"] and not self._is_warm:
            sys.meta_path.remove(self._unneeded)
            self._module.warm()
            sys.meta_path.insert(0, self._unneeded)
            self._is_warm = True
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._connection.close()
                self._become_worker(message, server, *fds)
                os._exit(0)
            finally:
                os._exit(1)  # what the server does after a fork must not happen twice
        self._workers.add(pid)
        for fd in fds:
            os.close(fd)
        handle = os.pidfd_open(pid)
        socket.send_fds(self._connection, [json.dumps({"pid": pid}).encode()], [handle])
        os.close(handle)

    def _become_worker(self, message: dict[str, Any], server: int, request_fd: int, answer_fd: int) -> None:
        limits = self._limits(**message["limits"])
        os.environ.update(message["environment"])

        def begin() -> Runner:
            self._confine(limits, server, self._reach(**message["reach"]))
            runner: Runner = getattr(self._module, self._opener)(message["option"])
            return runner

        self._serve_query(begin, limits, request_fd, answer_fd)


def _reap(pid: int) -> int:
    """Wait for a process that is ending; negative for the signal that ended it."""
    for _ in range(_REAP_TRIES):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_REAP_SECONDS / _REAP_TRIES)
    return 0
