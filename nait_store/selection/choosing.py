"""Choosing: which samples of a set, in which order, under which query."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import pyarrow as pa

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.errors import InvalidInputError
from nait_store.query.rows import check_condition, score_samples
from nait_store.refs import Kind, parse_reference
from nait_store.registry.compatibility import require_compatible
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.schemas.selection import SELECTION_SCHEMA
from nait_store.selection.budget import parse_budget

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession


class Strategy(StrEnum):
    """Highest alignment first, lowest first (the paper's control), or by chance (the other control)."""

    ALIGNMENT = "alignment"
    LOWEST = "lowest"
    RANDOM = "random"

    @classmethod
    def parse(cls, text: str) -> Strategy:
        """Return the strategy of this name; InvalidInputError where there is none."""
        try:
            return cls(text)
        except ValueError as error:
            raise InvalidInputError(f"{text!r} is not a strategy", next_step=f"use one of {', '.join(cls)}") from error


@dataclass(frozen=True)
class SelectionRequest:
    """What to select.

    Attributes
    ----------
    set_ref
        Set to choose from, ``pool`` or ``pool@3``.
    profile_ref
        Profile to score with; optional for random selections, which then carry no scores.
    top
        Count or percentage of the candidates.
    strategy
        How candidates are ordered.
    seed
        Of a random selection.
    where
        Boolean SQL expression over the columns of ``samples(set)``; what it leaves are the candidates.
    force
        Whether to silence compatibility warnings.
    """

    set_ref: str
    profile_ref: str | None
    top: str | int
    strategy: Strategy = Strategy.ALIGNMENT
    seed: int = 0
    where: str | None = None
    force: bool = False


@dataclass(frozen=True)
class Selection:
    """Ranked samples and how they came about.

    Attributes
    ----------
    rows
        ``rank`` from 1, ``sample_id``, ``score`` (null where there is no profile), in rank order.
    set_ref, profile_ref
        Resolved, ``pool@3`` and ``math@2``.
    strategy, top, where, seed
        As requested; ``seed`` is None unless the strategy is random.
    n_candidates
        Samples to choose from, after ``where``.
    query
        SQL that gives ``rows`` again.
    warnings
        What to know about the profile's fit to the set.
    """

    rows: pa.Table
    set_ref: str
    profile_ref: str | None
    strategy: Strategy
    top: str
    where: str | None
    seed: int | None
    n_candidates: int
    query: str
    warnings: tuple[str, ...] = ()

    @property
    def n_selected(self) -> int:
        """Number of samples chosen."""
        return int(self.rows.num_rows)

    @property
    def has_scores(self) -> bool:
        """Whether a profile scored the samples."""
        return self.profile_ref is not None

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Lowest and highest score chosen, or None without a profile."""
        if not self.has_scores:
            return None
        scores = self.rows.column("score").to_numpy()
        return float(scores.min()), float(scores.max())


def select(
    session: QuerySession, sets: ActivationSets, registry: ProfileRegistry, request: SelectionRequest
) -> Selection:
    """Choose samples.

    Ties of the score are broken by ``sample_id`` ascending, for the lowest as for the highest. A random order is
    that of SHA-256 over seed and sample id: the same for every storage order, machine and release.

    Parameters
    ----------
    session
        Runs the SQL; scores that are missing are computed by it.
    sets, registry
        Of the same store.
    request
        What to select.

    Raises
    ------
    NotFoundError
        Unknown set, profile, version or column.
    InvalidInputError
        Impossible budget, missing profile, or a ``where`` that is no boolean expression.
    IncompatibleError
        The profile was built on activations that mean something else.
    """
    budget = parse_budget(request.top)
    version = sets.open(parse_reference(request.set_ref, Kind.SET))
    set_ref = version.reference
    profile = _profile(registry, request)
    warnings = require_compatible(profile, version, force=request.force) if profile is not None else []
    profile_ref = profile.reference if profile is not None else None
    if request.where is not None:
        check_condition(session, version, request.where)
    n_candidates = _count_candidates(session, set_ref, request.where)
    described = set_ref if request.where is None else f"{set_ref} where {request.where}"
    n_selected = budget.resolve(n_candidates, described)
    query = selection_query(set_ref, profile_ref, request.strategy, request.seed, request.where, n_selected)
    if profile is not None and request.where is not None:
        rows = _rank_matching(session, version, profile, request, n_selected)
    else:
        rows = session.sql(query).arrow()
    rows = rows.select(SELECTION_SCHEMA.names).cast(SELECTION_SCHEMA).combine_chunks()
    return Selection(
        rows=rows,
        set_ref=set_ref,
        profile_ref=profile_ref,
        strategy=request.strategy,
        top=budget.text,
        where=request.where,
        seed=request.seed if request.strategy is Strategy.RANDOM else None,
        n_candidates=n_candidates,
        query=query,
        warnings=tuple(warnings),
    )


def selection_query(
    set_ref: str, profile_ref: str | None, strategy: Strategy, seed: int, where: str | None, n_selected: int
) -> str:
    """Spell the SQL that makes a selection; it is stored with a saved one.

    Parameters
    ----------
    set_ref, profile_ref
        Resolved references.
    strategy, seed, where, n_selected
        As in :class:`SelectionRequest`, the budget resolved.
    """
    if profile_ref is None:
        source = f"samples('{set_ref}')"
        score = "NULL::DOUBLE"
    else:
        source = f"alignment('{set_ref}', '{profile_ref}')"
        score = "score"
    lines = [_ranking(strategy, seed, score), f"FROM {source}"]
    if where is not None:
        if profile_ref is None:
            lines.append(f"WHERE ({where}\n)")
        else:
            lines.append(f"WHERE sample_id IN (SELECT sample_id FROM samples('{set_ref}') WHERE ({where}\n))")
    lines.append(f"ORDER BY rank LIMIT {n_selected}")
    return "\n".join(lines)


def _ranking(strategy: Strategy, seed: int, score: str) -> str:
    order = {
        Strategy.ALIGNMENT: "score DESC, sample_id",
        Strategy.LOWEST: "score, sample_id",
        Strategy.RANDOM: f"sha256('{seed}:' || sample_id), sample_id",
    }[strategy]
    return f"SELECT row_number() OVER (ORDER BY {order}) AS rank, sample_id, {score} AS score"


def _rank_matching(
    session: QuerySession, version: SetVersion, profile: Profile, request: SelectionRequest, n_selected: int
) -> pa.Table:
    """What the query of a selection gives, scoring no samples but the candidates where scores are not stored."""
    assert request.where is not None
    scored = score_samples(session, version, [profile], request.where).rename_columns(["sample_id", "score"])
    ranking = _ranking(request.strategy, request.seed, "score")
    query = f"{ranking}\nFROM candidates\nORDER BY rank LIMIT {n_selected}"
    return session.sql(query, tables={"candidates": scored}).arrow()


def _profile(registry: ProfileRegistry, request: SelectionRequest) -> Profile | None:
    if request.profile_ref is not None:
        return registry.open(parse_reference(request.profile_ref, Kind.PROFILE))
    if request.strategy is Strategy.RANDOM:
        return None
    raise InvalidInputError(
        f"the strategy {request.strategy.value!r} ranks by a profile and none was named",
        next_step="add --profile NAME ('nait-store profile list' shows them), or choose by chance with --random",
    )


def _count_candidates(session: QuerySession, set_ref: str, where: str | None) -> int:
    condition = "" if where is None else f" WHERE ({where}\n)"
    row = session.sql(f"SELECT count(*) FROM samples('{set_ref}'){condition}").fetchone()
    return int(row[0]) if row is not None else 0
