"""The scan's inner loops on a CUDA device: chunks stream through page-locked buffers while the device computes.

Products and sums are float64: what limits a device is the way to it, and even one with few float64 units multiplies
faster than the numbers arrive. So scores are within the tolerances of the compiled kernels, and sidecars do not say
what computed them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import InvalidInputError
from nait_store.scoring.kernels import Vectors
from nait_store.scoring.packed_vectors import PackedVectors, pack

if TYPE_CHECKING:
    import torch

PIECE_BYTES = 4 << 20
"""Of a chunk, copied at a time: one piece is filled while the one before is on its way."""

_SLOTS = 2
_LANES = 4
"""Ways to the device at once: more threads than that only wait for it in another order."""

_STRIPS = (32, 16, 8, 4, 2, 1)
"""Into how many parts the neurons may be cut: few rows and few vectors alone would keep few of the units busy."""


class TorchKernels:
    """Kernels on a device of torch's. Safe to use from several threads: a call has buffers and a stream to itself.

    Parameters
    ----------
    device
        ``cuda`` or ``cuda:1``; ``cpu`` computes the same, more slowly than the compiled kernels do.
    piece_bytes
        How much of a chunk to copy at a time.

    Raises
    ------
    InvalidInputError
        There is no such device, or torch cannot use it.
    """

    def __init__(self, device: str, *, piece_bytes: int = PIECE_BYTES) -> None:
        self._device = _device(device)
        self._piece_bytes = piece_bytes
        self._lanes: SimpleQueue[_Lane] = SimpleQueue()
        for _ in range(_LANES):
            self._lanes.put(_Lane(self._device, []))
        self._laid_out: WeakKeyDictionary[PackedVectors, torch.Tensor] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def project(
        self, chunk: NDArray[Any], vectors: Vectors, scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """See :class:`~nait_store.scoring.kernels.Kernels`."""
        import torch

        V = self._on_device(vectors if isinstance(vectors, PackedVectors) else pack(vectors))  # [S, J/S, P]
        with self._streaming(chunk) as pieces:
            found = torch.empty((len(chunk), V.shape[2]), dtype=torch.float64, device=self._device)
            begin = 0
            for x in pieces:
                strips = x.view(len(x), *V.shape[:2]).transpose(0, 1)  # [S, n, J/S]
                torch.sum(torch.bmm(strips, V), dim=0, out=found[begin : begin + len(x)])
                begin += len(x)
            out: NDArray[np.float64] = found.cpu().numpy()
        if scales is not None:
            out *= scales[:, None]
        return out

    def squared_distances(
        self, chunk: NDArray[Any], points: NDArray[np.float32], scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """See :class:`~nait_store.scoring.kernels.Kernels`."""
        import torch

        with self._streaming(chunk) as pieces:
            there = torch.from_numpy(np.array(points, np.float64)).to(self._device)  # [Q, J]
            factors = None if scales is None else torch.from_numpy(np.array(scales, np.float64)).to(self._device)
            found = torch.empty((len(chunk), len(points)), dtype=torch.float64, device=self._device)
            begin = 0
            for x in pieces:
                end = begin + len(x)
                if factors is not None:
                    x *= factors[begin:end, None]
                for q, point in enumerate(there):
                    found[begin:end, q] = (x - point).square_().sum(dim=1)
                begin = end
            out: NDArray[np.float64] = found.cpu().numpy()
        return out

    def _on_device(self, packed: PackedVectors) -> torch.Tensor:
        """Vectors on the device, the neurons cut into strips, [S, J/S, P] float64; kept as long as the vectors are."""
        import torch

        with self._lock:
            known = self._laid_out.get(packed)
            if known is None:
                n_vectors, n_neurons = packed.vectors.shape
                n_strips = next(n for n in _STRIPS if n_neurons % n == 0)
                there = torch.from_numpy(packed.vectors.copy()).to(self._device)  # torch wants to write
                known = there.T.to(torch.float64).view(n_strips, -1, n_vectors).contiguous()
                if self._device.type == "cuda":
                    torch.cuda.current_stream(self._device).synchronize()  # other calls have streams of their own
                self._laid_out[packed] = known
            return known

    @contextlib.contextmanager
    def _streaming(self, chunk: NDArray[Any]) -> Iterator[Iterator[torch.Tensor]]:
        """Give the rows of a chunk piece by piece, float64 on the device: what is done with each is queued there."""
        import torch

        native = np.require(chunk, dtype=chunk.dtype.newbyteorder("="), requirements=["C", "A"])
        rows = max(1, self._piece_bytes // max(1, native.shape[1] * native.itemsize))
        lane = self._lanes.get()
        try:
            with torch.inference_mode(), lane.entered():
                yield (lane.send(native[at : at + rows]) for at in range(0, len(native), rows))
        finally:
            self._lanes.put(lane)


@dataclass
class _Slot:
    """A page-locked buffer, its like on the device, and what tells when both are free again."""

    host: torch.Tensor
    there: torch.Tensor
    free: Any


@dataclass
class _Lane:
    """A way to the device: two slots that take turns, and a stream."""

    device: torch.device
    slots: list[_Slot]
    stream: Any = None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Queue on the lane's stream."""
        import torch

        if self.device.type != "cuda":
            yield
            return
        if self.stream is None:
            cuda: Any = torch.cuda
            self.stream = cuda.Stream(self.device)
        with torch.cuda.stream(self.stream):
            yield

    def send(self, rows: NDArray[Any]) -> torch.Tensor:
        """Copy rows to the device; float64 of the stored numbers there, of int8 the codes."""
        import torch

        slot = self._next(rows.nbytes)
        slot.host[: rows.nbytes].numpy()[:] = rows.reshape(-1).view(np.uint8)
        slot.there[: rows.nbytes].copy_(slot.host[: rows.nbytes], non_blocking=True)
        # The bits of bfloat16 numbers are kept as those of unsigned integers.
        kinds = {"float16": torch.float16, "float32": torch.float32, "uint16": torch.bfloat16, "int8": torch.int8}
        values = slot.there[: rows.nbytes].view(kinds[rows.dtype.name]).view(rows.shape)
        wide = values.to(torch.float64)
        if slot.free is not None:
            slot.free.record()
        return wide

    def _next(self, n_bytes: int) -> _Slot:
        """The slot that was sent longest ago, once it is free."""
        import torch

        cuda: Any = torch.cuda if self.device.type == "cuda" else None
        slot = self.slots.pop(0) if len(self.slots) == _SLOTS else None
        if slot is not None and slot.free is not None:
            slot.free.synchronize()
        if slot is None or len(slot.host) < n_bytes:
            slot = _Slot(
                torch.empty(n_bytes, dtype=torch.uint8, pin_memory=cuda is not None),
                torch.empty(n_bytes, dtype=torch.uint8, device=self.device),
                None if cuda is None else cuda.Event(),
            )
        self.slots.append(slot)
        return slot


def _device(name: str) -> torch.device:
    try:
        import torch
    except ImportError as error:
        raise InvalidInputError(
            f"scoring on {name} needs torch, which cannot be imported: {error}",
            next_step="pip install torch, or leave the device out",
        ) from error
    kind, _, index = name.partition(":")
    if kind == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= n_devices:
            there = f"there are {n_devices}" if n_devices else "torch finds no CUDA device here"
            raise InvalidInputError(
                f"scores cannot be computed on {name}: {there}",
                next_step="leave the device out to compute on this machine's cores",
            )
    return torch.device(name)
