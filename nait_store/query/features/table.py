"""What a function over stored activations gives: columns, a maker of rows, and which arrays those take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nait_store.activations.chunks import numpy_dtype
from nait_store.activations.reader import SegmentReader
from nait_store.activations.versions import SetVersion
from nait_store.errors import InvalidInputError
from nait_store.progress import ProgressListener
from nait_store.query.lazy_table import BATCH_ROWS, Batches, FirstError
from nait_store.query.names import StatementNames
from nait_store.query.stored_scores import StoredScores
from nait_store.schemas.capture import MEASURED_FEATURES, Feature


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
    first_error
        Its ``check()`` ends what takes long, once it would be in vain: on Ctrl-C, or after an error elsewhere.
    """

    names: StatementNames
    scores: StoredScores
    progress: ProgressListener
    first_error: FirstError


def named_feature(text: str) -> Feature:
    """The feature of this name; InvalidInputError where there is none."""
    try:
        return Feature(text)
    except ValueError as error:
        raise InvalidInputError(
            f"{text!r} is not a feature", next_step=f"write one of {', '.join(MEASURED_FEATURES)}"
        ) from error


def chosen_feature(text: str | None, version: SetVersion) -> Feature:
    """The feature of this name; by default ``mean``, or the only one that the set stores.

    Raises
    ------
    InvalidInputError, NotFoundError
        No feature has this name; the set does not store it.
    """
    if text is not None:
        feature = named_feature(text)
    else:
        feature = version.features[0] if len(version.features) == 1 else Feature.MEAN
    version.require([feature])
    return feature


def chosen_layers(layers: Sequence[int] | None, version: SetVersion) -> tuple[int, ...]:
    """These layers in ascending order; by default all that every segment of the set stores.

    Raises
    ------
    NotFoundError
        The set does not store one of them, or its segments have none in common.
    """
    if layers is None and version.layers:
        return version.layers
    version.require([], layers or [0])
    return tuple(sorted(layers or ()))


def computed_once(schema: pa.Schema, compute: Callable[[], Mapping[str, Any]]) -> Batches:
    """Rows that are computed whole when first asked for, and kept for further scans of the same statement.

    Parameters
    ----------
    schema
        Their columns.
    compute
        Gives these columns by name, as Arrow or NumPy arrays or sequences of one length.
    """
    lock = threading.Lock()
    made: list[pa.Table] = []

    def batches(names: Sequence[str], condition: Any) -> Iterator[pa.RecordBatch]:  # noqa: ARG001
        with lock:
            if not made:
                made.append(pa.table(dict(compute()), schema=schema))
        yield from made[0].select(list(names)).to_batches(max_chunksize=BATCH_ROWS)

    return batches


def array_read(version: SetVersion, feature: Feature, layers: Sequence[int]) -> ArrayRead:
    """What reading these layers of every row of a set version takes."""
    of_one = sum(array_bytes(segment, feature, segment.n_rows) for segment in version.segments)
    return ArrayRead(version.reference, feature, tuple(layers), of_one * len(layers))


def array_bytes(segment: SegmentReader, feature: Feature, n_rows: int) -> int:
    """Bytes of one layer of some rows of a segment."""
    [array] = [array for array in segment.record.arrays if array.feature == feature]
    return n_rows * segment.record.n_neurons * int(numpy_dtype(array.dtype).itemsize)
