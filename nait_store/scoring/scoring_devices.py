"""What scores are computed on: this machine's cores, or a CUDA device."""

from __future__ import annotations

import functools
import os

from nait_store.errors import InvalidInputError
from nait_store.scoring.kernels import Kernels, default_kernels

DEVICE_VARIABLE = "NAIT_STORE_SCORE_DEVICE"
CORES = "cpu"


def kernels_on(device: str | None = None) -> Kernels:
    """The arithmetic of scores on a device; scores are the same within rounding.

    Parameters
    ----------
    device
        ``cpu``, ``cuda`` or ``cuda:1``; what ``NAIT_STORE_SCORE_DEVICE`` says, else ``cpu``, if omitted.

    Raises
    ------
    InvalidInputError
        There is no such device.
    """
    chosen = device or os.environ.get(DEVICE_VARIABLE) or CORES
    if chosen == CORES:
        return default_kernels()
    kind, colon, index = chosen.partition(":")
    if kind != "cuda" or (colon and not index.isdecimal()):
        source = "" if device else f" ({DEVICE_VARIABLE})"
        raise InvalidInputError(
            f"scores are not computed on {chosen!r}{source}", next_step="name cpu, cuda, or one of several: cuda:1"
        )
    return _on_cuda(chosen)


@functools.cache
def _on_cuda(device: str) -> Kernels:
    from nait_store.scoring.torch_kernels import TorchKernels

    return TorchKernels(device)
