"""``top_neurons``: what a sample activates most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from nait_store.query.features.one_sample import find_sample
from nait_store.query.features.table import (
    ArrayRead,
    FeatureContext,
    FeatureTable,
    array_bytes,
    chosen_feature,
    chosen_layers,
    computed_once,
)

_DEFAULT_COUNT = 10
_SCHEMA = pa.schema([("rank", pa.int32()), ("layer", pa.int32()), ("neuron", pa.int32()), ("activation", pa.float32())])


def top_neurons(context: FeatureContext, values: Mapping[str, Any]) -> FeatureTable:
    """``top_neurons(activation_set, sample_id, k)``: the largest |activation|; reads one row of each layer.

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

    def compute() -> Mapping[str, Any]:
        vectors = sample.read(feature, layers)  # [L, J]
        # Stable: of equal ones the lower layer comes first, and in it the lower neuron.
        best = np.argsort(-np.abs(vectors), axis=None, kind="stable")[:k]
        positions, neurons = np.unravel_index(best, vectors.shape)
        return {
            "rank": np.arange(1, len(best) + 1, dtype=np.int32),
            "layer": np.array(layers, np.int32)[positions],
            "neuron": neurons.astype(np.int32),
            "activation": vectors.reshape(-1)[best].astype(np.float32),
        }

    size_bytes = array_bytes(sample.segment, feature, 1) * len(layers)
    read = ArrayRead(version.reference, feature, layers, size_bytes)
    return FeatureTable(_SCHEMA, computed_once(_SCHEMA, compute), (read,))
