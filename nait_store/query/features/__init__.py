"""Functions over stored activations as tables: single neurons, whole layers, neighbours, likeness of profiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nait_store.query.features.neurons import activation, neuron
from nait_store.query.features.profile_similarity import profile_similarity
from nait_store.query.features.similar import similar
from nait_store.query.features.table import ArrayRead, FeatureContext, FeatureTable
from nait_store.query.features.top_neurons import top_neurons

__all__ = ["FEATURE_FUNCTIONS", "ArrayRead", "FeatureContext", "FeatureTable"]

FEATURE_FUNCTIONS: Mapping[str, Callable[[FeatureContext, Mapping[str, Any]], FeatureTable]] = {
    "neuron": neuron,
    "activation": activation,
    "top_neurons": top_neurons,
    "similar": similar,
    "profile_similarity": profile_similarity,
}
"""Each by the name that SQL calls it by; given the values of its arguments."""
