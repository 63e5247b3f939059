"""Notes: what people say about a version after it was committed, changed at will and never lost.

A note is an append-only log, ``<kind>/<name>/notes/<version>/<n>.json``: the highest ``n`` holds the text, and an empty
one says that the note was taken away.
"""

from __future__ import annotations

from nait_store.errors import InvalidInputError
from nait_store.refs import Kind
from nait_store.schemas.history import NoteRecord
from nait_store.storage import layout
from nait_store.storage.append_log import AppendLog
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance

MAX_NOTE_BYTES = 64 << 10
"""A note is read by everyone who lists the store."""


class Notes:
    """The notes on the versions of every set, profile or selection of a store.

    Parameters
    ----------
    location
        The store's root.
    kind
        What the versions are of.
    """

    def __init__(self, location: Location, kind: Kind) -> None:
        self._location = location
        self._kind = kind

    def of(self, name: str) -> dict[int, NoteRecord]:
        """Number of each version of one item that has a note → the note."""
        found = {number: self.find(name, number) for number in self.numbers(name)}
        return {number: note for number, note in found.items() if note is not None}

    def find(self, name: str, version: int) -> NoteRecord | None:
        """The note on a version, or None."""
        record = self._log(name, version).latest()
        return record if record is not None and record.text else None

    def numbers(self, name: str) -> list[int]:
        """Ascending numbers of the versions that ever had a note."""
        folders = self._location.names(layout.notes_folder(self._kind, name))
        return layout.numbered(f"{folder}.json" for folder in folders)

    def history(self, name: str, version: int) -> list[NoteRecord]:
        """Every text that the note on a version ever had, oldest first."""
        return self._log(name, version).history()

    def put(self, name: str, version: int, text: str) -> NoteRecord:
        """Say something about a version, in the place of what was said before.

        Parameters
        ----------
        name, version
            Whose note it is; that the version exists is the caller's to check.
        text
            What to say; space around it is dropped. Empty: the note is taken away. What is said already is not
            written again.

        Raises
        ------
        InvalidInputError
            The text is too long, or no valid Unicode.
        """
        said = check_note(text)
        log = self._log(name, version)
        before = log.latest()
        if before is not None and before.text == said:
            return before

        def note(number: int, _: NoteRecord | None) -> NoteRecord:
            return NoteRecord(version=version, number=number, text=said, provenance=current_provenance())

        return log.append(note, f"the note on {self._kind} {name}@{version}")

    def _log(self, name: str, version: int) -> AppendLog[NoteRecord]:
        return AppendLog(self._location, layout.notes_folder(self._kind, name, version), NoteRecord)


def check_note(text: str) -> str:
    """Return what can be kept of a text: all but the space around it.

    Raises
    ------
    InvalidInputError
        It takes more than 64 KiB, or is no valid Unicode.
    """
    said = text.strip()
    try:
        size_bytes = len(said.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"the note has a character that is no valid Unicode, at position {error.start}",
            next_step="give it as UTF-8 text",
        ) from error
    if size_bytes > MAX_NOTE_BYTES:
        raise InvalidInputError(
            f"the note takes {size_bytes:,} bytes, and {MAX_NOTE_BYTES:,} are the most",
            next_step="say it in fewer words, or name a document that says it",
        )
    return said
