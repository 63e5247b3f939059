"""Numbered, immutable documents: the one mechanism behind set, profile and selection versions.

A version is the document ``<n>.json``; ``<n>.deleted.json`` beside it hides it, and ``<n>.collected.json`` says that
its data are gone. A number that any of the three has borne is never used again.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from nait_store.errors import AlreadyExistsError, ConflictError, NotFoundError, did_you_mean
from nait_store.refs import COMMANDS, Kind, Reference
from nait_store.schemas.history import CollectionRecord, DeletionRecord
from nait_store.schemas.record import Document
from nait_store.storage import layout
from nait_store.storage.labels import Labels
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance

R = TypeVar("R", bound=Document)
_DOCUMENT = re.compile(r"([1-9][0-9]*)(\.deleted|\.collected)?\.json\Z")
_PATIENCE_SECONDS = 300.0
_LONGEST_PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class VersionNumbers:
    """The numbers of one item, by what lies in its ``versions/`` folder; each tuple ascends.

    Attributes
    ----------
    documents
        Of all version documents, hidden ones included.
    deleted, collected
        Of all markers.
    """

    documents: tuple[int, ...] = ()
    deleted: tuple[int, ...] = ()
    collected: tuple[int, ...] = ()

    @classmethod
    def of(cls, names: list[str]) -> VersionNumbers:
        """Sort a folder's file names."""
        found: dict[str | None, list[int]] = {None: [], ".deleted": [], ".collected": []}
        for name in names:
            if match := _DOCUMENT.match(name):
                found[match[2]].append(int(match[1]))
        return cls(*(tuple(sorted(numbers)) for numbers in found.values()))

    @property
    def visible(self) -> tuple[int, ...]:
        """Of the versions that exist for users."""
        hidden = {*self.deleted, *self.collected}
        return tuple(number for number in self.documents if number not in hidden)

    @property
    def latest(self) -> int | None:
        """The highest visible one, or None."""
        return max(self.visible, default=None)

    @property
    def last(self) -> int:
        """The highest number ever used, 0 if none was."""
        return max((*self.documents, *self.deleted, *self.collected), default=0)


