"""Score sidecars of a store that cannot be written: kept in memory, for as long as somebody holds on to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.errors import NotFoundError
from nait_store.schemas.scores import scores_schema
from nait_store.scoring.layer_plans import SegmentScores

DEFAULT_PROJECTIONS_BYTES = 1 << 30
_PROJECTION_BYTES = np.dtype(np.float32).itemsize


@dataclass
class _Kept:
    scores: NDArray[np.float64]  # [n]
    n_layers: int
    projections: NDArray[np.float32] | None  # [n, L]; None once they were dropped


class MemorySidecars:
    """Scores by key, with the columns that sidecars on a disk have.

    A row takes 8 bytes for its score, which stays, and 4 bytes a layer for its projections, which stay up to a limit:
    a million rows under ten profiles of 32 layers would take 1.3 GB. The projections that were read least recently are
    dropped, and are then not found, so that :func:`~nait_store.scoring.completion.read_scores` computes them again.

    Parameters
    ----------
    projections_bytes
        How much of projections to keep; those of one segment under one profile are kept whatever their size.
    """

    def __init__(self, projections_bytes: int = DEFAULT_PROJECTIONS_BYTES) -> None:
        self._limit_bytes = projections_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._writing: dict[str, int] = {}
        self._held_bytes = 0

    def __contains__(self, key: str) -> bool:
        """Whether the scores of a key are there; its projections may have been dropped."""
        return key in self._kept

    @property
    def held_bytes(self) -> int:
        """Of the projections that are kept, or are being written."""
        return self._held_bytes

    def read(self, key: str, columns: Sequence[str]) -> pa.Table:
        """Columns of what is kept under a key, in the order asked for.

        Raises
        ------
        NotFoundError
            Nothing is kept under it, or its projections were dropped.
        """
        kept = self._kept.get(key)
        if kept is None:
            raise NotFoundError(f"no scores are kept under {key}")
        if "projections" in columns:
            if kept.projections is None:
                raise NotFoundError(f"the projections of {key} were dropped to save memory")
            self._kept.move_to_end(key)
        schema = scores_schema(kept.n_layers)
        fields = [schema.field(name) for name in columns]
        return pa.table([_column(kept, field) for field in fields], schema=pa.schema(fields))

    def open_writer(self, key: str, n_rows: int, n_layers: int) -> MemoryWriter:
        """Begin to keep a segment's scores; the caller calls ``close`` or ``discard``."""
        wanted = n_rows * n_layers * _PROJECTION_BYTES
        self._drop_projections(self._limit_bytes - wanted)
        alone = not self._held_bytes
        holds = alone or self._held_bytes + wanted <= self._limit_bytes
        self._writing[key] = wanted if holds else 0
        self._held_bytes += self._writing[key]
        return MemoryWriter(self, key, n_rows, n_layers, holds_projections=holds)

    def _drop_projections(self, down_to_bytes: int) -> None:
        for kept in self._kept.values():  # the least recently read first
            if self._held_bytes <= down_to_bytes:
                return
            if kept.projections is not None:
                self._held_bytes -= kept.projections.nbytes
                kept.projections = None

    def _finish(self, key: str, kept: _Kept | None) -> None:
        self._held_bytes -= self._writing.pop(key, 0)
        if kept is None:
            return
        before = self._kept.pop(key, None)
        if before is not None and before.projections is not None:
            self._held_bytes -= before.projections.nbytes
        self._kept[key] = kept
        if kept.projections is not None:
            self._held_bytes += kept.projections.nbytes


class MemoryWriter:
    """Keeps a segment's scores range by range; made by :meth:`MemorySidecars.open_writer`."""

    def __init__(
        self, memory: MemorySidecars, key: str, n_rows: int, n_layers: int, *, holds_projections: bool
    ) -> None:
        self._memory = memory
        self._key = key
        self._n_written = 0
        self._scores = np.empty(n_rows, dtype=np.float64)
        self._n_layers = n_layers
        self._projections = np.empty((n_rows, n_layers), dtype=np.float32) if holds_projections else None
        self._open = True

    def append(self, scores: SegmentScores) -> None:
        """Add the next rows."""
        rows = slice(self._n_written, self._n_written + len(scores.scores))
        self._n_written = rows.stop
        if rows.stop <= len(self._scores):
            self._scores[rows] = scores.scores
            if self._projections is not None:
                self._projections[rows] = scores.projections

    def close(self) -> None:
        """Keep them."""
        if self._n_written != len(self._scores):
            raise ValueError(f"{self._n_written} of the segment's {len(self._scores)} rows were scored")
        self._finish(_Kept(self._scores, self._n_layers, self._projections))

    def discard(self) -> None:
        """Forget them; nothing happens after :meth:`close`."""
        self._finish(None)

    def _finish(self, kept: _Kept | None) -> None:
        if self._open:
            self._open = False
            self._memory._finish(self._key, kept)


def _column(kept: _Kept, field: pa.Field) -> pa.Array:
    if field.name == "row_index":
        return pa.array(np.arange(len(kept.scores), dtype=np.int64))
    if field.name == "score":
        return pa.array(kept.scores)
    assert kept.projections is not None
    return pa.FixedSizeListArray.from_arrays(pa.array(kept.projections.reshape(-1)), type=field.type)
