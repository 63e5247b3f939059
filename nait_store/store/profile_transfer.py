"""How profiles transfer: what ranks what, and which samples stand for each profile's domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nait_store.errors import CorruptChunkError, InvalidInputError, NaitStoreError

if TYPE_CHECKING:
    from nait_store.analysis.rankings import Rankings
    from nait_store.analysis.transfer import DomainSamples, DomainSeparation, ProfileTransfer
    from nait_store.registry.profiles import Profile
    from nait_store.store.facade import Store


def analyze_transfer(
    store: Store,
    references: Sequence[str],
    *,
    on: str,
    top: str | int,
    where: str | None,
    domains: Mapping[str, str],
    force: bool,
) -> ProfileTransfer:
    """Compare profiles over a set; see :meth:`~nait_store.store.analyses.Analyses.transfer`."""
    from nait_store.analysis.rankings import rank_candidates
    from nait_store.analysis.transfer import compare_profiles
    from nait_store.query.rows import check_condition
    from nait_store.store.ranked_profiles import ranked_profiles

    version = store.sets.open(on)
    profiles, warnings = ranked_profiles(store, references, version, force=force)
    conditions = _conditions(store, profiles, domains)
    for condition in conditions.values():  # before anything is computed
        check_condition(store.session, version, condition)
    rankings = rank_candidates(store.session, version, profiles, where=where, top=top)
    found: list[DomainSamples | DomainSeparation] = []
    for profile in profiles:
        if profile.reference in conditions:
            found.append(_matching(store, profile, conditions[profile.reference], rankings))
        else:
            found.append(_in_domain(store, profile, profiles, rankings))
    return compare_profiles(store.session, rankings, found, warnings)


def _conditions(store: Store, profiles: Sequence[Profile], domains: Mapping[str, str]) -> dict[str, str]:
    """Resolved reference of a profile → condition that its domain meets."""
    found: dict[str, str] = {}
    ranking = {profile.reference for profile in profiles}
    for name, condition in domains.items():
        reference = store.profiles.open(name).reference
        if reference not in ranking or reference in found:
            problem = "its domain is given twice" if reference in found else "it is none of those that are compared"
            raise InvalidInputError(
                f"the domain of {name!r} is given, and {problem}", next_step="give each of the profiles one domain"
            )
        found[reference] = condition
    return found


def _matching(store: Store, profile: Profile, condition: str, rankings: Rankings) -> DomainSamples:
    """The candidates for which a condition holds."""
    import pyarrow.compute as pc

    from nait_store.analysis.transfer import DomainSamples

    query = f"SELECT sample_id FROM samples('{rankings.set_ref}') WHERE (\n{condition}\n)"
    matching = store.sql(query).arrow().column("sample_id").combine_chunks()
    is_domain = pc.is_in(rankings.sample_ids, matching).to_numpy()
    if is_domain.all() or not is_domain.any():
        what = "every candidate" if is_domain.all() else "no candidate"
        raise InvalidInputError(
            f"the domain of {profile.reference}, {condition!r}, is {what}: there is nothing to tell apart",
            next_step="give a condition that holds for some of them",
        )
    return DomainSamples(
        profile.reference, f"candidates where {condition}", condition, rankings.scores[:, is_domain], ~is_domain
    )


def _in_domain(
    store: Store, profile: Profile, profiles: Sequence[Profile], rankings: Rankings
) -> DomainSamples | DomainSeparation:
    """The samples that a profile was built from; why there are none where there are none any more."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from nait_store.analysis.transfer import DomainSamples, DomainSeparation
    from nait_store.registry.compatibility import require_compatible
    from nait_store.store.in_domain_rows import in_domain_rows

    try:
        source, chosen = in_domain_rows(store, profile)
        for other in profiles:
            require_compatible(other, source, force=True)
    except NaitStoreError as error:
        return DomainSeparation(profile.reference, unknown=error.what)
    is_other = pc.invert(pc.is_in(rankings.sample_ids, pa.array(chosen.sample_ids(), pa.string()))).to_numpy()
    if not is_other.any():
        return DomainSeparation(profile.reference, unknown=f"{profile.reference} was built from all of the candidates")
    rows = {segment.ordinal: indices for segment, indices in chosen.rows}
    by_ordinal = store.session.score_rows(source, [other.target() for other in profiles], rows)
    scores = np.concatenate([by_ordinal[ordinal] for ordinal in sorted(by_ordinal)]).T  # [P, m]
    if not np.isfinite(scores).all():
        raise CorruptChunkError(
            f"in-domain samples of {profile.reference} in {source.reference} have scores that are not finite",
            next_step="run 'nait-store verify' to see what is damaged",
        )
    what = f"{chosen.n_samples:,} in-domain sample{'s' if chosen.n_samples > 1 else ''} of {source.reference}"
    return DomainSamples(profile.reference, what, None, scores, is_other)
