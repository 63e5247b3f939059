"""A folder of numbered documents that only grows: the highest number counts, the others are how it came about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from nait_store.errors import AlreadyExistsError, ConflictError
from nait_store.schemas.record import Document
from nait_store.storage import layout
from nait_store.storage.location import Location

R = TypeVar("R", bound=Document)
_ATTEMPTS = 100


class AppendLog(Generic[R]):
    """Documents ``<n>.json``, n from 1, each created atomically like a version; nothing is changed or removed.

    Parameters
    ----------
    location
        The store's root.
    folder
        Where they lie; it need not exist.
    record_type
        Model of the documents.
    """

    def __init__(self, location: Location, folder: str, record_type: type[R]) -> None:
        self._location = location
        self._folder = folder
        self._record_type = record_type

    def latest(self) -> R | None:
        """The document that counts; None where there is none."""
        numbers = self._numbers()
        return self._read(numbers[-1]) if numbers else None

    def history(self) -> list[R]:
        """Every document, oldest first."""
        return [self._read(number) for number in self._numbers()]

    def append(self, propose: Callable[[int, R | None], R], what: str) -> R:
        """Create the next document, again and again until no other writer comes first.

        Parameters
        ----------
        propose
            Given its number and the document that counts so far, makes it.
        what
            What it is about, for the message.

        Raises
        ------
        ConflictError
            Other writers kept winning.
        """
        for _ in range(_ATTEMPTS):
            numbers = self._numbers()
            number = (numbers[-1] if numbers else 0) + 1
            record = propose(number, self._read(numbers[-1]) if numbers else None)
            try:
                self._location.create_bytes(f"{self._folder}/{number}.json", record.to_json_bytes())
            except AlreadyExistsError:
                continue
            return record
        raise ConflictError(f"other writers kept changing {what}", next_step="run the same command again")

    def _numbers(self) -> list[int]:
        return layout.numbered(self._location.names(self._folder))

    def _read(self, number: int) -> R:
        path = f"{self._folder}/{number}.json"
        return self._record_type.from_json_bytes(self._location.read_bytes(path), self._location.url_of(path))
