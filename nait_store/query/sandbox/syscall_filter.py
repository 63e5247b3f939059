"""A seccomp filter: the kernel refuses a process, for good, what reading and computing never needs.

Settings of a database are code of that database; this is not. Under the filter nothing can be created, written,
truncated, renamed or deleted, no program and no process started, no other process signalled or looked into, and, unless
asked for, no socket opened, whatever the process comes to run. Calls that are refused fail with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping

from nait_store.errors import InvalidInputError

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1  # all threads, not the calling one alone

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16

_CLONE_THREAD = 0x00010000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_TMPFILE_BIT = 0x00400000  # of O_TMPFILE, which needs O_WRONLY or O_RDWR besides

# Numbers are part of the kernel's interface and never change. Those from 424 on are the same on every architecture.
_COMMON = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "fchmodat2": 452,
    "setxattrat": 463,
    "removexattrat": 466,
}
_X86_64 = {
    "open": 2, "creat": 85, "openat": 257, "truncate": 76, "ftruncate": 77, "fallocate": 285,
    "rename": 82, "renameat": 264, "renameat2": 316, "mkdir": 83, "mkdirat": 258, "rmdir": 84,
    "link": 86, "linkat": 265, "unlink": 87, "unlinkat": 263, "symlink": 88, "symlinkat": 266,
    "mknod": 133, "mknodat": 259, "chmod": 90, "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93,
    "lchown": 94, "fchownat": 260, "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280,
    "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198,
    "fremovexattr": 199, "fork": 57, "vfork": 58, "clone": 56, "execve": 59, "execveat": 322,
    "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "prctl": 157, "setrlimit": 160,
    "prlimit64": 302, "setpgid": 109, "setsid": 112, "unshare": 272, "setns": 308, "mount": 165,
    "umount2": 166, "pivot_root": 155, "chroot": 161, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    "add_key": 248, "request_key": 249, "keyctl": 250, "init_module": 175, "finit_module": 313,
    "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169, "open_by_handle_at": 304,
    "memfd_create": 319, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "personality": 135,
    "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50,
    "socketpair": 53, "accept4": 288, "sendmmsg": 307, "seccomp": 317,
}  # fmt: skip
_AARCH64 = {
    "openat": 56, "truncate": 45, "ftruncate": 46, "fallocate": 47, "renameat": 38, "renameat2": 276,
    "mkdirat": 34, "linkat": 37, "unlinkat": 35, "symlinkat": 36, "mknodat": 33, "fchmod": 52, "fchmodat": 53,
    "fchown": 55, "fchownat": 54, "utimensat": 88, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7,
    "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16, "clone": 220, "execve": 221, "execveat": 281,
    "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "ptrace": 117,
    "process_vm_readv": 270, "process_vm_writev": 271, "prctl": 167, "setrlimit": 164, "prlimit64": 261,
    "setpgid": 154, "setsid": 157, "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41,
    "chroot": 51, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "add_key": 217, "request_key": 218,
    "keyctl": 219, "init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104,
    "kexec_file_load": 294, "reboot": 142, "open_by_handle_at": 265, "memfd_create": 279, "shmget": 194,
    "semget": 190, "msgget": 186, "mq_open": 180, "personality": 92, "socket": 198, "connect": 203,
    "accept": 202, "sendto": 206, "sendmsg": 211, "bind": 200, "listen": 201, "socketpair": 199, "accept4": 242,
    "sendmmsg": 269, "seccomp": 277,
}  # fmt: skip
_ARCHITECTURES: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "x86_64": (0xC000003E, _X86_64 | _COMMON),
    "aarch64": (0xC00000B7, _AARCH64 | _COMMON),
}
_NETWORK = frozenset(
    "socket connect accept sendto sendmsg bind listen socketpair accept4 sendmmsg".split()  # noqa: SIM905
)
_JUDGED = frozenset({"open", "openat", "clone", "prlimit64", "tgkill", "prctl"})
"""Refused for some arguments only."""
_MISSING = frozenset({"clone3", "openat2"})
"""Their arguments lie in memory, out of a filter's sight; libraries fall back to the older calls."""
_UNNEEDED = frozenset({"seccomp"})


