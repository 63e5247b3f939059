"""The caller's side of the fork server: starting it, having it fork, ending what it forked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nait_store.errors import InvalidInputError, NaitStoreError
from nait_store.query.sandbox import syscall_filter
from nait_store.query.sandbox.confinement import Reach
from nait_store.query.sandbox.fork_server import MESSAGE_BYTES, READY
from nait_store.query.sandbox.frames import Conversation
from nait_store.query.sandbox.limits import SandboxLimits

_PACKAGES = Path(__file__).resolve().parents[3]  # the folder that holds nait_store
_START_SECONDS = 120.0
_REPLY_SECONDS = 300.0  # compiling kernels may take a minute
_COMMAND = (
    "import json, sys; a = json.loads(sys.argv[1]); sys.path[:] = a['path']; "
    "from nait_store.query.sandbox.fork_server import main; main(a)"
)
_INHERITED_VARIABLES = ("LD_LIBRARY_PATH", "LANG", "LC_ALL")
_FIXED_VARIABLES = {
    # A process with threads must not be forked, and few threads and arenas leave more of the address space.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "MALLOC_ARENA_MAX": "2",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class ForkServerGoneError(NaitStoreError):
    """It was killed, or had not been needed for long; another can be started."""


@dataclass(frozen=True)
class RunnerSource:
    """What the processes run queries with.

    Attributes
    ----------
    opener
        ``module:function``, which takes an option and returns a runner. The module may have a function ``warm`` that
        loads what takes long and few queries need.
    modules
        Modules to import besides, so that they are there before a query is.
    """

    opener: str
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunnerTask:
    """What one process opens its runner with.

    Attributes
    ----------
    option
        For the opener, a JSON value: the URL of a store, for example.
    reach
        What it needs to get at.
    environment
        Variables that it needs, and their values. All others are withheld, but for those that importing needs.
    warm
        Whether to load first what takes long and few queries need.
    """

    option: Any = None
    reach: Reach = field(default_factory=Reach)
    environment: Mapping[str, str] = field(default_factory=dict)
    warm: bool = False


@dataclass(eq=False)
class Worker:
    """A process that serves one query.

    Attributes
    ----------
    pid
        Its process id.
    handle
        Its pidfd: unlike its id it never comes to mean another process.
    conversation
        The pipes from and to it.
    exit_code
        None until it was reaped; negative for the signal that ended it.
    """

    pid: int
    handle: int
    conversation: Conversation
    exit_code: int | None = None

    def kill(self) -> None:
        """End it with all its threads, wherever it is."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)


class ForkServer:
    """A running fork server. Thread-safe.

    Parameters
    ----------
    source
        What its processes run queries with.

    Raises
    ------
    InvalidInputError
        This is no Linux of a known architecture, or there is no Python to start.
    """

    def __init__(self, source: RunnerSource) -> None:
        require_supported()
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._is_ready = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
        with theirs:
            arguments = {
                "path": [str(_PACKAGES), *map(os.path.abspath, filter(None, sys.path))],
                "parent": os.getpid(),
                "socket": theirs.fileno(),
                "runner": source.opener,
                "modules": source.modules,
            }
            try:
                self._process = subprocess.Popen(
                    # Isolated: neither the folder it starts in nor a user's own packages can slip something in.
                    [sys.executable, "-I", "-B", "-X", "utf8", "-c", _COMMAND, json.dumps(arguments)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    env={**environment, **_FIXED_VARIABLES},
                    cwd="/",
                    start_new_session=True,  # Ctrl-C is the caller's affair
                )
            except OSError as error:
                self._socket.close()
                raise InvalidInputError(
                    f"untrusted SQL needs a Python that can be started, and {sys.executable!r} cannot: {error}",
                    next_step="run it from an ordinary Python interpreter",
                ) from error

    @property
    def is_alive(self) -> bool:
        """Whether it can fork, as far as can be seen, for the process that started it."""
        return os.getpid() == self._owner and self._process.poll() is None and self._socket.fileno() >= 0

    @contextmanager
    def worker(self, limits: SandboxLimits, task: RunnerTask) -> Iterator[Worker]:
        """Fork a confined process, which is dead and gone when the block ends.

        Parameters
        ----------
        limits
            How much it may take.
        task
            What to open its runner with.

        Raises
        ------
        ForkServerGoneError
            The fork server ended.
        """
        worker = self._fork(limits, task)
        try:
            yield worker
        finally:
            with contextlib.suppress(NaitStoreError):
                self.reap(worker)
            os.close(worker.handle)
            worker.conversation.close()

    def reap(self, worker: Worker) -> int:
        """Kill a process unless it ended by itself, and return its exit code."""
        if worker.exit_code is None:
            worker.kill()
            worker.exit_code = 0
            reply, _ = self._ask({"reap": worker.pid})
            worker.exit_code = int(reply["exit_code"])
        return worker.exit_code

    def close(self) -> None:
        """End it, and with it all that it forked."""
        self._socket.close()
        if os.getpid() != self._owner:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _fork(self, limits: SandboxLimits, task: RunnerTask) -> Worker:
        request_read, request_write = os.pipe()
        answer_read, answer_write = os.pipe()
        try:
            message = {"limits": asdict(limits), **asdict(task)}
            reply, handles = self._ask(message, [request_read, answer_write])
        except BaseException:
            os.close(request_write)
            os.close(answer_read)
            raise
        finally:
            os.close(request_read)
            os.close(answer_write)
        return Worker(reply["pid"], handles[0], Conversation(answer_read, request_write, limits))

    def _ask(self, message: dict[str, Any], fds: list[int] | None = None) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            try:
                self._await_start()
                socket.send_fds(self._socket, [json.dumps(message).encode()], fds or [])
                data, handles, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 1)
            except OSError as error:
                raise self._failed() from error
            if not data:
                raise self._failed()
        reply: dict[str, Any] = json.loads(data)
        return reply, handles

    def _await_start(self) -> None:
        if self._is_ready:
            return
        self._socket.settimeout(_START_SECONDS)
        if self._socket.recv(MESSAGE_BYTES) != READY:
            raise self._failed()
        self._socket.settimeout(_REPLY_SECONDS)
        self._is_ready = True

    def _failed(self) -> NaitStoreError:
        self._process.kill()
        if self._is_ready:
            return ForkServerGoneError("the process that untrusted SQL is run from ended", next_step="try again")
        said = self._process.stderr.read().decode(errors="replace").strip() if self._process.stderr else ""
        last = said.splitlines()[-1] if said else "it ended without a word"
        return NaitStoreError(
            f"the process that untrusted SQL is run from failed: {last}", next_step="try again, or report it"
        )


def require_supported() -> None:
    """Refuse a system on which untrusted SQL cannot be confined.

    Raises
    ------
    InvalidInputError
        No Linux on x86-64 or ARM64.
    """
    if not syscall_filter.is_supported():
        raise InvalidInputError(
            "untrusted SQL can only be run on Linux, on x86-64 or ARM64",
            next_step="run it there, or leave the sandbox out for SQL that you trust",
        )
