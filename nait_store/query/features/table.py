"""What a function over stored activations gives: columns, a maker of rows, and which arrays those take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from nait_store.activations.versions import SetVersion
from nait_store.errors import InvalidInputError
from nait_store.progress import ProgressListener
from nait_store.query.lazy_table import Batches
from nait_store.query.names import StatementNames
from nait_store.query.stored_scores import StoredScores
from nait_store.schemas.activation_set import FeatureArray
from nait_store.schemas.capture import Feature


@dataclass(frozen=True)
class ArrayRead:
    """Arrays that a call reads.

    Attributes
    ----------
    activation_set
        Resolved reference, ``pool@3``.
    feature
        Which feature.
    layers
        Zero-based decoder layers.
    size_bytes
        Bytes of the chunks, at most: a filter on rows leaves chunks out.
    """

    activation_set: str
    feature: Feature
    layers: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class FeatureTable:
    """A table over stored activations, made while DuckDB scans it.

    Attributes
    ----------
    schema
        Its columns.
    batches
        Makes rows; see :data:`~nait_store.query.lazy_table.Batches`.
    reads
        What making all of them reads.
    """

    schema: pa.Schema
    batches: Batches
    reads: tuple[ArrayRead, ...]


@dataclass(frozen=True)
class FeatureContext:
    """What the functions work with, for one statement.

    Attributes
    ----------
    names
        Opens sets and profiles; a name means one version throughout a statement.
    scores
        Has the sample ids of every segment.
    progress
        Told rows and bytes read.
    """

    names: StatementNames
    scores: StoredScores
    progress: ProgressListener


def chosen_feature(text: str | None, version: SetVersion) -> Feature:
    """The feature of this name; by default ``mean``, or the only one that the set stores.

    Raises
    ------
    InvalidInputError, NotFoundError
        No feature has this name; the set does not store it.
    """
    if text is None:
        return version.features[0] if len(version.features) == 1 else Feature.MEAN
    try:
        feature = Feature(text)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is not a feature", next_step=f"write one of {', '.join(Feature)}") from error
    version.require([feature])
    return feature


def array_read(version: SetVersion, feature: Feature, layers: Sequence[int]) -> ArrayRead:
    """What reading these layers of every row of a set version takes."""
    size_bytes = 0
    for segment in version.segments:
        for array in segment.record.arrays:
            if array.feature == feature:
                size_bytes += layer_bytes(array, segment.n_rows, segment.record.n_neurons) * len(layers)
    return ArrayRead(version.reference, feature, tuple(layers), size_bytes)


def layer_bytes(array: FeatureArray, n_rows: int, n_neurons: int) -> int:
    """Bytes of one layer of one segment's feature."""
    from nait_store.activations.chunks import numpy_dtype

    return n_rows * n_neurons * int(numpy_dtype(array.dtype).itemsize)
