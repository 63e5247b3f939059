"""The SQL of a selection: what is recorded with it gives its rows again.

The statement is a chain of common table expressions. Whoever runs it may put a table in the place of the first of them,
``candidates``, or of ``ranked``, which is the candidates with their ranks: those are the expensive ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nait_store.query.spelling import identifier, literal
from nait_store.selection.budget import Budget
from nait_store.selection.quotas import Division
from nait_store.selection.requests import Combine, SelectionRequest, Strategy

RRF_CONSTANT = 60
CANDIDATES, RANKED = "candidates", "ranked"


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
    """

    n_samples: Budget
    division: Division | None = None


class SelectionStatement:
    """Spells the parts of the query for one request.

    Parameters
    ----------
    request
        With resolved references.
    moments
        Of every profile where scores are put in standard deviations; empty otherwise.
    """

    def __init__(self, request: SelectionRequest, moments: Sequence[Moments] = ()) -> None:
        self._request = request
        self._moments = moments
        self._numbers = range(1, len(request.profiles) + 1)

    @property
    def has_ranks(self) -> bool:
        """Whether the order is one of ranks under each profile."""
        return self._request.effective_combine in (Combine.UNION, Combine.RRF)

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
        condition = "" if request.where is None else f" WHERE (\n{request.where}\n)"
        samples = f"SELECT row_id, sample_id, n_tokens{named} FROM samples({literal(request.set_ref)}){condition}"
        scores = "".join(f", score_{i}" for i in self._numbers)
        lines = [f"SELECT sample_id, n_tokens{', group_value' if group is not None else ''}{scores}"]
        lines.append(f"FROM ({samples})")
        if scored:
            lines.append("JOIN scored USING (sample_id)")
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
        return self._chain([], limits)

    def whole(self, group: str | None, limits: Limits) -> str:
        """The query that needs nothing but the store."""
        first = [(CANDIDATES, self.candidates(group))]
        if self.has_ranks:
            first.append((RANKED, self.ranked()))
        return self._chain(first, limits)

    @property
    def _source(self) -> str:
        return RANKED if self.has_ranks else CANDIDATES

    def _chain(self, first: list[tuple[str, str]], limits: Limits) -> str:
        union = self._request.effective_combine is Combine.UNION
        parts = [*first, ("combined", self._combined(limits)), ("placed", self._placed())]
        if self._is_grouped(limits) or self._request.budget_tokens is not None:
            parts.append(("counted", self._counted(limits)))
        listed = ",\n".join(f"{name} AS (\n{text}\n)" for name, text in parts)
        through = ", profile" if union else ""
        return (
            f"WITH {listed}\n"
            f"SELECT row_number() OVER (ORDER BY place) AS rank, sample_id, score{through}\n"
            f"FROM {parts[-1][0]}\nWHERE {self._limit(limits)}\nORDER BY rank"
        )

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
        return f"SELECT {', '.join(columns)} FROM {self._source}"

    def _placed(self) -> str:
        request = self._request
        if request.strategy is Strategy.RANDOM:
            order = f"sha256('{request.seed}:' || sample_id), sample_id"
        elif request.effective_combine is Combine.UNION:
            order = "turn, through"
        else:
            # Reciprocal ranks count from the lowest score there, so that the highest of them come first all the same.
            upwards = request.strategy is Strategy.LOWEST and request.effective_combine is not Combine.RRF
            order = "score, sample_id" if upwards else "score DESC, sample_id"
        kept = "" if request.min_score is None else f" WHERE score >= {_number(request.min_score)}"
        return f"SELECT *, row_number() OVER (ORDER BY {order}) AS place FROM combined{kept}"

    def _counted(self, limits: Limits) -> str:
        within = "PARTITION BY group_value " if self._is_grouped(limits) else ""
        window = f"OVER ({within}ORDER BY place ROWS UNBOUNDED PRECEDING)"
        columns = []
        if self._is_grouped(limits):
            columns.append(f"row_number() OVER ({within}ORDER BY place) AS place_in_group")
        if self._request.budget_tokens is not None:
            columns.append(f"sum(n_tokens) {window} AS tokens_so_far")
        return f"SELECT *, {', '.join(columns)} FROM placed"

    def _limit(self, limits: Limits) -> str:
        budget = self._request.budget_tokens
        if limits.division is not None:
            cases = " ".join(f"WHEN {literal(value)} THEN {n}" for value, n in limits.division.named.items())
            counted = "tokens_so_far" if budget is not None else "place_in_group"
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
            conditions.append(f"tokens_so_far <= {budget}")
        return " AND ".join(conditions) or "true"

    def _is_grouped(self, limits: Limits) -> bool:
        return limits.division is not None or self._request.per is not None

    def _score(self) -> str:
        combine, profiles = self._request.effective_combine, self._request.profiles
        if not profiles:
            return "NULL::DOUBLE"
        if combine is None:
            return "score_1"
        if combine is Combine.RRF:
            terms = (
                f"{_number(profile.weight)} / ({RRF_CONSTANT} + rank_{i})"
                for i, profile in zip(self._numbers, profiles, strict=True)
            )
            return " + ".join(terms)
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


def _number(value: float) -> str:
    """A DOUBLE in SQL: with an exponent, for without one DuckDB takes it for a decimal."""
    text = format(value, ".17e")
    return f"({text})" if value < 0 else text
