"""What a segment holds, shown while it is being written and still in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nait_store.schemas.capture import Feature


@dataclass(frozen=True)
class StoredBlock:
    """One feature of a block of rows, all layers of it, as it was just written.

    Attributes
    ----------
    feature
        Which feature.
    layers
        Zero-based decoder layers of the L axis.
    values
        [L, n, J], numbers as they are stored; valid during the call that hands them over.
    norms
        [n, L] float32, ‖A_l‖ of what is stored.
    scales
        [n, L] float32 of int8 codes; None for other types.
    """

    feature: Feature
    layers: tuple[int, ...]
    values: NDArray[Any]
    norms: NDArray[np.float32]
    scales: NDArray[np.float32] | None


class BlockListener(Protocol):
    """Is shown what a segment holds while it is in memory."""

    def block_written(self, block: StoredBlock) -> None:
        """Look at the next block of rows of one feature; the blocks of a feature come in order."""
        ...
