"""Garbage of profiles and selections: payloads that no version has, and the documents of collected versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.errors import NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.profile import ProfileManifest
from nait_store.schemas.selection import SelectionManifest
from nait_store.storage import layout
from nait_store.storage.versions import VersionLog, VersionNumbers
from nait_store.store.garbage.items import (
    Ages,
    Garbage,
    GarbageKind,
    delete,
    delete_in_order,
    files_of,
    times_of,
    ulid_time,
    weigh,
)
from nait_store.store.garbage.roots import PAYLOAD_RECORDS, Held, Roots, Versions, chain, replacements

if TYPE_CHECKING:
    from nait_store.storage.backend import StoredFile
    from nait_store.storage.location import Location


@dataclass(frozen=True)
class _State:
    """What refers to what, at one moment."""

    numbers: VersionNumbers
    gone: frozenset[int]
    kept: frozenset[str]
    doomed: dict[str, int]
    redirects: dict[str, str]


@dataclass(frozen=True)
class PayloadPlan:
    """What can go of one profile or selection.

    Attributes
    ----------
    loose
        What goes in any case, in this order; nothing has to be written for it.
    due
        Versions to collect, and why.
    garbage
        What goes then, in this order.
    held
        Deleted versions that stay.
    """

    loose: tuple[Garbage, ...]
    due: dict[int, str]
    garbage: tuple[Garbage, ...]
    held: tuple[Held, ...]


class PayloadGarbage:
    """The garbage of one profile or selection.

    Parameters
    ----------
    location
        The store's root.
    kind, name
        The item.
    ages
        What is old enough.

    Attributes
    ----------
    what
        What it is, for messages.
    """

    def __init__(self, location: Location, kind: Kind, name: str, ages: Ages) -> None:
        self._location = location
        self._kind = kind
        self.what = f"{kind} {name}"
        self._name = name
        self._ages = ages
        self._log: VersionLog[ProfileManifest] | VersionLog[SelectionManifest] = (
            VersionLog(location, kind, ProfileManifest)
            if kind is Kind.PROFILE
            else VersionLog(location, kind, SelectionManifest)
        )
        self._payloads: dict[int, str] = {}
        self._reasons: dict[int, str] = {}

    def plan(self, roots: Roots) -> PayloadPlan:
        """Find the garbage; changes nothing.

        Raises
        ------
        FormatError
            A version's document cannot be read.
        """
        due, held = roots.due(self._kind, self._name, Versions.of(self._location, self._kind, self._name))
        self._reasons = due
        garbage = list(self._found(self._look(frozenset(due))))
        loose = self._still_garbage(garbage)
        rest = tuple(item for item in garbage if item not in loose)
        return PayloadPlan(loose, due, rest, tuple(held))

    def take_loose(self, plan: PayloadPlan) -> Iterator[Garbage]:
        """Delete what is garbage whether or not versions are collected; yields each thing as it is gone."""
        yield from self._take(plan.loose)

    def take(self, plan: PayloadPlan, roots: Callable[[], Roots]) -> Iterator[Garbage]:
        """Collect what is still due and delete what is garbage then; yields each thing as it is gone."""
        if plan.due:
            versions = Versions.of(self._location, self._kind, self._name)
            still, _ = roots().due(self._kind, self._name, versions)
            for number in plan.due:
                if number in still:
                    self._log.collect(self._name, number)
        yield from self._take(plan.garbage)

    def _take(self, garbage: Iterable[Garbage]) -> Iterator[Garbage]:
        for item in garbage:
            if self._still_garbage([item]):
                self._delete(item)
                yield item

    def _still_garbage(self, garbage: Iterable[Garbage]) -> tuple[Garbage, ...]:
        state = self._look(frozenset())
        return tuple(item for item in garbage if self._why(item.kind, item.path, state) is not None)

    def _look(self, pretended: frozenset[int]) -> _State:
        numbers = self._log.listing(self._name)
        gone = frozenset({*numbers.collected} | pretended)
        kept: set[str] = set()
        named: dict[str, int] = {}
        redirects = replacements(self._location, self._kind, self._name)
        for number in numbers.documents:
            try:
                payload = self._payload(number)
            except NotFoundError:  # taken by another gc since the listing
                continue
            if number in gone:
                named.update(dict.fromkeys(chain(redirects, payload), number))
            else:
                kept |= {*chain(redirects, payload)}
        return _State(numbers, gone, frozenset(kept), named, redirects)

    def _payload(self, number: int) -> str:
        if number not in self._payloads:
            self._payloads[number] = self._log.read(self._name, number).payload
        return self._payloads[number]

    def _found(self, state: _State) -> Iterator[Garbage]:
        payloads = layout.payload_folder(self._kind, self._name)
        for payload in self._location.names(payloads):
            yield from self._weighed(GarbageKind.PAYLOAD, f"{payloads}/{payload}", state)
        redirects = layout.redirects_folder(self._kind, self._name)
        for file in self._location.files(redirects):
            yield from self._weighed(GarbageKind.REDIRECT, file.path, state, [file])
        versions = Versions.of(self._location, self._kind, self._name)
        for number in sorted(state.gone):
            document = versions.files.get(f"{number}.json")
            if document is not None:
                path = layout.version_document(self._kind, self._name, number)
                yield from self._weighed(GarbageKind.VERSION, path, state, [document])

    def _weighed(
        self, kind: GarbageKind, path: str, state: _State, files: list[StoredFile] | None = None
    ) -> Iterator[Garbage]:
        reason = self._why(kind, path, state)
        if reason is not None:
            found = files_of(self._location, path) if files is None else files
            stays = kind is GarbageKind.VERSION and _number(path) == max(state.numbers.documents, default=0)
            yield weigh(kind, path, reason, [] if stays else found)

    def _why(self, kind: GarbageKind, path: str, state: _State) -> str | None:
        """Why something is garbage in this state; None where it is not."""
        name = path.rpartition("/")[2].partition(".")[0]
        if kind is GarbageKind.VERSION:
            number = _number(path)
            if number not in state.gone or number not in state.numbers.documents:
                return None
            if number in self._reasons:
                return self._reasons[number]
            last = number == max(state.numbers.documents)
            return None if last else "collected by an earlier gc"
        if ulid_time(name) is None:
            return None
        if kind is GarbageKind.REDIRECT:
            needed = name in state.kept or state.redirects.get(name) in state.kept
            old = self._ages.is_orphan(times_of(name, self._listed(path)))
            return None if needed or not old else "no version has what it stands for"
        if name in state.kept and name not in state.redirects:
            return None
        if name in state.redirects:
            return f"replaced by {state.redirects[name]}"
        if name in state.doomed:
            return f"only {self._name}@{state.doomed[name]} had it, which is collected"
        if self._ages.is_orphan(times_of(name, files_of(self._location, path))):
            return "no version has it"
        return None

    def _listed(self, path: str) -> list[StoredFile]:
        folder = path.rpartition("/")[0]
        return [file for file in self._location.files(folder) if file.path == path]

    def _delete(self, garbage: Garbage) -> None:
        if garbage.kind is GarbageKind.PAYLOAD:
            delete_in_order(self._location, garbage.path, first=[PAYLOAD_RECORDS[self._kind]])
        elif garbage.n_files:
            delete(self._location, garbage.path)


def _number(path: str) -> int:
    return int(path.rpartition("/")[2].partition(".")[0])