def is_supported() -> bool:
    """Whether filters for this machine are known here."""
    return platform.system() == "Linux" and platform.machine() in _ARCHITECTURES and struct.calcsize("P") == 8


def install(*, network: bool = False) -> None:
    """Put the filter on all threads of this process; it cannot be taken off.

    Parameters
    ----------
    network
        Whether sockets may be opened.

    Raises
    ------
    InvalidInputError
        The kernel does not take the filter.
    """
    forbid_new_privileges()
    program = _program(platform.machine(), os.getpid(), network=network)
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a 16-bit count, padding, a pointer
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    number = _ARCHITECTURES[platform.machine()][1]["seccomp"]
    pointer = ctypes.c_void_p(ctypes.addressof(header))
    flags = ctypes.c_ulong(_SECCOMP_FILTER_FLAG_TSYNC)
    if libc.syscall(ctypes.c_long(number), ctypes.c_ulong(_SECCOMP_SET_MODE_FILTER), flags, pointer) != 0:
        raise _refusal("seccomp")


def forbid_new_privileges() -> None:
    """Let no program that this process might start have more rights than it; filters are for such processes alone.

    Raises
    ------
    InvalidInputError
        The kernel does not.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _refusal("prctl")


def _refusal(call: str) -> InvalidInputError:
    return InvalidInputError(
        f"the kernel takes no system call filter from this process: {call}: {os.strerror(ctypes.get_errno())}",
        next_step="run untrusted SQL where seccomp filters are allowed, or run only SQL that you trust",
    )


def _program(machine: str, pid: int, *, network: bool) -> bytes:
    """The filter as instructions of classic BPF."""
    architecture, numbers = _ARCHITECTURES[machine]
    code = [
        _step(_LOAD, _AT_ARCHITECTURE),
        _step(_JUMP_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _AT_NUMBER),
    ]
    if machine == "x86_64":
        # The same calls by other numbers: the x32 interface.
        code += [_step(_JUMP_GREATER_EQUAL, 0x40000000, 0, 1), _step(_RETURN, _KILL_PROCESS)]
    refuse = _step(_RETURN, _ERRNO | errno.EPERM)
    missing = _step(_RETURN, _ERRNO | errno.ENOSYS)
    allow = _step(_RETURN, _ALLOW)
    for name, number in numbers.items():
        if name in _UNNEEDED or (network and name in _NETWORK):
            continue
        if name in _MISSING:
            body = [missing]
        elif name in ("open", "openat"):
            flags = _WRITING | _TMPFILE_BIT
            body = [_argument(2 if name == "openat" else 1), _step(_JUMP_ANY_BIT, flags, 0, 1), refuse, allow]
        elif name == "clone":
            # A thread shares everything with its process and ends with it.
            body = [_argument(0), _step(_JUMP_ANY_BIT, _CLONE_THREAD, 0, 1), allow, refuse]
        elif name == "prlimit64":
            # Asking is allowed: the pointer to new limits is null.
            equal = _step(_JUMP_EQUAL, 0, 0, 1)
            body = [_argument(2), _step(_JUMP_EQUAL, 0, 1, 0), refuse, _argument(2, high=True), equal, allow, refuse]
        elif name == "tgkill":
            body = [_argument(0), _step(_JUMP_EQUAL, pid, 0, 1), allow, refuse]  # abort() signals itself
        elif name == "prctl":
            # PR_SET_NAME and PR_SET_VMA, with which libraries name threads and memory
            body = [_argument(0), _step(_JUMP_EQUAL, 15, 2, 0), _step(_JUMP_EQUAL, 0x53564D41, 1, 0), refuse, allow]
        else:
            body = [refuse]
        code += [_step(_JUMP_EQUAL, number, 0, len(body)), *body]
    code.append(allow)
    return b"".join(code)


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)


def _argument(position: int, *, high: bool = False) -> bytes:
    """Load half of a call's argument; both architectures are little-endian."""
    return _step(_LOAD, _AT_ARGUMENTS + 8 * position + 4 * high)
