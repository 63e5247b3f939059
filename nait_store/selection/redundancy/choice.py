"""Choosing out of a ranking without duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.selection.candidates import Candidates
from nait_store.selection.redundancy.pruning import Examiner, PrunedRanking
from nait_store.selection.redundancy.rules import Kind
from nait_store.selection.redundancy.text_duplicates import TextDuplicates
from nait_store.selection.redundancy.texts import SampleTexts
from nait_store.selection.redundancy.vector_duplicates import VectorDuplicates
from nait_store.selection.redundancy.vectors import SampleVectors
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.statements import PLACED, Limits

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession


def examiners_of(
    session: QuerySession, sets: ActivationSets, version: SetVersion, request: SelectionRequest
) -> list[Examiner]:
    """What finds the duplicates that a request names; nothing is read yet.

    Raises
    ------
    MissingExtraError
        Near duplicates need a package that is not installed.
    IncompatibleError
        The set stores no activations to compare.
    """
    thresholds = {rule.kind: rule.threshold for rule in request.rules}
    found: list[Examiner] = []
    if thresholds.keys() & {Kind.EXACT, Kind.NEAR}:
        found.append(TextDuplicates(SampleTexts(sets.location, session, version), thresholds.get(Kind.NEAR)))
    if Kind.COSINE in thresholds:
        vectors = SampleVectors(session, version, "--drop-duplicates cosine")
        found.append(VectorDuplicates(vectors, thresholds[Kind.COSINE]))
    return found


def choose_without_duplicates(
    session: QuerySession, examiners: Sequence[Examiner], candidates: Candidates, limits: Limits
) -> tuple[pa.Table, PrunedRanking]:
    """Rank, drop duplicates from the best sample down, and take what the limits allow of those that are left.

    Parameters
    ----------
    session
        Of the store.
    examiners
        Find the duplicates.
    candidates
        What to choose from.
    limits
        How many are taken.

    Returns
    -------
    chosen
        ``rank``, ``sample_id``, ``score``, ``place``, and ``profile`` of a union.
    pruned
        The ranking, and what was dropped from it.

    Raises
    ------
    InvalidInputError
        A sample without a text to compare.
    """
    request, statement = candidates.request, candidates.statement
    ranking = session.sql(statement.placed(limits), tables=candidates.tables).arrow().combine_chunks()

    def choose(left: pa.Table) -> tuple[pa.Table, int]:
        tables = {PLACED: left}
        chosen = session.sql(statement.taken(limits), tables=tables).arrow()
        if request.budget_tokens is not None:
            row = session.sql(statement.reach(limits), tables=tables).fetchone()
            return chosen, int(row[0]) if row else 0
        return chosen, int(chosen.column("place").to_numpy().max()) if chosen.num_rows else 0

    pruned = PrunedRanking(ranking, examiners)
    return pruned.settle(choose), pruned
