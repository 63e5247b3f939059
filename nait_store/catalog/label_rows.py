"""Rows of the catalog about aliases and tags, read from the latest move of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nait_store.catalog.documents import Documents, Row, written
from nait_store.catalog.listing import Listing
from nait_store.errors import FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.history import LabelRecord
from nait_store.storage import layout
from nait_store.storage.labels import LABEL_FOLDERS, LabelKind


@dataclass(frozen=True)
class _Log:
    """The moves of one label of one item."""

    kind: Kind
    name: str
    label_kind: LabelKind
    label: str
    folder: str
    n_moves: int

    @property
    def table(self) -> str:
        """Where its row stands."""
        return LABEL_FOLDERS[self.label_kind]

    @property
    def path(self) -> str:
        """The document that says what it names now."""
        return f"{self.folder}/{self.n_moves}.json"

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells its row from others of the table."""
        return self.kind.value, self.name, self.label


class LabelReading:
    """Reads the latest document of every label that moved since an earlier catalog was made.

    Parameters
    ----------
    documents, listing
        Of the store.
    earlier_tables, earlier_labels
        Rows of an earlier catalog, and folder → number of the moves that they tell of.

    Attributes
    ----------
    tables
        ``aliases`` and ``tags`` → rows. A label that was taken away has none.
    numbers
        Folder → number of the move that was read.
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
        self.tables: dict[str, list[Row]] = {table: [] for table in LABEL_FOLDERS.values()}
        self.numbers: dict[str, int] = {}
        self.problems: list[str] = []
        visible = {kind: {name: set(numbers) for name, numbers in listing.numbers(kind).items()} for kind in Kind}
        known = {
            kind: {(row["kind"], row["name"], row[kind.value]): row for row in earlier_tables[table]}
            for kind, table in LABEL_FOLDERS.items()
        }
        logs = list(_logs(listing))
        moved = {log.folder for log in logs if earlier_labels.get(log.folder) != log.n_moves}
        documents.fetch(log.path for log in logs if log.folder in moved)
        for log in logs:
            try:
                row = _row(log, documents) if log.folder in moved else known[log.label_kind].get(log.key)
            except (NotFoundError, FormatError) as error:
                label = f"{log.label_kind} {log.label!r} of {log.kind} {log.name!r}"
                self.problems.append(f"{label} is left out of the catalog: {error.what}")
                continue
            self.numbers[log.folder] = log.n_moves
            if row is not None:
                # Not a matter of the label's own document: its version may have gone, or come back, since.
                is_deleted = row["version"] not in visible[log.kind].get(log.name, ())
                self.tables[log.table].append({**row, "is_deleted": is_deleted})


def _logs(listing: Listing) -> Iterator[_Log]:
    kinds = {layout.kind_folder(kind): kind for kind in Kind}
    label_kinds = {folder: kind for kind, folder in LABEL_FOLDERS.items()}
    for folder, n_moves in sorted(listing.labels.items()):
        kind, name, labels, label = folder.split("/")
        yield _Log(kinds[kind], name, label_kinds[labels], label, folder, n_moves)


def _row(log: _Log, documents: Documents) -> Row | None:
    """Everything but whether the version is there; None where the label names nothing any more."""
    record = documents.read(LabelRecord, log.path)
    if record.version is None:
        return None
    row = {
        "kind": log.kind.value,
        "name": log.name,
        log.label_kind.value: log.label,
        "version": record.version,
        "reference": f"{log.name}@{record.version}",
        "label_reference": f"{log.name}@{log.label}",
        "reason": record.reason,
        **written(record.provenance),
    }
    if log.label_kind is LabelKind.ALIAS:
        row["n_moves"] = log.n_moves
    return row
