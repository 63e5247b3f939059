"""The arithmetic of a score, chunk by chunk: what each layer's stored values meet, whoever brings them.

A scan brings chunks that were read, an ingest those that it is about to write: the same numbers give the same scores.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.schemas.profile import Metric
from nait_store.scoring.kernels import Kernels
from nait_store.scoring.packed_vectors import PackedVectors, n_panel_columns
from nait_store.scoring.targets import ScoringTarget


@dataclass(frozen=True)
class SegmentScores:
    """Scores of a range of a segment's rows under one target.

    Attributes
    ----------
    scores
        [n] float64.
    projections
        [n, L] float32, the L terms of each score in the order of the target's layers.
    """

    scores: NDArray[np.float64]
    projections: NDArray[np.float32]

    @classmethod
    def of_terms(cls, terms: NDArray[np.float64]) -> SegmentScores:
        """From the L terms of each row's score, [n, L]."""
        with np.errstate(over="ignore"):  # beyond float32: infinite in the column of single terms only
            return cls(terms.sum(axis=1), terms.astype(np.float32))

    @classmethod
    def joined(cls, parts: Sequence[SegmentScores]) -> SegmentScores:
        """Of ranges that follow each other."""
        return cls(
            np.concatenate([part.scores for part in parts]), np.concatenate([part.projections for part in parts])
        )


@dataclass(frozen=True)
class _Column:
    """One target's term of one layer."""

    target: int
    position: int
    """Of the layer within the target."""
    cosine: bool
    offset: int | None
    """Row of the layer's offsets."""
    offset_projection: float
    """o·v."""


@dataclass(frozen=True, eq=False)
class _LaidOut:
    """What the kernels take of a layer's targets."""

    vectors: PackedVectors
    """[P, J]"""
    offsets: NDArray[np.float32]
    """[Q, J], each distinct offset of a cosine target once."""
    columns: tuple[_Column, ...]
    """Which target's term each of the P vectors gives."""


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """Everything a layer's chunks meet.

    Attributes
    ----------
    layer
        Zero-based decoder layer.
    targets
        All of the plan's, also those that leave the layer out.
    room
        Where its vectors are laid out, flat float32, [(P + P') · J] with P' from
        :func:`~nait_store.scoring.packed_vectors.n_panel_columns`.
    """

    layer: int
    targets: tuple[ScoringTarget, ...]
    room: NDArray[np.float32]

    def score(
        self,
        chunk: NDArray[Any],
        norms: NDArray[np.float32] | None,
        scales: NDArray[np.float32] | None,
        terms: Sequence[NDArray[np.float64]],
        kernels: Kernels,
    ) -> None:
        """Compute the layer's terms of a block of rows.

        Parameters
        ----------
        chunk
            [n, J], numbers as they are stored.
        norms
            [n], ‖A‖ of the stored values; needed where :attr:`ScoringPlan.needs_norms`.
        scales
            [n], of int8 codes; None for other types.
        terms
            Of each target, [n, L]: the layer's column is filled.
        kernels
            The arithmetic.
        """
        plan = self._laid_out
        dots = kernels.project(chunk, plan.vectors, scales)
        lengths: list[NDArray[np.float64]] = []  # ‖A − o‖ of every distinct offset o, then ‖A‖
        if len(plan.offsets):
            lengths.extend(np.sqrt(kernels.squared_distances(chunk, plan.offsets, scales)).T)
        if norms is not None:
            lengths.append(norms.astype(np.float64))
        for p, column in enumerate(plan.columns):
            found = dots[:, p] - column.offset_projection
            if column.cosine:
                length = lengths[-1 if column.offset is None else column.offset]
                found = np.divide(found, length, out=np.zeros_like(found), where=length > 0)
            terms[column.target][:, column.position] = found

    @functools.cached_property
    def _laid_out(self) -> _LaidOut:
        """Made by the thread that has the layer's first chunk, while others make theirs; two would write the same."""
        vectors: list[NDArray[np.float32]] = []
        offsets: dict[bytes, int] = {}
        distinct: list[NDArray[np.float32]] = []
        columns = []
        for t, target in enumerate(self.targets):
            if self.layer not in target.layers:
                continue
            position = target.layers.index(self.layer)
            direction = target.directions[position]
            index, offset_projection = None, 0.0
            if target.offset is not None:
                offset = target.offset[position]
                offset_projection = float(offset.astype(np.float64) @ direction.astype(np.float64))
                if target.metric == Metric.COSINE:
                    index = offsets.setdefault(offset.tobytes(), len(offsets))
                    if index == len(distinct):
                        distinct.append(offset)
            vectors.append(direction)
            columns.append(_Column(t, position, target.metric == Metric.COSINE, index, offset_projection))
        n_neurons = self.targets[0].n_neurons
        size = len(vectors) * n_neurons
        stacked = np.stack(vectors, out=self.room[:size].reshape(-1, n_neurons))
        offset_rows = np.stack(distinct) if distinct else np.empty((0, n_neurons), np.float32)
        return _LaidOut(PackedVectors(stacked, self.room[size:]), offset_rows, tuple(columns))


@dataclass(frozen=True)
class ScoringPlan:
    """All that one pass over a feature computes.

    Attributes
    ----------
    targets
        Of one feature and one width.
    layers
        Those that any of them reads, ascending.
    """

    targets: tuple[ScoringTarget, ...]
    layers: tuple[LayerPlan, ...]

    @classmethod
    def of(cls, targets: Sequence[ScoringTarget]) -> ScoringPlan:
        """Plan for targets; will hold a copy of every direction."""
        counts = Counter(layer for target in targets for layer in target.layers)
        layers = sorted(counts)
        sizes = [(counts[layer] + n_panel_columns(counts[layer])) * targets[0].n_neurons for layer in layers]
        # In one piece, for which the system has huge pages: to touch as much in small ones takes longer than to fill
        # it. What no kernel asks for is never touched.
        rooms = np.split(np.empty(sum(sizes), np.float32), np.cumsum(sizes)[:-1])
        plans = (LayerPlan(layer, tuple(targets), room) for layer, room in zip(layers, rooms, strict=True))
        return cls(tuple(targets), tuple(plans))

    def on_behalf_of(self, targets: Sequence[ScoringTarget]) -> ScoringPlan:
        """The same arithmetic, whose results are those of other targets with the same layers, one for one."""
        return replace(self, targets=tuple(targets))

    @property
    def needs_norms(self) -> bool:
        """Whether any term is divided by ‖A‖."""
        return any(target.metric == Metric.COSINE and target.offset is None for target in self.targets)

    def empty_terms(self, n_rows: int) -> list[NDArray[np.float64]]:
        """Of each target, [n_rows, L], for :meth:`LayerPlan.score` to fill."""
        return [np.empty((n_rows, len(target.layers))) for target in self.targets]
