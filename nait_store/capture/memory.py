"""Memory of the devices that a model runs on: how much is free, how much was taken, and whether it ran out."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, or Python's own, says that memory ran out."""
    import torch

    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
    )


def release_memory(device: str) -> None:
    """Give back what is held but not used, on the host and on the device."""
    import torch

    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device.startswith("mps"):
        torch.mps.empty_cache()


def forget_peak(device: str) -> None:
    """Measure the peak from now on; on the host only Linux can, elsewhere it stays that of the process's life."""
    import torch

    if device.startswith("cuda"):
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
    else:
        with contextlib.suppress(OSError):
            (_PROCESS / "clear_refs").write_text("5")  # the kernel's way to say: the peak of resident memory


def peak_memory_bytes(device: str) -> int:
    """Return the most memory that was taken at once: of all CUDA devices together, or the process's resident memory."""
    import torch

    if device.startswith("cuda"):
        return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_peak_bytes(device: str) -> int:
    """Return the most memory that torch had taken on one CUDA device; 0 for others, whose memory is the process's."""
    import torch

    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else 0


def free_memory_bytes(device: str) -> int | None:
    """Return what is left on the device: free and cached by torch, or available to this process; None if unknown."""
    import torch

    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    known = [bytes_left for bytes_left in (_host_bytes(), _container_bytes()) if bytes_left is not None]
    return min(known, default=None)


def device_name(device: str) -> str:
    """Name the kind of device: ``NVIDIA H100 80GB HBM3``, or ``cpu of 8 threads``."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} of {torch.get_num_threads()} threads" if device == "cpu" else device


def _host_bytes() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _container_bytes() -> int | None:
    """What a container's limit (cgroup v2) leaves; None where there is none."""
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())
        return max(0, limit - int((_CGROUP / "memory.current").read_text()))
    return None
