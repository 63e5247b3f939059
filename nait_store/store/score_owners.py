"""Whose scores are whose: the sets that segments belong to, and the profiles that have certain directions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from nait_store.errors import FormatError, NotFoundError, did_you_mean
from nait_store.refs import Kind, parse_reference
from nait_store.storage import layout
from nait_store.storage.provenance import now
from nait_store.store.garbage.items import Ages
from nait_store.store.garbage.references import SetReferences
from nait_store.store.garbage.roots import Held, Roots

if TYPE_CHECKING:
    from nait_store.store.facade import Store

_NEVER_OVER = timedelta(days=36_500)
"""As a grace period: whatever is not collected yet can be brought back."""


@dataclass(frozen=True)
class LatestVersion:
    """The latest visible version of a set.

    Attributes
    ----------
    reference
        ``pool@3``.
    segments
        SHA-256 of the ``segment.json`` of each of its segments.
    """

    reference: str
    segments: frozenset[str]


@dataclass(frozen=True)
class ScoreOwners:
    """What can ask for scores, at one moment.

    Attributes
    ----------
    store
        The store.
    sets
        SHA-256 of the ``segment.json`` of every segment that can be read, by a version that can be brought back too
        → name of its set.
    latest
        Name → the latest visible version of each set.
    profiles
        Digest of directions → the profile versions that have them, ``math@1``, in the order of their names; those
        that can be brought back too.
    latest_directions
        Digests of the directions of the latest visible version of each profile.
    unknown
        Sets and profiles that cannot be read.
    knows_sets, knows_profiles
        Whether all of them could be.
    """

    store: Store
    sets: Mapping[str, str]
    latest: Mapping[str, LatestVersion]
    profiles: Mapping[str, Sequence[str]]
    latest_directions: frozenset[str]
    unknown: tuple[Held, ...]
    knows_sets: bool
    knows_profiles: bool

    @classmethod
    def of(cls, store: Store) -> ScoreOwners:
        """Look through the documents of all sets and profiles, as gc does."""
        sets: dict[str, str] = {}
        latest: dict[str, LatestVersion] = {}
        damaged: list[Held] = []
        for name in store.location.names(layout.kind_folder(Kind.SET)):
            try:
                sets |= dict.fromkeys(SetReferences(store.location, name).look().digests, name)
                if store.sets.versions.numbers(name):
                    version = store.sets.open(name)
                    latest[name] = LatestVersion(version.reference, frozenset(r.record_sha256 for r in version.refs))
            except (FormatError, NotFoundError) as error:
                damaged.append(Held(f"set {name}", error.what))
        roots = Roots(store.location, Ages(now(), _NEVER_OVER))
        profiles = {
            directions: [spelled.removeprefix(f"{Kind.PROFILE}:") for spelled in references]
            for directions, references in roots.directions.items()
        }
        unread = [held for held in roots.unreadable if held.what.startswith(f"{Kind.PROFILE}:")]
        newest = {f"{name}@{store.profiles.registry.numbers(name)[-1]}" for name in store.profiles.names()}
        return cls(
            store=store,
            sets=sets,
            latest=latest,
            profiles=profiles,
            latest_directions=frozenset(d for d, found in profiles.items() if newest.intersection(found)),
            unknown=(*damaged, *unread),
            knows_sets=not damaged,
            knows_profiles=not unread,
        )

    @property
    def latest_segments(self) -> frozenset[str]:
        """Of the latest versions of all sets."""
        return frozenset(digest for version in self.latest.values() for digest in version.segments)

    def segments_of(self, text: str) -> tuple[str | None, Collection[str]]:
        """The version that a reference to a set names, if it names one, and the segments that are meant.

        Raises
        ------
        NotFoundError, InvalidInputError
            There is none; it is no reference.
        """
        parsed = parse_reference(text, Kind.SET)
        if "@" in text:  # a bare name means the latest version elsewhere, and all of them here
            version = self.store.sets.open(parsed)
            return version.reference, frozenset(ref.record_sha256 for ref in version.refs)
        known = self.store.sets.versions.log.all_names()
        if parsed.name not in known:
            raise NotFoundError(
                f"there is no set {parsed.name!r} in {self.store.url}", next_step=did_you_mean(parsed.name, known)
            )
        return None, frozenset(digest for digest, name in self.sets.items() if name == parsed.name)

    def directions_of(self, text: str) -> Collection[str]:
        """Digests of the directions of a profile's version, or of all its versions.

        Raises
        ------
        NotFoundError, InvalidInputError
            There is none; it is no reference.
        """
        parsed = parse_reference(text, Kind.PROFILE)
        if "@" in text:  # a bare name means the latest version elsewhere, and all of them here
            return frozenset([self.store.profiles.open(parsed).record.directions_sha256])
        by_name: dict[str, set[str]] = {}
        for directions, references in self.profiles.items():
            for reference in references:
                by_name.setdefault(reference.partition("@")[0], set()).add(directions)
        if parsed.name not in by_name:
            known = sorted(by_name)
            raise NotFoundError(
                f"there is no profile {parsed.name!r} in {self.store.url}", next_step=did_you_mean(parsed.name, known)
            )
        return by_name[parsed.name]
