"""What the scores of a set under a profile go with beside the capability: length, source, truncation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.set_version import SetVersion
from nait_store.analysis.frequent_values import frequent_values
from nait_store.errors import InvalidInputError
from nait_store.query.spelling import identifier, literal
from nait_store.registry.cards.rank_statistics import area_under_curve, rank_correlation
from nait_store.registry.profiles import Profile
from nait_store.schemas.profile import Metric

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession

BEST_PERCENT = 10
"""What counts as the best: the default of ``select``."""
N_BINS = 10
_MOST_SOURCES = 8
_LENGTH_CLASSES = 10


@dataclass(frozen=True)
class LengthClass:
    """Samples of like length.

    Attributes
    ----------
    n_samples
        How many.
    mean_tokens, mean_score
        Theirs.
    """

    n_samples: int
    mean_tokens: float
    mean_score: float


@dataclass(frozen=True)
class LengthEffect:
    """How scores go with the number of tokens.

    Attributes
    ----------
    pearson, spearman
        Correlation of score and ``n_tokens``, linear and of ranks; None where one of them is always the same.
    spearman_content
        Of ranks, with ``n_content_tokens``.
    mean_tokens, mean_tokens_of_best
        ``n_tokens`` of a sample, of all and of the best 10 %.
    by_length
        Tenths of the samples from the shortest to the longest; fewer where there are fewer samples.
    """

    pearson: float | None
    spearman: float | None
    spearman_content: float | None
    mean_tokens: float
    mean_tokens_of_best: float
    by_length: tuple[LengthClass, ...]


@dataclass(frozen=True)
class SourceScores:
    """The scores of the samples with one value of a column.

    Attributes
    ----------
    value
        The value as text, empty for none.
    n_samples, n_best
        How many there are, and how many of them are among the best 10 % of the set.
    mean_score
        Theirs.
    auc
        How often one of them scores higher than another sample, 0 to 1, equal scores half; None where all have it.
    counts
        How many lie in each bin.
    """

    value: str
    n_samples: int
    n_best: int
    mean_score: float
    auc: float | None
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ProfileScores:
    """The scores under one profile, and what they go with.

    Attributes
    ----------
    profile
        Its reference.
    metric
        ``dot`` or ``cosine``.
    n_samples
        Samples with a finite score; what follows is about them.
    n_not_finite
        The others.
    lowest, highest, mean, deviation
        Of the scores.
    n_best, n_truncated_of_best
        The best 10 %, rounded up, and the truncated ones among them.
    length
        How scores go with length.
    edges
        Of the bins, ascending, :data:`N_BINS` + 1; empty where all scores are equal.
    sources
        The most frequent values of the column, most frequent first.
    """

    profile: str
    metric: Metric
    n_samples: int
    n_not_finite: int
    lowest: float
    highest: float
    mean: float
    deviation: float
    n_best: int
    n_truncated_of_best: int
    length: LengthEffect
    edges: tuple[float, ...]
    sources: tuple[SourceScores, ...]


@dataclass(frozen=True)
class SampleColumns:
    """Columns of the samples of a set version, by sample id, and their scores.

    Attributes
    ----------
    n_tokens, n_content_tokens, truncated
        [n] each.
    source_codes
        [n] position of each sample's value among ``source_names``; their number for other values.
    source_names
        The most frequent values of the column, most frequent first.
    n_other_sources
        Values beside these.
    scores
        [P, n] float64.
    """

    n_tokens: NDArray[np.int64]
    n_content_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    source_codes: NDArray[np.int64]
    source_names: tuple[str, ...]
    n_other_sources: int
    scores: NDArray[np.float64]

    @property
    def n_samples(self) -> int:
        """How many there are."""
        return len(self.n_tokens)

    @classmethod
    def read(cls, session: QuerySession, version: SetVersion, profiles: Sequence[Profile], by: str) -> SampleColumns:
        """Read them; scores that are missing are computed.

        Raises
        ------
        NotFoundError
            The set has no such column.
        """
        set_ref = literal(version.reference)
        # Computed within, so that no name of the user's can mean one of these.
        samples = (
            "SELECT row_id, sample_id, n_tokens, n_content_tokens, truncated, "
            f"coalesce({identifier(by)}::VARCHAR, '') AS \"value of column\" FROM samples({set_ref})"
        )
        names = [f"score_{i}" for i in range(len(profiles))]
        columns = "".join(f", {name}" for name in names)
        joins = "".join(
            f"\nJOIN (SELECT row_id, score AS {name} FROM alignment({set_ref}, {literal(profile.reference)})) "
            "USING (row_id)"
            for name, profile in zip(names, profiles, strict=True)
        )
        found = session.sql(
            f'SELECT n_tokens, n_content_tokens, truncated, "value of column" AS source{columns}\n'
            f"FROM ({samples}){joins}\nORDER BY sample_id"
        ).arrow()
        source_names, codes, n_others = frequent_values(found.column("source"), _MOST_SOURCES)
        return cls(
            found.column("n_tokens").to_numpy().astype(np.int64),
            found.column("n_content_tokens").to_numpy().astype(np.int64),
            found.column("truncated").to_numpy(),
            codes,
            source_names,
            n_others,
            np.stack([found.column(name).to_numpy() for name in names])
            if names
            else np.empty((0, found.num_rows), dtype=np.float64),
        )

    def judge(self, number: int, profile: Profile) -> ProfileScores:
        """Say what the scores of one of the profiles go with; InvalidInputError where none of them is finite."""
        finite = np.isfinite(self.scores[number])
        if not finite.any():
            raise InvalidInputError(
                f"no score under {profile.reference} is finite",
                next_step="run 'nait-store verify', then 'nait-store cache prune' for the scores to be computed again",
            )
        scores = self.scores[number][finite]
        n_tokens, content = self.n_tokens[finite], self.n_content_tokens[finite]
        codes = self.source_codes[finite]
        n = len(scores)
        # Equal scores in the order of ids, as select has them.
        best = np.argsort(-scores, kind="stable")[: math.ceil(BEST_PERCENT * n / 100)]
        edges = np.empty(0)
        if scores.min() < scores.max():
            edges = np.linspace(scores.min(), scores.max(), N_BINS + 1)
        return ProfileScores(
            profile=profile.reference,
            metric=profile.record.recipe.metric,
            n_samples=n,
            n_not_finite=int(np.count_nonzero(~finite)),
            lowest=float(scores.min()),
            highest=float(scores.max()),
            mean=float(scores.mean()),
            deviation=float(scores.std()),
            n_best=len(best),
            n_truncated_of_best=int(self.truncated[finite][best].sum()),
            length=LengthEffect(
                pearson=linear_correlation(scores, n_tokens),
                spearman=rank_correlation(scores, n_tokens),
                spearman_content=rank_correlation(scores, content),
                mean_tokens=float(n_tokens.mean()),
                mean_tokens_of_best=float(n_tokens[best].mean()),
                by_length=tuple(
                    LengthClass(len(tenth), float(n_tokens[tenth].mean()), float(scores[tenth].mean()))
                    for tenth in np.array_split(np.argsort(n_tokens, kind="stable"), _LENGTH_CLASSES)
                    if len(tenth)
                ),
            ),
            edges=tuple(edges.tolist()),
            sources=tuple(
                _source(value, scores, codes == place, codes[best] == place, edges)
                for place, value in enumerate(self.source_names)
                if (codes == place).any()
            ),
        )


def _source(
    value: str,
    scores: NDArray[np.float64],
    mask: NDArray[np.bool_],
    best_mask: NDArray[np.bool_],
    edges: NDArray[np.float64],
) -> SourceScores:
    own, others = scores[mask], scores[~mask]
    counts = np.histogram(own, edges)[0] if len(edges) else np.empty(0, dtype=np.int64)
    return SourceScores(
        value=value,
        n_samples=len(own),
        n_best=int(best_mask.sum()),
        mean_score=float(own.mean()),
        auc=area_under_curve(own, others) if len(others) else None,
        counts=tuple(counts.tolist()),
    )


def linear_correlation(x: NDArray[np.float64], y: NDArray[np.int64]) -> float | None:
    """Pearson's correlation of two arrays [n]; None where one of them is constant, or there are fewer than 3."""
    if len(x) < 3 or x.min() == x.max() or y.min() == y.max():
        return None
    return float(np.clip(np.corrcoef(x, y)[0, 1], -1.0, 1.0))
