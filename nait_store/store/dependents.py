"""Who needs a version: its labels, selections made from it, profiles built on it or of it, sets projected on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.errors import InvalidInputError
from nait_store.refs import COMMANDS, Kind, Reference, parse_reference
from nait_store.storage.labels import LabelKind, Labels

if TYPE_CHECKING:
    from nait_store.storage.location import Location
    from nait_store.store.facade import Store


@dataclass(frozen=True)
class Dependent:
    """Something that would suffer if a version went away.

    Attributes
    ----------
    reference
        What it is: ``pool@paper``, ``selection:best@1``, ``profile:math@2``.
    why
        What it is to the version: ``tag: in the paper``, ``was selected from it``.
    tag
        Whether it is a tag, which is there to protect.
    remedy
        What to do so that it no longer stands in the way.
    """

    reference: str
    why: str
    tag: bool = False
    remedy: str = "add --force: its scores stay, but it cannot be made again"

    def __str__(self) -> str:
        return f"{self.reference} ({self.why})"


class Dependents:
    """The dependents of every version of a store, from one reading of its visible profiles, selections and sets.

    Parameters
    ----------
    store
        The store, as it is now.

    Raises
    ------
    FormatError
        A profile, selection or set cannot be read, so that what it needs is unknown.
    """

    def __init__(self, store: Store) -> None:
        self._location = store.location
        self._needed: dict[tuple[Kind, str, int], list[Dependent]] = defaultdict(list)
        self._labels: dict[tuple[Kind, str], dict[int, list[Dependent]]] = {}
        for name in store.selections.names():
            for manifest in store.selections.manifests(name):
                self._add_selection(store, Reference(Kind.SELECTION, name, version=manifest.number))
        for name in store.profiles.names():
            for number in store.profiles.registry.numbers(name):
                self._add_profile(store, Reference(Kind.PROFILE, name, version=number))
        for name in store.sets.names():
            self._add_set(store, name)

    def of(self, kind: Kind, name: str, number: int) -> list[Dependent]:
        """Everything that needs this version: tags first, then aliases, selections, profiles, sets."""
        if (kind, name) not in self._labels:
            self._labels[kind, name] = labels_of(self._location, kind, name)
        return [*self._labels[kind, name].get(number, ()), *self._needed.get((kind, name, number), ())]

    def _add_selection(self, store: Store, reference: Reference) -> None:
        record = store.selections.open(reference).record
        remedy = "add --force: the selection keeps its ids and scores, but can no longer be exported"
        for set_ref in record.set_refs:
            self._need(Kind.SET, set_ref, Dependent(reference.qualified, "was selected from it", remedy=remedy))
        for profile in record.profiles_with_weights:
            self._need(Kind.PROFILE, profile.reference, Dependent(reference.qualified, "was selected by it"))

    def _add_profile(self, store: Store, reference: Reference) -> None:
        profile = store.profiles.open(reference)
        if profile.manifest.origin is not None:  # it was built elsewhere, from a set of the same name at best
            return
        record = profile.record
        remedy = "add --force: the profile stays, but cannot be built again"
        for why, source in (("was built from it", record.source), ("was built against it", record.background)):
            if source is not None:
                self._needed[Kind.SET, source.set_name, source.version].append(
                    Dependent(reference.qualified, why, remedy=remedy)
                )
        remedy = "add --force: the profile stays, but cannot be combined again"
        for part in record.parts or ():
            why = "was combined from it" if part.weight is not None else "was made orthogonal to it"
            self._needed[Kind.PROFILE, part.name, part.version].append(
                Dependent(reference.qualified, why, remedy=remedy)
            )

    def _add_set(self, store: Store, name: str) -> None:
        record = store.sets.versions.record(name)
        remedy = "add --force: the set takes no more samples, and its scores by this profile cannot be asked for"
        needs = Dependent(f"{Kind.SET}:{name}", "keeps projections on it", remedy=remedy)
        for one in record.projections if record is not None else ():
            self._need(Kind.PROFILE, one.profile, needs)

    def _need(self, kind: Kind, text: str, dependent: Dependent) -> None:
        try:
            needed = parse_reference(text, kind)
        except InvalidInputError:  # nothing of such a name can be in this store
            return
        if needed.version is not None:
            self._needed[kind, needed.name, needed.version].append(dependent)


def labels_of(location: Location, kind: Kind, name: str) -> dict[int, list[Dependent]]:
    """The tags, then the aliases, of every version of an item."""
    found: dict[int, list[Dependent]] = defaultdict(list)
    for label in sorted(Labels(location, kind).of(name), key=lambda label: label.kind is LabelKind.ALIAS):
        tag = label.kind is LabelKind.TAG
        reason = f": {label.record.reason}" if label.record.reason else ""
        remedy = f"take the {label.kind} away"
        remedy += f" with 'nait-store {COMMANDS[kind]} untag {name} {label.name}'" + ("" if tag else ", or add --force")
        found[label.version].append(Dependent(f"{name}@{label.name}", f"{label.kind}{reason}", tag=tag, remedy=remedy))
    return found


def require_unneeded(references: Sequence[str], found: Sequence[Dependent]) -> None:
    """Refuse to take versions away from those who need them.

    Raises
    ------
    InvalidInputError
        Naming each dependent, and what to do about it.
    """
    if not found:
        return
    named = ", ".join(map(str, found[:8])) + (f" and {len(found) - 8:,} more" if len(found) > 8 else "")
    versions = references[0] if len(references) == 1 else f"{references[0]} … {references[-1]}"
    raise InvalidInputError(
        f"{versions} cannot be deleted, because of {named}",
        next_step="; ".join(dict.fromkeys(one.remedy for one in found[:8])),
    )
