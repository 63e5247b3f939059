"""Which profiles the samples of an ingest are scored against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nait_store.errors import NaitStoreError
from nait_store.ingest.capture_source import CaptureSource
from nait_store.refs import Kind
from nait_store.registry.compatibility import Candidates, differences, require_compatible
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.schemas.capture import Feature
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.labels import LabelKind, Labels
from nait_store.storage.location import Location

MOST_PROFILES = 64
"""That are scored unasked: their directions and the scores of a segment are held in memory."""


@dataclass(frozen=True)
class ScoredProfiles:
    """Profiles that mean something on the samples of an ingest.

    Attributes
    ----------
    references
        ``math@2`` …, sorted.
    targets
        What the samples are scored against.
    warnings
        What the user should know.
    """

    references: tuple[str, ...] = ()
    targets: tuple[ScoringTarget, ...] = ()
    warnings: tuple[str, ...] = ()


def candidates_of(capture: CaptureSource, set_name: str, features: Sequence[Feature]) -> Candidates:
    """The samples that an ingest is about to write, as compatibility looks at them.

    Parameters
    ----------
    capture
        What measures them.
    set_name
        The set that they go to.
    features
        What is measured of them.
    """
    return Candidates(
        set_name,
        capture.identity,
        capture.n_neurons,
        tuple(features),
        tuple(capture.layers),
        (capture.settings,),
        capture.environment.model_label,
        capture.environment.model_options,
    )


def chosen_profiles(location: Location, names: Sequence[str] | None, candidates: Candidates) -> ScoredProfiles:
    """Open those that somebody named; where nobody named any, those that apply."""
    if names is None:
        return applicable_profiles(location, candidates)
    return named_profiles(location, names, candidates)


def named_profiles(location: Location, names: Sequence[str], candidates: Candidates) -> ScoredProfiles:
    """Open the profiles that somebody named.

    Parameters
    ----------
    location
        The store's root.
    names
        References: ``math``, ``math@2``, ``math@prod``.
    candidates
        The samples.

    Raises
    ------
    NotFoundError
        Unknown profile, version or label, with near names.
    IncompatibleError
        A profile means nothing on these samples; naming each differing field.
    CorruptChunkError, FormatError
        A profile is damaged.
    """
    registry = ProfileRegistry(location)
    profiles = {profile.reference: profile for profile in map(registry.open, names)}
    warnings = [text for profile in profiles.values() for text in require_compatible(profile, candidates)]
    chosen = [profiles[reference] for reference in sorted(profiles)]
    return ScoredProfiles(
        tuple(profile.reference for profile in chosen),
        tuple(profile.target() for profile in chosen),
        tuple(warnings),
    )


def applicable_profiles(location: Location, candidates: Candidates) -> ScoredProfiles:
    """Open every profile that applies to the samples: its latest version, and those that an alias names.

    Where there are more than :data:`MOST_PROFILES`, those that were built last. Nobody asked for any of them: what
    cannot be read is left out, with a warning.

    Parameters
    ----------
    location
        The store's root.
    candidates
        The samples.
    """
    warnings: list[str] = []
    found = list(_applicable(location, candidates, warnings))
    found.sort(key=lambda profile: profile.record.provenance.created_at, reverse=True)
    if len(found) > MOST_PROFILES:
        warnings.append(
            f"{len(found):,} profiles apply to set {candidates.reference}; the {MOST_PROFILES} that were built last "
            "were scored meanwhile, the first query scores the others. --score-with names others"
        )
    references, targets = [], []
    for profile in sorted(found[:MOST_PROFILES], key=lambda profile: (profile.name, profile.number)):
        try:
            targets.append(profile.target())
        except NaitStoreError as error:
            warnings.append(_left_out(profile.reference, error))
        else:
            references.append(profile.reference)
    return ScoredProfiles(tuple(references), tuple(targets), tuple(warnings))


def _applicable(location: Location, candidates: Candidates, warnings: list[str]) -> Iterator[Profile]:
    registry, labels = ProfileRegistry(location), Labels(location, Kind.PROFILE)
    for name in registry.names():
        try:
            aliased = {label.version for label in labels.of(name) if label.kind is LabelKind.ALIAS}
            numbers = registry.numbers(name)
            for number in sorted(aliased.intersection(numbers) | set(numbers[-1:])):
                profile = registry.version(name, number)
                if all(difference.severity != "refuse" for difference in differences(profile.record, candidates)):
                    yield profile
        except NaitStoreError as error:
            warnings.append(_left_out(name, error))


def _left_out(name: str, error: NaitStoreError) -> str:
    return f"profile {name} was not scored meanwhile: {error.what}"
