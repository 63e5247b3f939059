"""Principal components beyond the first, against scikit-learn's full SVD and NumPy's in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from nait_store.errors import InvalidInputError
from nait_store.registry import directions
from nait_store.registry.directions import principal_direction
from nait_store.registry.in_domain import choose_rows
from nait_store.registry.profiles import ProfileRegistry
from nait_store.registry.quality import warnings_for
from nait_store.registry.recipes import choose_recipe
from nait_store.schemas.capture import StoredDtype
from nait_store.schemas.profile import LayerStatistics
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set


def graded(n_samples: int, n_neurons: int, ratio: float = 0.7, mean: float = 0.0, seed: int = 3) -> NDArray[np.float32]:
    """Rows [M, J] with singular values 1, ratio, ratio² … and a constant mean vector."""
    rng = np.random.default_rng(seed)
    rank = min(n_samples, n_neurons)
    left, _ = np.linalg.qr(rng.standard_normal((n_samples, rank)))
    right, _ = np.linalg.qr(rng.standard_normal((n_neurons, rank)))
    values = ratio ** np.arange(rank)
    return ((left * values) @ right.T * np.sqrt(n_samples) + mean * rng.standard_normal(n_neurons)).astype(np.float32)


def by_svd(X: NDArray[np.float32], component: int, *, center: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The right singular vector, turned towards the mean, and all shares of the second moment."""
    wide = X.astype(np.float64)
    if center:
        fitted = PCA(svd_solver="full").fit(wide)
        vector, shares = fitted.components_[component - 1], fitted.explained_variance_ratio_
    else:
        _, values, rows = np.linalg.svd(wide, full_matrices=False)
        vector, shares = rows[component - 1], values**2 / (values**2).sum()
    return (vector if wide.mean(axis=0) @ vector >= 0 else -vector), shares


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("component", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (50, 50)])
def test_every_component_equals_a_full_svd(shape: tuple[int, int], component: int, center: bool) -> None:
    X = graded(*shape, mean=0.05)
    vector, shares = by_svd(X, component, center=center)
    found = principal_direction(X, center=center, component=component)
    assert np.abs(found.direction - vector).max() < 1e-5
    assert found.explained_variance_ratio == pytest.approx(shares[component - 1], rel=1e-4)
    along = X.astype(np.float64) @ vector
    assert found.sign_margin == pytest.approx(along.mean() / along.std(), rel=1e-3, abs=1e-6)


def test_a_component_of_a_millionth_beside_a_large_mean_is_exact() -> None:
    X = graded(60, 200, ratio=0.25, mean=3.0)
    vector, shares = by_svd(X, 6, center=False)
    assert shares[5] < 1e-6
    found = principal_direction(X, center=False, component=6)
    assert np.abs(found.direction - vector).max() < 1e-5


@pytest.mark.parametrize("component", [2, 5])
def test_the_iterative_solver_finds_later_components(component: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "_GRAM_LIMIT", 50)
    for shape in ((150, 260), (260, 150)):
        X = graded(*shape, mean=0.05)
        vector, _ = by_svd(X, component, center=True)
        assert np.abs(principal_direction(X, center=True, component=component).direction - vector).max() < 1e-5


def test_components_are_orthogonal() -> None:
    X = graded(30, 80, mean=0.5)
    found = np.stack([principal_direction(X, center=False, component=k).direction for k in range(1, 9)])
    np.testing.assert_allclose(found.astype(np.float64) @ found.T, np.eye(8), atol=1e-6)


def test_the_gap_is_the_distance_to_the_nearest_eigenvalue() -> None:
    X = graded(40, 90, ratio=0.9)
    _, shares = by_svd(X, 1, center=False)
    for component in (1, 2, 4):
        own = shares[component - 1]
        nearest = min(abs(own - other) for i, other in enumerate(shares) if i != component - 1)
        found = principal_direction(X, center=False, component=component)
        assert found.eigenvalue_gap == pytest.approx(nearest / own, rel=1e-3)


def test_equal_eigenvalues_have_no_gap() -> None:
    X = np.zeros((8, 20), np.float32)
    X[range(8), range(8)] = [4, 2, 2, 1, 1, 1, 1, 1]
    assert principal_direction(X, center=False, component=1).eigenvalue_gap == pytest.approx(0.75)
    assert principal_direction(X, center=False, component=2).eigenvalue_gap == pytest.approx(0.0, abs=1e-12)


