"""The core of a set: what several profiles agree on, with what its samples are like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    from nait_store.analysis.core_set import CoreSet
    from nait_store.store.facade import Store


def analyze_core(
    store: Store,
    references: Sequence[str],
    *,
    on: str,
    top: str | int,
    min_profiles: int | None,
    where: str | None,
    by: str,
    force: bool,
) -> CoreSet:
    """Find what profiles agree on; see :meth:`~nait_store.store.analyses.Analyses.core`."""
    import pyarrow as pa

    from nait_store.analysis.core_set import CoreSet, compare_values, core_rows, count_agreements
    from nait_store.analysis.rankings import rank_candidates
    from nait_store.query.spelling import identifier, literal
    from nait_store.schemas.selection import SELECTION_SCHEMA
    from nait_store.store.ranked_profiles import ranked_profiles
    from nait_store.store.selection_details import values_of

    version = store.sets.open(on)
    set_ref = version.reference
    profiles, warnings = ranked_profiles(store, references, version, force=force)
    least = len(profiles) if min_profiles is None else min_profiles
    store.sql(f"SELECT {identifier(by)} FROM samples({literal(set_ref)}) LIMIT 0")  # before anything is computed
    if len(profiles) > 1 and not 1 <= least <= len(profiles):
        raise InvalidInputError(
            f"--min-profiles {least} is not between 1 and the number of profiles, {len(profiles)}",
            next_step="name more profiles, or ask for fewer of them",
        )
    rankings = rank_candidates(store.session, version, profiles, where=where, top=top)
    agreements = count_agreements(rankings)
    selection = None
    if agreements[least - 1].n_samples:
        selection = store.select(
            set_ref, profile=rankings.profiles, combine="sum", min_profiles=least, top=top, where=where, force=True
        )
    chosen = SELECTION_SCHEMA.empty_table() if selection is None else selection.rows
    candidates = pa.table({"sample_id": rankings.sample_ids})
    return CoreSet(
        set_ref=set_ref,
        where=where,
        n_candidates=rankings.n_candidates,
        profiles=rankings.profiles,
        top=rankings.top,
        n_best=rankings.n_best,
        min_profiles=least,
        agreements=agreements,
        by=by,
        values=compare_values(values_of(store, set_ref, chosen, by), values_of(store, set_ref, candidates, by)),
        warnings=tuple(warnings),
        selection=selection,
        rows=core_rows(rankings, chosen),
    )
