"""The analysis of ratios over a store: which orders are traced, and which samples they are to bring first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nait_store.analysis.ratio import RatioReport, Targets, trace_ratios
from nait_store.errors import InvalidInputError, NaitStoreError
from nait_store.query.rows import check_condition
from nait_store.query.sources import WantedScores
from nait_store.query.spelling import identifier, literal
from nait_store.registry.sharing.reference_samples import content_hashes
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.strategies import Combine, parse_profiles
from nait_store.store.in_domain_rows import in_domain_rows

if TYPE_CHECKING:
    from nait_store.activations.set_version import SetVersion
    from nait_store.registry.profiles import Profile
    from nait_store.store.facade import Store


def report_ratios(
    store: Store,
    set_ref: str,
    *,
    profile: str | Sequence[str] | Mapping[str, float],
    combine: str | None,
    where: str | None,
    by: str,
    targets: str | None,
    force: bool,
) -> RatioReport:
    """Trace the curves; see :meth:`~nait_store.store.analyses.Analyses.ratio`."""
    profiles = parse_profiles(profile)
    if not profiles:
        raise InvalidInputError("no profile to rank by", next_step="name one: --profile math")
    combined = None if combine is None else Combine.parse(combine)
    weighted = [one.reference for one in profiles if one.weight != 1]
    if weighted and combined is None:
        raise InvalidInputError(
            f"{weighted[0]} has a weight, and each profile has a curve of its own", next_step="add --combine union"
        )
    if combined is None:
        requests = [SelectionRequest(set_ref, (one,), where=where, force=force) for one in dict.fromkeys(profiles)]
    else:
        requests = [SelectionRequest(set_ref, profiles, combine=combined, where=where, force=force)]
    for request in requests:
        request.check()
    # What is wrong shows before anything is computed.
    version = store.sets.open(set_ref)
    store.sql(f"SELECT {identifier(by)} FROM samples({literal(version.reference)}) LIMIT 0")
    for condition in filter(None, (where, targets)):
        check_condition(store.session, version, condition)
    if where is None:  # what no condition leaves out is scored in one pass for all profiles
        store.session.score([_wanted(version, store.profiles.open(one.reference)) for one in profiles])
    return trace_ratios(
        store.session,
        store.sets.versions,
        store.profiles.registry,
        requests,
        by=by,
        find_targets=lambda opened: _targets(store, opened, targets),
    )


def _wanted(version: SetVersion, profile: Profile) -> WantedScores:
    recipe = profile.record.recipe
    return WantedScores(version.reference, profile.reference, recipe.feature.value, recipe.metric.value)


def _targets(store: Store, profiles: Sequence[Profile], where: str | None) -> Targets:
    """The samples that a condition tells, else those that the profiles were built from."""
    if where is not None:
        return Targets(f"samples for which {where} holds", where=where)
    names = " and ".join(one.reference for one in profiles)
    described = f"samples that {names} {'was' if len(profiles) == 1 else 'were'} built from"
    hashes: set[str] = set()
    for profile in profiles:
        try:
            _, chosen = in_domain_rows(store, profile)
        except NaitStoreError as error:
            return Targets(described, unknown=error.what)
        hashes.update(content_hashes(chosen))
    return Targets(described, frozenset(hashes))
