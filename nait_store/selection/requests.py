"""Requests: everything that decides what a selection takes, to be run, recorded and run again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nait_store.errors import InvalidInputError
from nait_store.schemas.selection import ProfileWeight, SelectionRecord
from nait_store.selection.budget import EVERYTHING
from nait_store.selection.quotas import parse_quota
from nait_store.selection.redundancy.diversity import Diversity, parse_diversity
from nait_store.selection.redundancy.duplicates import DuplicateRule, parse_rules
from nait_store.selection.strategies import Combine, FuseBy, Strategy, parse_fused

DEFAULT_TOP = "10%"


@dataclass(frozen=True)
class SelectionRequest:
    """What to select.

    Attributes
    ----------
    set_ref
        Set to choose from, ``pool`` or ``pool@3``.
    profiles
        Profiles to score with, and their weights; none for random selections without scores.
    combine
        How several profiles make one order; union if None.
    min_profiles
        Take the samples that are among the top of so many of several profiles, whatever their number; ``top`` is of
        each profile then.
    top
        Count or percentage of the candidates. If None, all that the other limits leave, or 10 %
        where there is none.
    strategy
        How candidates are ordered.
    seed
        Of a random or length-matched selection.
    in_domain
        Set whose centroid ``embedding`` compares with; by default the samples that the profile was built from.
    fuse
        ``quality:0.5``: columns of numbers, and what each counts beside the score's 1 (or the one profile's weight).
    fuse_by
        How score and columns are put on one scale from 0 to 1; ``minmax`` if None.
    where
        Boolean SQL expression over the columns of ``samples(set)``; what it leaves are the candidates.
    budget_tokens
        Tokens that the selection may have, of ``n_tokens``.
    quota
        ``source=alpaca:50%,code:20%``: shares of the selection by a column's value.
    per
        Column of groups, each of which gives its own top.
    min_score
        Score that the chosen have at least.
    knee
        Whether the score curve decides the number.
    drop_duplicates
        What counts as a duplicate of a better-ranked sample, ``near:0.8``, and is left out.
    diversity
        How samples are spread over the best, instead of taken by rank.
    among
        Over how many of the best, or which share of the candidates; thrice the number to be taken if None.
    force
        Whether to silence compatibility warnings.
    """

    set_ref: str
    profiles: tuple[ProfileWeight, ...] = ()
    combine: Combine | None = None
    min_profiles: int | None = None
    top: str | int | None = None
    strategy: Strategy = Strategy.ALIGNMENT
    seed: int = 0
    in_domain: str | None = None
    fuse: tuple[str, ...] = ()
    fuse_by: FuseBy | None = None
    where: str | None = None
    budget_tokens: int | None = None
    quota: str | None = None
    per: str | None = None
    min_score: float | None = None
    knee: bool = False
    drop_duplicates: tuple[str, ...] = ()
    diversity: Diversity | None = None
    among: str | int | None = None
    force: bool = False

    @classmethod
    def from_record(cls, record: SelectionRecord) -> SelectionRequest:
        """The request that makes a saved selection again, from the versions that it was made from.

        Warnings about the profiles' fit were given when it was made; ``force`` silences them.
        """
        return cls(
            record.set_ref,
            record.profiles_with_weights,
            combine=None if record.combine is None else Combine(record.combine),
            min_profiles=record.min_profiles,
            top=record.top,
            strategy=Strategy(record.strategy),
            seed=record.seed or 0,
            in_domain=record.in_domain,
            fuse=record.fuse,
            fuse_by=None if record.fuse_by is None else FuseBy(record.fuse_by),
            where=record.where,
            budget_tokens=record.budget_tokens,
            quota=record.quota,
            per=record.per,
            min_score=record.min_score,
            knee=record.knee,
            drop_duplicates=record.drop_duplicates,
            diversity=parse_diversity(record.diversity),
            among=record.among,
            force=True,
        )

    def recorded(self) -> dict[str, Any]:
        """Fields of a :class:`~nait_store.schemas.selection.SelectionRecord` that say what was asked.

        The references must be resolved, and ``top`` given, as :func:`~nait_store.selection.choosing.select` does it.
        """
        plain = len(self.profiles) == 1 and self.profiles[0].weight == 1
        return {
            "set_ref": self.set_ref,
            "profile_ref": self.profiles[0].reference if self.profiles else None,
            "profiles": () if plain else self.profiles,
            "combine": None if self.combine is None else self.combine.value,
            "min_profiles": self.min_profiles,
            "strategy": self.strategy.value,
            "top": str(self.top),
            "where": self.where,
            "seed": self.seed if self.strategy.is_seeded else None,
            "in_domain": self.in_domain,
            "fuse": self.fuse,
            "fuse_by": None if self.fuse_by is None else self.fuse_by.value,
            "budget_tokens": self.budget_tokens,
            "quota": self.quota,
            "per": self.per,
            "min_score": self.min_score,
            "knee": self.knee,
            "drop_duplicates": self.drop_duplicates,
            "diversity": None if self.diversity is None else self.diversity.value,
            "among": None if self.among is None else str(self.among),
        }

    @property
    def effective_combine(self) -> Combine | None:
        """How the profiles are combined; None where there is one at most."""
        return (self.combine or Combine.UNION) if len(self.profiles) > 1 else None

    @property
    def effective_top(self) -> str:
        """``top``, else what the other limits leave, else 10 %."""
        if self.top is not None:
            return str(self.top).strip()
        if self.min_profiles is not None:
            return DEFAULT_TOP
        limited = self.budget_tokens is not None or self.min_score is not None or self.knee
        return EVERYTHING if limited or (self.quota is not None and parse_quota(self.quota).is_counts) else DEFAULT_TOP

    @property
    def is_plain(self) -> bool:
        """Whether it is ``top`` of one order and nothing else."""
        controls = (self.budget_tokens, self.quota, self.per, self.min_score)
        ordered = self.strategy in (Strategy.ALIGNMENT, Strategy.LOWEST, Strategy.RANDOM)
        limited = self.knee or self.fuse or self.is_pruned or any(control is not None for control in controls)
        return ordered and len(self.profiles) < 2 and not limited

    @property
    def has_scores(self) -> bool:
        """Whether candidates have a score."""
        return bool(self.profiles) or self.strategy is Strategy.EMBEDDING

    @property
    def is_pruned(self) -> bool:
        """Whether more than rank and limits decides: what is alike."""
        return bool(self.drop_duplicates) or self.diversity is not None

    @property
    def rules(self) -> tuple[DuplicateRule, ...]:
        """What :attr:`drop_duplicates` says, in the order in which it is applied."""
        return parse_rules(self.drop_duplicates)

    @property
    def fused(self) -> tuple[tuple[str, float], ...]:
        """Columns of :attr:`fuse` and their weights."""
        return tuple(parse_fused(text) for text in self.fuse)

    def check(self) -> None:
        """Refuse what cannot be meant together.

        Raises
        ------
        InvalidInputError
            Naming the options, and what to do.
        """
        for refused, what, next_step in self._refusals():
            if refused:
                raise InvalidInputError(what, next_step=next_step)

    def _refusals(self) -> list[tuple[bool, str, str]]:
        names = [one.reference for one in self.profiles]
        several, weighted = len(names) > 1, any(one.weight != 1 for one in self.profiles)
        random, combine = self.strategy is Strategy.RANDOM, self.effective_combine
        embedding = self.strategy is Strategy.EMBEDDING
        columns = [column for column, _ in self.fused]
        return [
            (
                embedding and not names and self.in_domain is None,
                "the embedding baseline compares with in-domain samples, and none were named",
                "add --in-domain SET, or --profile NAME for the samples that it was built from",
            ),
            (
                embedding and (several or (bool(names) and self.in_domain is not None)),
                "the embedding baseline has one centroid",
                "give either one --profile or --in-domain",
            ),
            (
                self.in_domain is not None and not embedding,
                "--in-domain is for --strategy embedding",
                "leave it out, or add --strategy embedding",
            ),
            (
                bool(columns) and (random or combine is Combine.UNION),
                "--fuse adds to a score, and "
                + ("a random order" if random else "a union of several profiles")
                + " has none",
                "leave --fuse out" + ("" if random else ", or combine with sum, min, rrf or norm"),
            ),
            (
                len(set(columns)) < len(columns),
                "--fuse names a column twice",
                "give each column one weight",
            ),
            (
                self.fuse_by is not None and not columns,
                "--fuse-by is for --fuse",
                "leave it out, or name a column with --fuse",
            ),
            (
                not names and not random and not embedding,
                f"the strategy {self.strategy.value!r} ranks by a profile and none was named",
                "add --profile NAME ('nait-store profile list' shows them), or choose by chance with --random",
            ),
            (
                self.combine is not None and not several,
                f"--combine {self.combine} is for several profiles",
                "name each with --profile, or leave --combine out",
            ),
            (
                self.min_profiles is not None and not 1 <= self.min_profiles <= len(names),
                f"--min-profiles {self.min_profiles} is not between 1 and the number of profiles, {len(names)}",
                "name more profiles with --profile, or ask for fewer of them",
            ),
            (
                self.min_profiles is not None and not several,
                "--min-profiles is for several profiles",
                "name each with --profile, or leave --min-profiles out",
            ),
            (
                self.min_profiles is not None and (self.knee or self.per is not None or self.quota is not None),
                "--min-profiles takes what the profiles agree on, however much that is",
                "leave --knee, --per and --quota out",
            ),
            (
                weighted and not several and not columns,
                "a weight says how much one of several profiles counts, and there is one",
                "leave the weight out, or add another --profile",
            ),
            (
                weighted and combine is Combine.MIN,
                "the minimum of the scores has no weights",
                "leave the weights out, or use --combine sum",
            ),
            (
                random and (several or self.knee),
                f"a random order has no use for {'several profiles' if several else '--knee'}",
                "leave them out" if several else "say how many with --top",
            ),
            (
                self.knee and (combine is Combine.UNION or self.strategy is Strategy.LOWEST or self.per is not None),
                "--knee reads one curve of scores from the highest down, and there is none with --lowest, --per or the "
                "union of several profiles",
                "say how many with --top; or combine with sum, min, rrf or norm",
            ),
            (
                self.min_score is not None and not self.has_scores,
                "--min-score needs scores, and no profile was named",
                "add --profile NAME",
            ),
            (
                self.min_score is not None and not math.isfinite(self.min_score),
                f"--min-score {self.min_score} is no number to compare with",
                "give a finite number",
            ),
            (
                self.budget_tokens is not None and self.budget_tokens < 1,
                f"--budget-tokens {self.budget_tokens} buys nothing",
                "give a number of tokens of at least 1, e.g. --budget-tokens 2000000",
            ),
            (
                (bool(self.rules) or self.diversity is not None) and self.strategy is Strategy.LENGTH_MATCHED,
                "--drop-duplicates and --diversity look at a ranking, and --strategy length-matched draws by chance",
                "leave them out, or choose by chance with --random",
            ),
            (
                self.among is not None and self.diversity is None,
                "--among is for --diversity",
                "leave it out, or add --diversity k-center or facility-location",
            ),
            (
                self.diversity is not None
                and self.among is None
                and any(one is not None for one in (self.per, self.quota, self.budget_tokens, self.min_profiles)),
                "over how many of the best --diversity spreads does not follow from --quota, --per, --budget-tokens or "
                "--min-profiles",
                "say it, e.g. --among 30%",
            ),
            (
                self.per is not None and self.quota is not None,
                "--per takes the best of every group and --quota fixes what each gives: they exclude each other",
                "leave one of them out",
            ),
            (
                self.quota is not None
                and self.budget_tokens is not None
                and (self.knee or self.effective_top != EVERYTHING or parse_quota(self.quota).has_counts),
                "--quota divides either a number of samples or a budget of tokens",
                "with --budget-tokens write the quotas in percent and leave --top and --knee out",
            ),
            (
                self.quota is not None and self.budget_tokens is not None and self.min_score is not None,
                "--quota divides the budget of tokens, and --min-score leaves some of it over",
                "leave one of them out",
            ),
        ]
