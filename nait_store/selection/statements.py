"""The SQL of a selection: what is recorded with it gives its rows again.

The statement is a chain of common table expressions. Whoever runs it may put a table in the place of the first of them,
``candidates``, of ``ranked``, which is the candidates with their ranks, or of ``placed``, which is these in one order:
the former are the expensive ones, and out of the latter duplicates are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.query.spelling import identifier, literal
from nait_store.selection.budget import Budget
from nait_store.selection.quotas import Division
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.strategies import Combine, FuseBy, Strategy

RRF_CONSTANT = 60
_LENGTH_CLASSES = 20
CANDIDATES, RANKED, PLACED = "candidates", "ranked", "placed"


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of a profile's scores over the candidates."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Limits:
    """How many are taken, in numbers.

    Attributes
    ----------
    n_samples
        At most, in all or in each group; a share is of each group.
    division
        What the values of a column give, in tokens where there is a budget and in samples where there is none.
    n_best
        Rank up to which a sample is among the top of a profile; None where nobody asks how many profiles agree on it.
    """

    n_samples: Budget
    division: Division | None = None
    n_best: int | None = None


@dataclass(frozen=True)
class Lengths:
    """Lengths of some samples in tokens, in classes.

    Attributes
    ----------
    least, most
        The shortest and the longest.
    edges
        Where classes end, ascending; the last one ends with the longest.
    """

    least: int
    most: int
    edges: tuple[int, ...]

    @classmethod
    def of(cls, n_tokens: NDArray[np.int64]) -> Lengths:
        """Twentieths of the samples; fewer classes where many are equally long."""
        shares = np.linspace(0, 1, _LENGTH_CLASSES + 1)[1:-1]
        edges = np.unique(np.quantile(n_tokens, shares, method="inverted_cdf"))
        return cls(int(n_tokens.min()), int(n_tokens.max()), tuple(int(edge) for edge in edges))


class SelectionStatement:
    """Spells the parts of the query for one request.

    Parameters
    ----------
    request
        With resolved references.
    moments
        Of every profile where scores are put in standard deviations; empty otherwise.
    embedding
        Query of ``row_id`` and ``score_1`` that gives the scores instead of a profile.
    """

    def __init__(
        self, request: SelectionRequest, moments: Sequence[Moments] = (), *, embedding: str | None = None
    ) -> None:
        self._request = request
        self._moments = moments
        self._embedding = embedding
        self._numbers = range(1, 1 + (1 if embedding is not None else len(request.profiles)))

    @property
    def has_ranks(self) -> bool:
        """Whether ranks under each profile are needed, for the order or for what is taken."""
        by_rank = self._request.effective_combine in (Combine.UNION, Combine.RRF)
        return by_rank or self._request.min_profiles is not None

    @property
    def has_moments(self) -> bool:
        """Whether scores are put in standard deviations from the mean."""
        return self._request.effective_combine in (Combine.UNION, Combine.SUM, Combine.MIN)

    def candidates(self, group: str | None, *, scored: bool = False) -> str:
        """The samples to choose from: id, tokens, group, and a column of scores for each profile.

        Parameters
        ----------
        group
            Column of the user's to group by.
        scored
            Whether the scores come from a table ``scored`` with ``sample_id`` and ``score_1`` …, instead of
            ``alignment``.
        """
        request = self._request
        named = "" if group is None else f", {identifier(group)}::VARCHAR AS group_value"
        fused = [f"fused_{i}" for i in range(1, len(request.fuse) + 1)]
        named += "".join(
            f", {identifier(column)}::DOUBLE AS {name}" for (column, _), name in zip(request.fused, fused, strict=True)
        )
        condition = "" if request.where is None else f" WHERE (\n{request.where}\n)"
        samples = f"SELECT row_id, sample_id, n_tokens{named} FROM samples({literal(request.set_ref)}){condition}"
        scores = "".join(f", score_{i}" for i in self._numbers)
        grouped = ", group_value" if group is not None else ""
        lines = [f"SELECT sample_id, n_tokens{grouped}{''.join(f', {name}' for name in fused)}{scores}"]
        lines.append(f"FROM ({samples})")
        if scored:
            lines.append("JOIN scored USING (sample_id)")
        elif self._embedding is not None:
            lines.append(f"JOIN (\n{self._embedding}\n) USING (row_id)")
        else:
            for i, profile in zip(self._numbers, request.profiles, strict=True):
                pair = f"{literal(request.set_ref)}, {literal(profile.reference)}"
                lines.append(f"JOIN (SELECT row_id, score AS score_{i} FROM alignment({pair})) USING (row_id)")
        return "\n".join(lines)

    def ranked(self) -> str:
        """The candidates with their rank under every profile."""
        direction = "" if self._request.strategy is Strategy.LOWEST else " DESC"
        ranks = (f"row_number() OVER (ORDER BY score_{i}{direction}, sample_id) AS rank_{i}" for i in self._numbers)
        return f"SELECT *, {', '.join(ranks)} FROM {CANDIDATES}"

    def scores(self) -> str:
        """Every candidate's one score, without an order: what a threshold and a knee are about."""
        return f"SELECT {self._score()} AS score FROM {self._source}"

    def chosen(self, limits: Limits) -> str:
        """The rows of the selection out of ``candidates`` or ``ranked``, beginning with ``WITH``."""
        return self._chain(self._order(limits), limits)

    def matched(self, limits: Limits, lengths: Lengths) -> str:
        """As :meth:`chosen`, but drawn by chance: as many of each length, and group, as that takes.

        Parameters
        ----------
        limits
            Of :meth:`chosen`.
        lengths
            Of what that takes.
        """
        return self._matched_chain(self._order(limits), limits, lengths)

    def whole(self, group: str | None, limits: Limits, lengths: Lengths | None = None) -> str:
        """The query that needs nothing but the store; ``lengths`` as for :meth:`matched`."""
        parts = [*self._first(group), *self._order(limits)]
        return self._chain(parts, limits) if lengths is None else self._matched_chain(parts, limits, lengths)

    def placed(self, limits: Limits) -> str:
        """Every candidate that may be chosen, in one order: ``place`` from 1, and what limits need of it."""
        return f"WITH {_listed(self._order(limits))}\nSELECT * FROM {PLACED} ORDER BY place"

    def taken(self, limits: Limits) -> str:
        """As :meth:`chosen`, but out of a table ``placed``; with ``place``."""
        return self._chain([], limits, also=", place")

    def reach(self, limits: Limits) -> str:
        """The last place in a table ``placed`` that :meth:`taken` depends on, where there is a budget of tokens.

        That is the first that the budget has no room for, or the last of all that it has.
        """
        counted = f"counted AS (\n{self._counted(limits)}\n)"
        before = self._limit(limits, tokens="tokens_so_far - n_tokens")
        return f"WITH {counted}\nSELECT coalesce(max(place), 0) FROM counted WHERE {before}"

    def ranking(self, group: str | None, limits: Limits) -> str:
        """The query that needs nothing but the store and gives the whole order, before limits and duplicates."""
        parts = [*self._first(group), *self._order(limits)]
        return (
            "-- every candidate in order, before duplicates are left out and limits applied\n"
            f"WITH {_listed(parts)}\nSELECT place AS rank, sample_id, score FROM {PLACED}\nORDER BY rank"
        )

    @property
    def _source(self) -> str:
        return RANKED if self.has_ranks else CANDIDATES

    def _first(self, group: str | None) -> list[tuple[str, str]]:
        first = [(CANDIDATES, self.candidates(group))]
        return [*first, (RANKED, self.ranked())] if self.has_ranks else first

    def _chain(self, before: list[tuple[str, str]], limits: Limits, *, also: str = "") -> str:
        parts = [*before, *self._counting(limits)]
        beginning = f"WITH {_listed(parts)}\n" if parts else ""
        columns = f"sample_id, score{self._profile_column}{also}"
        return (
            f"{beginning}SELECT row_number() OVER (ORDER BY place) AS rank, {columns}\n"
            f"FROM {parts[-1][0] if parts else PLACED}\nWHERE {self._limit(limits)}\nORDER BY rank"
        )

    def _matched_chain(self, before: list[tuple[str, str]], limits: Limits, lengths: Lengths) -> str:
        parts = [*before, *self._counting(limits)]
        group = ", group_value" if self._is_grouped(limits) else ""
        length = " + ".join(f"(n_tokens > {edge})::INTEGER" for edge in lengths.edges)
        taken = f"SELECT {length} AS length_class{group} FROM {parts[-1][0]} WHERE {self._limit(limits)}"
        chance = self._by_chance()
        drawn = (
            f"SELECT *, row_number() OVER (PARTITION BY length_class{group} ORDER BY {chance}) AS place_in_class\n"
            f"FROM (SELECT *, {length} AS length_class FROM combined)\n"
            f"WHERE n_tokens BETWEEN {lengths.least} AND {lengths.most}"
        )
        parts += [
            ("wanted", f"SELECT length_class{group}, count(*) AS n_wanted FROM ({taken}) GROUP BY ALL"),
            ("drawn", drawn),
        ]
        same = " AND drawn.group_value IS NOT DISTINCT FROM wanted.group_value" if group else ""
        return (
            f"WITH {_listed(parts)}\n"
            f"SELECT row_number() OVER (ORDER BY {chance}) AS rank, sample_id, score{self._profile_column}\n"
            f"FROM drawn JOIN wanted ON drawn.length_class = wanted.length_class{same}\n"
            "WHERE place_in_class <= n_wanted\nORDER BY rank"
        )

    def _order(self, limits: Limits) -> list[tuple[str, str]]:
        return [("combined", self._combined(limits)), (PLACED, self._placed())]

    def _counting(self, limits: Limits) -> list[tuple[str, str]]:
        if self._is_grouped(limits) or self._request.budget_tokens is not None:
            return [("counted", self._counted(limits))]
        return []

    @property
    def _profile_column(self) -> str:
        return ", profile" if self._request.effective_combine is Combine.UNION else ""

    def _by_chance(self) -> str:
        return f"sha256('{self._request.seed}:' || sample_id), sample_id"

    def _combined(self, limits: Limits) -> str:
        columns = ["sample_id", "n_tokens", f"{self._score()} AS score"]
        if limits.division is not None:
            values = ", ".join(map(literal, limits.division.named))
            columns.append(f"CASE WHEN group_value IN ({values}) THEN group_value END AS group_value")
        elif self._request.per is not None:
            columns += ["group_value", "count(*) OVER (PARTITION BY group_value) AS group_size"]
        if self._request.effective_combine is Combine.UNION:
            columns += [f"{self._turn()} AS turn", f"{self._through([str(i) for i in self._numbers])} AS through"]
            names = [literal(profile.reference) for profile in self._request.profiles]
            columns.append(f"{self._through(names)} AS profile")
        if limits.n_best is not None:
            agreeing = " + ".join(f"(rank_{i} <= {limits.n_best})::INTEGER" for i in self._numbers)
            columns.append(f"{agreeing} AS n_profiles")
        return f"SELECT {', '.join(columns)} FROM {self._source}"

    def _placed(self) -> str:
        request = self._request
        if request.strategy is Strategy.RANDOM:
            order = self._by_chance()
        elif request.effective_combine is Combine.UNION:
            order = "turn, through"
        else:
            # Reciprocal ranks count from the lowest score there, so that the highest of them come first all the same.
            upwards = request.strategy is Strategy.LOWEST and request.effective_combine is not Combine.RRF
            order = "score, sample_id" if upwards else "score DESC, sample_id"
        conditions = [] if request.min_score is None else [f"score >= {_number(request.min_score)}"]
        if request.min_profiles is not None:
            conditions.append(f"n_profiles >= {request.min_profiles}")
        kept = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT *, row_number() OVER (ORDER BY {order}) AS place FROM combined{kept}"

    def _counted(self, limits: Limits) -> str:
        within = "PARTITION BY group_value " if self._is_grouped(limits) else ""
        window = f"OVER ({within}ORDER BY place ROWS UNBOUNDED PRECEDING)"
        columns = []
        if self._is_grouped(limits):
            columns.append(f"row_number() OVER ({within}ORDER BY place) AS place_in_group")
        if self._request.budget_tokens is not None:
            columns.append(f"sum(n_tokens) {window} AS tokens_so_far")
        return f"SELECT *, {', '.join(columns)} FROM {PLACED}"

    def _limit(self, limits: Limits, *, tokens: str = "tokens_so_far") -> str:
        budget = self._request.budget_tokens
        if limits.division is not None:
            cases = " ".join(f"WHEN {literal(value)} THEN {n}" for value, n in limits.division.named.items())
            counted = tokens if budget is not None else "place_in_group"
            return f"{counted} <= CASE group_value {cases} ELSE {limits.division.others} END"
        place, share = "place_in_group" if self._is_grouped(limits) else "place", limits.n_samples.share
        if share is None:
            conditions = [f"{place} <= {limits.n_samples.count}"]
        elif share == 1:
            conditions = []
        else:
            top, bottom = share.numerator, share.denominator
            conditions = [f"{place} <= (group_size * {top} + {bottom - 1}) // {bottom}"]
        if budget is not None:
            conditions.append(f"{tokens} <= {budget}")
        return " AND ".join(conditions) or "true"

    def _is_grouped(self, limits: Limits) -> bool:
        return limits.division is not None or self._request.per is not None

    def _score(self) -> str:
        """The score, with the columns that are fused with it."""
        request = self._request
        if not request.fuse:
            return self._bare_score()
        weight = request.profiles[0].weight if len(request.profiles) == 1 else 1.0
        values = [(self._bare_score(), weight)]
        values += [(f"fused_{i}", weight) for i, (_, weight) in enumerate(request.fused, start=1)]
        return " + ".join(f"{_number(weight)} * {self._scaled(value)}" for value, weight in values)

    def _scaled(self, value: str) -> str:
        """From 0 to 1 over all candidates; 0 where all are equal."""
        if self._request.fuse_by is FuseBy.RANK:
            return f"percent_rank() OVER (ORDER BY {value})"
        lowest, highest = f"min({value}) OVER ()", f"max({value}) OVER ()"
        return f"coalesce(({value} - {lowest}) / nullif({highest} - {lowest}, 0), 0)"

    def _bare_score(self) -> str:
        combine, profiles = self._request.effective_combine, self._request.profiles
        if not self._numbers:
            return "NULL::DOUBLE"
        if combine is None:
            return "score_1"
        if combine is Combine.RRF:
            terms = (
                f"{_number(profile.weight)} / ({RRF_CONSTANT} + rank_{i})"
                for i, profile in zip(self._numbers, profiles, strict=True)
            )
            return " + ".join(terms)
        if combine is Combine.NORM:
            squares = (
                f"{_number(p.weight)} * score_{i} * score_{i}" for i, p in zip(self._numbers, profiles, strict=True)
            )
            return f"sqrt({' + '.join(squares)})"
        standard = [self._standard(i, one) for i, one in zip(self._numbers, self._moments, strict=True)]
        if combine is Combine.MIN:
            return f"least({', '.join(standard)})"
        if combine is Combine.UNION:
            return self._through(standard)
        return " + ".join(f"{_number(p.weight)} * {text}" for p, text in zip(profiles, standard, strict=True))

    @staticmethod
    def _standard(number: int, moments: Moments) -> str:
        """Standard deviations from the mean; nothing where all scores are equal."""
        if not moments.deviation:
            return f"(0e0 * score_{number})"
        return f"((score_{number} - {_number(moments.mean)}) / {_number(moments.deviation)})"

    def _turns(self) -> list[str]:
        """When a sample's turn would come under each profile: a profile of weight 2 has two turns to another's one."""
        profiles = zip(self._numbers, self._request.profiles, strict=True)
        return [f"rank_{i} / {_number(profile.weight)}" for i, profile in profiles]

    def _turn(self) -> str:
        return f"least({', '.join(self._turns())})"

    def _through(self, values: Sequence[str]) -> str:
        """Of one value for each profile, that of the profile whose turn brings the sample, the first of equal ones."""
        turn = self._turn()
        cases = "".join(f" WHEN {t} = {turn} THEN {value}" for t, value in zip(self._turns(), values, strict=True))
        return f"CASE{cases} END"


def _listed(parts: Sequence[tuple[str, str]]) -> str:
    return ",\n".join(f"{name} AS (\n{text}\n)" for name, text in parts)


def _number(value: float) -> str:
    """A DOUBLE in SQL: with an exponent, for without one DuckDB takes it for a decimal."""
    text = format(value, ".17e")
    return f"({text})" if value < 0 else text
