"""Who needs a version: its aliases and tags, the selections made from it, the profiles built on it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.errors import InvalidInputError
from nait_store.refs import Kind, Reference, parse_reference
from nait_store.storage.labels import LabelKind, Labels

if TYPE_CHECKING:
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
    """The dependents of every version of a store, from one reading of its visible profiles and selections.

    Parameters
    ----------
    store
        The store, as it is now.

    Raises
    ------
    FormatError
        A profile or selection cannot be read, so that what it needs is unknown.
    """

    def __init__(self, store: Store) -> None:
        self._location = store.location
        self._found: dict[tuple[Kind, str, int], list[Dependent]] = defaultdict(list)
        self._labelled: set[tuple[Kind, str]] = set()
        for name in store.selections.names():
            for manifest in store.selections.manifests(name):
                self._add_selection(store, Reference(Kind.SELECTION, name, version=manifest.number))
        for name in store.profiles.names():
            for number in store.profiles.registry.numbers(name):
                self._add_profile(store, Reference(Kind.PROFILE, name, version=number))

    def of(self, kind: Kind, name: str, number: int) -> list[Dependent]:
        """Everything that needs this version: labels first, then selections, then profiles."""
        if (kind, name) not in self._labelled:
            self._labelled.add((kind, name))
            self._add_labels(kind, name)
        found = self._found.get((kind, name, number), [])
        return sorted(found, key=lambda one: (":" in one.reference, not one.tag))

    def _add_labels(self, kind: Kind, name: str) -> None:
        for label in Labels(self._location, kind).of(name):
            reference = f"{name}@{label.name}"
            reason = f": {label.record.reason}" if label.record.reason else ""
            self._found[kind, name, label.version].append(
                Dependent(
                    reference,
                    f"{label.kind}{reason}",
                    tag=label.kind is LabelKind.TAG,
                    remedy=f"take the {label.kind} away with 'nait-store sets untag {reference}'"
                    if kind is Kind.SET
                    else f"take the {label.kind} away",
                )
            )

    def _add_selection(self, store: Store, reference: Reference) -> None:
        record = store.selections.open(reference).record
        self._need(Kind.SET, record.set_ref, Dependent(
            reference.qualified, "was selected from it",
            remedy="add --force: its ids and scores stay, but it can no longer be exported",
        ))  # fmt: skip
        if record.profile_ref is not None:
            self._need(Kind.PROFILE, record.profile_ref, Dependent(reference.qualified, "was selected by it"))

    def _add_profile(self, store: Store, reference: Reference) -> None:
        record = store.profiles.open(reference).record
        roles = {"was built from it": record.source, "was built against it": record.background}
        for why, source in roles.items():
            if source is not None:
                dependent = Dependent(
                    reference.qualified, why, remedy="add --force: the profile stays, but it cannot be built again"
                )
                self._found[Kind.SET, source.set_name, source.version].append(dependent)

    def _need(self, kind: Kind, text: str, dependent: Dependent) -> None:
        try:
            needed = parse_reference(text, kind)
        except InvalidInputError:  # nothing of such a name can be in this store
            return
        if needed.version is not None:
            self._found[kind, needed.name, needed.version].append(dependent)


def dependents(store: Store, kind: Kind, name: str, number: int) -> list[Dependent]:
    """Who needs one version; for many versions ask one :class:`Dependents`.

    Parameters
    ----------
    store
        The store.
    kind, name, number
        The version.

    Returns
    -------
    list of Dependent
        Aliases and tags on it, visible selections made from it, visible profiles built on it.

    Raises
    ------
    FormatError
        A profile or selection cannot be read, so that what it needs is unknown.
    """
    return Dependents(store).of(kind, name, number)
