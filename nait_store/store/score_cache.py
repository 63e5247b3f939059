"""The score cache: which scores a store keeps, for which sets and profiles, and taking some of them away."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from nait_store.errors import InvalidInputError
from nait_store.progress import ProgressEvent
from nait_store.scoring.sidecar_listing import ListedSidecar, list_sidecars
from nait_store.storage.provenance import now
from nait_store.store.garbage.items import Ages, Garbage, GarbageKind, weigh
from nait_store.store.garbage.loose import take_scores
from nait_store.store.score_owners import ScoreOwners
from nait_store.store.score_pruning import Pruning

if TYPE_CHECKING:
    from nait_store.schemas.scores import SidecarRecord
    from nait_store.store.facade import Store
    from nait_store.store.garbage.roots import Held


@dataclass(frozen=True)
class CachedScores:
    """The kept scores of one set under one profile's directions.

    Attributes
    ----------
    set
        Name of the set that the segments belong to; None where no version, deleted ones included, has them any more.
    set_ref
        The version that :attr:`n_covered` is about: the one asked for, else the latest; None where there is none.
    profiles
        Every profile version with these directions, deleted ones that can be brought back included; empty where
        there is none any more.
    directions_sha256, feature, metric
        What was scored: with the segment, all that scores depend on.
    n_segments, n_covered
        Segments of that version, and those of them whose scores are kept.
    n_sidecars, n_rows, size_bytes
        Kept in all, for segments of other versions too.
    oldest_at, newest_at
        When the first and the last of them were written; None where the filesystem does not say.
    """

    set: str | None
    set_ref: str | None
    profiles: tuple[str, ...]
    directions_sha256: str
    feature: str
    metric: str
    n_segments: int
    n_covered: int
    n_sidecars: int
    n_rows: int
    size_bytes: int
    oldest_at: datetime | None
    newest_at: datetime | None


@dataclass(frozen=True)
class CacheListing:
    """What the score cache holds.

    Attributes
    ----------
    scores
        One entry for each set and directions, the largest first.
    unusable
        Sidecars that no reader believes, with the reason: damaged, unfinished, or of an earlier release's arithmetic.
    unknown
        Sets and profiles that cannot be read, so that it is not known what belongs to them.
    """

    scores: tuple[CachedScores, ...]
    unusable: tuple[Garbage, ...]
    unknown: tuple[Held, ...]

    @property
    def n_sidecars(self) -> int:
        """Sidecars in all."""
        return sum(one.n_sidecars for one in self.scores) + len(self.unusable)

    @property
    def size_bytes(self) -> int:
        """Bytes in all."""
        return sum(one.size_bytes for one in self.scores) + sum(item.size_bytes for item in self.unusable)


@dataclass(frozen=True)
class PruneReport:
    """What a prune took, or would take.

    Attributes
    ----------
    dry_run
        Whether nothing was changed.
    pruned
        The sidecars that went, each with the reason.
    n_left, left_bytes
        Sidecars that stay, in all.
    unknown
        Sets and profiles that cannot be read, so that nothing was judged to belong to none.
    """

    dry_run: bool
    pruned: tuple[Garbage, ...]
    n_left: int
    left_bytes: int
    unknown: tuple[Held, ...]

    @property
    def freed_bytes(self) -> int:
        """Bytes that went."""
        return sum(item.size_bytes for item in self.pruned)


class ScoreCache:
    """The kept scores of a store.

    All of it can be computed again, so nothing here can lose anything, nor harm a query that runs meanwhile: what it
    misses it computes.

    Parameters
    ----------
    store
        The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, *, set: str | None = None, profile: str | None = None) -> CacheListing:  # noqa: A002
        """Describe what is kept; reads no score.

        Parameters
        ----------
        set, profile
            Only the scores of this set, or version of it, ``pool@3``; and under this profile, or version of it.

        Raises
        ------
        NotFoundError
            Unknown set or profile.
        """
        owners = ScoreOwners.of(self._store)
        chosen = _Choice.of(owners, set, profile)
        groups: dict[tuple[str, str, str, str], list[ListedSidecar]] = {}
        unusable = []
        for sidecar in list_sidecars(self._store.location):
            record = sidecar.record
            if not chosen.has(record):
                continue
            if record is None or sidecar.problem:
                unusable.append(weigh(GarbageKind.SCORES, sidecar.path, sidecar.problem, sidecar.files))
                continue
            name = owners.sets.get(record.segment_sha256, "")
            key = (name, record.directions_sha256, record.feature.value, record.metric.value)
            groups.setdefault(key, []).append(sidecar)
        scores = [_described(owners, chosen, key, group) for key, group in groups.items()]
        scores.sort(key=lambda one: (-one.size_bytes, one.set or "", one.profiles, one.feature, one.metric))
        return CacheListing(tuple(scores), tuple(unusable), owners.unknown)

    def prune(
        self,
        *,
        set: str | None = None,  # noqa: A002
        profile: str | None = None,
        older_than: timedelta | None = None,
        max_bytes: int | None = None,
        everything: bool = False,
        dry_run: bool = False,
    ) -> PruneReport:
        """Take scores away: those that nothing can ask for any more, and those that are chosen.

        Nothing can ask for scores whose segment no version has any more, or whose directions no profile has; deleted
        versions that can be brought back count. Nor is anything read that is damaged, unfinished, or of an earlier
        release's arithmetic. What is younger than an hour is left, because somebody may be about to refer to it.

        Parameters
        ----------
        set, profile
            Look at the scores of this set (``pool``), of this version's segments (``pool@3``), under this profile only;
            with neither ``older_than`` nor ``max_bytes`` all of those are taken.
        older_than
            Take what was written longer ago. When scores were last read is not known.
        max_bytes
            Take more until this much is left: first what serves no latest version of a set and profile, then what
            was written first.
        everything
            Take all of it.
        dry_run
            Whether to change nothing.

        Raises
        ------
        NotFoundError
            Unknown set or profile.
        InvalidInputError
            A negative duration or size; ``everything`` with a choice.
        ReadOnlyError
            The store cannot be written.
        """
        if everything and any(choice is not None for choice in (set, profile, older_than, max_bytes)):
            raise InvalidInputError(
                "all scores and some of them cannot be chosen at once", next_step="leave --all out, or say nothing else"
            )
        if (older_than is not None and older_than < timedelta()) or (max_bytes is not None and max_bytes < 0):
            raise InvalidInputError("an age or a size cannot be negative", next_step="write for example 30d, or 10GB")
        if not dry_run:
            self._store.location.require_writable()
        owners = ScoreOwners.of(self._store)
        chosen = _Choice.of(owners, set, profile)
        pruning = Pruning(owners, Ages(now(), timedelta()))
        found = list(list_sidecars(self._store.location))
        left = pruning.take_unwanted(one for one in found if chosen.has(one.record))
        if older_than is not None:
            left = pruning.take_older(left, older_than)
        if max_bytes is not None:
            left = pruning.take_excess(left, max_bytes)
        if everything or (chosen.spelled and older_than is None and max_bytes is None):
            left = pruning.take_all(left, chosen.spelled or "all scores were to go")
        pruned = tuple(pruning.taken if dry_run else self._delete(pruning.taken))
        left_bytes = sum(one.size_bytes for one in found) - sum(item.size_bytes for item in pruned)
        return PruneReport(dry_run, pruned, len(found) - len(pruned), left_bytes, owners.unknown)

    def _delete(self, garbage: Sequence[Garbage]) -> Iterator[Garbage]:
        began = time.monotonic()
        n_bytes = 0
        for done, item in enumerate(take_scores(self._store.location, garbage), 1):
            n_bytes += item.size_bytes
            elapsed = time.monotonic() - began
            self._store.progress(
                ProgressEvent("prune", done, len(garbage), bytes_done=n_bytes, elapsed_seconds=elapsed)
            )
            yield item


