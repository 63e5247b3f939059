"""Rows of the catalog about aliases, tags and notes, read from the latest document of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nait_store.catalog.documents import Documents, Row, written
from nait_store.catalog.listing import Listing
from nait_store.errors import FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.history import LabelRecord, NoteRecord
from nait_store.storage import layout
from nait_store.storage.labels import LABEL_FOLDERS, LabelKind

_LABEL_COLUMNS = {folder: kind.value for kind, folder in LABEL_FOLDERS.items()}
_TABLES = (*_LABEL_COLUMNS, layout.NOTES)


@dataclass(frozen=True)
class _Log:
    """The documents of one label of one item, or of the note on one of its versions."""

    kind: Kind
    name: str
    table: str
    entry: str
    folder: str
    n_documents: int

    @property
    def path(self) -> str:
        """The document that counts."""
        return f"{self.folder}/{self.n_documents}.json"

    @property
    def in_words(self) -> str:
        """What it is, for a message."""
        if self.table == layout.NOTES:
            return f"the note on {self.kind} {self.name}@{self.entry}"
        return f"{_LABEL_COLUMNS[self.table]} {self.entry!r} of {self.kind} {self.name!r}"


class LabelReading:
    """Reads the latest document of every label and note that changed since an earlier catalog was made.

    Parameters
    ----------
    documents, listing
        Of the store.
    earlier_tables, earlier_labels
        Rows of an earlier catalog, and folder → number of the document that they tell of.

    Attributes
    ----------
    tables
        ``aliases``, ``tags`` and ``notes`` → rows. What was taken away has none.
    numbers
        Folder → number of the document that was read.
    problems
        One sentence per document that could not be read.
    """

    def __init__(
        self,
        documents: Documents,
        listing: Listing,
        earlier_tables: Mapping[str, list[Row]],
        earlier_labels: Mapping[str, int],
    ) -> None:
        self.tables: dict[str, list[Row]] = {table: [] for table in _TABLES}
        self.numbers: dict[str, int] = {}
        self.problems: list[str] = []
        visible = {kind: {name: set(numbers) for name, numbers in listing.numbers(kind).items()} for kind in Kind}
        known = {
            (table, row["kind"], row["name"], str(row[_LABEL_COLUMNS.get(table, "version")])): row
            for table in _TABLES
            for row in earlier_tables[table]
        }
        logs = list(_logs(listing))
        changed = {log.folder for log in logs if earlier_labels.get(log.folder) != log.n_documents}
        documents.fetch(log.path for log in logs if log.folder in changed)
        for log in logs:
            try:
                if log.folder in changed:
                    row = _note_row(log, documents) if log.table == layout.NOTES else _label_row(log, documents)
                else:
                    row = known.get((log.table, log.kind.value, log.name, log.entry))
            except (NotFoundError, FormatError) as error:
                self.problems.append(f"{log.in_words} is left out of the catalog: {error.what}")
                continue
            self.numbers[log.folder] = log.n_documents
            if row is not None:
                # Not a matter of the log's own document: the version may have gone, or come back, since.
                is_deleted = row["version"] not in visible[log.kind].get(log.name, ())
                self.tables[log.table].append({**row, "is_deleted": is_deleted})


def _logs(listing: Listing) -> Iterator[_Log]:
    kinds = {layout.kind_folder(kind): kind for kind in Kind}
    for folder, n_documents in sorted(listing.labels.items()):
        kind, name, table, entry = folder.split("/")
        if table != layout.NOTES or layout.numbered([f"{entry}.json"]):
            yield _Log(kinds[kind], name, table, entry, folder, n_documents)


def _label_row(log: _Log, documents: Documents) -> Row | None:
    """Everything but whether the version is there; None where the label names nothing any more."""
    record = documents.read(LabelRecord, log.path)
    if record.version is None:
        return None
    row = {
        "kind": log.kind.value,
        "name": log.name,
        _LABEL_COLUMNS[log.table]: log.entry,
        "version": record.version,
        "reference": f"{log.name}@{record.version}",
        "label_reference": f"{log.name}@{log.entry}",
        "reason": record.reason,
        **written(record.provenance),
    }
    if log.table == LABEL_FOLDERS[LabelKind.ALIAS]:
        row["n_moves"] = log.n_documents
    return row


def _note_row(log: _Log, documents: Documents) -> Row | None:
    """Everything but whether the version is there; None where the note was taken away."""
    record = documents.read(NoteRecord, log.path)
    if not record.text:
        return None
    return {
        "kind": log.kind.value,
        "name": log.name,
        "version": int(log.entry),
        "reference": f"{log.name}@{log.entry}",
        "note": record.text,
        "n_texts": log.n_documents,
        **written(record.provenance),
    }
