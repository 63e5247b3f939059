"""How several samples share one forward pass: packed, padded, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class Layout(StrEnum):
    """Ways to lay samples out, fastest first.

    ``flash``: one after the other on one row, kept apart by flash-attention's variable-length kernels. ``packed``: the
    same with this package's own attention, for CPUs. ``right``: padded on the right,
    without a mask: a causal model's tokens never look at what follows. ``right-masked``: the same with a mask.
    ``single``: one sample at a time.
    """

    FLASH = "flash"
    PACKED = "packed"
    RIGHT = "right"
    RIGHT_MASKED = "right-masked"
    SINGLE = "single"


ON_ONE_ROW = (Layout.FLASH, Layout.PACKED)
"""Layouts without padding."""


@dataclass(frozen=True, eq=False)
class BatchInputs:
    """Arguments of one forward pass.

    Attributes
    ----------
    arguments
        Keyword arguments of the decoder.
    starts
        Position of each sample's first token on the flattened token axis.
    """

    arguments: dict[str, Any]
    starts: tuple[int, ...]


def lay_out(layout: Layout, token_ids: Sequence[NDArray[np.int32]], *, pad_token_id: int, device: str) -> BatchInputs:
    """Make the arguments of a forward pass.

    Parameters
    ----------
    layout
        ``single`` takes one sample.
    token_ids
        Per sample, [T] int32, none empty.
    pad_token_id
        Any valid token.
    device
        Where the model is.
    """
    lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
    if layout in ON_ONE_ROW:
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
        # Flash-attention's kernels read the bounds on the device, our own attention reads them on the host.
        cumulative = upload(bounds.astype(np.int32), device if layout is Layout.FLASH else "cpu")
        arguments: dict[str, Any] = {
            "input_ids": _tensor(np.concatenate(token_ids)[None], device),
            "position_ids": _tensor(positions[None], device),
            "cu_seq_lens_q": cumulative,
            "cu_seq_lens_k": cumulative,
            "max_length_q": int(lengths.max()),
            "max_length_k": int(lengths.max()),
        }
        return BatchInputs(arguments, tuple(int(start) for start in bounds[:-1]))
    longest = int(lengths.max())
    padded = np.full((len(token_ids), longest), pad_token_id, dtype=np.int64)
    for row, ids in zip(padded, token_ids, strict=True):
        row[: len(ids)] = ids
    arguments = {"input_ids": _tensor(padded, device)}
    if layout is Layout.RIGHT_MASKED:
        arguments["attention_mask"] = _tensor(np.arange(longest)[None] < lengths[:, None], device)
    return BatchInputs(arguments, tuple(range(0, len(token_ids) * longest, longest)))


def padded_tokens(layout: Layout, *, n_tokens: int, n_samples: int, longest: int) -> int:
    """Tokens that go through the model, padding included.

    Parameters
    ----------
    layout
        How the samples share the pass.
    n_tokens, n_samples
        Of the batch.
    longest
        Tokens of its longest sample.
    """
    return n_tokens if layout in ON_ONE_ROW else longest * n_samples


def upload(values: NDArray[Any], device: str) -> torch.Tensor:
    """Copy a host array to a device without waiting for what the device is doing.

    A copy from ordinary memory would wait for every kernel that is queued on a GPU: the batch before this one. One from
    pinned memory is queued behind them.
    """
    import torch

    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor.to(device)


def _tensor(values: NDArray[Any], device: str) -> torch.Tensor:
    return upload(values.astype(np.int64), device)