def test_one_sample_has_a_component_and_no_other() -> None:
    X = np.arange(1, 6, dtype=np.float32)[None]
    found = principal_direction(X, center=False)
    assert (found.eigenvalue_gap, found.explained_variance_ratio) == (1.0, pytest.approx(1.0))
    with pytest.raises(InvalidInputError, match="vary in fewer than 2 directions"):
        principal_direction(X, center=False, component=2)


@pytest.mark.parametrize(("center", "component"), [(True, 12), (False, 13), (True, 4_000)])
def test_more_components_than_there_are_is_an_error(center: bool, component: int) -> None:
    X = graded(12, 30)
    with pytest.raises(InvalidInputError, match=f"there is no component {component}") as caught:
        principal_direction(X, center=center, component=component, where="layer 3")
    assert "--component" in str(caught.value.next_step)


@pytest.mark.parametrize("center", [True, False])
def test_samples_that_repeat_have_fewer_components(center: bool) -> None:
    rng = np.random.default_rng(1)
    X = np.repeat(rng.standard_normal((3, 40)).astype(np.float32), 10, axis=0)
    last = 2 if center else 3
    principal_direction(X, center=center, component=last)
    with pytest.raises(InvalidInputError, match="vary in fewer than"):
        principal_direction(X, center=center, component=last + 1)


def test_the_first_component_is_what_it_was_in_recipes_and_digests() -> None:
    assert choose_recipe("default", component=1) == choose_recipe("default")
    assert "component" not in choose_recipe("nait-paper").model_dump(mode="json")
    later = choose_recipe("default", component=2)
    assert (later.name, later.model_dump(mode="json")["component"]) == ("custom", 2)
    assert later.in_words == "custom: uncentred pca component 2 of mean, candidates' mean, cosine"


@pytest.mark.parametrize("method", ["mean", "contrastive"])
def test_other_methods_have_no_components(method: str) -> None:
    with pytest.raises(InvalidInputError, match="has no components"):
        choose_recipe("default", method=method, component=2)


@pytest.mark.parametrize("component", [0, -1])
def test_components_count_from_one(component: int) -> None:
    with pytest.raises(InvalidInputError, match="there is no component"):
        choose_recipe("default", component=component)


def test_a_build_takes_the_component_and_records_it(local: Location) -> None:
    source = build_set(local, "maths", 30, 2, 12, mean=np.ones(12, np.float32), dtype=StoredDtype.FLOAT32)
    registry = ProfileRegistry(local)
    profile, created = registry.build("math", source, recipe=choose_recipe("default", component=2))
    assert created
    gathered = choose_rows(source)
    for i, statistics in enumerate(profile.record.statistics):
        vector, shares = by_svd(gathered.gather(profile.record.recipe.feature, i), 2, center=False)
        assert np.abs(profile.directions()[i] - vector).max() < 1e-5
        assert statistics.explained_variance_ratio == pytest.approx(shares[1], rel=1e-4)
    assert registry.open("math").record.recipe.component == 2
    assert registry.build("math", source, recipe=choose_recipe("default"))[0].number == 2
    assert registry.build("math", source, recipe=choose_recipe("default", component=2))[1] is False


def statistics(**values: float) -> tuple[LayerStatistics, ...]:
    fields = {"explained_variance_ratio": 0.3, "sign_margin": 1.0, "eigenvalue_gap": 0.5} | values
    return tuple(LayerStatistics(layer=layer, **fields) for layer in range(2))


def test_warnings_of_later_components_say_what_they_mean(local: Location) -> None:
    chosen = choose_rows(build_set(local, "maths", 30))
    first, later = choose_recipe("nait-paper"), choose_recipe("nait-paper", component=3)

    def told(recipe: object, **values: float) -> str:
        return " ".join(warnings_for(recipe, statistics(**values), chosen, "maths@1"))  # type: ignore[arg-type]

    assert told(first) == told(later) == ""
    assert "no single main direction" in told(first, explained_variance_ratio=0.05)
    assert told(later, explained_variance_ratio=0.05) == ""
    assert "carries less than 1% of the variance in all 2 layers" in told(later, explained_variance_ratio=0.005)
    assert "nearly as much as component 3 in all 2 layers" in told(later, eigenvalue_gap=0.01)
    assert "both ends of its ranking" in told(later, sign_margin=0.1)
    assert "--no-center" in told(first, sign_margin=0.1)
