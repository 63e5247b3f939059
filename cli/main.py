"""Entry point: arguments in, exit code out; every error becomes one message and one code.

Exit codes: 0 done, 1 unexpected, 2 usage, 3–11 by kind of error (docs/errors.md), 130 interrupted,
141 the reader of the output went away, 143 terminated.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from nait_store.cli.tables import harmless
from nait_store.errors import NaitStoreError

# Looking for plugins of pydantic reads the metadata of every installed distribution, at every start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_TERMINATED = 143
_FLAGS = ("--json", "--quiet", "--debug")


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: nothing half-written is left behind."""


def run() -> None:
    """Run the command line of this process."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    _write_wholly()
    # What is imported and listed stays: to look through it for cycles after every 700 objects is a tenth of the wait.
    gc.set_threshold(50_000, 20, 100)
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Parameters
    ----------
    arguments
        Without the program's name.

    Returns
    -------
    int
        Exit code.
    """
    hoisted = hoist_global_options(arguments)
    as_json = "--json" in hoisted
    debug = "--debug" in hoisted
    try:
        from nait_store.cli.app import invoke

        code = invoke(hoisted)
        sys.stdout.flush()
        return code
    except NaitStoreError as error:
        if debug:
            raise
        _report(error.kind, error.what, error.next_step, error.exit_code, as_json)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        if debug:
            raise
        terminated = isinstance(interrupt, Terminated)
        code = EXIT_TERMINATED if terminated else EXIT_INTERRUPTED
        _report("interrupted", "terminated" if terminated else "interrupted", None, code, as_json)
        return code
    except BrokenPipeError:
        _silence_output()
        return EXIT_BROKEN_PIPE
    except Exception as error:
        if _is_usage_error(error):
            _report_usage(error, as_json)
            return EXIT_USAGE
        if debug:
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        _report(
            "unexpected",
            f"unexpected {what}",
            "run again with --debug for the traceback, and report it if it is a bug",
            EXIT_UNEXPECTED,
            as_json,
        )
        return EXIT_UNEXPECTED


def hoist_global_options(arguments: Sequence[str]) -> list[str]:
    """Move global options to the front, so that they may stand before or after the command.

    Nothing after a bare ``--`` is touched.
    """
    front: list[str] = []
    rest: list[str] = []
    i = 0
    while i < len(arguments):
        argument = arguments[i]
        if argument == "--":
            rest += arguments[i:]
            break
        if argument in _FLAGS or argument.startswith("--store="):
            front.append(argument)
        elif argument == "--store" and i + 1 < len(arguments):
            front += arguments[i : i + 2]
            i += 1
        else:
            rest.append(argument)
        i += 1
    return front + rest


def _report(kind: str, what: str, next_step: str | None, exit_code: int, as_json: bool) -> None:
    with contextlib.suppress(BrokenPipeError):
        if as_json:
            error = {"kind": kind, "message": what, "next_step": next_step, "exit_code": exit_code}
            sys.stderr.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
        else:
            lines = [f"error: {what}"] + ([f"  → {next_step}"] if next_step else [])
            sys.stderr.write(harmless("\n".join(lines)) + "\n")


def _is_usage_error(error: Exception) -> bool:
    """Whether the command line itself is wrong."""
    import typer

    # Typer brings a copy of Click along, and exports of its exceptions BadParameter only: take its ancestor.
    return isinstance(error, typer.BadParameter.__mro__[1])


def _report_usage(error: Any, as_json: bool) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its message is the help text
        sys.stderr.write(error.format_message() + "\n")
        return
    command = error.ctx.command_path if error.ctx is not None else "nait-store"
    message = error.format_message().replace("Value error, ", "")
    _report("usage", message, f"see '{command} --help'", EXIT_USAGE, as_json)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _write_wholly() -> None:
    """Give standard output a buffer where PYTHONUNBUFFERED took it away: without one, a write may end half-way."""
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        encoding, errors = sys.stdout.encoding, sys.stdout.errors
        sys.stdout = open(  # noqa: SIM115  (closed by nobody, as before)
            sys.stdout.fileno(), "w", encoding=encoding, errors=errors, buffering=1, closefd=False
        )


def _silence_output() -> None:
    """Give the interpreter somewhere to flush to, so that it does not complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run()
