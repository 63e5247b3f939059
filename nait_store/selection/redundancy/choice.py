"""Choosing out of a ranking by more than rank: without duplicates, and diverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.errors import InvalidInputError
from nait_store.selection.budget import Budget, parse_budget
from nait_store.selection.candidates import Candidates
from nait_store.selection.redundancy.diversity import spread
from nait_store.selection.redundancy.duplicates import DuplicateKind
from nait_store.selection.redundancy.pruning import Examiner, PrunedRanking, with_new_places
from nait_store.selection.redundancy.text_duplicates import TextDuplicates
from nait_store.selection.redundancy.texts import SampleTexts
from nait_store.selection.redundancy.vector_duplicates import VectorDuplicates
from nait_store.selection.redundancy.vectors import SampleVectors
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.statements import PLACED, Limits

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession

_SPREAD_OVER = 3
"""Times the number to be taken."""


class Redundancy:
    """What a request says of duplicates and diversity.

    Parameters
    ----------
    session, sets, version
        Of the store, and what is chosen from.
    request
        What is asked for.

    Raises
    ------
    InvalidInputError
        ``among`` is no number or share.
    MissingExtraError
        Near duplicates need a package that is not installed.
    IncompatibleError
        The set stores no activations to compare.
    """

    def __init__(
        self, session: QuerySession, sets: ActivationSets, version: SetVersion, request: SelectionRequest
    ) -> None:
        self._session = session
        self._examiners = _examiners(session, sets, version, request)
        self._request = request
        self._among = _parse_among(request)
        self._vectors = None if request.diversity is None else SampleVectors(session, version, "--diversity")

    def n_among(self, limits: Limits, n_candidates: int, described: str) -> int | None:
        """Over how many of the best samples are spread; None where they are taken by rank.

        Parameters
        ----------
        limits
            How many are taken.
        n_candidates, described
            How many there are, and what they are, for messages.

        Raises
        ------
        InvalidInputError
            Fewer than are to be taken.
        """
        if self._request.diversity is None:
            return None
        n_wanted = limits.n_samples.count or 0
        if self._among is None:
            return min(n_candidates, _SPREAD_OVER * n_wanted)
        n_among = self._among.resolve(n_candidates, described, at_most=True)
        if n_among < n_wanted and self._request.quota is None and self._request.budget_tokens is None:
            raise InvalidInputError(
                f"--among {self._among.text} is {n_among:,} samples, and {n_wanted:,} are to be chosen of them",
                next_step="raise --among, or lower --top",
            )
        return n_among

    def choose(self, candidates: Candidates, limits: Limits, n_among: int | None) -> PrunedChoice:
        """Rank, drop duplicates from the best sample down, spread, and take what the limits allow of what is left.

        Parameters
        ----------
        candidates
            What to choose from.
        limits
            How many are taken.
        n_among
            Over how many of the best samples are spread; None: they are taken by rank.

        Raises
        ------
        InvalidInputError
            A sample without a text to compare.
        """
        statement = candidates.statement
        ranking = self._session.sql(statement.placed(limits), tables=candidates.tables).arrow().combine_chunks()
        pruned = PrunedRanking(ranking, self._examiners)
        if n_among is None:
            chosen = pruned.settle(lambda left: self._take(candidates, limits, left))
            return PrunedChoice(chosen, pruned, chosen)
        best = pruned.settle(lambda left: (left.slice(0, n_among), min(n_among, left.num_rows)))
        chosen, _ = self._take(candidates, limits, self._spread(candidates, limits, best))
        return PrunedChoice(chosen, pruned, best)

    def _take(self, candidates: Candidates, limits: Limits, left: pa.Table) -> tuple[pa.Table, int]:
        """What limits allow, and the last place that had a part in it."""
        statement, tables = candidates.statement, {PLACED: left}
        chosen = self._session.sql(statement.taken(limits), tables=tables).arrow()
        if candidates.request.budget_tokens is not None:
            row = self._session.sql(statement.reach(limits), tables=tables).fetchone()
            return chosen, int(row[0]) if row else 0
        return chosen, int(chosen.column("place").to_numpy().max()) if chosen.num_rows else 0

    def _spread(self, candidates: Candidates, limits: Limits, best: pa.Table) -> pa.Table:
        """The best in the order of diversity, as far as the limits can reach."""
        request = candidates.request
        assert request.diversity is not None
        assert self._vectors is not None
        one_number = limits.division is None and request.per is None and request.budget_tokens is None
        n = min(limits.n_samples.count or best.num_rows, best.num_rows) if one_number else best.num_rows
        points = self._vectors.sketches(self._vectors.row_ids(best.column("sample_id")))
        return with_new_places(best.take(pa.array(spread(points, n, request.diversity))))


@dataclass(frozen=True)
class PrunedChoice:
    """What was chosen, and out of what.

    Attributes
    ----------
    chosen
        ``rank``, ``sample_id``, ``score``, ``place``, and ``profile`` of a union.
    pruned
        The ranking, and what was dropped from it.
    reached
        The samples, with their ``place`` in what was left, down to the last of which the ranking was looked at.
    """

    chosen: pa.Table
    pruned: PrunedRanking
    reached: pa.Table


def _examiners(
    session: QuerySession, sets: ActivationSets, version: SetVersion, request: SelectionRequest
) -> list[Examiner]:
    """What finds the duplicates that a request names; nothing is read yet."""
    thresholds = {rule.kind: rule.threshold for rule in request.rules}
    found: list[Examiner] = []
    if thresholds.keys() & {DuplicateKind.EXACT, DuplicateKind.NEAR}:
        texts = SampleTexts(sets.location, session, version)
        found.append(TextDuplicates(texts, thresholds.get(DuplicateKind.NEAR)))
    if DuplicateKind.COSINE in thresholds:
        vectors = SampleVectors(session, version, "--drop-duplicates cosine")
        found.append(VectorDuplicates(vectors, thresholds[DuplicateKind.COSINE]))
    return found


def _parse_among(request: SelectionRequest) -> Budget | None:
    if request.among is None:
        return None
    try:
        return parse_budget(request.among)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"--among {request.among} is no number or share of the best",
            next_step="write e.g. --among 1500 or --among 30%",
        ) from error
