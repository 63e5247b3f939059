"""Checks that every kind of item shares: its documents and markers, aliases, tags, notes and payloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from nait_store.refs import Kind
from nait_store.schemas.history import CollectionRecord, DeletionRecord, LabelRecord, NoteRecord
from nait_store.schemas.record import Document, FileDigest
from nait_store.storage import layout
from nait_store.storage.labels import LABEL_FOLDERS
from nait_store.storage.verify import Inspection, Severity
from nait_store.storage.versions import VersionNumbers

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class InspectedVersions(Generic[D]):
    """The versions of one item.

    Attributes
    ----------
    name
        The item.
    numbers
        What lies in ``versions/``.
    documents
        The version documents that could be read, ascending.
    """

    name: str
    numbers: VersionNumbers
    documents: Mapping[int, D]

    @property
    def kept(self) -> dict[int, D]:
        """Those whose data must be there: all that gc has not taken, deleted ones included."""
        return {number: document for number, document in self.documents.items() if number not in self.numbers.collected}

    def knows(self, number: int) -> bool:
        """Whether there is, or was, such a version."""
        return number in self.numbers.documents or number in self.numbers.collected


def inspect_versions(
    inspection: Inspection,
    kind: Kind,
    name: str,
    record_type: type[D],
    problem_of: Callable[[int, D], str | None],
    keep: Callable[[D], D] = lambda document: document,
    follows: Callable[[D], int | None] = lambda _: None,
) -> InspectedVersions[D]:
    """Check an item's version documents and markers, and that no number is missing.

    Parameters
    ----------
    inspection
        What it is part of.
    kind, name
        The item.
    record_type
        Model of its version documents.
    problem_of
        Says what contradicts a document's name, None if nothing.
    keep
        What to keep of a document.
    follows
        Of a version that was pulled, the highest lower number that had been used when it came; None of others.
    """
    numbers = VersionNumbers.of(inspection.names(layout.versions_folder(kind, name)))
    documents: dict[int, D] = {}
    by_path = {layout.version_document(kind, name, number): number for number in numbers.documents}
    for path, document in inspection.documents(by_path, record_type):
        if document is None:
            continue
        problem = problem_of(by_path[path], document)
        if problem is not None:
            inspection.error(path, problem)
        documents[by_path[path]] = keep(document)
    deleted = {layout.deletion_marker(kind, name, number): number for number in numbers.deleted}
    for path, deletion in inspection.documents(deleted, DeletionRecord):
        if deletion is not None and deletion.number != deleted[path]:
            inspection.error(path, f"it is about version {deletion.number}", "number")
    collected = {layout.collection_marker(kind, name, number): number for number in numbers.collected}
    for path, collection in inspection.documents(collected, CollectionRecord):
        if collection is not None and collection.number != collected[path]:
            inspection.error(path, f"it is about version {collection.number}", "number")
    before = {number: follows(document) for number, document in documents.items()}
    _find_gaps(inspection, kind, name, numbers, before)
    return InspectedVersions(name, numbers, documents)


def _find_gaps(
    inspection: Inspection, kind: Kind, name: str, numbers: VersionNumbers, before: Mapping[int, int | None]
) -> None:
    known = {*numbers.documents, *numbers.collected}
    pulled = any(follows is not None for follows in before.values())
    for number in range(1, numbers.last + 1):
        path = layout.version_document(kind, name, number)
        if number in known or inspection.exists(path):
            continue
        if inspection.exists(layout.collection_marker(kind, name, number)):
            continue
        above = min((other for other in known if other > number), default=None)
        follows = None if above is None else before.get(above)
        if follows is not None and follows < number:
            continue
        if pulled and above in numbers.collected and above not in before:
            inspection.info(path, f"version {number} is not here, and gc took the one that would say why")
        else:
            inspection.error(path, f"version {number} is missing, and gc has not taken it")
    highest = layout.version_document(kind, name, numbers.last)
    if numbers.last and numbers.last in numbers.collected and not inspection.exists(highest):
        inspection.error(highest, "the document of the highest version is missing; gc never takes that one")


def inspect_labels(inspection: Inspection, kind: Kind, name: str, numbers: VersionNumbers) -> None:
    """Check an item's aliases and tags, and that they name versions that are there; and the notes on versions."""
    for label_kind, folder in LABEL_FOLDERS.items():
        labels = layout.labels_folder(kind, name, folder)
        for label in inspection.names(labels):
            moves = f"{labels}/{label}"
            found = {n: f"{moves}/{n}.json" for n in layout.numbered(inspection.names(moves))}
            latest: LabelRecord | None = None
            for (number, path), (_, record) in zip(
                found.items(),
                inspection.documents(found.values(), LabelRecord),
                strict=True,
            ):
                latest = record
                if record is not None and (record.label, record.number) != (label, number):
                    inspection.error(path, f"it is move {record.number} of {record.label!r}", "label")
            for number in range(1, max(found, default=0)):
                if number not in found and not inspection.exists(f"{labels}/{label}/{number}.json"):
                    inspection.error(f"{labels}/{label}/{number}.json", f"move {number} of the {label_kind} is missing")
            if latest is not None and latest.version is not None:
                _check_target(inspection, found[max(found)], latest.version, numbers)
    _inspect_notes(inspection, kind, name, numbers)