@dataclass(frozen=True)
class _Choice:
    """The sidecars of a set and a profile, where those are named."""

    spelled: str
    set_ref: str | None
    segments: Collection[str] | None
    directions: Collection[str] | None

    @classmethod
    def of(cls, owners: ScoreOwners, set_text: str | None, profile_text: str | None) -> _Choice:
        set_ref, segments = (None, None) if set_text is None else owners.segments_of(set_text)
        directions = None if profile_text is None else owners.directions_of(profile_text)
        spelled = []
        if set_text is not None:
            spelled.append(f"of set {set_text}")
        if profile_text is not None:
            spelled.append(f"under profile {profile_text}")
        return cls(" ".join(["scores", *spelled]) if spelled else "", set_ref, segments, directions)

    def has(self, record: SidecarRecord | None) -> bool:
        if self.segments is None and self.directions is None:
            return True
        if record is None:
            return False
        in_set = self.segments is None or record.segment_sha256 in self.segments
        return in_set and (self.directions is None or record.directions_sha256 in self.directions)


def _described(
    owners: ScoreOwners, chosen: _Choice, key: tuple[str, str, str, str], group: Sequence[ListedSidecar]
) -> CachedScores:
    name, directions, feature, metric = key
    latest = owners.latest.get(name)
    set_ref, segments = (latest.reference, latest.segments) if latest is not None else (None, frozenset[str]())
    if chosen.set_ref is not None and chosen.segments is not None:
        set_ref, segments = chosen.set_ref, frozenset(chosen.segments)
    records = [sidecar.record for sidecar in group if sidecar.record is not None]
    times = [sidecar.written_at for sidecar in group if sidecar.written_at is not None]
    return CachedScores(
        set=name or None,
        set_ref=set_ref,
        profiles=tuple(owners.profiles.get(directions, ())),
        directions_sha256=directions,
        feature=feature,
        metric=metric,
        n_segments=len(segments),
        n_covered=len({record.segment_sha256 for record in records} & segments),
        n_sidecars=len(group),
        n_rows=sum(record.n_rows for record in records),
        size_bytes=sum(sidecar.size_bytes for sidecar in group),
        oldest_at=min(times, default=None),
        newest_at=max(times, default=None),
    )