class VersionLog(Generic[R]):
    """The documents of every version of one kind of thing.

    Parameters
    ----------
    location
        The store's root.
    kind
        Set, profile or selection.
    record_type
        Model of the version document.

    Attributes
    ----------
    labels
        Aliases and tags of these versions.
    """

    def __init__(self, location: Location, kind: Kind, record_type: type[R]) -> None:
        self._location = location
        self._kind = kind
        self._record_type = record_type
        self.labels = Labels(location, kind)

    def names(self) -> list[str]:
        """Sorted names of everything of this kind that has at least one visible version."""
        return [name for name in self.all_names() if self.numbers(name)]

    def all_names(self) -> list[str]:
        """Sorted names of every folder of this kind, deleted things included."""
        return self._location.names(layout.kind_folder(self._kind))

    def listing(self, name: str) -> VersionNumbers:
        """Which version documents and markers there are."""
        return VersionNumbers.of(self._location.names(layout.versions_folder(self._kind, name)))

    def numbers(self, name: str) -> list[int]:
        """Ascending numbers of the visible versions; empty where there is nothing of this name."""
        return list(self.listing(name).visible)

    def latest(self, name: str) -> int | None:
        """Highest visible version number, or None."""
        return self.listing(name).latest

    def read(self, name: str, number: int) -> R:
        """Read one version's document, hidden or not."""
        path = layout.version_document(self._kind, name, number)
        return self._record_type.from_json_bytes(self._location.read_bytes(path), self._location.url_of(path))

    def resolve(self, reference: Reference) -> int:
        """Turn a reference into the number of a visible version.

        Raises
        ------
        NotFoundError
            Unknown name, version, alias or tag (near ones are suggested), or a deleted version.
        """
        listing = self.listing(reference.name)
        visible = listing.visible
        if not visible and not listing.last:
            raise NotFoundError(
                f"there is no {self._kind} {reference.name!r} in {self._location.url}",
                next_step=did_you_mean(reference.name, self.names()),
            )
        if reference.alias is not None:
            label = self.labels.find(reference.name, reference.alias)
            if label is None:
                known = [known.name for known in self.labels.of(reference.name)]
                raise NotFoundError(
                    f"{self._kind} {reference.name!r} has no alias or tag {reference.alias!r}",
                    next_step=did_you_mean(reference.alias, known)
                    if known
                    else f"use a version: {_spell(reference.name, visible)}",
                )
            wanted = label.version
        elif reference.version is not None:
            wanted = reference.version
        elif visible:
            return visible[-1]
        else:
            wanted = listing.last
        if wanted in visible:
            return wanted
        raise self._absent(reference.name, wanted, listing)

    def _absent(self, name: str, number: int, listing: VersionNumbers) -> NotFoundError:
        others = f"these exist: {_spell(name, listing.visible)}" if listing.visible else "no other version exists"
        if number in listing.collected:
            return NotFoundError(f"{self._kind} {name}@{number} was deleted, and collected by gc", next_step=others)
        if number in listing.deleted:
            record = self.deletion(name, number)
            when = f" on {record.provenance.created_at:%Y-%m-%d} by {record.provenance.author}" if record else ""
            whole = f"{name}@{number}" if listing.visible else name
            back = f"bring it back with 'nait-store {COMMANDS[self._kind]} undelete {whole}'"
            return NotFoundError(f"{self._kind} {name}@{number} was deleted{when}", next_step=back)
        return NotFoundError(f"{self._kind} {name!r} has no version {number}", next_step=others)

    def require_kept(self, name: str, number: int) -> None:
        """Refuse a version that never was or that gc has taken; one that is deleted only passes.

        Raises
        ------
        NotFoundError
            With what there is instead.
        """
        listing = self.listing(name)
        if number not in listing.documents or number in listing.collected:
            self.resolve(Reference(self._kind, name, version=number))
            raise ConflictError(f"{name}@{number} is changing under us", next_step="run the same command again")

    def deletion(self, name: str, number: int) -> DeletionRecord | None:
        """Who deleted a version, when and why; None where it is not deleted."""
        path = layout.deletion_marker(self._kind, name, number)
        try:
            return DeletionRecord.from_json_bytes(self._location.read_bytes(path), self._location.url_of(path))
        except NotFoundError:
            return None

    def delete(self, name: str, number: int, reason: str = "") -> None:
        """Hide a version; harmless where it is hidden already. Nothing that it holds is removed.

        Raises
        ------
        NotFoundError
            There is no such version.
        """
        listing = self.listing(name)
        if number not in listing.documents:
            raise self._absent(name, number, listing)
        record = DeletionRecord(number=number, reason=reason, provenance=current_provenance())
        with contextlib.suppress(AlreadyExistsError):
            self._location.create_bytes(layout.deletion_marker(self._kind, name, number), record.to_json_bytes())

    def undelete(self, name: str, number: int) -> None:
        """Bring a hidden version back, unless gc has taken it.

        Raises
        ------
        NotFoundError
            It is gone, or was never there.
        """
        listing = self.listing(name)
        if number not in listing.documents or number in listing.collected:
            raise self._absent(name, number, listing)
        marker = layout.deletion_marker(self._kind, name, number)
        try:
            kept = self._location.read_bytes(marker)
        except NotFoundError:
            return
        self._location.delete(marker)
        # gc writes its marker first and then looks for ours: one of the two of us sees the other.
        if number in self.listing(name).collected:
            with contextlib.suppress(AlreadyExistsError):
                self._location.create_bytes(marker, kept)
            raise self._absent(name, number, self.listing(name))

    def collect(self, name: str, number: int) -> bool:
        """Mark a deleted version as collected; False where somebody brought it back meanwhile.

        The caller removes its data and document only after this returned True.
        """
        record = CollectionRecord(number=number, provenance=current_provenance())
        path = layout.collection_marker(self._kind, name, number)
        with contextlib.suppress(AlreadyExistsError):
            self._location.create_bytes(path, record.to_json_bytes())
        if number in self.listing(name).deleted:
            return True
        self._location.delete(path)
        return False

    def commit(self, name: str, number: int, record: R) -> None:
        """Commit version ``number`` by creating its document atomically.

        Raises
        ------
        ConflictError
            Somebody else committed this number first: read the log again and rebase.
        """
        path = layout.version_document(self._kind, name, number)
        try:
            self._location.create_bytes(path, record.to_json_bytes())
        except AlreadyExistsError as error:
            raise ConflictError(
                f"{self._kind} {name}@{number} was committed by another writer meanwhile",
                next_step="run the same command again",
            ) from error

    def commit_next(
        self,
        name: str,
        propose: Callable[[VersionNumbers], R | None],
        lost: Callable[[R], None] = lambda _: None,
    ) -> R | None:
        """Commit what follows the latest version, again and again until no other writer comes first.

        Parameters
        ----------
        name
            The item.
        propose
            Given the numbers that there are, returns the document of the number after the last, or None where there
            is nothing to commit any more.
        lost
            Told of a document that came too late, to remove what was written for it alone. After any other error
            the document may have been committed all the same, and what it refers to is left to gc.

        Returns
        -------
        Document or None
            What was committed.

        Raises
        ------
        ConflictError
            Other writers kept winning for five minutes.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        pause = 0.005
        while True:
            listing = self.listing(name)
            record = propose(listing)
            if record is None:
                return None
            try:
                self.commit(name, listing.last + 1, record)
                return record
            except ConflictError:
                lost(record)
                if time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _spell(name: str, numbers: tuple[int, ...]) -> str:
    shown = [f"{name}@{n}" for n in numbers[-8:]]
    return ("… " if len(numbers) > 8 else "") + ", ".join(shown)
