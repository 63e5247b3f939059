"""Directions of one layer: principal component, mean, contrast (arXiv 2603.13201, Eq. 2-4).

Every function takes one layer's features of the in-domain samples, ``X`` [M, J], and returns one unit vector [J]. Where
samples have weights w [M], positive and 1 on average, one of weight 2 counts as two would that are alike: means are
Σ wᵢxᵢ / M, and components those of the rows √wᵢ·xᵢ, or √wᵢ·(xᵢ - mean).
The component comes from the smaller Gram matrix (float32 products, float64 eigenvectors); a Rayleigh-Ritz step in
float64 on the leading dimensions then takes back what the float32 products lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from numpy.typing import NDArray

from nait_store.errors import InvalidInputError

T = TypeVar("T", np.float32, np.float64)

MAX_SIGN_MARGIN = 1e6
"""Reported where the projections do not vary at all, as with a single sample."""

_GRAM_LIMIT = 1000  # above this side length eigh of the Gram matrix costs more than Lanczos on X itself
_SUBSPACE = 8  # leading dimensions within which float64 decides
_BLOCK_ROWS = 256
_NO_VARIATION = 1e-13  # share of the raw second moment below which what is left after centring is rounding


@dataclass(frozen=True)
class LayerDirection:
    """One layer's direction v and how far to trust it.

    Attributes
    ----------
    direction
        Unit vector, float32 [J], turned so that mean(X)·v ≥ 0 (Eq. 4).
    explained_variance_ratio
        λ_k / Σλ: the share of the variance (centred), or of the raw second moment (not centred), along v.
        None for methods without components.
    sign_margin
        |mean · v| over the standard deviation of the projections X·v; at most ``MAX_SIGN_MARGIN``.
    eigenvalue_gap
        Distance of λ_k to the nearest other λ, over λ_k, at most 1: near 0, two components explain the same and which
        of them, or what mixture, was found is chance. None for methods without components.
    """

    direction: NDArray[np.float32]
    explained_variance_ratio: float | None
    sign_margin: float
    eigenvalue_gap: float | None = None


def principal_direction(
    X: NDArray[np.float32],
    *,
    center: bool,
    component: int = 1,
    weights: NDArray[np.float64] | None = None,
    where: str = "this layer",
) -> LayerDirection:
    """A principal component of the rows of ``X`` (Eq. 3), sign-calibrated on their mean (Eq. 4).

    Parameters
    ----------
    X
        Features of the in-domain samples at one layer, [M, J], any float type.
    center
        Whether the mean is removed first: PCA proper. Without, v is a right singular vector of ``X``.
    component
        Which one, from 1, in the order of the variance that they explain.
    weights
        Of the samples, [M], 1 on average; all count the same if omitted.
    where
        The layer's name for messages.

    Returns
    -------
    LayerDirection
        Within 1e-5 of a float64 SVD wherever its singular value and the next ones are apart.

    Raises
    ------
    InvalidInputError
        A single sample cannot be centred, the samples do not vary, or not in so many directions, or all features are
        zero.
    """
    n_samples = X.shape[0]
    if center and n_samples < 2:
        raise InvalidInputError(
            f"{where}: a centred principal component needs at least 2 samples, there is {n_samples}",
            next_step="give more in-domain samples (16 or more), or build with --no-center or --method mean",
        )
    mean, raw_moment = moments(X, weights)
    if raw_moment == 0.0:
        raise _all_zero(where)
    # Keeps float32 products away from under- and overflow; a power of two changes no digit.
    exponent = min(120, -round(math.log2(raw_moment / n_samples) / 2))
    rows, moment = _scaled(X, mean if center else None, 2.0**exponent, weights)
    if moment <= _NO_VARIATION * math.ldexp(raw_moment, 2 * exponent):
        raise InvalidInputError(
            f"{where}: all {n_samples} samples have the same features, so there is no component to find",
            next_step="check the in-domain samples for repetition, or build with --no-center or --method mean",
        )
    found = None if component > min(X.shape) - center else _right_singular_vector(rows, component)
    variance = 0.0 if found is None else float(found.image @ found.image)
    if found is None or variance <= _NO_VARIATION * moment:
        raise InvalidInputError(
            f"{where}: the {n_samples} samples vary in fewer than {component} directions, so there is no component "
            f"{component}",
            next_step="build with a smaller --component, or give more in-domain samples",
        )
    deviation = _deviation_of(np.ldexp(found.image, -exponent), weights, scaled=True)
    return _calibrated(found.vector, deviation, mean, min(1.0, variance / moment), found.gap)


def mean_direction(
    X: NDArray[np.float32], *, weights: NDArray[np.float64] | None = None, where: str = "this layer"
) -> LayerDirection:
    """Normalised mean of the rows of ``X`` [M, J], with ``weights`` [M] or without.

    Raises
    ------
    InvalidInputError
        The mean is zero.
    """
    mean, moment = moments(X, weights)
    length = float(np.linalg.norm(mean))
    if length * length <= _NO_VARIATION * moment / X.shape[0]:
        raise _all_zero(where)
    v = mean / length
    return _calibrated(v, _deviation(X, v, weights), mean)


def contrastive_direction(
    X: NDArray[np.float32],
    background_mean: NDArray[np.float64],
    *,
    weights: NDArray[np.float64] | None = None,
    where: str = "this layer",
) -> LayerDirection:
    """Normalised difference between the mean of ``X`` [M, J], with ``weights`` [M] or without, and a background's [J].

    The sign margin is that of the difference: |(mean - background)·v| over the deviation of the projections.

    Raises
    ------
    InvalidInputError
        Both means are the same.
    """
    mean, _ = moments(X, weights)
    difference = mean - background_mean
    length = float(np.linalg.norm(difference))
    if length * length <= _NO_VARIATION * (float(mean @ mean) + float(background_mean @ background_mean)):
        raise InvalidInputError(
            f"{where}: the in-domain samples and the background have the same mean, so nothing sets them apart",
            next_step="give --against a set that is not the in-domain set itself",
        )
    v = difference / length
    return _calibrated(v, _deviation(X, v, weights), difference)


def moments(X: NDArray[np.float32], weights: NDArray[np.float64] | None = None) -> tuple[NDArray[np.float64], float]:
    """Mean over the rows of ``X`` [M, J], and the sum of the squares of all entries; both in float64, in one pass.

    With ``weights`` [M], 1 on average, both are weighted.
    """
    total = np.zeros(X.shape[1])
    squares = 0.0
    for start in range(0, X.shape[0], _BLOCK_ROWS):
        block = X[start : start + _BLOCK_ROWS].astype(np.float64)
        if weights is None:
            total += block.sum(axis=0)
            squares += float(np.vdot(block, block))
        else:
            part = weights[start : start + _BLOCK_ROWS]
            total += part @ block
            squares += float(part @ np.einsum("mj,mj->m", block, block))
    return total / X.shape[0], squares


def _scaled(
    X: NDArray[np.float32], mean: NDArray[np.float64] | None, factor: float, weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float32], float]:
    """(X - mean) · factor, times the root of a row's weight, as float32, and the sum of its squares.

    Rounded to float32 after the subtraction: rounding the mean first would leave a constant vector in every row,
    which a component can latch on to.
    """
    out = np.empty(X.shape, dtype=np.float32)
    squares = 0.0
    for start in range(0, X.shape[0], _BLOCK_ROWS):
        block = X[start : start + _BLOCK_ROWS].astype(np.float64)
        if mean is not None:
            block -= mean
        block *= factor if weights is None else factor * np.sqrt(weights[start : start + _BLOCK_ROWS, None])
        squares += float(np.vdot(block, block))
        out[start : start + _BLOCK_ROWS] = block
    return out, squares


@dataclass(frozen=True)
class _SingularVector:
    """Right singular vector v [J], its image Xv [M], and the gap of its squared singular value to the nearest other."""

    vector: NDArray[np.float64]
    image: NDArray[np.float64]
    gap: float


def _right_singular_vector(X: NDArray[np.float32], component: int) -> _SingularVector:
    """The right singular vector of the ``component``-th largest singular value, from 1."""
    # later components are small beside the first one, of which float32 products lose 1e-7
    n_vectors = component + _SUBSPACE - 1
    leading = (
        _leading_row_space(X, n_vectors) if component == 1 else _leading_row_space(X.astype(np.float64), n_vectors)
    )
    basis, _ = np.linalg.qr(leading)  # [J, k]
    image = np.empty((X.shape[0], basis.shape[1]))  # X V in float64: here components are told from each other
    for start in range(0, X.shape[0], _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        image[block] = X[block].astype(np.float64) @ basis
    values, rotation = np.linalg.eigh(image.T @ image)  # ascending
    place = len(values) - component
    own = float(values[place])
    distances = [abs(float(values[i]) - own) for i in (place - 1, place + 1) if 0 <= i < len(values)]
    gap = min(1.0, min(distances, default=own) / own) if own > 0.0 else 0.0
    return _SingularVector(basis @ rotation[:, place], image @ rotation[:, place], gap)


def _leading_row_space(X: NDArray[T], n_vectors: int) -> NDArray[np.float64]:
    """Approximate basis [J, k] of the leading right singular vectors, from products in the precision of ``X``."""
    n_samples, n_neurons = X.shape
    side = min(n_samples, n_neurons)
    k = min(n_vectors, side)
    by_samples = n_samples <= n_neurons
    if side <= max(_GRAM_LIMIT, 8 * k):  # Lanczos needs several times as many vectors as it finds
        gram = (X @ X.T if by_samples else X.T @ X).astype(np.float64)
        _, vectors = scipy.linalg.eigh(gram, subset_by_index=(side - k, side - 1))
    else:
        vectors = _lanczos(X, by_samples, side, k)
    basis: NDArray[np.float64] = (X.T @ vectors.astype(X.dtype)).astype(np.float64) if by_samples else vectors
    return basis


def _lanczos(X: NDArray[T], by_samples: bool, side: int, k: int) -> NDArray[np.float64]:
    """Leading eigenvectors of X Xᵀ (or Xᵀ X) without forming it: its side squared would cost more than X."""

    def multiply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        narrow = vector.reshape(-1).astype(X.dtype)
        product: NDArray[T] = X @ (X.T @ narrow) if by_samples else X.T @ (X @ narrow)
        return product.astype(np.float64)

    operator = scipy.sparse.linalg.LinearOperator((side, side), matvec=multiply, dtype=np.float64)
    tolerance = 1e-6 if X.dtype == np.float32 else 1e-10
    start = np.random.default_rng(0).standard_normal(side)  # fixed, so that a rebuild finds the same numbers
    try:
        _, vectors = scipy.sparse.linalg.eigsh(operator, k=k, which="LA", v0=start, ncv=4 * k, tol=tolerance)
    except scipy.sparse.linalg.ArpackNoConvergence:  # a nearly flat spectrum: the dense way always ends
        gram = (X @ X.T if by_samples else X.T @ X).astype(np.float64)
        _, vectors = scipy.linalg.eigh(gram, subset_by_index=(side - k, side - 1))
    found: NDArray[np.float64] = vectors
    return found


def _deviation(X: NDArray[np.float32], v: NDArray[np.float64], weights: NDArray[np.float64] | None) -> float:
    """Standard deviation of the projections X·v."""
    parts = [X[start : start + _BLOCK_ROWS].astype(np.float64) @ v for start in range(0, X.shape[0], _BLOCK_ROWS)]
    return _deviation_of(np.concatenate(parts), weights)


def _deviation_of(
    projections: NDArray[np.float64], weights: NDArray[np.float64] | None, *, scaled: bool = False
) -> float:
    """Standard deviation of projections [M]; ``scaled`` says that each was taken of √wᵢ·xᵢ."""
    if weights is None:
        return float(projections.std())
    own = projections / np.sqrt(weights) if scaled else projections
    mean = np.average(own, weights=weights)
    return math.sqrt(float(np.average((own - mean) ** 2, weights=weights)))


def _calibrated(
    v: NDArray[np.float64],
    deviation: float,
    mean: NDArray[np.float64],
    ratio: float | None = None,
    gap: float | None = None,
) -> LayerDirection:
    """Turn v so that mean·v ≥ 0 (Eq. 4) and say how clear that sign is, given the projections' deviation."""
    along = float(mean @ v)
    if along < 0.0:
        v, along = -v, -along
    if along == 0.0:
        margin = 0.0
    else:
        margin = MAX_SIGN_MARGIN if along >= MAX_SIGN_MARGIN * deviation else along / deviation
    return LayerDirection(v.astype(np.float32), ratio, margin, gap)


def _all_zero(where: str) -> InvalidInputError:
    return InvalidInputError(
        f"{where}: the features of the in-domain samples are zero (or cancel out), so they have no direction",
        next_step="drift is zero for samples of one token: give longer samples, or build with --feature mean",
    )
