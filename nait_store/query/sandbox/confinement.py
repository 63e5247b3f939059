"""What a process that runs untrusted SQL gives up before it reads a byte of it; none of this can be taken back."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from nait_store.query.sandbox import landlock, syscall_filter
from nait_store.query.sandbox.limits import SandboxLimits

_PR_SET_PDEATHSIG = 1
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_MACHINERY_BYTES, _THREAD_BYTES = 256 << 20, 16 << 20
"""Address space that DuckDB, Arrow and each thread reserve without using it."""

_SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo"),
    *("/dev/null", "/dev/urandom", "/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup"),
)
"""Shared libraries, time zones, and what DuckDB looks at to learn how much memory there is."""

_OPEN_FILES = 4096  # a set may have thousands of segments
_CPU_GRACE_SECONDS = 5


@dataclass(frozen=True)
class Reach:
    """What a process needs to get at besides Python and its packages.

    Attributes
    ----------
    readable
        Folders that it may read; None for all there are. Kernels without Landlock let it read all in any case.
    listable
        Folders in which, and below which, it may look at names.
    network
        Whether it may open sockets.
    """

    readable: tuple[str, ...] | None = ()
    listable: tuple[str, ...] = ()
    network: bool = False


def confine(limits: SandboxLimits, parent: int, reach: Reach) -> None:
    """Limit this process, whose threads all stay within the limits, too.

    Parameters
    ----------
    limits
        How much it may take. The caller of the query enforces the wall limit; here only processor time is limited.
    parent
        Process without which this one must not live.
    reach
        What it needs to get at.

    Raises
    ------
    InvalidInputError
        The kernel does not take the system call filter, or has Landlock and refuses it.
    """
    _die_with(parent)
    with contextlib.suppress(OSError):
        # Where memory is short, this process goes first.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    address_space = _address_space_bytes() + limits.memory_bytes + _MACHINERY_BYTES + limits.threads * _THREAD_BYTES
    processor_seconds = math.ceil(limits.wall_seconds * (limits.threads + 1)) + _CPU_GRACE_SECONDS
    for kind, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, processor_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        _lower(kind, value)
    _drop_capabilities()
    syscall_filter.forbid_new_privileges()
    if reach.readable is not None:
        installed = (sys.prefix, sys.base_prefix, *filter(None, sys.path))
        landlock.restrict((*reach.readable, *installed, *_SYSTEM), reach.listable)
    syscall_filter.install(network=reach.network)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _address_space_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _drop_capabilities() -> None:
    """Leave root, which it may be in a container, with nothing but reading what others own."""
    libc = ctypes.CDLL(None)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)  # twice (effective, permitted, inheritable), low and high 32 bits
    if libc.capget(header, sets) != 0:
        return
    effective, permitted, *_ = struct.unpack("6I", sets.raw)
    kept = 1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH
    libc.capset(header, struct.pack("6I", effective & kept, permitted & kept, 0, 0, 0, 0))