def _inspect_notes(inspection: Inspection, kind: Kind, name: str, numbers: VersionNumbers) -> None:
    """Check every text of every note; that gc took the version is no reason to forget what was said about it."""
    versions = (f"{entry}.json" for entry in inspection.names(layout.notes_folder(kind, name)))
    for version in layout.numbered(versions):
        folder = layout.notes_folder(kind, name, version)
        found = {f"{folder}/{n}.json": n for n in layout.numbered(inspection.names(folder))}
        for path, record in inspection.documents(found, NoteRecord):
            if record is not None and (record.version, record.number) != (version, found[path]):
                inspection.error(path, f"it is text {record.number} about version {record.version}", "number")
        last = max(found.values(), default=0)
        for number in range(1, last):
            if not inspection.exists(f"{folder}/{number}.json"):
                inspection.error(f"{folder}/{number}.json", f"text {number} of the note is missing")
        if last and version > numbers.last:
            inspection.error(f"{folder}/{last}.json", f"it is about version {version}, which never was", "version")


def _check_target(inspection: Inspection, path: str, version: int, numbers: VersionNumbers) -> None:
    if version not in numbers.documents or version in numbers.collected:
        inspection.error(path, f"it names version {version}, which is not there", "version")
    elif version in numbers.deleted:
        inspection.info(path, f"it names version {version}, which was deleted", "version")


def inspect_payloads(
    inspection: Inspection,
    folder: str,
    record_file: str,
    record_type: type[D],
    wanted: Mapping[str, str],
    *,
    files_of: Callable[[D], Iterable[FileDigest]],
    places: Callable[[D], Callable[[str], str]] = lambda _: lambda _: "",
    replaced: Mapping[str, str] | None = None,
) -> dict[str, D]:
    """Check every payload in a folder.

    Parameters
    ----------
    inspection
        What it is part of.
    folder, record_file
        Where the payloads lie, and the name of the record in each, which is written last.
    record_type
        Of the record.
    wanted
        Payload → digest of its record, of all that something refers to.
    files_of
        What a record lists.
    places
        Says for a record what its files are.
    replaced
        Payload that is gone → the one that stands for it.

    Returns
    -------
    dict
        Payload → record, of those that are wanted and whole; what their records list is expected of the files.
    """
    records: dict[str, D] = {}
    by_path = {f"{folder}/{payload}/{record_file}": payload for payload in wanted}
    for path in by_path:
        if not inspection.exists(path):
            inspection.error(path, "it is missing", record_file)
    there = [path for path in by_path if inspection.exists(path)]
    for path, record in inspection.documents(there, record_type):
        if record is not None and inspection.sha256_of(path) != wanted[by_path[path]]:
            inspection.error(path, "it differs from the SHA-256 in the record that refers to it", "its digest")
        elif record is not None:
            _expect_files(inspection, f"{folder}/{by_path[path]}", files_of(record), places(record), Severity.ERROR)
            records[by_path[path]] = record
    for payload in wanted.keys() - records.keys():  # what the others hold cannot be told without their record
        inspection.account(inspection.below(f"{folder}/{payload}"))
    for payload in inspection.names(folder):
        path = f"{folder}/{payload}"
        if payload in wanted or inspection.is_file(path):
            continue
        whole = inspection.is_file(f"{path}/{record_file}")
        state = "whole, not committed yet or not needed any more" if whole else "not finished"
        if replaced and payload in replaced:
            state = f"{replaced[payload]} stands for it"
        inspection.info(path, f"no version refers to it ({state})")
        other = None
        if whole:
            ((_, other),) = inspection.documents([f"{path}/{record_file}"], record_type, Severity.INFO)
        if other is not None:
            _expect_files(inspection, path, files_of(other), places(other), Severity.INFO)
        else:
            inspection.account(inspection.below(path))
    return records


def _expect_files(
    inspection: Inspection,
    folder: str,
    files: Iterable[FileDigest],
    place_of: Callable[[str], str],
    severity: Severity,
) -> None:
    for file in files:
        path = f"{folder}/{file.path}"
        inspection.expect(path, file.sha256, file.size_bytes, place=place_of(file.path), severity=severity)
