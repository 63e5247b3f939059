"""Directions against scikit-learn's full SVD and NumPy's, both in float64 on the same float32 numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from nait_store.errors import InvalidInputError
from nait_store.registry import directions
from nait_store.registry.directions import (
    MAX_SIGN_MARGIN,
    contrastive_direction,
    mean_direction,
    principal_direction,
)


def spectrum(
    rng: np.random.Generator, n_samples: int, n_neurons: int, ratio: float, mean: float = 0.0
) -> NDArray[np.float32]:
    """Rows [M, J] whose second singular value is ``ratio`` times the first, plus a constant mean vector."""
    rank = min(n_samples, n_neurons)
    values = np.array([1.0] + [ratio * 0.95**i for i in range(rank - 1)])
    left, _ = np.linalg.qr(rng.standard_normal((n_samples, rank)))
    right, _ = np.linalg.qr(rng.standard_normal((n_neurons, rank)))
    offset = mean * rng.standard_normal(n_neurons)
    return ((left * values) @ right.T * np.sqrt(n_samples) + offset).astype(np.float32)


def by_svd(X: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    _, values, rows = np.linalg.svd(X.astype(np.float64), full_matrices=False)
    return rows[0], float(values[0] ** 2 / (values**2).sum())


def by_sklearn(X: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    fitted = PCA(svd_solver="full").fit(X.astype(np.float64))
    return fitted.components_[0], float(fitted.explained_variance_ratio_[0])


def distance(found: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    aligned = expected * np.sign(found.astype(np.float64) @ expected)
    return float(np.abs(found - aligned).max())


shapes = st.tuples(st.integers(3, 60), st.integers(2, 90))


@settings(deadline=None, max_examples=60)
@given(shapes, st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.9, 0.99]), st.sampled_from([0.0, 1.0, 30.0]))
def test_centred_component_equals_full_svd_pca(shape: tuple[int, int], seed: int, ratio: float, mean: float) -> None:
    X = spectrum(np.random.default_rng(seed), *shape, ratio, mean)
    # centring changes the spectrum, so only what is still separated has one answer
    values = np.linalg.svd(X - X.mean(axis=0, dtype=np.float64), compute_uv=False)
    assume(values[1] <= 0.995 * values[0])
    expected, share = by_sklearn(X)
    found = principal_direction(X, center=True)
    assert distance(found.direction, expected) < 1e-5
    assert found.explained_variance_ratio == pytest.approx(share, abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(shapes, st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.9, 0.99]))
def test_uncentred_component_equals_numpy_svd(shape: tuple[int, int], seed: int, ratio: float) -> None:
    X = spectrum(np.random.default_rng(seed), *shape, ratio)
    expected, share = by_svd(X)
    found = principal_direction(X, center=False)
    assert distance(found.direction, expected) < 1e-5
    assert found.explained_variance_ratio == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("shape", [(40, 700), (700, 40), (64, 64)])
def test_wide_tall_and_square_inputs_agree_with_svd(shape: tuple[int, int], center: bool) -> None:
    X = spectrum(np.random.default_rng(3), *shape, 0.97, 2.0)
    expected, _ = by_sklearn(X) if center else by_svd(X)
    assert distance(principal_direction(X, center=center).direction, expected) < 1e-5


@pytest.mark.parametrize("shape", [(120, 300), (300, 120)])
def test_iterative_solver_agrees_with_svd(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "_GRAM_LIMIT", 50)
    X = spectrum(np.random.default_rng(4), *shape, 0.95, 1.0)
    assert distance(principal_direction(X, center=True).direction, by_sklearn(X)[0]) < 1e-5


def test_iterative_solver_falls_back_where_it_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*args: object, **kwargs: object) -> None:
        raise directions.scipy.sparse.linalg.ArpackNoConvergence("no", np.empty(0), np.empty((0, 0)))

    monkeypatch.setattr(directions, "_GRAM_LIMIT", 50)
    monkeypatch.setattr(directions.scipy.sparse.linalg, "eigsh", give_up)
    X = spectrum(np.random.default_rng(5), 80, 200, 0.9)
    assert distance(principal_direction(X, center=False).direction, by_svd(X)[0]) < 1e-5


@pytest.mark.parametrize("magnitude", [1e-18, 1e-4, 1e4, 1e15])
def test_component_does_not_depend_on_magnitude(magnitude: float) -> None:
    X = spectrum(np.random.default_rng(6), 30, 50, 0.8, 1.0)
    scaled = (X * np.float32(magnitude)).astype(np.float32)
    assert distance(principal_direction(scaled, center=True).direction, by_sklearn(X)[0]) < 1e-5


def test_large_common_mean_does_not_leak_into_centred_component() -> None:
    rng = np.random.default_rng(7)
    X = (100.0 + 1e-3 * spectrum(rng, 40, 60, 0.5).astype(np.float64)).astype(np.float32)
    assert distance(principal_direction(X, center=True).direction, by_sklearn(X)[0]) < 1e-5


@pytest.mark.parametrize("center", [True, False])
def test_sign_is_calibrated_on_the_mean(center: bool) -> None:
    rng = np.random.default_rng(8)
    for _ in range(20):
        X = rng.standard_normal((12, 20)).astype(np.float32)
        v = principal_direction(X, center=center).direction
        assert X.mean(axis=0, dtype=np.float64) @ v >= 0


def test_direction_has_unit_length() -> None:
    X = spectrum(np.random.default_rng(9), 20, 400, 0.5, 1.0)
    for found in (principal_direction(X, center=True), principal_direction(X, center=False), mean_direction(X)):
        assert np.linalg.norm(found.direction.astype(np.float64)) == pytest.approx(1.0, abs=1e-6)
        assert found.direction.dtype == np.float32


def test_sign_margin_is_mean_over_deviation_of_projections() -> None:
    X = spectrum(np.random.default_rng(10), 25, 30, 0.6, 1.0)
    found = principal_direction(X, center=True)
    projections = X.astype(np.float64) @ by_sklearn(X)[0]
    assert found.sign_margin == pytest.approx(abs(projections.mean()) / projections.std(), rel=1e-4)


def test_mean_direction_is_the_normalised_mean() -> None:
    X = spectrum(np.random.default_rng(11), 25, 30, 0.6, 1.0)
    mean = X.astype(np.float64).mean(axis=0)
    found = mean_direction(X)
    np.testing.assert_allclose(found.direction, mean / np.linalg.norm(mean), atol=1e-6)
    assert found.explained_variance_ratio is None


def test_contrastive_direction_is_the_normalised_difference_of_means() -> None:
    rng = np.random.default_rng(12)
    X = spectrum(rng, 25, 30, 0.6, 1.0)
    background = rng.standard_normal(30)
    difference = X.astype(np.float64).mean(axis=0) - background
    found = contrastive_direction(X, background)
    np.testing.assert_allclose(found.direction, difference / np.linalg.norm(difference), atol=1e-6)
    along = difference @ difference / np.linalg.norm(difference)
    spread = (X.astype(np.float64) @ difference / np.linalg.norm(difference)).std()
    assert found.sign_margin == pytest.approx(along / spread, rel=1e-4)


def test_single_sample_cannot_be_centred() -> None:
    with pytest.raises(InvalidInputError, match=r"layer 4: .*at least 2 samples") as caught:
        principal_direction(np.ones((1, 5), np.float32), center=True, where="layer 4")
    assert "--no-center" in str(caught.value.next_step)


def test_single_sample_is_its_own_direction() -> None:
    X = np.array([[3.0, 0.0, 4.0]], np.float32)
    for found in (principal_direction(X, center=False), mean_direction(X)):
        np.testing.assert_allclose(found.direction, [0.6, 0.0, 0.8], atol=1e-7)
        assert found.sign_margin == MAX_SIGN_MARGIN


@pytest.mark.parametrize("center", [True, False])
def test_all_zero_features_are_refused_naming_the_layer(center: bool) -> None:
    with pytest.raises(InvalidInputError, match=r"layer 2 of gsm8k@1: .*zero"):
        principal_direction(np.zeros((6, 5), np.float32), center=center, where="layer 2 of gsm8k@1")


def test_mean_that_cancels_out_is_refused() -> None:
    X = np.array([[1.0, 2.0], [-1.0, -2.0]], np.float32)
    with pytest.raises(InvalidInputError, match=r"layer 0: .*cancel out"):
        mean_direction(X, where="layer 0")


def test_identical_samples_have_no_centred_component() -> None:
    X = np.tile(np.random.default_rng(13).standard_normal(40).astype(np.float32), (9, 1))
    with pytest.raises(InvalidInputError, match="layer 1: all 9 samples have the same features"):
        principal_direction(X, center=True, where="layer 1")


def test_identical_samples_have_an_uncentred_component() -> None:
    row = np.random.default_rng(14).standard_normal(40)
    found = principal_direction(np.tile(row.astype(np.float32), (9, 1)), center=False)
    np.testing.assert_allclose(found.direction, row / np.linalg.norm(row), atol=1e-6)
    assert found.explained_variance_ratio == pytest.approx(1.0)


def test_background_equal_to_the_samples_is_refused() -> None:
    X = spectrum(np.random.default_rng(15), 10, 8, 0.5, 1.0)
    with pytest.raises(InvalidInputError, match=r"layer 3: .*same mean"):
        contrastive_direction(X, X.astype(np.float64).mean(axis=0), where="layer 3")


def test_constant_neurons_do_not_move_a_centred_component() -> None:
    X = spectrum(np.random.default_rng(16), 20, 30, 0.5)
    X[:, 7] = 50.0
    found = principal_direction(X, center=True)
    assert abs(found.direction[7]) < 1e-6
    assert distance(found.direction, by_sklearn(X)[0]) < 1e-5


def test_inputs_are_left_alone() -> None:
    X = spectrum(np.random.default_rng(17), 20, 30, 0.5, 1.0)
    before = X.copy()
    principal_direction(X, center=True)
    mean_direction(X)
    np.testing.assert_array_equal(X, before)
