"""Which projections a set keeps in the place of activations, where it does."""

from __future__ import annotations

from dataclasses import dataclass

from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.ingest.requests import IngestRequest
from nait_store.ingest.scored_profiles import ScoredProfiles, chosen_profiles, named_profiles
from nait_store.registry.compatibility import Candidates
from nait_store.schemas.activation_set import Projection, SetRecord
from nait_store.schemas.capture import StoredDtype
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location


@dataclass(frozen=True)
class KeptProjections:
    """The columns of a set that keeps projections only.

    Attributes
    ----------
    columns
        What ``set.json`` says of them.
    targets
        What gives each column.
    warnings
        What the user should know.
    """

    columns: tuple[Projection, ...]
    targets: tuple[ScoringTarget, ...]
    warnings: tuple[str, ...]


def kept_projections(
    location: Location, request: IngestRequest, existing: SetRecord | None, candidates: Candidates
) -> KeptProjections | None:
    """Say what an ingest keeps in the place of activations; None where it keeps activations.

    A set that exists decides, and its profiles are those that it was begun with.

    Parameters
    ----------
    location
        The store's root.
    request
        What was asked for.
    existing
        The set's record, if there is one; of the same capture.
    candidates
        The samples.

    Raises
    ------
    InvalidInputError
        Nothing would be kept, or in another dtype than float32.
    IncompatibleError
        The set keeps something else; or one of its profiles is gone, or has other directions by now.
    NotFoundError
        A profile that was named does not exist.
    """
    wants_none = request.keep_features == "none"
    if existing is None and not wants_none:
        return None
    if existing is not None and not existing.projections:
        if wants_none:
            raise IncompatibleError(
                f"set {existing.name!r} keeps activations, and keeps them of all its samples",
                next_step="leave --keep-features out, or ingest into a set of another name",
            )
        return None
    if request.keep_features == "all":
        raise IncompatibleError(
            f"set {request.set_name!r} keeps projections only, and no activations of any sample",
            next_step="leave --keep-features out, or ingest into a set of another name",
        )
    if request.dtype not in (None, StoredDtype.FLOAT32):
        raise InvalidInputError(
            f"projections are kept in float32, not in {request.dtype}", next_step="leave --dtype out"
        )
    if existing is None:
        return _begun(location, request, candidates)
    return _continued(location, request, existing, candidates)


def _begun(location: Location, request: IngestRequest, candidates: Candidates) -> KeptProjections:
    profiles = chosen_profiles(location, request.score_with, candidates)
    if not profiles.targets:
        raise InvalidInputError(
            f"no profile to project the samples of set {request.set_name!r} on, so nothing of them would be kept",
            next_step="build a profile first, from an in-domain set that keeps its activations: "
            "'nait-store profile build'; or leave --keep-features none out",
        )
    return _of(profiles)


def _continued(
    location: Location, request: IngestRequest, existing: SetRecord, candidates: Candidates
) -> KeptProjections:
    names = [one.profile for one in existing.projections]
    if request.score_with is not None:
        asked = named_profiles(location, request.score_with, candidates)
        if {target.identity for target in asked.targets} != {one.identity for one in existing.projections}:
            raise IncompatibleError(
                f"set {existing.name!r} keeps projections on {', '.join(names)} and no others",
                next_step="leave --score-with out, or ingest into a set of another name",
            )
    try:
        kept = _of(named_profiles(location, names, candidates))
    except NotFoundError as error:
        raise IncompatibleError(
            f"set {existing.name!r} keeps projections on {', '.join(names)}, and one is gone: {error.what}",
            next_step="bring the profile back, or ingest into a set of another name",
        ) from error
    by_identity = {target.identity: target for target in kept.targets}
    if set(by_identity) != {one.identity for one in existing.projections}:
        raise IncompatibleError(
            f"set {existing.name!r} was begun with other directions than {', '.join(names)} have by now",
            next_step="ingest into a set of another name",
        )
    targets = tuple(by_identity[one.identity] for one in existing.projections)
    return KeptProjections(existing.projections, targets, kept.warnings)


def _of(profiles: ScoredProfiles) -> KeptProjections:
    """One column for each target; profiles that give the same scores share the first one's."""
    distinct: dict[tuple[str, str, str], tuple[str, ScoringTarget]] = {}
    for reference, target in zip(profiles.references, profiles.targets, strict=True):
        distinct.setdefault(target.identity, (reference, target))
    columns = tuple(
        Projection(
            profile=reference,
            directions_sha256=target.directions_sha256,
            feature=target.feature,
            metric=target.metric,
            layers=target.layers,
        )
        for reference, target in distinct.values()
    )
    return KeptProjections(columns, tuple(target for _, target in distinct.values()), profiles.warnings)
