"""Directions of many subsets of one layer's samples, from one Gram matrix.

Every direction that a recipe makes of some of the samples is a sum of them, so its coefficients say all about it:
lengths and cosines follow from the inner products of the samples, and the Gram matrix of a subset is a part of the
Gram matrix of all. [M, M] products are computed once, in place of [m, J] features gathered and multiplied per subset.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from numpy.typing import NDArray

from nait_store.registry.directions import moments
from nait_store.schemas.profile import Method, Recipe

_DENSE_SIDE = 96  # up to here eigh is faster than the setting up of ARPACK
_NO_LENGTH = 1e-7  # squared length of a sum over that of its parts below which float32 products cannot tell it from 0


class SubsetDirections:
    """What a recipe would make of subsets of these samples.

    Parameters
    ----------
    X
        Features of the samples at one layer, [M, J] float32.
    recipe
        What to compute.
    contrast
        The mean that a contrastive direction leads away from, [J]; None for other methods.
    start
        A direction near those of the subsets, [J], from which iterations begin: the profile's own.
    weights
        Of the samples, [M], positive; all count the same if omitted.
    """

    def __init__(
        self,
        X: NDArray[np.float32],
        recipe: Recipe,
        contrast: NDArray[np.float64] | None,
        start: NDArray[np.float32],
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        n_samples, n_neurons = X.shape
        mean, moment = moments(X)
        self._recipe = recipe
        self._weights = np.ones(n_samples) if weights is None else weights
        self._n_samples = n_samples
        # Rows: the samples less their mean, then the mean, less the contrast. Subtracted before the products: large
        # means would leave nothing of the differences in float32. Scaled by a power of two against under- and overflow.
        self._parts = np.empty((n_samples + 1, n_neurons), dtype=np.float32)
        np.subtract(X, mean, out=self._parts[:n_samples], casting="same_kind")
        self._parts[n_samples] = mean if contrast is None else mean - contrast
        self._parts *= np.float32(2.0 ** -round(math.log2(moment / n_samples) / 2)) if moment else np.float32(1.0)
        self._gram = (self._parts @ self._parts.T).astype(np.float64)
        self._along = self._parts @ start.astype(np.float32)  # [M + 1]
        self._second_moments = self._gram[:n_samples, :n_samples]
        if not recipe.center:
            along_mean = self._gram[:n_samples, n_samples]
            self._second_moments = (
                self._second_moments + along_mean[:, None] + along_mean + self._gram[n_samples, n_samples]
            )

    def coefficients(self, subset: NDArray[np.int64]) -> NDArray[np.float64]:
        """Coefficients [M + 1] of the unit vector that the recipe makes of the samples in ``subset`` [m].

        All zero where they have no direction: they cancel out, or do not vary.
        """
        n_samples, recipe = self._n_samples, self._recipe
        shares = self._shares(subset)
        mean = np.zeros(n_samples + 1)
        mean[subset] = shares
        mean[n_samples] = 1.0
        if recipe.method is not Method.PCA:
            return self._of_unit_length(mean)
        found = np.zeros(n_samples + 1)
        found[subset] = parts = np.sqrt(self._weights[subset]) * self._leading(subset, shares)
        if recipe.center:
            found[subset] -= shares * parts.sum()
        else:
            found[n_samples] = parts.sum()
        found = self._of_unit_length(found)
        return -found if mean @ self._gram @ found < 0.0 else found

    def vectors(self, coefficients: NDArray[np.float64]) -> NDArray[np.float32]:
        """The directions themselves, [D, J], of coefficients [D, M + 1]."""
        vectors: NDArray[np.float32] = coefficients.astype(np.float32) @ self._parts
        return vectors

    def cosines(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cosines [D] between the directions of coefficients [D, M + 1] and [D, M + 1]; 0 where one has none."""
        cosines: NDArray[np.float64] = np.einsum("dm,dm->d", first @ self._gram, second)
        return cosines.clip(-1.0, 1.0)

    def cosines_to_start(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cosines [D] between the directions of coefficients [D, M + 1] and the one to start from."""
        cosines: NDArray[np.float64] = coefficients @ self._along
        return cosines.clip(-1.0, 1.0)

    def _shares(self, subset: NDArray[np.int64]) -> NDArray[np.float64]:
        """Shares [m] of the samples in the subset's mean; they sum to 1."""
        weights = self._weights[subset]
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares

    def _leading(self, subset: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Eigenvector [m] of the subset's own second moments, of the recipe's component; zeros where it has none.

        It is that of rows times the root of their weight, as the direction of all samples is.
        """
        block = self._second_moments[np.ix_(subset, subset)]
        if self._recipe.center:
            means = shares @ block
            block = block - means - means[:, None] + means @ shares
        roots = np.sqrt(self._weights[subset])
        block = block * roots * roots[:, None]
        side, component = len(subset), self._recipe.component
        if component > side:
            return np.zeros(side)
        if side > max(_DENSE_SIDE, 8 * component):
            start = roots * (self._along[subset] - (shares @ self._along[subset] if self._recipe.center else 0.0))
            try:
                _, vectors = scipy.sparse.linalg.eigsh(
                    block, k=component, which="LA", v0=start.astype(np.float64), tol=1e-8
                )
            except scipy.sparse.linalg.ArpackError:  # a nearly flat spectrum, or nothing to start from
                pass
            else:
                iterated: NDArray[np.float64] = vectors[:, 0]
                return iterated
        _, vectors = scipy.linalg.eigh(block, subset_by_index=(side - component, side - component))
        dense: NDArray[np.float64] = vectors[:, 0]
        return dense

    def _of_unit_length(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        squared = float(coefficients @ self._gram @ coefficients)
        parts = float((coefficients * coefficients) @ self._gram.diagonal())
        if squared <= _NO_LENGTH * parts:
            return np.zeros_like(coefficients)
        return coefficients / math.sqrt(squared)
