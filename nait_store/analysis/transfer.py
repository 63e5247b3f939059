"""How alike profiles of one model are: their directions, what they choose, and what each finds of another's domain."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.analysis.rankings import Rankings
from nait_store.registry.cards.rank_statistics import area_under_curve, rank_correlations

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession


@dataclass(frozen=True)
class ProfilePair:
    """Two of the profiles.

    Attributes
    ----------
    first, second
        Resolved, ``math@2``.
    cosine
        Of all directions end to end: the mean over the layers that both have, -1 to 1.
    cosines
        Layer → cosine of the two directions.
    spearman
        Spearman's correlation of the candidates' scores; None where all scores of one are equal, or there are fewer
        than 3 candidates.
    n_common
        Candidates that are among the best under both.
    overlap
        The same as a part of the best, 0 to 1.
    """

    first: str
    second: str
    cosine: float
    cosines: Mapping[int, float]
    spearman: float | None
    n_common: int
    overlap: float

    @property
    def extremes(self) -> tuple[int, int]:
        """Layers of the lowest and of the highest cosine."""
        return min(self.cosines, key=self.cosines.__getitem__), max(self.cosines, key=self.cosines.__getitem__)


@dataclass(frozen=True)
class DomainSamples:
    """Samples of a profile's domain, as all profiles score them.

    Attributes
    ----------
    profile
        Whose domain it is.
    what
        Which samples, in words: ``512 in-domain samples of maths@1``.
    where
        The condition that they meet; None where they are the samples that the profile was built from.
    scores
        [P, m] Of these samples.
    is_other
        [n] Which candidates are not among them.
    """

    profile: str
    what: str
    where: str | None
    scores: NDArray[np.float64]
    is_other: NDArray[np.bool_]


@dataclass(frozen=True)
class DomainSeparation:
    """How well each profile tells the samples of one profile's domain from the other candidates.

    Attributes
    ----------
    profile
        Whose domain it is.
    what
        Which samples stand for it, in words; empty where there are none.
    where
        The condition that they meet; None where they are the samples that the profile was built from.
    n_samples, n_others
        How many these are, and how many candidates they are told from.
    aucs
        Profile → area under its ROC curve: how probable it is that a sample of the domain has a higher score than one
        of the others. Empty where there are no samples.
    unknown
        Why there are none.
    """

    profile: str
    what: str = ""
    where: str | None = None
    n_samples: int = 0
    n_others: int = 0
    aucs: Mapping[str, float] = field(default_factory=dict)
    unknown: str = ""


@dataclass(frozen=True)
class ProfileTransfer:
    """How alike profiles are over one set of candidates.

    Attributes
    ----------
    set_ref, where, n_candidates
        What they rank, resolved.
    profiles
        Resolved, in the order in which they were named.
    top, n_best
        How many are the best, as asked and in numbers.
    pairs
        Every two of them.
    domains
        Of each of them.
    warnings
        About the profiles' fit to the set.
    """

    set_ref: str
    where: str | None
    n_candidates: int
    profiles: tuple[str, ...]
    top: str
    n_best: int
    pairs: tuple[ProfilePair, ...]
    domains: tuple[DomainSeparation, ...]
    warnings: tuple[str, ...] = ()

    @property
    def overlap_by_chance(self) -> float:
        """What two unrelated rankings share of the best on average, 0 to 1."""
        return self.n_best / self.n_candidates

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that two of the profiles have in common, ascending."""
        return tuple(sorted({layer for pair in self.pairs for layer in pair.cosines}))

    def pair(self, one: str, other: str) -> ProfilePair:
        """Return what is known of two profiles; KeyError where they are none of these."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {one, other}:
                return pair
        raise KeyError((one, other))

    def rows(self) -> pa.Table:
        """Every ordered pair of profiles, each with itself too, as one row.

        Returns
        -------
        pyarrow.Table
            ``profile`` and ``other``; ``cosine``, ``spearman``, ``n_common`` and ``overlap`` of the two; ``auc`` of
            ``profile`` for the domain of ``other``, or null; ``cosine_0`` … of each layer, or null.
        """
        found = [
            {
                "profile": profile,
                "other": domain.profile,
                **self._alike(profile, domain.profile),
                "auc": domain.aucs.get(profile),
            }
            for profile in self.profiles
            for domain in self.domains
        ]
        numbers = ("cosine", "spearman", "overlap", "auc", *(f"cosine_{layer}" for layer in self.layers))
        kinds = {"profile": pa.string(), "other": pa.string(), "n_common": pa.int64()}
        kinds |= {name: pa.float64() for name in numbers}
        return pa.Table.from_pylist(found, pa.schema([(name, kinds[name]) for name in found[0]]))

    def picture(self, form: str = "png") -> bytes:
        """Draw heatmaps of it.

        Parameters
        ----------
        form
            ``png``, ``svg`` or ``pdf``.

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from nait_store.analysis.transfer_picture import draw_transfer

        return draw_transfer(self, form)

    def _alike(self, one: str, other: str) -> dict[str, float | None]:
        if one == other:
            alike = ProfilePair(one, one, 1.0, dict.fromkeys(self.layers, 1.0), 1.0, self.n_best, 1.0)
        else:
            alike = self.pair(one, other)
        by_layer = {f"cosine_{layer}": alike.cosines.get(layer) for layer in self.layers}
        names = ("cosine", "spearman", "n_common", "overlap")
        return {name: getattr(alike, name) for name in names} | by_layer


