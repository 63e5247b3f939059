"""What a segment is scored against: directions, what is subtracted first, and how the two meet."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric


@dataclass(frozen=True, eq=False)
class ScoringTarget:
    """The part of a profile that decides a sample's score (arXiv 2603.13201, Eq. 5).

    With o = ``offset`` or 0, a sample with activations A_l scores::

        dot     s = Σ_l (A_l − o_l)·v_l
        cosine  s = Σ_l (A_l − o_l)·v_l / ‖A_l − o_l‖      (0 where that norm is 0)

    Attributes
    ----------
    directions
        v, [L, J] float32.
    offset
        o, [L, J] float32: the background's mean that candidates are centred on; None for none.
    layers
        Zero-based decoder layers of the L rows, ascending; a segment may hold more.
    feature
        Which of a candidate's features A is.
    metric
        ``dot`` or ``cosine``.

    Raises
    ------
    InvalidInputError
        Shapes that do not belong together, layers out of order, NaN or infinite numbers.
    """

    directions: NDArray[np.float32]
    offset: NDArray[np.float32] | None
    layers: tuple[int, ...]
    feature: Feature
    metric: Metric

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", _frozen(self.directions))
        object.__setattr__(self, "offset", None if self.offset is None else _frozen(self.offset))
        object.__setattr__(self, "layers", tuple(int(layer) for layer in self.layers))
        directions, layers = self.directions, self.layers
        if directions.ndim != 2 or directions.shape[0] != len(layers) or directions.size == 0:
            raise InvalidInputError(
                f"directions of shape {directions.shape} do not fit {len(layers)} layers; one row a layer is needed"
            )
        if self.offset is not None and self.offset.shape != directions.shape:
            raise InvalidInputError(f"the offset has shape {self.offset.shape}, the directions {directions.shape}")
        if layers[0] < 0 or any(b <= a for a, b in itertools.pairwise(layers)):
            raise InvalidInputError(f"layers must be ascending and not negative, not {list(layers)}")
        if not all(np.isfinite(a).all() for a in (directions, self.offset) if a is not None):
            raise InvalidInputError("the directions or the offset hold NaN or infinity")

    @property
    def n_neurons(self) -> int:
        """J."""
        return int(self.directions.shape[1])

    @functools.cached_property
    def directions_sha256(self) -> str:
        """Digest of layers, directions and offset; see :func:`directions_sha256`."""
        return directions_sha256(self.layers, self.directions, self.offset)

    @property
    def identity(self) -> tuple[str, str, str]:
        """Equal for targets that give every sample the same score: directions, feature and metric."""
        return self.directions_sha256, self.feature.value, self.metric.value


def distinct_targets(targets: Sequence[ScoringTarget]) -> list[ScoringTarget]:
    """Leave out targets whose scores would be those of an earlier one."""
    return list({target.identity: target for target in targets}.values())


def directions_sha256(
    layers: Sequence[int], directions: NDArray[np.float32], offset: NDArray[np.float32] | None
) -> str:
    """Digest that stands for a profile's arrays in ``profile.json`` and in the keys of score sidecars.

    Parameters
    ----------
    layers
        Zero-based decoder layers, [L].
    directions, offset
        [L, J]; None if there is no offset.

    Returns
    -------
    str
        SHA-256 over layers, directions and offset (if any), each as little-endian float32 in C order.
    """
    digest = hashlib.sha256()
    for values in (np.asarray(layers), directions, offset):
        if values is not None:
            digest.update(np.ascontiguousarray(values, dtype="<f4").data)
    return digest.hexdigest()


def _frozen(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values where nobody can write them, else a copy of them."""
    if values.dtype == np.float32 and values.flags.c_contiguous and _is_read_only(values):
        return values
    copy = np.array(values, dtype=np.float32, order="C")
    copy.setflags(write=False)
    return copy


def _is_read_only(values: NDArray[np.float32]) -> bool:
    """Whether neither an array nor any that it is a view of can be written, nor what holds their numbers."""
    holder: object = values
    while isinstance(holder, np.ndarray):
        if holder.flags.writeable:
            return False
        holder = holder.base
    return holder is None or isinstance(holder, bytes)
