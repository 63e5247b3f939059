"""The core of a set: candidates that several profiles have among their best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nait_store.analysis.rankings import Rankings
from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    from nait_store.selection.choosing import Selection


@dataclass(frozen=True)
class Agreement:
    """How many candidates are among the best of so many profiles or more.

    Attributes
    ----------
    min_profiles
        Of how many.
    n_samples
        Candidates that are.
    n_by_chance
        How many would be on average, were the rankings unrelated.
    """

    min_profiles: int
    n_samples: int
    n_by_chance: float


@dataclass(frozen=True)
class ValueCount:
    """Samples with one value of a column.

    Attributes
    ----------
    value
        As text; empty for none.
    n_core, n_candidates
        Of the core, and of all candidates.
    """

    value: str
    n_core: int
    n_candidates: int


@dataclass(frozen=True)
class CoreSet:
    """Candidates that several profiles have among their best.

    Attributes
    ----------
    set_ref, where, n_candidates
        What they were chosen from, resolved.
    profiles
        Resolved, in the order in which they were named.
    top, n_best
        How many are the best of each, as asked and in numbers.
    min_profiles
        Of how many profiles a sample of the core is among the best.
    agreements
        Of 1 profile, 2 … and all of them.
    by
        Column whose values are counted.
    values
        Of the core and of the candidates, those with most samples of the core first.
    warnings
        About the profiles' fit to the set.
    selection
        The core as what ``select`` gives: by the sum of the scores, each in standard deviations from the candidates'
        mean. None where the core is empty.
    rows
        Every sample of the core in that order: ``rank``, ``sample_id``, ``score``, ``n_profiles``, and under each
        profile's reference its rank there.
    """

    set_ref: str
    where: str | None
    n_candidates: int
    profiles: tuple[str, ...]
    top: str
    n_best: int
    min_profiles: int
    agreements: tuple[Agreement, ...]
    by: str
    values: tuple[ValueCount, ...]
    warnings: tuple[str, ...]
    selection: Selection | None = field(repr=False, compare=False)
    rows: pa.Table = field(repr=False, compare=False)

    @property
    def n_samples(self) -> int:
        """Samples of the core."""
        return int(self.rows.num_rows)

    def require_selection(self) -> Selection:
        """The core as a selection, to be saved or exported; InvalidInputError where it is empty."""
        if self.selection is not None:
            return self.selection
        most = next(one for one in reversed(self.agreements) if one.n_samples)
        raise InvalidInputError(
            f"the core is empty: no candidate is in the top {self.top} of {self.min_profiles} profiles or more",
            next_step=f"raise --top, or use --min-profiles {most.min_profiles}: {most.n_samples:,} candidates are in "
            f"that of {most.min_profiles}",
        )


def count_agreements(rankings: Rankings) -> tuple[Agreement, ...]:
    """Count the candidates that are among the best of 1 profile or more, of 2 …, of all."""
    n_tops = _n_tops(rankings)
    n_profiles, share = len(rankings.profiles), rankings.n_best / rankings.n_candidates
    exactly = [
        math.comb(n_profiles, n) * share**n * (1 - share) ** (n_profiles - n) * rankings.n_candidates
        for n in range(n_profiles + 1)
    ]
    return tuple(
        Agreement(least, int(np.count_nonzero(n_tops >= least)), math.fsum(exactly[least:]))
        for least in range(1, n_profiles + 1)
    )


def core_rows(rankings: Rankings, chosen: pa.Table) -> pa.Table:
    """Add to the rows of a selection in how many profiles' top each sample is, and its rank under each.

    Parameters
    ----------
    rankings
        Of the candidates.
    chosen
        ``rank``, ``sample_id``, ``score``.
    """
    places = pc.index_in(chosen.column("sample_id"), rankings.sample_ids.combine_chunks()).to_numpy()
    table = chosen.append_column("n_profiles", pa.array(_n_tops(rankings)[places]))
    for profile, ranks in zip(rankings.profiles, rankings.ranks, strict=True):
        table = table.append_column(profile, pa.array(ranks[places]))
    return table


def compare_values(core: Mapping[str, int], candidates: Mapping[str, int]) -> tuple[ValueCount, ...]:
    """Put how many samples of the core have a value beside how many candidates have it, most of the core first."""
    found = [ValueCount(value, core.get(value, 0), n) for value, n in candidates.items()]
    return tuple(sorted(found, key=lambda one: (-one.n_core, -one.n_candidates, one.value)))


def _n_tops(rankings: Rankings) -> NDArray[np.int64]:
    """[n] In the top of how many profiles a candidate is."""
    n_tops: NDArray[np.int64] = rankings.is_best.sum(axis=0, dtype=np.int64)
    return n_tops