def compare_profiles(
    session: QuerySession,
    rankings: Rankings,
    domains: Sequence[DomainSamples | DomainSeparation],
    warnings: Sequence[str] = (),
) -> ProfileTransfer:
    """Compare profiles over the candidates that they rank.

    Parameters
    ----------
    session
        Of the store; reads the directions.
    rankings
        Of the profiles.
    domains
        Of each profile; a separation where it is known already, or known to be unknown.
    warnings
        To go with it.

    Raises
    ------
    IncompatibleError
        Two of the profiles have no layer in common.
    """
    cosines = _cosines(session, rankings.profiles)
    spearman = rank_correlations(list(rankings.scores))
    best = rankings.is_best
    pairs = []
    for (i, first), (j, second) in itertools.combinations(enumerate(rankings.profiles), 2):
        by_layer = dict(cosines[frozenset((first, second))])
        whole = by_layer.pop(None)
        n_common = int(np.count_nonzero(best[i] & best[j]))
        layers = {layer: cosine for layer, cosine in by_layer.items() if layer is not None}
        pairs.append(ProfilePair(first, second, whole, layers, spearman[i][j], n_common, n_common / rankings.n_best))
    return ProfileTransfer(
        set_ref=rankings.set_ref,
        where=rankings.where,
        n_candidates=rankings.n_candidates,
        profiles=rankings.profiles,
        top=rankings.top,
        n_best=rankings.n_best,
        pairs=tuple(pairs),
        domains=tuple(_separation(rankings, one) if isinstance(one, DomainSamples) else one for one in domains),
        warnings=tuple(warnings),
    )


def _cosines(session: QuerySession, profiles: Sequence[str]) -> dict[frozenset[str], dict[int | None, float]]:
    """Cosine of every two profiles by layer, and under None that of the whole."""
    found: dict[frozenset[str], dict[int | None, float]] = {}
    query = "SELECT profile_a, profile_b, layer, cosine FROM profile_similarity($profiles) ORDER BY layer"
    for first, second, layer, cosine in session.sql(query, {"profiles": list(profiles)}).fetchall():
        found.setdefault(frozenset((first, second)), {})[layer] = cosine
    return found


def _separation(rankings: Rankings, domain: DomainSamples) -> DomainSeparation:
    return DomainSeparation(
        profile=domain.profile,
        what=domain.what,
        where=domain.where,
        n_samples=domain.scores.shape[1],
        n_others=int(np.count_nonzero(domain.is_other)),
        aucs={
            profile: area_under_curve(domain.scores[i], rankings.scores[i][domain.is_other])
            for i, profile in enumerate(rankings.profiles)
        },
    )
