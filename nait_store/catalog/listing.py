"""What versions and labels a store has: a listing of names, whose fingerprint says whether an index is fresh."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from nait_store.errors import FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.record import json_digest
from nait_store.schemas.store_record import StoreRecord
from nait_store.storage import layout
from nait_store.storage.backend import StoredFile
from nait_store.storage.labels import LABEL_FOLDERS
from nait_store.storage.location import Location
from nait_store.storage.versions import VersionNumbers

P = ParamSpec("P")
R = TypeVar("R")
_PAGE_FILES = 1000  # of one listing request of an object store
_AT_ONCE = 16
_LOGS = (*LABEL_FOLDERS.values(), layout.NOTES)  # folders of logs: of labels, and of the notes on versions
_LABEL_DEPTH = 3  # slashes in profiles/math/aliases/prod
_BESIDE_VERSIONS = {  # few items have any
    Kind.SET: (layout.REDIRECTS, *_LOGS),
    Kind.PROFILE: _LOGS,
    Kind.SELECTION: (layout.REDIRECTS, *_LOGS),
}

Names = dict[str, tuple[str, ...]]
"""Folder → sorted names in it."""


@dataclass(frozen=True)
class Listing:
    """Names of every document that decides what versions and labels a store shows.

    Attributes
    ----------
    store_id
        Of ``store.json``; empty where there is none.
    documents
        Kind → name → sorted file names in its ``versions/`` folder, markers of deletions included.
    redirects
        Folder of a set or selection → sorted file names in its ``redirects/``; those without any are left out.
    labels
        Folder of an alias, tag or note, ``profiles/math/aliases/prod``, ``profiles/math/notes/3`` → number of its
        latest document.
    """

    store_id: str
    documents: Mapping[Kind, Mapping[str, tuple[str, ...]]]
    redirects: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, int]

    @property
    def fingerprint(self) -> str:
        """Digest that changes with every commit, deletion, collection, purge, repair, move of a label and note.

        Documents are immutable, and markers come and go whole, so names suffice.
        """
        named = {kind.value: {n: list(d) for n, d in names.items()} for kind, names in self.documents.items()}
        redirects = {name: list(found) for name, found in self.redirects.items()}
        return json_digest([self.store_id, named, redirects, dict(self.labels)])

    def numbers(self, kind: Kind) -> dict[str, tuple[int, ...]]:
        """Name → ascending numbers of the visible versions, of everything that has one."""
        found = {name: VersionNumbers.of(list(entries)).visible for name, entries in self.documents[kind].items()}
        return {name: numbers for name, numbers in found.items() if numbers}


def list_store(location: Location) -> Listing:
    """List every version document, redirect, move of a label and text of a note in a store.

    On an object store that takes one request for ``store.json``, one for all profiles and one for all selections while
    these have less than 1,000 files, and one for the names of the sets; for each set two, and one more for each of
    redirects, aliases, tags and notes that it has; many at a time. Kinds with more files are listed as the sets are.

    Parameters
    ----------
    location
        The store's root.
    """
    if not location.is_remote:
        return _list(location, None)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="nait-list") as pool:
        return _list(location, pool)


def _list(location: Location, pool: ThreadPoolExecutor | None) -> Listing:
    store_id = _ask(pool, _store_id, location)
    listed = [Kind.SET] if pool else list(Kind)
    names = {kind: _ask(pool, location.names, layout.kind_folder(kind)) for kind in listed}
    small = {kind: _ask(pool, _one_page, location, kind) for kind in Kind if kind not in names}
    found: Names = {}
    items: dict[Kind, list[str]] = {}
    beside: dict[str, Callable[[], list[str]]] = {}  # folder of an item → what it has beside its versions
    versions: dict[str, Callable[[], list[str]]] = {}
    for kind in Kind:
        page = small[kind]() if kind in small else None
        if page is not None:
            found.update(page)
            items[kind] = sorted({folder.split("/")[1] for folder in page})
            continue
        items[kind] = names[kind]() if kind in names else location.names(layout.kind_folder(kind))
        folders = [layout.item_folder(kind, name) for name in items[kind]]
        of_versions = [f"{folder}/{layout.VERSIONS}" for folder in folders]
        if pool is None:  # of thousands, what every single call takes beside the listing is as much as that
            present = zip(folders, location.present_in_each(folders, _BESIDE_VERSIONS[kind]), strict=True)
            beside |= {folder: _known(names) for folder, names in present if names}
            found |= zip(of_versions, map(tuple, location.names_of_each(of_versions)), strict=True)
            continue
        for folder, folder_of_versions in zip(folders, of_versions, strict=True):
            beside[folder] = _ask(pool, location.present, folder, _BESIDE_VERSIONS[kind])
            versions[folder_of_versions] = _ask(pool, location.names, folder_of_versions)
    answers = [
        _ask(pool, _names_in, location, f"{folder}/{name}") for folder, answer in beside.items() for name in answer()
    ]
    found |= {folder: tuple(answer()) for folder, answer in versions.items()}
    for more in answers:
        found |= more()
    documents = {
        kind: {name: entries for name in items[kind] if (entries := found.get(layout.versions_folder(kind, name)))}
        for kind in Kind
    }
    redirects = {
        layout.item_folder(kind, name): entries
        for kind in (Kind.SET, Kind.SELECTION)
        for name in items[kind]
        if (entries := found.get(layout.redirects_folder(kind, name)))
    }
    moves = {folder: layout.numbered(entries) for folder, entries in found.items() if folder.count("/") == _LABEL_DEPTH}
    labels = {folder: numbers[-1] for folder, numbers in moves.items() if numbers}
    return Listing(store_id(), documents, redirects, labels)


def _ask(
    pool: ThreadPoolExecutor | None, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> Callable[[], R]:
    """Call a function, in the background where there is a pool; the result is had by calling what is returned."""
    if pool is not None:
        return pool.submit(function, *args, **kwargs).result
    return _known(function(*args, **kwargs))


def _known(answer: R) -> Callable[[], R]:
    return lambda: answer


def _one_page(location: Location, kind: Kind) -> Names | None:
    """Names of versions, redirects, moves of labels and notes, from one request; None if there are too many files."""
    files = list(itertools.islice(location.files(layout.kind_folder(kind)), _PAGE_FILES))
    return None if len(files) == _PAGE_FILES else _by_folder(files)


def _names_in(location: Location, folder: str) -> Names:
    """Names in a folder of redirects, or in each folder of a folder of labels or notes."""
    if folder.endswith(f"/{layout.REDIRECTS}"):
        return {folder: tuple(location.names(folder))}
    if location.is_remote:
        return _by_folder(location.files(folder))
    labels = [f"{folder}/{label}" for label in location.names(folder)]
    return {label: tuple(location.names(label)) for label in labels}


def _by_folder(files: Iterable[StoredFile]) -> Names:
    found: dict[str, list[str]] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        match folder.split("/"):
            case [_, _, layout.VERSIONS | layout.REDIRECTS]:
                found.setdefault(folder, []).append(name)
            case [_, _, logs, _] if logs in _LOGS:
                found.setdefault(folder, []).append(name)
    return {folder: tuple(sorted(names)) for folder, names in found.items()}


def _store_id(location: Location) -> str:
    try:
        data = location.read_bytes(layout.STORE_RECORD)
        return StoreRecord.from_json_bytes(data, location.url_of(layout.STORE_RECORD)).store_id
    except (NotFoundError, FormatError):
        # Opening the store is where a missing or damaged store.json is reported; an index does without.
        return ""
