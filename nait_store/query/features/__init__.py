"""Functions over stored activations as tables: single neurons, whole layers, neighbours, likeness of profiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nait_store.query.features import neurons, profile_similarity, similar, top_neurons
from nait_store.query.features.table import ArrayRead, FeatureContext, FeatureTable

__all__ = ["FEATURE_FUNCTIONS", "ArrayRead", "FeatureContext", "FeatureTable"]

FEATURE_FUNCTIONS: Mapping[str, Callable[[FeatureContext, Mapping[str, Any]], FeatureTable]] = {
    "neuron": neurons.neuron,
    "activation": neurons.activation,
    "top_neurons": top_neurons.top_neurons,
    "similar": similar.similar,
    "profile_similarity": profile_similarity.profile_similarity,
}
"""Each by the name that SQL calls it by; given the values of its arguments."""
