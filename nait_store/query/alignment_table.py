"""``alignment`` and ``alignment_layers`` as tables that DuckDB scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow.dataset import field

from nait_store.activations.reader import SegmentReader
from nait_store.activations.versions import SetVersion
from nait_store.query.lazy_table import BATCH_ROWS, FirstError, LazyTable, may_match
from nait_store.query.stored_scores import StoredScores
from nait_store.schemas.activation_set import ROW_BITS
from nait_store.scoring.targets import ScoringTarget

SCHEMA = pa.schema(
    [
        pa.field("activation_set", pa.string()),
        pa.field("profile", pa.string()),
        pa.field("row_id", pa.int64()),
        pa.field("sample_id", pa.string()),
        pa.field("score", pa.float64()),
    ]
)
LAYERS_SCHEMA = pa.schema(
    [*[SCHEMA.field(i) for i in range(4)], pa.field("layer", pa.int32()), pa.field("projection", pa.float32())]
)


@dataclass(frozen=True, eq=False)
class Pair:
    """A set version and what it is scored against.

    Attributes
    ----------
    version
        The set version.
    profile
        Resolved reference of the profile, ``math@2``.
    target
        What it scores against: the profile's own feature and metric, or those that the statement asks for.
    """

    version: SetVersion
    profile: str
    target: ScoringTarget

    @property
    def key(self) -> str:
        """What to remember things about the pair under."""
        return f"{self.version.state} {self.profile} {self.target.feature.value} {self.target.metric.value}"


def alignment_table(pairs: Callable[[], Sequence[Pair]], scores: StoredScores, first_error: FirstError) -> LazyTable:
    """Rows of :data:`SCHEMA`: one per visible sample and pair.

    Parameters
    ----------
    pairs
        What to give, asked for when a scan begins.
    scores
        Where columns come from.
    first_error
        Receives what goes wrong in a scan.
    """

    def batches(names: Sequence[str], condition: Any) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([SCHEMA.field(name) for name in names])
        for pair in _wanted(pairs(), condition, SCHEMA):
            for segment in pair.version.segments:
                arrays = [_array(name, pair, segment, scores) for name in names]
                batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
                visible = pair.version.visible_rows(segment)
                if visible is not None:
                    batch = batch.filter(pa.array(visible))
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield batch.slice(start, BATCH_ROWS)

    return LazyTable(SCHEMA, batches, first_error)


def layers_table(pairs: Sequence[Pair], scores: StoredScores, first_error: FirstError) -> LazyTable:
    """Rows of :data:`LAYERS_SCHEMA`: one per visible sample, layer and pair; arguments as :func:`alignment_table`."""

    def batches(names: Sequence[str], condition: Any) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([LAYERS_SCHEMA.field(name) for name in names])
        for pair in _wanted(pairs, condition, LAYERS_SCHEMA):
            layers = pair.target.layers
            guarantees = {i: field("layer") == layer for i, layer in enumerate(layers)}
            columns = may_match(guarantees, condition, LAYERS_SCHEMA)
            at_once = max(1, BATCH_ROWS // max(1, len(columns)))
            for segment in pair.version.segments if columns else ():
                rows = np.arange(segment.n_rows)
                visible = pair.version.visible_rows(segment)
                rows = rows if visible is None else rows[visible]
                of_samples = {n: _array(n, pair, segment, scores) for n in names if n in SCHEMA.names}
                projections = scores.projections(segment, pair.target) if "projection" in names else None  # [n, L]
                for start in range(0, len(rows), at_once):
                    part = rows[start : start + at_once]
                    repeated = pa.array(np.repeat(part, len(columns)))
                    arrays = {name: array.take(repeated) for name, array in of_samples.items()}
                    arrays["layer"] = pa.array(np.tile(np.array(layers, np.int32)[columns], len(part)))
                    if projections is not None:
                        arrays["projection"] = pa.array(projections[part][:, columns].reshape(-1))
                    yield pa.RecordBatch.from_arrays([arrays[name] for name in names], schema=schema)

    return LazyTable(LAYERS_SCHEMA, batches, first_error)


def _wanted(pairs: Sequence[Pair], condition: Any, schema: pa.Schema) -> list[Pair]:
    guarantees = {
        pair: (field("activation_set") == pair.version.reference) & (field("profile") == pair.profile) for pair in pairs
    }
    return may_match(guarantees, condition, schema)


def _array(name: str, pair: Pair, segment: SegmentReader, scores: StoredScores) -> pa.Array:
    if name == "score":
        return scores.scores(segment, pair.target)
    if name == "sample_id":
        return scores.sample_ids(segment)
    if name == "row_id":
        first = segment.ordinal << ROW_BITS
        return pa.array(np.arange(first, first + segment.n_rows, dtype=np.int64))
    text = pair.version.reference if name == "activation_set" else pair.profile
    return pa.repeat(pa.scalar(text), segment.n_rows)
