"""Results on their way from the device to the host, beside whatever the device computes next.

A plain ``tensor.cpu()`` waits for all that the device has been told to do. Here a copy goes into pinned memory on a
stream of its own, and is waited for when somebody wants the numbers: by then the next batch has been launched, so the
device never waits for the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class HostCopy:
    """A copy that may be under way.

    Attributes
    ----------
    host
        Where it goes.
    source
        What is copied: its memory must not be used anew before the copy is there.
    event
        Reached when it is there; None if it is there already.
    """

    host: torch.Tensor
    source: torch.Tensor | None = None
    event: Any = None

    def wait(self) -> NDArray[np.float32]:
        """Return the numbers as soon as all of them are there."""
        if self.event is not None:
            self.event.synchronize()
        array: NDArray[np.float32] = self.host.numpy()
        return array


def streams_of(device: torch.device) -> Any:
    """Return torch's module for a device whose work is queued on streams we can overlap; None for the others."""
    import torch

    return torch.cuda if device.type == "cuda" else None


class HostCopies:
    """Starts copies to the host; one stream for each device.

    Parameters
    ----------
    streams
        Gives the module that has ``Stream``, ``Event``, ``stream`` and ``current_stream`` for a device, or None.
    """

    def __init__(self, streams: Callable[[torch.device], Any] = streams_of) -> None:
        self._streams_of = streams
        self._streams: dict[torch.device, Any] = {}

    def overlap(self, device: str) -> bool:
        """Whether a device goes on computing while its results are copied."""
        import torch

        return self._streams_of(torch.device(device)) is not None

    def start(self, tensor: torch.Tensor) -> HostCopy:
        """Copy a tensor as soon as what was queued before on its device has computed it.

        Parameters
        ----------
        tensor
            Float32, on any device; nothing may write to it any more.
        """
        module = self._streams_of(tensor.device)
        if module is None:
            return HostCopy(tensor.cpu())
        if tensor.device not in self._streams:
            self._streams[tensor.device] = module.Stream(tensor.device)
        stream = self._streams[tensor.device]
        stream.wait_stream(module.current_stream(tensor.device))
        host = _pinned_like(tensor)
        event = module.Event()
        with module.stream(stream):
            host.copy_(tensor, non_blocking=True)
            event.record(stream)
        return HostCopy(host, tensor, event)


def _pinned_like(tensor: torch.Tensor) -> torch.Tensor:
    """Return host memory of the same shape: pinned, or where none can be had ordinary memory, which is only slower."""
    import torch

    try:
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    except RuntimeError:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
