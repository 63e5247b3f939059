"""Processes that start with the slow third-party imports already done.

A command that loads a model spends ten seconds of a core on importing torch and transformers and one on its work.
Here one process imports them once and forks for every command: each still has a process, a working folder, an
environment, streams and an exit code of its own, and imports all of nait_store itself. Where forking is not safe
(anywhere but Linux) the commands are ordinary ones. What a start imports, and how long it takes, is measured on
ordinary processes in tests/cli.

Run as a program (``python warm_processes.py SOCKET``) it is the process that forks; it ends when its stdin does.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

PROGRAMS = ("nait-store", "python")
IMPORTED = (
    "duckdb",
    "fsspec.implementations.memory",
    "numba",
    "pyarrow.parquet",
    "pydantic",
    "rich.progress",
    "scipy.linalg",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llama.tokenization_llama",
    "typer",
    "zarr",
    "zarrs",
)

# Hands its streams and itself over, then waits for the exit code.
_SHIM = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
arguments = [{program!r}, *sys.argv[1:]]
asked = json.dumps({{"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}})
socket.send_fds(server, [b"!"], [0, 1, 2])
server.sendall(asked.encode() + b"\\n")
answer = server.makefile().readline()
sys.exit(int(answer) if answer else "the warm process went away")
"""


@contextlib.contextmanager
def warm_programs() -> Iterator[Path]:
    """Yield a folder to put first on PATH, with ``nait-store`` and ``python`` in it."""
    ordinary = Path(sys.executable).parent
    if sys.platform != "linux":
        yield ordinary
        return
    # Not pytest's folder: the address of a socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        address = str(Path(folder) / "socket")
        for program in PROGRAMS:
            shim = Path(folder) / program
            shim.write_text(_SHIM.format(python=sys.executable, address=address, program=program), encoding="utf-8")
            shim.chmod(0o755)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            ready = server.stdout.readline()
            assert ready == b"ready\n", "the process that forks did not start; its stderr says why"
            yield Path(folder)
            server.stdin.close()


def warm_environment(programs: Path) -> dict[str, str]:
    """Return the environment of a user without a store, who finds these programs first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NAIT_STORE")}
    kept["PATH"] = os.pathsep.join([str(programs), str(Path(sys.executable).parent), kept["PATH"]])
    kept["OMP_NUM_THREADS"] = "1"
    return kept


def _serve(address: str) -> list[str]:
    """Fork for whoever connects; returns the arguments in each fork, which is to run them, and never otherwise."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            readable, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in readable:
                sys.exit(0)
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                return _fork_program(client)
            client.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _fork_program(client: socket.socket) -> list[str]:
    """Become the program, in a fork of this process, which waits for it and passes its exit code on."""
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile() as lines:
        asked: dict[str, Any] = json.loads(lines.readline())
    program = os.fork()
    if program:
        _, status = os.waitpid(program, 0)
        code = os.waitstatus_to_exitcode(status)
        client.sendall(f"{code if code >= 0 else 128 - code}\n".encode())
        os._exit(0)
    client.close()
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    return list(asked["arguments"])


def _run(arguments: list[str]) -> None:
    """Run ``nait-store …`` or ``python [-W error] (-m MODULE | -c CODE | FILE) …`` as the interpreter would."""
    # These belonged to the server: fd 0 may have been read ahead, and 1 may have been a terminal.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    program, *rest = arguments
    if program == "nait-store":
        sys.argv = ["nait-store", *rest]
        from nait_store.cli.main import run

        run()
    if rest[:2] == ["-W", "error"]:
        warnings.simplefilter("error")
        rest = rest[2:]
    if rest[0] == "-m":
        sys.argv, sys.path[0] = rest[1:], os.getcwd()  # noqa: PTH109
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    elif rest[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[2:]], ""
        exec(compile(rest[1], "<string>", "exec"), {"__name__": "__main__"})
    elif rest[0].startswith("-"):
        raise SystemExit(f"warm python does not know {shlex.join(rest)}")
    else:
        sys.argv = rest
        sys.path[0] = str(Path(rest[0]).resolve().parent)
        runpy.run_path(rest[0], run_name="__main__")


def _exit_after(arguments: list[str]) -> NoReturn:
    """Run a program and end without taking the interpreter apart, which costs a second after such imports."""
    code = 0
    try:
        _run(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # a collection would touch, so copy, every page that the forks share
    _exit_after(_serve(sys.argv[1]))
