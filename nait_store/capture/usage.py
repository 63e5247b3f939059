"""What a capture took of the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceUsage:
    """What one of several copies of a model has done.

    Attributes
    ----------
    device
        Where: ``cuda:0``.
    n_samples, n_tokens
        What went through it since it was loaded.
    peak_memory_bytes
        The most memory that was taken at once on a CUDA device, weights included; 0 elsewhere.
    """

    device: str
    n_samples: int
    n_tokens: int
    peak_memory_bytes: int


@dataclass(frozen=True)
class CaptureUsage:
    """How a model was run, and what it took.

    Attributes
    ----------
    device
        Where: ``cpu``, ``cuda:0``; several where the model is spread.
    layout
        How samples share a forward pass: ``flash``, ``packed``, ``right``, ``right-masked`` or ``single``.
    token_budget
        Tokens that a batch may hold, at the end: less than at first where memory ran out.
    peak_memory_bytes
        The most memory that was taken at once since the model was loaded: on CUDA of all devices together, weights
        included; elsewhere the resident memory of the process.
    devices
        Each copy's share, where the model has one on several devices.
    """

    device: str
    layout: str
    token_budget: int
    peak_memory_bytes: int
    devices: tuple[DeviceUsage, ...] = ()
