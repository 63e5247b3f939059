"""From a recipe and samples to directions: what a build checks, digests, computes and records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.versions import SetVersion
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.progress import ProgressEvent, ProgressListener
from nait_store.registry.compatibility import require_same_capture
from nait_store.registry.directions import (
    LayerDirection,
    contrastive_direction,
    mean_direction,
    principal_direction,
)
from nait_store.registry.in_domain import ChosenRows
from nait_store.registry.payload import ProfileArrays
from nait_store.registry.sample_weights import GivenWeights, weights_by_id
from nait_store.schemas.profile import LayerStatistics, Method, Recipe, SampleSource
from nait_store.schemas.record import json_digest


def check_inputs(
    source: SetVersion, recipe: Recipe, background: SetVersion | None, layers: Sequence[int] | None
) -> tuple[int, ...]:
    """Refuse what cannot be built, and return the layers to build."""
    contrastive = recipe.method is Method.CONTRASTIVE
    if contrastive and background is None:
        raise InvalidInputError(
            "the contrastive method needs a background to set the samples apart from",
            next_step="name one with --against SET, e.g. the pool that you want to choose from",
        )
    if background is not None and not contrastive:
        raise InvalidInputError(
            f"method {recipe.method.value!r} has no use for the background {background.reference}",
            next_step="add --method contrastive, or leave out --against",
        )
    chosen = source.layers if layers is None else tuple(sorted(set(layers)))
    if layers is not None and not chosen:
        raise InvalidInputError("an empty list of layers leaves nothing to build", next_step="name at least one layer")
    source.require([recipe.profile_feature], chosen)
    if background is not None:
        require_same_capture(source, background)
        background.require(sorted({recipe.profile_feature, recipe.feature}), chosen)
    if not chosen:
        raise NotFoundError(
            f"the segments of set {source.reference} have no layer in common",
            next_step="ingest all samples with the same --layers",
        )
    return chosen


def recipe_digest(
    source: SetVersion,
    recipe: Recipe,
    chosen: ChosenRows,
    against: ChosenRows | None,
    layers: tuple[int, ...],
) -> str:
    """Digest of the recipe and its inputs: equal means that a rebuild is a no-op."""
    # by sample ids and capture, not by set name: the same samples in another set are the same inputs
    inputs: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json", exclude={"name"}),
        "capture_id": source.record.capture_id,
        "settings": [settings.model_dump(mode="json") for settings in chosen.settings],
        "samples": chosen.sample_ids_sha256,
        "background": None if against is None else against.sample_ids_sha256,
        "layers": list(layers),
    }
    if chosen.weights is not None:
        inputs["weights"] = weights_by_id(chosen)
    return json_digest(inputs)


def compute_directions(
    source: SetVersion,
    recipe: Recipe,
    chosen: ChosenRows,
    against: ChosenRows | None,
    layers: tuple[int, ...],
    progress: ProgressListener,
) -> tuple[ProfileArrays, tuple[LayerStatistics, ...]]:
    """Compute directions (and the offset of a contrast) with their statistics, one layer in memory at a time."""
    shape = (len(layers), source.record.n_neurons)
    directions = np.empty(shape, dtype=np.float32)
    offset = None if against is None else np.empty(shape, dtype=np.float32)
    statistics = []
    weights = chosen.relative_weights
    for i, layer in enumerate(layers):
        X = chosen.gather(recipe.profile_feature, layer)  # [M, J]
        background_mean = None
        if against is not None and offset is not None:
            background_mean = against.mean(recipe.profile_feature, layer)
            same = recipe.feature is recipe.profile_feature
            offset[i] = background_mean if same else against.mean(recipe.feature, layer)
        found = _direction(recipe, X, background_mean, weights, f"layer {layer} of {source.reference}")
        directions[i] = found.direction
        statistics.append(
            LayerStatistics(
                layer=layer,
                explained_variance_ratio=found.explained_variance_ratio,
                sign_margin=found.sign_margin,
                eigenvalue_gap=found.eigenvalue_gap,
            )
        )
        progress(ProgressEvent("profile", i + 1, len(layers), bytes_done=(i + 1) * X.nbytes))
    return ProfileArrays(directions, offset), tuple(statistics)


def _direction(
    recipe: Recipe,
    X: NDArray[np.float32],
    background_mean: NDArray[np.float64] | None,
    weights: NDArray[np.float64] | None,
    where: str,
) -> LayerDirection:
    if background_mean is not None:
        return contrastive_direction(X, background_mean, weights=weights, where=where)
    if recipe.method is Method.MEAN:
        return mean_direction(X, weights=weights, where=where)
    return principal_direction(X, center=recipe.center, component=recipe.component, weights=weights, where=where)


def sample_source(
    version: SetVersion,
    chosen: ChosenRows,
    *,
    where: str | None,
    limit: int | None,
    seed: int,
    weights: GivenWeights | None = None,
) -> SampleSource:
    """Record which samples of a set version went in."""
    return SampleSource(
        set_name=version.name,
        version=version.number,
        where=where,
        limit=limit,
        seed=None if limit is None else seed,
        n_samples=chosen.n_samples,
        sample_ids_sha256=chosen.sample_ids_sha256,
        weights=None if weights is None else weights.record(chosen),
    )


def given_parameters(
    source: SetVersion,
    recipe: Recipe,
    limit: int | None,
    seed: int,
    where: str | None,
    background: SetVersion | None,
    layers: Sequence[int] | None,
    weights: GivenWeights | None,
) -> dict[str, Any]:
    """The options of a build as given, for the reader's benefit."""
    given = {
        "source": source.reference,
        "model": source.segments[0].record.environment.model_label,
        "recipe": recipe.name,
        "limit": limit,
        "seed": None if limit is None else seed,
        "where": where,
        "weights": None if weights is None else weights.expression,
        "weights_file": None if weights is None or weights.file is None else weights.file.uri,
        "against": None if background is None else background.reference,
        "layers": None if layers is None else list(layers),
    }
    return {key: value for key, value in given.items() if value is not None}
