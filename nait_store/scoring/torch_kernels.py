"""The scan's inner loops on a CUDA device: chunks stream through page-locked buffers while the device computes.

As exact as the compiled kernels, and by the same means: the mean of a few rows is taken off first and put back in
float64, and float32 sums run over strips of 512 neurons, which are added up in float64. So scores are within the same
tolerances, and sidecars do not say what computed them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.stored_values import decode
from nait_store.errors import InvalidInputError
from nait_store.scoring.kernels import NumpyKernels, Vectors
from nait_store.scoring.packed_vectors import PackedVectors, pack

if TYPE_CHECKING:
    import torch

STRIP = 512
"""Neurons per float32 partial sum."""

PIECE_BYTES = 2 << 20
"""Of a chunk, copied at a time: one piece is filled while the one before is on its way."""

_CENTER_ROWS = 8
_SLOTS = 2


class TorchKernels:
    """Kernels on a device of torch's. Safe to use from several threads: each has buffers and a stream of its own.

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
        self._of_thread = threading.local()
        self._laid_out: WeakKeyDictionary[PackedVectors, torch.Tensor] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def project(
        self, chunk: NDArray[Any], vectors: Vectors, scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """See :class:`~nait_store.scoring.kernels.Kernels`."""
        import torch

        packed = vectors if isinstance(vectors, PackedVectors) else pack(vectors)
        n_picked = min(len(chunk), _CENTER_ROWS)
        picked = chunk[(np.arange(n_picked) * len(chunk)) // max(1, n_picked)]
        values = picked if scales is not None else decode(picked)
        center = values.astype(np.float64).mean(axis=0).astype(np.float32) if len(chunk) else np.zeros(0, np.float32)
        with self._streaming(chunk) as pieces:
            strips = self._strips(packed)  # [S, STRIP, P]
            middle = _padded(torch.from_numpy(center).to(self._device)[None], strips.shape[0])
            common = (middle.double() * strips.double().flatten(0, 1).T).sum(dim=1)  # [P]
            found = [common[None][:0]]
            for x in pieces:
                apart = (_padded(x, strips.shape[0]) - middle).view(len(x), -1, STRIP).transpose(0, 1)
                found.append(torch.bmm(apart.to(strips.dtype), strips).sum(dim=0, dtype=torch.float64) + common)
            out: NDArray[np.float64] = torch.cat(found).cpu().numpy()
        if not np.isfinite(out).all():  # float32 sums can overflow where the float64 result would not
            return NumpyKernels().project(chunk, packed, scales)
        if scales is not None:
            out *= scales[:, None]
        return out

    def squared_distances(
        self, chunk: NDArray[Any], points: NDArray[np.float32], scales: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """See :class:`~nait_store.scoring.kernels.Kernels`."""
        import torch

        n_strips = -(-chunk.shape[1] // STRIP)
        with self._streaming(chunk) as pieces:
            there = _padded(torch.from_numpy(np.array(points, np.float32)).to(self._device), n_strips)  # [Q, J']
            factors = None if scales is None else torch.from_numpy(np.array(scales, np.float32)).to(self._device)
            found = [torch.empty((0, len(points)), dtype=torch.float64, device=self._device)]
            begin = 0
            for piece in pieces:
                x = piece if factors is None else piece * factors[begin : begin + len(piece), None]
                begin += len(piece)
                wide = _padded(x, n_strips)
                columns = [
                    (wide - point).square_().view(len(wide), -1, STRIP).sum(dim=2).sum(dim=1, dtype=torch.float64)
                    for point in there
                ]
                found.append(torch.stack(columns, dim=1) if columns else found[0].new_empty((len(wide), 0)))
            out: NDArray[np.float64] = torch.cat(found).cpu().numpy()
        return out if np.isfinite(out).all() else NumpyKernels().squared_distances(chunk, points, scales)

    def _strips(self, packed: PackedVectors) -> torch.Tensor:
        """Vectors on the device as they meet strips, [S, STRIP, P]; kept as long as the vectors are."""
        import torch

        with self._lock:
            known = self._laid_out.get(packed)
            if known is None:
                # TF32, which a program may have turned on for itself, would round to 10 bits.
                exact = torch.get_float32_matmul_precision() == "highest"
                vectors = torch.from_numpy(packed.vectors.copy()).to(
                    self._device, torch.float32 if exact else torch.float64
                )
                wide = _padded(vectors, -(-vectors.shape[1] // STRIP))
                known = self._laid_out[packed] = wide.view(len(wide), -1, STRIP).permute(1, 2, 0).contiguous()
                if self._device.type == "cuda":
                    torch.cuda.current_stream(self._device).synchronize()  # other threads have streams of their own
            return known

    @contextlib.contextmanager
    def _streaming(self, chunk: NDArray[Any]) -> Iterator[Iterator[torch.Tensor]]:
        """Give the rows of a chunk piece by piece, float32 on the device: what is done with each is queued there."""
        import torch

        lane = getattr(self._of_thread, "lane", None)
        if lane is None:
            lane = self._of_thread.lane = _Lane(self._device, [])
        native = np.require(chunk, dtype=chunk.dtype.newbyteorder("="), requirements=["C", "A"])
        rows = max(1, self._piece_bytes // max(1, native.shape[1] * native.itemsize))
        with torch.inference_mode(), lane.entered():
            yield (lane.send(native[at : at + rows]) for at in range(0, len(native), rows))


@dataclass
class _Slot:
    """A page-locked buffer, its like on the device, and what tells when both are free again."""

    host: torch.Tensor
    there: torch.Tensor
    free: Any


@dataclass
class _Lane:
    """One thread's way to the device: two slots that take turns, and a stream."""

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
        """Copy rows to the device; float32 of the stored numbers there, of int8 the codes."""
        import torch

        slot = self._next(rows.nbytes)
        slot.host[: rows.nbytes].numpy()[:] = rows.reshape(-1).view(np.uint8)
        slot.there[: rows.nbytes].copy_(slot.host[: rows.nbytes], non_blocking=True)
        # The bits of bfloat16 numbers are kept as those of unsigned integers.
        kinds = {"float16": torch.float16, "float32": torch.float32, "uint16": torch.bfloat16, "int8": torch.int8}
        values = slot.there[: rows.nbytes].view(kinds[rows.dtype.name]).view(rows.shape)
        wide = values.to(torch.float32, copy=True)
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


def _padded(x: torch.Tensor, n_strips: int) -> torch.Tensor:
    """Rows [n, J] filled up with zeros to whole strips."""
    import torch

    return torch.nn.functional.pad(x, (0, n_strips * STRIP - x.shape[1]))


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
