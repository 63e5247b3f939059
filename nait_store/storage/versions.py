"""Numbered, immutable documents: the one mechanism behind set, profile and selection versions."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from nait_store.errors import AlreadyExistsError, ConflictError, NotFoundError, did_you_mean
from nait_store.refs import Kind, Reference
from nait_store.schemas.record import Record
from nait_store.storage import layout
from nait_store.storage.location import Location

R = TypeVar("R", bound=Record)
_DOCUMENT = re.compile(r"([1-9][0-9]*)\.json\Z")


class VersionLog(Generic[R]):
    """The ``versions/<n>.json`` documents of one kind of thing.

    Parameters
    ----------
    location
        The store's root.
    kind
        Set, profile or selection.
    record_type
        Model of the version document.
    """

    def __init__(self, location: Location, kind: Kind, record_type: type[R]) -> None:
        self._location = location
        self._kind = kind
        self._record_type = record_type

    def names(self) -> list[str]:
        """Sorted names of everything of this kind that has at least one version."""
        return [name for name in self._location.names(layout.kind_folder(self._kind)) if self.numbers(name)]

    def numbers(self, name: str) -> list[int]:
        """Ascending version numbers; empty where there is nothing of this name."""
        found = self._location.names(layout.versions_folder(self._kind, name))
        return sorted(int(match[1]) for entry in found if (match := _DOCUMENT.match(entry)))

    def latest(self, name: str) -> int | None:
        """Highest version number, or None."""
        return max(self.numbers(name), default=None)

    def read(self, name: str, number: int) -> R:
        """Read one version's document."""
        path = layout.version_document(self._kind, name, number)
        return self._record_type.from_json_bytes(self._location.read_bytes(path), self._location.url_of(path))

    def resolve(self, reference: Reference) -> int:
        """Turn a reference into the number of an existing version.

        Raises
        ------
        NotFoundError
            Unknown name, version or alias; near names are suggested.
        """
        numbers = self.numbers(reference.name)
        if not numbers:
            raise NotFoundError(
                f"there is no {self._kind} {reference.name!r} in {self._location.url}",
                next_step=did_you_mean(reference.name, self.names()),
            )
        if reference.alias is not None:
            raise NotFoundError(
                f"{self._kind} {reference.name!r} has no alias {reference.alias!r}",
                next_step=f"use a version: {_spell(reference.name, numbers)}",
            )
        if reference.version is None:
            return numbers[-1]
        if reference.version not in numbers:
            raise NotFoundError(
                f"{self._kind} {reference.name!r} has no version {reference.version}",
                next_step=f"these exist: {_spell(reference.name, numbers)}",
            )
        return reference.version

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


def _spell(name: str, numbers: list[int]) -> str:
    shown = [f"{name}@{n}" for n in numbers[-8:]]
    return ("… " if len(numbers) > 8 else "") + ", ".join(shown)
