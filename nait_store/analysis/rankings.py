"""The candidates of a set as several profiles rank them: what analyses of profiles begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.versions import SetVersion
from nait_store.errors import InvalidInputError
from nait_store.registry.profiles import Profile
from nait_store.schemas.selection import ProfileWeight
from nait_store.selection.budget import parse_budget
from nait_store.selection.candidates import find_candidates
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.strategies import require_distinct

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession


@dataclass(frozen=True)
class Rankings:
    """Candidates with their scores and ranks under P profiles.

    Attributes
    ----------
    set_ref
        The set version, resolved.
    where
        Condition that the candidates meet; None for all samples of the set.
    profiles
        References, resolved, in the order in which they were named.
    top
        How many are the best, as asked: ``10%``.
    n_best
        How many that is; of a share, rounded up.
    sample_ids
        [n].
    scores
        [P, n] float64, all of them finite.
    ranks
        [P, n] int64, from 1; equal scores by id, as in a selection.
    """

    set_ref: str
    where: str | None
    profiles: tuple[str, ...]
    top: str
    n_best: int
    sample_ids: pa.ChunkedArray
    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]

    @property
    def n_candidates(self) -> int:
        """Samples to choose from."""
        return len(self.sample_ids)

    @property
    def is_best(self) -> NDArray[np.bool_]:
        """[P, n] Whether a sample is among the best under a profile: what ``select --top`` takes."""
        best: NDArray[np.bool_] = self.ranks <= self.n_best
        return best


def rank_candidates(
    session: QuerySession, version: SetVersion, profiles: Sequence[Profile], *, where: str | None, top: str | int
) -> Rankings:
    """Rank the candidates under every profile, by stored scores and a pass for those that are not, as ``select`` does.

    Parameters
    ----------
    session
        Of the store.
    version, profiles
        The set, and two profiles or more that apply to it.
    where
        Boolean SQL expression over the columns of ``samples(set)``.
    top
        How many are the best: ``10%``, or a number.

    Raises
    ------
    InvalidInputError
        Fewer than two profiles, or one named twice; a number larger than that of the candidates; no candidate; a
        condition that is none; scores that are not finite.
    NotFoundError
        The condition names an unknown column.
    """
    references = [profile.reference for profile in profiles]
    require_distinct(references, "name each profile once, or another version: math@1 math@2")
    if len(profiles) < 2:
        raise InvalidInputError(
            f"profiles are compared with each other, and there is only {references[0]}"
            if references
            else "profiles are compared with each other, and there is none",
            next_step="name two at least; 'nait-store profile list' shows them",
        )
    budget = parse_budget(top)
    # A union's candidates have all that is needed: scores, found to be finite, and ranks.
    request = SelectionRequest(
        version.reference, tuple(ProfileWeight(reference=reference) for reference in references), where=where
    )
    table = find_candidates(session, version, profiles, request, None).table
    described = version.reference if where is None else f"{version.reference} where {where}"
    n_best = budget.resolve(table.num_rows, described)
    numbers = range(1, len(references) + 1)
    return Rankings(
        set_ref=version.reference,
        where=where,
        profiles=tuple(references),
        top=budget.text,
        n_best=n_best,
        sample_ids=table.column("sample_id"),
        scores=np.stack([table.column(f"score_{i}").to_numpy() for i in numbers]),
        ranks=np.stack([table.column(f"rank_{i}").to_numpy() for i in numbers]),
    )
