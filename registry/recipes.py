"""Named recipes: every choice between in-domain features and a score, under one name.

``nait-paper`` is arXiv 2603.13201 to the letter, always available and never changed. ``default`` is what
measurements on development data support (docs/results.md); every profile records the choices themselves, so a
later default changes no profile that exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

from nait_store.errors import InvalidInputError, NotFoundError, did_you_mean
from nait_store.schemas.capture import MEASURED_FEATURES, Feature
from nait_store.schemas.profile import BUILT_METHODS, Method, Metric, Recipe

CUSTOM = "custom"
E = TypeVar("E", bound=StrEnum)

RECIPES: dict[str, Recipe] = {
    "default": Recipe(
        name="default",
        method=Method.PCA,
        center=False,
        profile_feature=Feature.MEAN,
        feature=Feature.MEAN,
        metric=Metric.COSINE,
    ),
    "nait-paper": Recipe(
        name="nait-paper",
        method=Method.PCA,
        center=True,
        profile_feature=Feature.DRIFT,
        feature=Feature.MEAN,
        metric=Metric.DOT,
    ),
}
"""By name. Eq. 2 (drift), Eq. 3 (centred component) and Eq. 5 (dot product) make ``nait-paper``."""


def choose_recipe(
    name: str = "default",
    *,
    method: Method | str | None = None,
    center: bool | None = None,
    component: int | None = None,
    profile_feature: Feature | str | None = None,
    feature: Feature | str | None = None,
    metric: Metric | str | None = None,
) -> Recipe:
    """Start from a named recipe and override single choices.

    Parameters
    ----------
    name
        ``default`` or ``nait-paper``.
    method
        ``pca``, ``mean`` or ``contrastive`` (which needs a background set at build time).
    center
        Whether PCA removes the mean first; only for ``pca``.
    component
        Which principal component, from 1; only for ``pca``.
    profile_feature
        What the direction is made of.
    feature
        What candidates are scored on; follows ``profile_feature`` if only that is given.
    metric
        ``dot`` or ``cosine``.

    Returns
    -------
    Recipe
        Named after the recipe whose choices it has, ``custom`` where none has them.

    Raises
    ------
    NotFoundError
        Unknown recipe.
    InvalidInputError
        Unknown choice, or a choice of centring or component where there is neither.
    """
    base = RECIPES.get(name)
    if base is None:
        raise NotFoundError(f"there is no recipe {name!r}", next_step=did_you_mean(name, RECIPES))
    chosen_method = base.method if method is None else _choice(Method, method, "method", BUILT_METHODS)
    if center is not None and chosen_method is not Method.PCA:
        raise InvalidInputError(
            f"centring is a choice of method 'pca', not of {chosen_method.value!r}",
            next_step="leave out --center/--no-center, or use --method pca",
        )
    if component is not None and chosen_method is not Method.PCA:
        raise InvalidInputError(
            f"method {chosen_method.value!r} has no components to choose from",
            next_step="leave out --component, or use --method pca",
        )
    if component is not None and component < 1:
        raise InvalidInputError(f"there is no component {component}", next_step="count components from 1")
    own = base.profile_feature if profile_feature is None else choose_feature(profile_feature)
    if feature is not None:
        scored = choose_feature(feature)
    else:
        scored = base.feature if profile_feature is None else own
    chosen = Recipe(
        name=CUSTOM,
        method=chosen_method,
        center=chosen_method is Method.PCA and (base.center if center is None else center),
        component=component or 1,
        profile_feature=own,
        feature=scored,
        metric=base.metric if metric is None else choose_metric(metric),
    )
    for known in (base, *RECIPES.values()):
        if same_choices(chosen, known):
            return known
    return chosen


def same_choices(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes differ in nothing but their names."""
    return one.model_copy(update={"name": CUSTOM}) == other.model_copy(update={"name": CUSTOM})


def choose_feature(value: Feature | str) -> Feature:
    """The feature of this name; InvalidInputError for any other, and for what no model gives."""
    return _choice(Feature, value, "feature", tuple(MEASURED_FEATURES))


def choose_metric(value: Metric | str) -> Metric:
    """The metric of this name; InvalidInputError for any other."""
    return _choice(Metric, value, "metric", tuple(Metric))


def _choice(kind: type[E], value: E | str, what: str, known: Sequence[E]) -> E:
    if value not in known:
        raise InvalidInputError(
            f"{value!r} is not a {what}", next_step="use one of " + ", ".join(member.value for member in known)
        )
    return kind(value)
