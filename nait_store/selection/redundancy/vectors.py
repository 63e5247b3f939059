"""Directions of samples in the last stored layer: sketches of all of them in memory, the vectors one by one.

A sketch is a random projection to a few numbers that keeps distances: the square of one is off by a tenth or so, where
the vectors themselves would need a hundred times the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nait_store.activations.versions import SetVersion
from nait_store.errors import CorruptChunkError, IncompatibleError
from nait_store.query.spelling import literal
from nait_store.schemas.activation_set import ROW_BITS
from nait_store.schemas.capture import Feature

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession

SKETCH_NUMBERS = 128
_SEED = 1


class SampleVectors:
    """Mean activations of samples, scaled to length 1; a vector of zeros stays one.

    Parameters
    ----------
    session, version
        The store's, and the set.
    asked_by
        The option, for messages.

    Raises
    ------
    IncompatibleError
        The set stores no mean activations.
    """

    def __init__(self, session: QuerySession, version: SetVersion, asked_by: str) -> None:
        if Feature.MEAN not in version.features:
            raise IncompatibleError(
                f"{version.reference} does not store the mean of activations that {asked_by} compares",
                next_step="ingest it with --features mean, and with activations kept",
            )
        self._session = session
        self._version = version
        self._layer = version.layers[-1]
        self._segments = {segment.ordinal: segment for segment in version.segments}
        self._n_neurons = version.record.n_neurons
        self._projection: NDArray[np.float32] | None = None
        if self._n_neurons > SKETCH_NUMBERS:
            drawn = np.random.default_rng(_SEED).standard_normal((self._n_neurons, SKETCH_NUMBERS), dtype=np.float32)
            self._projection = drawn / np.float32(np.sqrt(SKETCH_NUMBERS))
        self._known: tuple[pa.Array, NDArray[np.int64]] | None = None

    @property
    def is_exact(self) -> bool:
        """Whether sketches are the vectors themselves, for these are short."""
        return self._projection is None

    def row_ids(self, sample_ids: pa.ChunkedArray) -> NDArray[np.int64]:
        """[m] Where samples lie."""
        if self._known is None:
            found = self._session.sql(
                f"SELECT sample_id, row_id FROM samples({literal(self._version.reference)})"
            ).arrow()
            self._known = found.column("sample_id").combine_chunks(), found.column("row_id").to_numpy()
        ids, row_ids = self._known
        placed: NDArray[np.int64] = row_ids[pc.index_in(sample_ids, value_set=ids).to_numpy()]
        return placed

    def sketches(self, row_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[m, d] Of these rows, which are read in the order of storage.

        Raises
        ------
        CorruptChunkError
            The stored numbers hold NaN or infinity, which ingest never writes.
        """
        width = self._n_neurons if self._projection is None else SKETCH_NUMBERS
        out = np.empty((len(row_ids), width), np.float32)
        order = np.argsort(row_ids, kind="stable")
        ordinals, rows = row_ids[order] >> ROW_BITS, row_ids[order] & ((1 << ROW_BITS) - 1)
        for ordinal in np.unique(ordinals).tolist():
            begin, end = np.searchsorted(ordinals, (ordinal, ordinal + 1))
            segment = self._segments[ordinal]
            for block, span in enumerate(segment.blocks(Feature.MEAN)):
                low, high = begin + np.searchsorted(rows[begin:end], (span.start, span.stop))
                if low == high:
                    continue
                values = segment.values(Feature.MEAN, self._layer, block, rows[low:high] - span.start)
                self._require_finite(values, ordinal)
                units = _scaled(values)
                out[order[low:high]] = units if self._projection is None else units @ self._projection
        return out

    def unit(self, row_id: int) -> NDArray[np.float64]:
        """[J] The vector of one row; CorruptChunkError as for :meth:`sketches`."""
        ordinal, row = row_id >> ROW_BITS, row_id & ((1 << ROW_BITS) - 1)
        values = self._segments[ordinal].row(Feature.MEAN, self._layer, row).astype(np.float64)
        self._require_finite(values, ordinal)
        unit: NDArray[np.float64] = _scaled(values[None])[0]
        return unit

    def _require_finite(self, values: NDArray[Any], ordinal: int) -> None:
        if not np.isfinite(values).all():
            raise CorruptChunkError(
                f"{self._segments[ordinal]!r} holds NaN or infinity in feature 'mean', layer {self._layer}",
                next_step="run 'nait-store verify' to see what else is damaged",
            )


def _scaled(values: NDArray[Any]) -> NDArray[Any]:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    units: NDArray[Any] = values / np.where(norms == 0, 1, norms)
    return units
