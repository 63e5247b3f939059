"""Garbage collection: taking what nothing needs any more, safely beside everybody who works in the store.

What is kept and why, and in which order things go, is written down in docs/format.md, "Garbage".
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from nait_store.errors import FormatError, InvalidInputError, NaitStoreError, NotFoundError, did_you_mean
from nait_store.progress import ProgressEvent
from nait_store.refs import Kind, check_name
from nait_store.schemas.activation_set import SetManifest
from nait_store.storage import layout
from nait_store.storage.provenance import now
from nait_store.storage.versions import VersionLog
from nait_store.store.garbage.items import DEFAULT_GRACE, Ages, Garbage
from nait_store.store.garbage.loose import (
    Wanted,
    score_garbage,
    take_scores,
    take_unfinished,
    unfinished_garbage,
)
from nait_store.store.garbage.payloads import PayloadGarbage
from nait_store.store.garbage.roots import Held, Roots
from nait_store.store.garbage.sets import SetGarbage

if TYPE_CHECKING:
    from nait_store.schemas.record import Document
    from nait_store.storage.location import Location
    from nait_store.store.facade import Store

_LONGEST = timedelta(days=36_500)


@dataclass(frozen=True)
class ExpiryPolicy:
    """Which visible versions of sets are deleted; the latest never is, nor what a label, selection or profile needs.

    Attributes
    ----------
    keep_last
        So many of the newest versions of each set stay.
    older_than
        Younger versions stay. Where both are given a version goes only if both let it.
    """

    keep_last: int | None = None
    older_than: timedelta | None = None

    @property
    def reason(self) -> str:
        """Recorded with the deletion."""
        parts = []
        if self.keep_last is not None:
            parts.append(f"not among the last {self.keep_last}")
        if self.older_than is not None:
            parts.append(f"older than {spell(self.older_than)}")
        return "gc: " + " and ".join(parts)


@dataclass(frozen=True)
class Expired:
    """A version that was deleted by policy, and can be brought back for the grace period.

    Attributes
    ----------
    reference
        ``pool@1``.
    reason
        Which policy.
    """

    reference: str
    reason: str


@dataclass(frozen=True)
class GcReport:
    """What a garbage collection took, or would take.

    Attributes
    ----------
    dry_run
        Whether nothing was changed.
    grace_seconds
        How long deleted versions and orphans are left.
    garbage
        What went, in this order.
    expired
        Versions that the policy deleted; their data go with a later run.
    held
        Deleted versions that stay, and what could not be judged, with the reason.
    """

    dry_run: bool
    grace_seconds: float
    garbage: tuple[Garbage, ...]
    expired: tuple[Expired, ...]
    held: tuple[Held, ...]

    @property
    def n_files(self) -> int:
        """Files that went."""
        return sum(item.n_files for item in self.garbage)

    @property
    def freed_bytes(self) -> int:
        """Bytes that went."""
        return sum(item.size_bytes for item in self.garbage)


def gc(
    store: Store,
    *,
    dry_run: bool = False,
    grace: timedelta = DEFAULT_GRACE,
    policy: ExpiryPolicy | None = None,
    set_name: str | None = None,
    clock: datetime | None = None,
) -> GcReport:
    """Take what nothing needs any more; see :meth:`nait_store.store.facade.Store.gc`.

    Parameters
    ----------
    store
        The store.
    dry_run
        Whether to change nothing.
    grace
        How long deleted versions and orphans are left.
    policy
        Which visible versions to delete.
    set_name
        Look at this set only.
    clock
        The time to judge ages by; now if omitted.
    """
    policy = policy or ExpiryPolicy()
    _check(grace, policy)
    if set_name is not None:
        known = VersionLog(store.location, Kind.SET, SetManifest).all_names()
        if check_name(set_name, Kind.SET) not in known:
            raise NotFoundError(f"there is no set {set_name!r} in {store.url}", next_step=did_you_mean(set_name, known))
    if not dry_run:
        store.location.require_writable()
    return _Collection(store, Ages(clock or now(), grace), policy, set_name, dry_run=dry_run).run()


def spell(duration: timedelta) -> str:
    """``7d``, ``12h``, ``90s``: as the command line takes it."""
    seconds = duration.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds:g}s"


def _check(grace: timedelta, policy: ExpiryPolicy) -> None:
    for option, duration in (("--grace", grace), ("--expire-older-than", policy.older_than)):
        if duration is not None and not timedelta() <= duration <= _LONGEST:
            raise InvalidInputError(
                f"{option} must lie between 0 and 100 years, not {duration.total_seconds():g} seconds",
                next_step="write for example 7d, 12h or 30m",
            )
    if policy.keep_last is not None and policy.keep_last < 1:
        raise InvalidInputError(
            f"--keep-last must be at least 1, not {policy.keep_last}: the latest version always stays",
            next_step="to take a whole set away, delete it with 'nait-store sets delete'",
        )


@dataclass
class _Collection:
    store: Store
    ages: Ages
    policy: ExpiryPolicy
    set_name: str | None
    dry_run: bool
    garbage: list[Garbage] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    read: dict[str, Document] = field(default_factory=dict)
    n_bytes: int = 0
    unknown: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def location(self) -> Location:
        return self.store.location

    def run(self) -> GcReport:
        roots = self._roots()
        self.held += roots.unreadable
        planned = list(self._plans(roots))
        # What needs nothing written goes first: gc is wanted most on a disk that is full.
        for collector, plan in planned:
            try:
                self._gather(plan.loose if self.dry_run else collector.take_loose(plan))
            except NaitStoreError as error:
                self._leave(collector.what, error)
        self._take_unfinished(planned)
        kept: set[str] = set()
        doomed: set[str] = set()
        for collector, plan in planned:
            try:
                self._gather(plan.garbage if self.dry_run else collector.take(plan, self._roots))
                if isinstance(collector, SetGarbage):
                    digests = (plan.digests, plan.doomed_digests) if self.dry_run else collector.digests(plan)
                    kept |= digests[0]
                    doomed |= digests[1]
            except NaitStoreError as error:
                self._leave(collector.what, error)
        self._take_scores(roots, kept, doomed)
        expired = tuple(self._expire())
        held = tuple(dict.fromkeys(self.held))
        return GcReport(self.dry_run, self.ages.grace.total_seconds(), tuple(self.garbage), expired, held)

    def _plans(self, roots: Roots) -> Iterator[tuple[Any, Any]]:
        """Every item with something of its own, and what of it can go."""
        collectors: list[PayloadGarbage | SetGarbage] = []
        if self.set_name is None:
            # Selections need profiles, and both need sets: what goes first lets go of what it needed.
            for kind in (Kind.SELECTION, Kind.PROFILE):
                names = self.location.names(layout.kind_folder(kind))
                collectors += [PayloadGarbage(self.location, kind, name, self.ages) for name in names]
        collectors += [SetGarbage(self.location, name, self.ages) for name in self._set_names()]
        for collector in collectors:
            try:
                plan = collector.plan(roots)
            except NaitStoreError as error:
                self._leave(collector.what, error)
            else:
                self.held += plan.held
                yield collector, plan

    def _set_names(self) -> list[str]:
        return [self.set_name] if self.set_name is not None else self.location.names(layout.kind_folder(Kind.SET))

    def _roots(self) -> Roots:
        return Roots(self.location, self.ages, self.read)

    def _take_unfinished(self, planned: list[tuple[Any, Any]]) -> None:
        folder = "" if self.set_name is None else layout.item_folder(Kind.SET, self.set_name)
        going = {item.path for _, plan in planned for item in (*plan.loose, *plan.garbage)}
        unfinished = list(unfinished_garbage(self.location, self.ages, folder, going))
        self._gather(unfinished if self.dry_run else take_unfinished(self.location, unfinished))

    def _take_scores(self, roots: Roots, kept: set[str], doomed: set[str]) -> None:
        whole = self.set_name is None and not self.unknown
        directions = roots.directions if self.set_name is None and not roots.unreadable else None
        wanted = Wanted(kept if whole else None, doomed - kept, directions)
        scores = list(score_garbage(self.location, self.ages, wanted))
        self._gather(scores if self.dry_run else take_scores(self.location, scores))

    def _expire(self) -> Iterator[Expired]:
        """Delete by policy, in the end: what is deleted now can be brought back until the next run at least."""
        policy = self.policy
        if policy.keep_last is None and policy.older_than is None:
            return
        roots = self._roots()
        log = VersionLog(self.location, Kind.SET, SetManifest)
        for name in self._set_names():
            visible = log.numbers(name)
            for number in visible[: -max(1, policy.keep_last or 1)]:
                try:
                    manifest = log.read(name, number)
                    old = policy.older_than is None or (
                        manifest.provenance.created_at <= self.ages.now - policy.older_than
                    )
                    if not old or roots.protection(Kind.SET, name, number) is not None:
                        continue
                    if not self.dry_run:
                        log.delete(name, number, policy.reason)
                except NaitStoreError as error:
                    self._leave(f"{name}@{number}", error)
                    continue
                yield Expired(f"{name}@{number}", policy.reason)

    def _leave(self, what: str, error: NaitStoreError) -> None:
        """Leave what cannot be judged; a disk or network that fails is no matter of judgement."""
        if not isinstance(error, FormatError | NotFoundError):
            raise error
        self.unknown = True
        self.held.append(Held(what, f"left alone: {error.what}"))

    def _gather(self, garbage: Iterable[Garbage]) -> None:
        for item in garbage:
            self.garbage.append(item)
            self.n_bytes += item.size_bytes
            self.store.progress(
                ProgressEvent(
                    stage="gc",
                    done=len(self.garbage),
                    bytes_done=self.n_bytes,
                    elapsed_seconds=time.monotonic() - self.began,
                )
            )
