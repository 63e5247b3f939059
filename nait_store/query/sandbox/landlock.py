"""Landlock: the kernel lets a process read the folders that are named to it, and no others.

Kernels have it from 5.13 on, if they were built and booted with it. Where it is missing nothing is restricted: the
system call filter keeps a process from writing in any case.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable

from nait_store.errors import InvalidInputError

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_EVERYTHING = (1 << 13) - 1  # of the first version: reading, executing, and all kinds of writing


def is_available() -> bool:
    """Whether the kernel has it."""
    return _call(_CREATE_RULESET, None, 0, _ASK_VERSION) >= 1


def restrict(readable: Iterable[str], listable: Iterable[str] = ()) -> bool:
    """Let this thread, and those that it starts, read and map what lies in some folders, and nothing else.

    Parameters
    ----------
    readable
        Folders with all below them, or single files; those that do not exist are left out.
    listable
        Folders in which, and below which, names may be looked at.

    Returns
    -------
    bool
        Whether it is restricted now; False where the kernel lacks Landlock.

    Raises
    ------
    InvalidInputError
        The kernel has it, and refuses.
    """
    if not is_available():
        return False
    handled = struct.pack("Q", _EVERYTHING)
    ruleset = _checked(_call(_CREATE_RULESET, handled, len(handled), 0))
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _EXECUTE | _READ_DIR)
        for path in listable:
            _allow(ruleset, path, _READ_DIR)
        _checked(_call(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= ~_READ_DIR
        _checked(_call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0))
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    passed = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in arguments]
    return int(libc.syscall(ctypes.c_long(number), *passed))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno() or errno.EINVAL
        raise InvalidInputError(
            f"the kernel does not restrict what this process reads: {os.strerror(code)}",
            next_step="run untrusted SQL where Landlock works, or run only SQL that you trust",
        )
    return result
