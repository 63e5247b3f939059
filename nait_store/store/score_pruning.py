"""Which score sidecars go: what nothing can ask for, and what is chosen by age, by size, or altogether."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from nait_store.scoring.sidecar_listing import ListedSidecar
from nait_store.store.garbage.collection import spell
from nait_store.store.garbage.items import Ages, Garbage, GarbageKind, weigh
from nait_store.store.garbage.loose import Wanted, why_unwanted
from nait_store.store.score_owners import ScoreOwners

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Pruning:
    """Decides which sidecars go; each step is given what the one before it left, and deletes nothing.

    Parameters
    ----------
    owners
        What can ask for scores.
    ages
        What is old enough to be an orphan.

    Attributes
    ----------
    taken
        What is to go, with the reasons.
    """

    def __init__(self, owners: ScoreOwners, ages: Ages) -> None:
        self._owners = owners
        self._ages = ages
        self._wanted = Wanted(
            segments=owners.sets if owners.knows_sets else None,
            doomed_segments=(),
            directions=owners.profiles if owners.knows_profiles else None,
        )
        self.taken: list[Garbage] = []

    def take_unwanted(self, sidecars: Iterable[ListedSidecar]) -> list[ListedSidecar]:
        """Take what nothing can ask for any more."""
        left = []
        for sidecar in sidecars:
            reason = why_unwanted(sidecar, self._ages, self._wanted)
            if reason is None:
                left.append(sidecar)
            else:
                self._take(sidecar, reason)
        return left

    def take_older(self, sidecars: Iterable[ListedSidecar], age: timedelta) -> list[ListedSidecar]:
        """Take what was written longer ago."""
        left = []
        for sidecar in sidecars:
            written = sidecar.written_at
            if written is None or written > self._ages.now - age or not self._is_finished(sidecar):
                left.append(sidecar)
            else:
                self._take(sidecar, f"written more than {spell(age)} ago")
        return left

    def take_excess(self, sidecars: Sequence[ListedSidecar], limit_bytes: int) -> list[ListedSidecar]:
        """Take more until so much is left: what serves no latest version first, then what was written first."""
        excess = sum(one.size_bytes for one in sidecars) - limit_bytes
        left = []
        for sidecar in sorted(sidecars, key=self._turn):
            if excess <= 0 or not self._is_finished(sidecar):
                left.append(sidecar)
            else:
                excess -= sidecar.size_bytes
                self._take(sidecar, f"more than {limit_bytes:,} bytes were kept")
        return left

    def take_all(self, sidecars: Iterable[ListedSidecar], reason: str) -> list[ListedSidecar]:
        """Take all of it, for the reason given."""
        left = []
        for sidecar in sidecars:
            if self._is_finished(sidecar):
                self._take(sidecar, reason)
            else:
                left.append(sidecar)
        return left

    def _turn(self, sidecar: ListedSidecar) -> tuple[bool, datetime, str]:
        record = sidecar.record
        serves_latest = (
            record is not None
            and record.segment_sha256 in self._owners.latest_segments
            and record.directions_sha256 in self._owners.latest_directions
        )
        return serves_latest, sidecar.written_at or _LONG_AGO, sidecar.key

    @staticmethod
    def _is_finished(sidecar: ListedSidecar) -> bool:
        """Whether it has its record: what has none, and is too young to be an orphan, somebody is writing."""
        return sidecar.record is not None

    def _take(self, sidecar: ListedSidecar, reason: str) -> None:
        self.taken.append(weigh(GarbageKind.SCORES, sidecar.path, reason, sidecar.files))
