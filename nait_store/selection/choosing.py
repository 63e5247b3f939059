"""Choosing: which samples of a set, in which order, under which query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.errors import InvalidInputError
from nait_store.query.rows import check_condition, score_samples
from nait_store.query.spelling import literal
from nait_store.refs import Kind, parse_reference
from nait_store.registry.compatibility import require_compatible
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.schemas.selection import SELECTION_SCHEMA, DroppedDuplicates, ProfileShare
from nait_store.selection.budget import EVERYTHING, Budget, parse_budget
from nait_store.selection.candidates import Candidates, find_candidates
from nait_store.selection.embedding import Embedding, InDomain
from nait_store.selection.knee import Knee, find_knee
from nait_store.selection.quotas import Division, Quota, parse_quota
from nait_store.selection.redundancy.choice import Redundancy
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.statements import Lengths, Limits
from nait_store.selection.strategies import Combine, FuseBy, Strategy, require_distinct

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession

_LOWEST_OF_UNION = (
    "the lowest of a union are each profile's lowest in turn, and these may be another's best: "
    "for a control of them all add --combine sum (combine='sum')"
)


@dataclass(frozen=True)
class Selection:
    """Ranked samples and how they came about.

    Attributes
    ----------
    rows
        ``rank`` from 1, ``sample_id``, ``score`` (null where there is no profile), in rank order. Under several
        profiles the score is in standard deviations from the candidates' mean (of ``rrf``: a sum of reciprocal ranks);
        that of a union is under the profile whose turn brought the sample.
    request
        What was asked for, its references resolved.
    n_candidates
        Samples to choose from, after ``where``.
    query
        SQL that gives ``rows`` again; where duplicates were dropped or diversity decided, the ranking before that.
    warnings
        What to know about the profiles' fit to the set, and about limits that were not reached.
    n_tokens
        Of all chosen samples; None where no option needed it.
    shares
        What each of several profiles gave.
    knee
        Where the curve of scores bends, if that decided the number.
    dropped
        How many duplicates are ranked above the last sample that was looked at, by kind.
    duplicates
        Those: ``sample_id``, ``duplicate_of`` (a better-ranked sample), ``kind``, ``similarity``, in rank order. None
        where none were looked for, and of a saved selection.
    """

    rows: pa.Table
    request: SelectionRequest
    n_candidates: int
    query: str
    warnings: tuple[str, ...] = ()
    n_tokens: int | None = None
    shares: tuple[ProfileShare, ...] = ()
    knee: Knee | None = None
    dropped: tuple[DroppedDuplicates, ...] = ()
    duplicates: pa.Table | None = None

    @property
    def set_ref(self) -> str:
        """What it was chosen from, ``pool@3``."""
        return self.request.set_ref

    @property
    def profile_ref(self) -> str | None:
        """What it was chosen by, ``math@2``; the first of several profiles."""
        return self.request.profiles[0].reference if self.request.profiles else None

    @property
    def strategy(self) -> Strategy:
        """How candidates were ordered."""
        return self.request.strategy

    @property
    def top(self) -> str:
        """As requested, ``10%``."""
        return self.request.effective_top

    @property
    def where(self) -> str | None:
        """As requested."""
        return self.request.where

    @property
    def seed(self) -> int | None:
        """None where chance has no part in it."""
        return self.request.seed if self.strategy.is_seeded else None

    @property
    def n_selected(self) -> int:
        """Number of samples chosen."""
        return int(self.rows.num_rows)

    @property
    def has_scores(self) -> bool:
        """Whether the samples have scores."""
        return self.request.has_scores

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Lowest and highest score chosen, or None without a profile."""
        if not self.has_scores or not self.n_selected:
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
        Impossible budget or quota, options that exclude each other, missing profile, or a ``where`` that is no boolean
        expression.
    IncompatibleError
        A profile was built on activations that mean something else.
    """
    request.check()
    top = parse_budget(request.effective_top)
    quota = None if request.quota is None else parse_quota(request.quota)
    version = sets.open(parse_reference(request.set_ref, Kind.SET))
    profiles = [registry.open(parse_reference(one.reference, Kind.PROFILE)) for one in request.profiles]
    warnings = [text for profile in profiles for text in require_compatible(profile, version, force=request.force)]
    if request.strategy is Strategy.LOWEST and request.effective_combine is Combine.UNION and not request.force:
        warnings.append(_LOWEST_OF_UNION)
    request = _resolved(request, sets, version, profiles, top)
    if request.where is not None:
        check_condition(session, version, request.where)
    described = request.set_ref if request.where is None else f"{request.set_ref} where {request.where}"
    if request.is_plain:
        return _select_plain(session, version, profiles, request, top, described, tuple(warnings))
    group = request.per if quota is None else quota.column
    embedding = None
    if request.strategy is Strategy.EMBEDDING:
        in_domain = InDomain.of(profiles[0]) if profiles else InDomain(request.in_domain or "")
        embedding = Embedding(session, sets, version, in_domain)
    redundancy = Redundancy(session, sets, version, request) if request.is_pruned else None
    candidates = find_candidates(session, version, profiles, request, group, embedding)
    knee = find_knee(candidates.scores(session)) if request.knee else None
    limits = _limits(candidates, top, quota, knee, described)
    choice = None
    if redundancy is not None:
        n_among = redundancy.n_among(limits, candidates.table.num_rows, described)
        request = request if n_among is None else replace(request, among=str(n_among))
        choice = redundancy.choose(candidates, limits, n_among)
        chosen = choice.chosen
    else:
        chosen = session.sql(candidates.statement.chosen(limits), tables=candidates.tables).arrow()
    n_tokens = _require_met(candidates, limits, quota, chosen)
    lengths = None
    if request.strategy is Strategy.LENGTH_MATCHED:
        lengths = Lengths.of(candidates.n_tokens(chosen))
        chosen = session.sql(candidates.statement.matched(limits, lengths), tables=candidates.tables).arrow()
        n_tokens = int(candidates.n_tokens(chosen).sum())
    if knee is not None and not knee.is_clear:
        warnings.append(knee.in_words)
    n_left = candidates.table.num_rows if choice is None else choice.pruned.n_left
    if request.rules and top.share != 1 and n_left < (limits.n_samples.count or 0):
        warnings.append(f"{limits.n_samples.count:,} samples were asked for; without duplicates {n_left:,} are left")
    return Selection(
        rows=_rows(chosen),
        request=request,
        n_candidates=candidates.table.num_rows,
        query=candidates.statement.whole(group, limits, lengths)
        if choice is None
        else candidates.statement.ranking(group, limits),
        warnings=tuple(dict.fromkeys(warnings)),
        n_tokens=n_tokens,
        shares=candidates.shares(chosen) if len(profiles) > 1 else (),
        knee=knee,
        dropped=() if choice is None else choice.pruned.dropped(choice.reached),
        duplicates=choice.pruned.duplicates(choice.reached) if choice is not None and request.rules else None,
    )


def _resolved(
    request: SelectionRequest, sets: ActivationSets, version: SetVersion, profiles: list[Profile], top: Budget
) -> SelectionRequest:
    """The request with what its references and defaults mean today."""
    named = tuple(
        one.model_copy(update={"reference": profile.reference})
        for one, profile in zip(request.profiles, profiles, strict=True)
    )
    require_distinct([one.reference for one in named], "name each profile once; a weight makes it count more")
    combine = request.effective_combine
    in_domain = request.in_domain
    if in_domain is not None:
        in_domain = sets.open(parse_reference(in_domain, Kind.SET)).reference
    fuse_by = (request.fuse_by or FuseBy.MINMAX) if request.fuse else None
    return replace(
        request,
        set_ref=version.reference,
        profiles=named,
        top=top.text,
        combine=combine,
        in_domain=in_domain,
        fuse_by=fuse_by,
        drop_duplicates=tuple(map(str, request.rules)),
    )


def _limits(candidates: Candidates, top: Budget, quota: Quota | None, knee: Knee | None, described: str) -> Limits:
    """Say in numbers how many are taken, as far as they do not depend on the order."""
    request, n = candidates.request, candidates.table.num_rows
    if request.min_profiles is not None:
        return Limits(Budget(EVERYTHING, share=Fraction(1)), n_best=top.resolve(n, described))
    if request.per is not None:
        top.resolve(n, described, at_most=True)
        return Limits(top)
    if quota is not None and request.budget_tokens is not None:
        return Limits(Budget(EVERYTHING, share=Fraction(1)), quota.divide(request.budget_tokens))
    if quota is not None and quota.is_counts and top.share == 1:
        n_samples = sum(amount.count or 0 for amount in quota.amounts.values())
    else:
        n_samples = top.resolve(n, described, at_most=request.min_score is not None)
    if knee is not None:
        n_samples = min(n_samples, knee.n_before)
    return Limits(Budget(str(n_samples), count=n_samples), None if quota is None else quota.divide(n_samples))


def _require_met(candidates: Candidates, limits: Limits, quota: Quota | None, chosen: pa.Table) -> int:
    """Refuse an empty selection, and one whose quotas are not met; returns the tokens of what was chosen."""
    request = candidates.request
    if not chosen.num_rows:
        what, next_steps = [], []
        if request.min_profiles is not None:
            what.append(f"no candidate is in the top {request.top} of {request.min_profiles} profiles or more")
            next_steps.append("raise --top or lower --min-profiles")
        if request.min_score is not None:
            what.append(f"no candidate has a score of {request.min_score:g} or more")
            next_steps.append("lower --min-score")
        if request.budget_tokens is not None:
            what.append(f"the first sample has more than {request.budget_tokens:,} tokens")
            next_steps.append("raise --budget-tokens")
        raise InvalidInputError(
            f"there is nothing to select: {' or '.join(what) or 'no group has a sample'}",
            next_step=next_steps[0] if next_steps else "raise --top",
        )
    taken = candidates.taken(chosen)
    if quota is not None and limits.division is not None:
        _require_quotas(candidates, quota, limits.division, taken)
    return int(pc.sum(taken.column("n_tokens")).as_py())


def _require_quotas(candidates: Candidates, quota: Quota, division: Division, taken: pa.Table) -> None:
    request = candidates.request
    there = candidates.group_sizes()
    named = pc.is_in(taken.column("group_value"), pa.array(list(division.named), pa.string()))
    for value, wanted in (*division.named.items(), (None, division.others)):
        mask = pc.invert(named) if value is None else pc.equal(taken.column("group_value"), value)
        mine = taken.filter(mask)
        n_all = (
            there.get(value, 0)
            if value is not None
            else candidates.table.num_rows - sum(there.get(one, 0) for one in division.named)
        )
        short = mine.num_rows < wanted if request.budget_tokens is None else mine.num_rows == n_all
        if not short or not wanted:
            continue
        who = f"{quota.column}={value}" if value is not None else f"other values of {quota.column}"
        if request.budget_tokens is None:
            amount, found = f"{wanted:,} samples", f"{mine.num_rows:,}"
        else:
            n_tokens = pc.sum(mine.column("n_tokens")).as_py() or 0
            if n_tokens == wanted:
                continue
            amount, found = f"{wanted:,} tokens", f"{n_tokens:,}"
        reached = " that reach --min-score" if request.min_score is not None else ""
        reached += " and have no better-ranked duplicate" if request.rules else ""
        listed = ", ".join(f"{name} ({n:,})" for name, n in sorted(there.items(), key=lambda item: -item[1])[:8])
        raise InvalidInputError(
            f"the quota of {who} is {amount}, and there are {found}{reached}; candidates by {quota.column}: {listed}",
            next_step="lower the quota or the total" + (", or --min-score" if request.min_score is not None else ""),
        )


def _rows(found: pa.Table) -> pa.Table:
    return found.select(SELECTION_SCHEMA.names).cast(SELECTION_SCHEMA).combine_chunks()


def _select_plain(
    session: QuerySession,
    version: SetVersion,
    profiles: list[Profile],
    request: SelectionRequest,
    top: Budget,
    described: str,
    warnings: tuple[str, ...],
) -> Selection:
    """The top of one order: a statement without columns of samples, so that no file of theirs is read for it."""
    profile = profiles[0] if profiles else None
    n_candidates = _count_candidates(session, request.set_ref, request.where)
    n_selected = top.resolve(n_candidates, described)
    query = plain_query(request, n_selected)
    if profile is not None and request.where is not None:
        rows = _rank_matching(session, version, profile, request, n_selected)
    else:
        rows = session.sql(query).arrow()
    return Selection(_rows(rows), request, n_candidates, query, warnings)


def plain_query(request: SelectionRequest, n_selected: int) -> str:
    """Spell the SQL of the best, lowest or random ``n_selected`` of a set under one profile or none.

    Parameters
    ----------
    request
        With resolved references.
    n_selected
        Number of samples.
    """
    set_ref = literal(request.set_ref)
    if request.profiles:
        source, score = f"alignment({set_ref}, {literal(request.profiles[0].reference)})", "score"
    else:
        source, score = f"samples({set_ref})", "NULL::DOUBLE"
    lines = [_ranking(request.strategy, request.seed, score), f"FROM {source}"]
    if request.where is not None:
        if request.profiles:
            lines.append(f"WHERE sample_id IN (SELECT sample_id FROM samples({set_ref}) WHERE ({request.where}\n))")
        else:
            lines.append(f"WHERE ({request.where}\n)")
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


def _count_candidates(session: QuerySession, set_ref: str, where: str | None) -> int:
    condition = "" if where is None else f" WHERE ({where}\n)"
    row = session.sql(f"SELECT count(*) FROM samples('{set_ref}'){condition}").fetchone()
    return int(row[0]) if row is not None else 0
