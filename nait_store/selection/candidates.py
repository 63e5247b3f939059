"""The candidates of a selection with their scores and ranks, as one table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nait_store.activations.versions import SetVersion
from nait_store.errors import InvalidInputError
from nait_store.query.rows import score_samples
from nait_store.query.spelling import identifier, literal
from nait_store.registry.profiles import Profile
from nait_store.schemas.selection import ProfileShare
from nait_store.selection.embedding import Embedding
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.statements import CANDIDATES, RANKED, Moments, SelectionStatement
from nait_store.selection.strategies import Combine, Strategy

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession


@dataclass(frozen=True)
class Candidates:
    """What a selection chooses from.

    Attributes
    ----------
    request
        With resolved references.
    table
        ``sample_id``, ``n_tokens``, ``group_value`` where there are groups, ``score_1`` … of every profile, and
        ``rank_1`` … where the order is one of ranks.
    statement
        The query over it.
    """

    request: SelectionRequest
    table: pa.Table
    statement: SelectionStatement

    @property
    def tables(self) -> dict[str, pa.Table]:
        """The table under the name that the statement calls it."""
        return {RANKED if self.statement.has_ranks else CANDIDATES: self.table}

    def scores(self, session: QuerySession) -> NDArray[np.float64]:
        """[n] The score of every candidate, all profiles combined."""
        found: NDArray[np.float64] = session.sql(self.statement.scores(), tables=self.tables).arrow()[0].to_numpy()
        return found

    def taken(self, chosen: pa.Table) -> pa.Table:
        """The rows of chosen samples, in the table's order."""
        return self.table.filter(pc.is_in(self.table.column("sample_id"), chosen.column("sample_id").combine_chunks()))

    def n_tokens(self, chosen: pa.Table) -> NDArray[np.int64]:
        """[n] Tokens of chosen samples."""
        found: NDArray[np.int64] = self.taken(chosen).column("n_tokens").to_numpy().astype(np.int64)
        return found

    def group_sizes(self) -> dict[str, int]:
        """Value of the column of groups → its candidates; samples without a value are left out."""
        counts = pc.value_counts(self.table.column("group_value").drop_null())
        return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))

    def shares(self, chosen: pa.Table) -> tuple[ProfileShare, ...]:
        """How the profiles share a selection.

        Parameters
        ----------
        chosen
            ``sample_id``, and ``profile`` where the profiles take turns.
        """
        is_chosen = pc.is_in(self.table.column("sample_id"), chosen.column("sample_id").combine_chunks()).to_numpy()
        through: dict[str, int] = {}
        if self.request.effective_combine is Combine.UNION:
            counts = pc.value_counts(chosen.column("profile"))
            through = dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
        order = None if self.statement.has_ranks else _by_id(self.table)
        found = []
        for i, profile in enumerate(self.request.profiles, start=1):
            if order is None:
                ranks = self.table.column(f"rank_{i}").to_numpy()
            else:
                ranks = _ranks(self.table.column(f"score_{i}").to_numpy(), order, self.request.strategy)
            in_top = int(np.count_nonzero(is_chosen & (ranks <= chosen.num_rows)))
            n_through = through.get(profile.reference, 0) if self.request.effective_combine is Combine.UNION else None
            found.append(ProfileShare(reference=profile.reference, n_in_own_top=in_top, n_through=n_through))
        return tuple(found)


def find_candidates(
    session: QuerySession,
    version: SetVersion,
    profiles: Sequence[Profile],
    request: SelectionRequest,
    group: str | None,
    embedding: Embedding | None = None,
) -> Candidates:
    """Score the candidates and rank them under every profile.

    With a condition, and scores that are not stored, the chunks that hold no candidate are not read.

    Parameters
    ----------
    session
        Of the store.
    version, profiles, request
        What to choose from, by what, and how; the request's references are resolved.
    group
        Column of the user's to group by.
    embedding
        What scores the candidates instead of the profiles.

    Raises
    ------
    NotFoundError
        There is no such column.
    InvalidInputError
        Scores that are not finite, or columns to be fused that are no numbers, or lack some.
    """
    # Before anything is computed.
    for column in filter(None, [group, *(name for name, _ in request.fused)]):
        session.sql(f"SELECT {identifier(column)} FROM samples({literal(version.reference)}) LIMIT 0")
    spelled = None if embedding is None else embedding.sql()
    statement = SelectionStatement(request, embedding=spelled)
    tables = {}
    if embedding is not None:
        condition = "" if request.where is None else f" WHERE (\n{request.where}\n)"
        query = f"SELECT row_id, sample_id FROM samples({literal(request.set_ref)}){condition} ORDER BY row_id"
        found = session.sql(query).arrow()
        scores = pa.array(embedding.scores(found.column("row_id").to_numpy()))
        tables["scored"] = pa.table({"sample_id": found.column("sample_id"), "score_1": scores})
    elif profiles and request.where is not None:
        names = ["sample_id", *(f"score_{i}" for i in range(1, len(profiles) + 1))]
        tables["scored"] = score_samples(session, version, profiles, request.where).rename_columns(names)
    table = session.sql(statement.candidates(group, scored=bool(tables)), tables=tables).arrow()
    for i, (column, _) in enumerate(request.fused, start=1):
        _require_numbers(table.column(f"fused_{i}"), column)
    moments = []
    if statement.has_moments:
        moments = [_moments(table.column(f"score_{i}").to_numpy()) for i in range(1, len(profiles) + 1)]
    if statement.has_ranks:
        order = _by_id(table)
        for i in range(1, len(profiles) + 1):
            ranks = _ranks(table.column(f"score_{i}").to_numpy(), order, request.strategy)
            table = table.append_column(f"rank_{i}", pa.array(ranks))
    return Candidates(request, table, SelectionStatement(request, moments, embedding=spelled))


def _require_numbers(values: pa.ChunkedArray, column: str) -> None:
    n_lacking = values.null_count + (pc.sum(pc.invert(pc.is_finite(values.drop_null()))).as_py() or 0)
    if n_lacking:
        raise InvalidInputError(
            f"{n_lacking:,} of {len(values):,} candidates have no number in {column}, which --fuse adds to the score",
            next_step=f'leave them out, e.g. --where "{column} IS NOT NULL"',
        )


def _moments(scores: NDArray[np.float64]) -> Moments:
    """Mean and standard deviation, the same to the last bit for every order of the scores."""
    n = max(len(scores), 1)
    mean = math.fsum(scores) / n
    deviation = math.sqrt(math.fsum((scores - mean) ** 2) / n)
    if not (math.isfinite(mean) and math.isfinite(deviation)):
        raise InvalidInputError(
            "some scores are not finite, so that they have no mean",
            next_step="find them with SELECT … WHERE NOT isfinite(score), and leave them out with --where",
        )
    return Moments(mean, deviation)


def _by_id(table: pa.Table) -> NDArray[np.uint64]:
    """[n] Row numbers in the order of sample ids, which decides between equal scores."""
    order: NDArray[np.uint64] = pc.sort_indices(table.column("sample_id")).to_numpy()
    return order


def _ranks(scores: NDArray[np.float64], by_id: NDArray[np.uint64], strategy: Strategy) -> NDArray[np.int64]:
    """[n] What ``row_number() OVER (ORDER BY score DESC, sample_id)`` gives, in a tenth of the time and memory."""
    in_order = scores[by_id]
    order = by_id[np.argsort(in_order if strategy is Strategy.LOWEST else -in_order, kind="stable")]
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[order] = np.arange(1, len(scores) + 1)
    return ranks
