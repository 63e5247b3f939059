"""``similar``: the samples whose activations point the same way as one sample's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.versions import SetVersion
from nait_store.query.features.one_sample import OneSample, find_sample
from nait_store.query.features.table import (
    FeatureContext,
    FeatureTable,
    array_read,
    chosen_feature,
    chosen_layers,
    computed_once,
)
from nait_store.schemas.activation_set import ROW_BITS
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.scoring.scan import scan
from nait_store.scoring.targets import ScoringTarget

_DEFAULT_COUNT = 10
_SORTED_ROWS = 1 << 16
_SCHEMA = pa.schema(
    [("rank", pa.int32()), ("row_id", pa.int64()), ("sample_id", pa.string()), ("similarity", pa.float64())]
)


def similar(context: FeatureContext, values: Mapping[str, Any]) -> FeatureTable:
    """``similar(activation_set, sample_id, k)``: nearest samples by cosine; one pass over the chosen layers.

    Raises
    ------
    NotFoundError
        Unknown set or sample; a layer or feature that the set does not have.
    """
    version = context.names.version(values["activation_set"])
    feature = chosen_feature(values.get("feature"), version)
    layers = chosen_layers(values.get("layers"), version)
    sample = find_sample(context, version, values["sample_id"])
    k = values.get("k", _DEFAULT_COUNT)
    return FeatureTable(
        _SCHEMA,
        computed_once(_SCHEMA, lambda: _nearest(context, version, sample, feature, layers, k)),
        (array_read(version, feature, layers),),
    )


def _nearest(
    context: FeatureContext, version: SetVersion, sample: OneSample, feature: Feature, layers: Sequence[int], k: int
) -> dict[str, Any]:
    best = _Best(k)
    target = ScoringTarget(_unit(sample.read(feature, layers)), None, tuple(layers), feature, Metric.COSINE)
    for found in scan([(segment, [target]) for segment in version.segments if k > 0], context.progress):
        context.first_error.check()
        segment, of_segment = found.segment, np.arange(found.rows.start, found.rows.stop)
        # Rounding may go beyond ±1, and must not decide between samples that are equally near.
        similarity = np.clip(found.scores.scores / len(layers), -1.0, 1.0)
        wanted = similarity >= best.least
        visible = version.visible_rows(segment)
        if visible is not None:
            wanted &= visible[found.rows]
        if segment is sample.segment:
            wanted &= of_segment != sample.row
        if wanted.any():
            ids = context.scores.sample_ids(segment).take(pa.array(of_segment[wanted]))
            best.add((segment.ordinal << ROW_BITS) + of_segment[wanted], ids, similarity[wanted])
    rows = best.rows()
    return {"rank": np.arange(1, rows.num_rows + 1, dtype=np.int32)} | {n: rows.column(n) for n in rows.column_names}


class _Best:
    """The k nearest so far; of equally near ones those whose ``sample_id`` comes first."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._schema = pa.schema([_SCHEMA.field(name) for name in ("row_id", "sample_id", "similarity")])
        self._kept = self._schema.empty_table()
        self._added: list[pa.Table] = []
        self._n_added = 0
        self.least = -np.inf
        """Less similar ones need not be added."""

    def add(self, row_ids: NDArray[np.int64], sample_ids: pa.Array, similarity: NDArray[np.float64]) -> None:
        self._added.append(pa.table([row_ids, sample_ids, similarity], schema=self._schema))
        self._n_added += len(row_ids)
        if self._n_added >= max(self._k, _SORTED_ROWS):  # seldom, so that a large k is not sorted again and again
            self.rows()

    def rows(self) -> pa.Table:
        """The nearest, in order."""
        every = pa.concat_tables([self._kept, *self._added])
        ordered = every.sort_by([("similarity", "descending"), ("sample_id", "ascending")])
        self._kept, self._added, self._n_added = ordered.slice(0, self._k), [], 0
        if 0 < self._k == self._kept.num_rows:
            self.least = self._kept.column("similarity")[-1].as_py()
        return self._kept


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of length 1, [L, J]; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: NDArray[np.float64] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return units.astype(np.float32)
