"""Scores behind a card: of in-domain samples, held out and not, and of the samples that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.versions import SetVersion
from nait_store.errors import InvalidInputError
from nait_store.registry.cards.draws import DrawPlan
from nait_store.registry.cards.rank_statistics import area_under_curve, rank_correlation
from nait_store.registry.cards.subset_directions import SubsetDirections
from nait_store.registry.compatibility import require_same_capture
from nait_store.registry.in_domain import ChosenRows, choose_rows
from nait_store.schemas.profile import Metric, Recipe, SampleSource
from nait_store.schemas.quality_card import Separation

MOST_COMPARED = 512
"""Samples of the set to compare with: an area under the curve is known to 0.02 then."""


@dataclass(frozen=True)
class Compared:
    """Samples that a profile is to tell its in-domain samples from.

    Attributes
    ----------
    rows
        The samples.
    source
        Where they are from.
    """

    rows: ChosenRows
    source: SampleSource


def check_compared(source: SetVersion, against: SetVersion, recipe: Recipe, layers: Sequence[int]) -> None:
    """Refuse a set that a card cannot compare with.

    Raises
    ------
    IncompatibleError
        It measures something else than the in-domain set.
    NotFoundError
        One of them lacks the feature that candidates are scored on, or a layer.
    """
    require_same_capture(source, against)
    for version in (source, against):
        version.require([recipe.feature], layers)


def choose_compared(
    chosen: ChosenRows, against: SetVersion | None, background: SetVersion | None = None
) -> Compared | None:
    """Draw samples to compare with that are no in-domain samples.

    Parameters
    ----------
    chosen
        The in-domain samples.
    against, background
        The set to draw from: the one that was named, else that of a contrastive profile.

    Returns
    -------
    Compared or None
        At most ``MOST_COMPARED`` samples; None without a set, or where all samples of ``background`` are in-domain.

    Raises
    ------
    InvalidInputError
        All samples of ``against`` are in-domain samples.
    """
    version = background if against is None else against
    if version is None:
        return None
    in_domain = set(chosen.sample_ids())
    others = {}
    n_others = 0
    for segment in version.segments:
        ids = segment.samples(["sample_id"]).column("sample_id").to_pylist()
        mask = np.array([sample_id not in in_domain for sample_id in ids], dtype=bool)
        visible = version.visible_rows(segment)
        others[segment.ordinal] = mask if visible is None else mask & visible
        n_others += int(others[segment.ordinal].sum())
    if not n_others:
        if against is None:
            return None
        raise InvalidInputError(
            f"every sample of {version.reference} is an in-domain sample, so there is nothing to tell them from",
            next_step="name a set that holds others, e.g. the pool that you want to choose from",
        )
    rows = choose_rows(version, subset=others, limit=MOST_COMPARED)
    source = SampleSource(
        set_name=version.name,
        version=version.number,
        limit=MOST_COMPARED,
        seed=0,
        n_samples=rows.n_samples,
        sample_ids_sha256=rows.sample_ids_sha256,
    )
    return Compared(rows, source)


class ScoreSums:
    """Scores of the in-domain samples and of those compared with, summed layer by layer.

    Attributes
    ----------
    in_domain
        Under the profile, [M].
    """

    def __init__(self, plan: DrawPlan, recipe: Recipe, compared: Compared | None) -> None:
        n_samples = plan.orders.shape[1]
        self.in_domain = np.zeros(n_samples)
        self._plan = plan
        self._recipe = recipe
        self._compared = compared if plan.folds else None
        n_compared = compared.rows.n_samples if compared is not None else 0
        self._compared_under_profile = np.zeros(n_compared)
        self._held_out = np.zeros(n_samples)
        self._compared_by_fold = np.zeros((len(plan.folds), n_compared))
        self._compared_by_half = np.zeros((2, len(plan.orders), n_compared))

    def add(
        self,
        layer: int,
        profile: NDArray[np.float32],
        offset: NDArray[np.float32] | None,
        directions: SubsetDirections,
        drawn: NDArray[np.float64] | None,
        candidates: NDArray[np.float32],
    ) -> float | None:
        """Add one layer's terms, and return the area under the curve that they alone give."""
        self.in_domain += self._terms(candidates, offset, profile[None])[0]
        if self._compared is None or drawn is None:
            return None
        others = self._compared.rows.gather(self._recipe.feature, layer)
        first, second = self._plan.halves
        vectors = directions.vectors(drawn[[*self._plan.without_folds, *first, *second]])  # [D, J]
        n_folds = len(self._plan.folds)
        terms = self._terms(others, offset, np.concatenate([profile[None], vectors]))  # [1 + D, N]
        by_fold = self._terms(candidates, offset, vectors[:n_folds])  # [F, M]
        self._compared_under_profile += terms[0]
        self._compared_by_fold += terms[1 : 1 + n_folds]
        self._compared_by_half += terms[1 + n_folds :].reshape(self._compared_by_half.shape)
        areas = []
        for fold, rows in enumerate(self._plan.folds):
            self._held_out[rows] += by_fold[fold, rows]
            areas.append(area_under_curve(by_fold[fold, rows], terms[1 + fold]))
        return float(np.mean(areas))

    def separation(self) -> Separation | None:
        """What the sums say of the samples compared with."""
        if self._compared is None:
            return None
        areas = [
            area_under_curve(self._held_out[rows], self._compared_by_fold[fold])
            for fold, rows in enumerate(self._plan.folds)
        ]
        agreements = [rank_correlation(one, other) for one, other in zip(*self._compared_by_half, strict=True)]
        known = [agreement for agreement in agreements if agreement is not None]
        return Separation(
            against=self._compared.source,
            n_folds=len(areas),
            auc=float(np.mean(areas)),
            lowest_fold_auc=min(areas),
            ranking_agreement=float(np.mean(known)) if known else None,
            length_correlation=rank_correlation(self._compared_under_profile, content_tokens(self._compared.rows)),
        )

    def _terms(
        self, A: NDArray[np.float32], offset: NDArray[np.float32] | None, vectors: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Terms [D, n] of this layer in the scores of activations [n, J] under directions [D, J]."""
        centred = A if offset is None else A - offset
        terms: NDArray[np.float64] = (centred @ vectors.T).T.astype(np.float64)
        if self._recipe.metric is Metric.COSINE:
            norms = np.sqrt(np.einsum("nj,nj->n", centred, centred, dtype=np.float64))
            terms /= np.where(norms > 0.0, norms, np.inf)
        return terms


def content_tokens(rows: ChosenRows) -> NDArray[np.int64]:
    """Content tokens of the samples [M], in the order of the rows."""
    return np.concatenate(
        [
            segment.samples(["n_content_tokens"]).column("n_content_tokens").take(indices).to_numpy().astype(np.int64)
            for segment, indices in rows.rows
        ]
    )
