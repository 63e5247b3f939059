"""From names in a query to set versions and profile versions, each meaning one version throughout a statement."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.errors import IncompatibleError
from nait_store.refs import Kind, parse_reference
from nait_store.registry.compatibility import require_compatible
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.scoring.targets import ScoringTarget

T = TypeVar("T")
_REMEMBERED = 64


class Remembered(Generic[T]):
    """The latest of some immutable things, by their resolved reference."""

    def __init__(self, limit: int = _REMEMBERED, forget: Callable[[T], object] | None = None) -> None:
        self._limit = limit
        self._forget = forget
        self._things: dict[str, T] = {}

    def get(self, reference: str, make: Callable[[], T]) -> T:
        """Return the thing of this reference, made now if it is not remembered."""
        if reference in self._things:
            self._things[reference] = self._things.pop(reference)
            return self._things[reference]
        thing = make()
        self._things[reference] = thing
        while len(self._things) > self._limit:
            self._drop(next(iter(self._things)))
        return thing

    def forget(self, reference: str) -> None:
        """Forget one thing, if it is remembered."""
        if reference in self._things:
            self._drop(reference)

    def __len__(self) -> int:
        return len(self._things)

    def clear(self) -> None:
        """Forget everything."""
        for reference in list(self._things):
            self._drop(reference)

    def _drop(self, reference: str) -> None:
        thing = self._things.pop(reference)
        if self._forget is not None:
            self._forget(thing)


class Names:
    """Opens what references name and keeps what is immutable.

    Parameters
    ----------
    sets, registry
        Of one store.
    """

    def __init__(self, sets: ActivationSets, registry: ProfileRegistry) -> None:
        self.sets = sets
        self.registry = registry
        self.versions: Remembered[SetVersion] = Remembered()
        self.profiles: Remembered[Profile] = Remembered(1024)
        self.targets: Remembered[ScoringTarget] = Remembered()
        self.fits: Remembered[tuple[str, ...]] = Remembered(1024)

    def begin(self) -> StatementNames:
        """Begin a statement."""
        return StatementNames(self)


class StatementNames:
    """What the references of one statement mean; the first look at a name decides for the rest. Thread-safe."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._versions: dict[str, SetVersion] = {}
        self._profiles: dict[str, Profile] = {}
        self._lock = threading.RLock()

    def version(self, text: str) -> SetVersion:
        """The set version that a reference means.

        Raises
        ------
        NotFoundError, InvalidInputError
            Unknown set, version, alias or tag, with near names; not a reference.
        """
        with self._lock:
            reference = parse_reference(text, Kind.SET)
            known = self._versions.get(str(reference))
            if known is None:
                # Resolved anew in every statement: labels move, and versions are deleted.
                spelled = f"{reference.name}@{self._names.sets.resolve(reference)}"
                # A purge or a repair of anybody makes another thing of what was opened before it.
                n_redirects = len(self._names.sets.redirects(reference.name).records)
                known = self._names.versions.get(
                    f"{spelled} after {n_redirects} redirects", lambda: self._names.sets.open(spelled)
                )
                self._versions[str(reference)] = self._versions[known.reference] = known
            return known

    def latest_versions(self) -> list[SetVersion]:
        """The latest version of every set, by name."""
        return [self.version(name) for name in self._names.sets.names()]

    def latest_profiles(self) -> list[Profile]:
        """The latest version of every profile, by name."""
        return [self.profile(name) for name in self._names.registry.names()]

    def profile(self, text: str) -> Profile:
        """The profile version that a reference means; errors as :meth:`version`."""
        with self._lock:
            reference = parse_reference(text, Kind.PROFILE)
            known = self._profiles.get(str(reference))
            if known is None:
                number = reference.version
                if number is None:
                    number = self._names.registry.resolve(reference)
                spelled = f"{reference.name}@{number}"
                known = self._names.profiles.get(spelled, lambda: self._names.registry.open(spelled))
                self._profiles[str(reference)] = self._profiles[known.reference] = known
            return known

    def target(self, profile: Profile, metric: Metric | None = None, feature: Feature | None = None) -> ScoringTarget:
        """What a profile scores against, with its own metric and feature or others."""
        with self._lock:
            key = f"{profile.reference} {metric or ''} {feature or ''}"
            return self._names.targets.get(key, lambda: profile.target(metric, feature))

    def fit(self, profile: Profile, version: SetVersion, feature: Feature | None = None) -> tuple[str, ...]:
        """Warnings about a profile on a set version; IncompatibleError where it means nothing there."""
        with self._lock:
            return self._names.fits.get(
                f"{profile.reference} on {feature or ''} of {version.reference}",
                lambda: tuple(require_compatible(profile, version, feature=feature)),
            )

    def fitting_profiles(self, version: SetVersion, feature: Feature | None = None) -> list[Profile]:
        """The latest version of every profile that means something on a set version, by name."""
        found = []
        for profile in self.latest_profiles():
            try:
                self.fit(profile, version, feature)
            except IncompatibleError:
                continue
            found.append(profile)
        return found
