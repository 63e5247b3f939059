"""Which samples of a set version a profile is made of, and their features, one layer in memory at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.activations.versions import SetVersion
from nait_store.errors import CorruptChunkError, InvalidInputError
from nait_store.schemas.capture import CaptureSettings, Feature

RowSubset = Mapping[int, NDArray[Any]]
"""Segment ordinal → boolean mask over the segment's rows, or row indices; an absent segment has none."""


@dataclass(frozen=True)
class ChosenRows:
    """Rows of a set version, in (ordinal, row) order.

    Attributes
    ----------
    rows
        Segment and its ascending row indices; segments without chosen rows are left out.
    sample_ids_sha256
        Of the sorted sample ids, one a line.
    n_samples
        How many rows.
    weights
        How much each counts, [M] float64, positive, in the order of the rows; None where all count the same.
    """

    rows: tuple[tuple[SegmentReader, NDArray[np.int64]], ...]
    sample_ids_sha256: str
    n_samples: int
    weights: NDArray[np.float64] | None = None

    @property
    def relative_weights(self) -> NDArray[np.float64] | None:
        """The weights, scaled to 1 on average: only their ratios count."""
        if self.weights is None:
            return None
        shares = self.weights / self.weights.max()
        relative: NDArray[np.float64] = shares / shares.mean()
        return relative

    @property
    def settings(self) -> list[CaptureSettings]:
        """Distinct settings under which the rows were captured, in the order of their digests."""
        return sorted({segment.record.settings for segment, _ in self.rows}, key=CaptureSettings.digest)

    def sample_ids(self) -> list[str]:
        """Ids of the chosen samples, in the order of the rows."""
        return [
            sample_id
            for segment, rows in self.rows
            for sample_id in segment.samples(["sample_id"]).column("sample_id").take(rows).to_pylist()
        ]

    def gather(self, feature: Feature, layer: int) -> NDArray[np.float32]:
        """Features of the chosen rows at one layer, [M, J] float32.

        Raises
        ------
        CorruptChunkError
            The stored numbers hold NaN or infinity, which ingest never writes.
        """
        X = np.empty((self.n_samples, self.rows[0][0].record.n_neurons), dtype=np.float32)
        start = 0
        for segment, rows in self.rows:
            for part in _parts(segment, rows, feature, layer):
                X[start : start + len(part)] = part
                start += len(part)
        return X

    def mean(self, feature: Feature, layer: int) -> NDArray[np.float64]:
        """Mean over the chosen rows at one layer, [J] float64, with one chunk in memory at a time."""
        total: NDArray[np.float64] | None = None
        for segment, rows in self.rows:
            for part in _parts(segment, rows, feature, layer):
                subtotal = part.sum(axis=0, dtype=np.float64)
                total = subtotal if total is None else total + subtotal
        if total is None:
            raise InvalidInputError("no samples to take the mean of")
        return total / self.n_samples


def choose_rows(
    version: SetVersion, *, subset: RowSubset | None = None, limit: int | None = None, seed: int = 0
) -> ChosenRows:
    """Choose visible rows of a version.

    Parameters
    ----------
    version
        The set version.
    subset
        Only these rows; all visible ones if omitted.
    limit
        At most so many samples: those with the lowest SHA-256 of ``seed:sample_id``, which depends neither on the
        order in which the set was stored nor on the other samples' features.
    seed
        Of that choice.

    Returns
    -------
    ChosenRows
        At least one row.

    Raises
    ------
    InvalidInputError
        A limit below 1, or nothing left to choose from.
    """
    if limit is not None and limit < 1:
        raise InvalidInputError(f"a limit of {limit} samples leaves none", next_step="give --limit 1 or more")
    candidates = [(segment, *_candidates(version, segment, subset)) for segment in version.segments]
    n_found = sum(len(ids) for _, _, ids in candidates)
    if n_found == 0:
        raise InvalidInputError(
            f"no sample of {version.reference} was chosen",
            next_step="check --where: 'nait-store sets show' counts rows",
        )
    if limit is not None and limit < n_found:
        kept = draw((sample_id for _, _, ids in candidates for sample_id in ids), limit, seed)
        candidates = [
            (segment, rows[[sample_id in kept for sample_id in ids]], [i for i in ids if i in kept])
            for segment, rows, ids in candidates
        ]
    chosen = [sample_id for _, _, ids in candidates for sample_id in ids]
    return ChosenRows(
        rows=tuple((segment, rows) for segment, rows, _ in candidates if len(rows)),
        sample_ids_sha256=sample_ids_digest(chosen),
        n_samples=len(chosen),
    )


def draw(sample_ids: Iterable[str], limit: int, seed: int) -> set[str]:
    """Return the ids that ``limit`` and ``seed`` choose of these, as :func:`choose_rows` says."""
    ranked = sorted((_rank(seed, sample_id), sample_id) for sample_id in sample_ids)
    return {sample_id for _, sample_id in ranked[:limit]}


def sample_ids_digest(sample_ids: Iterable[str]) -> str:
    """SHA-256 of sample ids, sorted, one a line: by it a record says which samples it means."""
    return hashlib.sha256("\n".join(sorted(sample_ids)).encode()).hexdigest()


def _candidates(
    version: SetVersion, segment: SegmentReader, subset: RowSubset | None
) -> tuple[NDArray[np.int64], list[str]]:
    wanted = np.ones(segment.n_rows, dtype=bool)
    visible = version.visible_rows(segment)
    if visible is not None:
        wanted &= visible
    if subset is not None:
        picked = np.zeros(segment.n_rows, dtype=bool)
        picked[np.asarray(subset.get(segment.ordinal, np.empty(0, dtype=np.int64)))] = True
        wanted &= picked
    rows = np.flatnonzero(wanted).astype(np.int64)
    if len(rows) == 0:
        return rows, []
    column = segment.samples(["sample_id"]).column("sample_id")
    return rows, column.take(rows).to_pylist()


def _rank(seed: int, sample_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()


def _parts(
    segment: SegmentReader, rows: NDArray[np.int64], feature: Feature, layer: int
) -> Iterator[NDArray[np.float32]]:
    """Chosen rows chunk by chunk, [m, J] float32; chunks without chosen rows are not read."""
    for block, span in enumerate(segment.blocks(feature)):
        low, high = np.searchsorted(rows, (span.start, span.stop))
        if low == high:
            continue
        part = segment.values(feature, layer, block, rows[low:high] - span.start)
        if not np.isfinite(part).all():
            raise CorruptChunkError(
                f"{segment!r} holds NaN or infinity in feature {feature.value!r}, layer {layer}",
                next_step="run 'nait-store verify' to see what else is damaged",
            )
        yield part
