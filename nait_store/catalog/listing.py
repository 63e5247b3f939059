"""What versions a store has: one listing of names, and a fingerprint of it that says whether an index is fresh."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from nait_store.errors import FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.record import json_digest
from nait_store.schemas.store_record import StoreRecord
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.versions import VersionNumbers

P = ParamSpec("P")
R = TypeVar("R")
_PAGE_FILES = 1000  # of one listing request of an object store
_AT_ONCE = 16


@dataclass(frozen=True)
class Listing:
    """Names of every document that decides what versions a store shows.

    Attributes
    ----------
    store_id
        Of ``store.json``; empty where there is none.
    documents
        Kind → name → sorted file names in its ``versions/`` folder, markers of deletions included.
    redirects
        Folder of a set or selection → sorted file names in its ``redirects/``; those without any are left out.
    """

    store_id: str
    documents: Mapping[Kind, Mapping[str, tuple[str, ...]]]
    redirects: Mapping[str, tuple[str, ...]]

    @property
    def fingerprint(self) -> str:
        """Digest that changes with every commit, deletion, collection, purge and repair.

        Documents are immutable, and markers come and go whole, so names suffice.
        """
        named = {kind.value: {n: list(d) for n, d in names.items()} for kind, names in self.documents.items()}
        return json_digest([self.store_id, named, {name: list(found) for name, found in self.redirects.items()}])

    def numbers(self, kind: Kind) -> dict[str, tuple[int, ...]]:
        """Name → ascending numbers of the visible versions, of everything that has one."""
        found = {name: VersionNumbers.of(list(entries)).visible for name, entries in self.documents[kind].items()}
        return {name: numbers for name, numbers in found.items() if numbers}


def list_store(location: Location) -> Listing:
    """List every version document and redirect of a store.

    On an object store that takes one request for ``store.json``, one for all profiles and one for all selections while
    these have less than 1,000 files, one for the names of the sets, and two for each set; many at a time.

    Parameters
    ----------
    location
        The store's root.
    """
    if location.is_local or location.protocol == "memory":
        return _list(location, None)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="nait-list") as pool:
        return _list(location, pool)


def _list(location: Location, pool: ThreadPoolExecutor | None) -> Listing:
    store_id = _ask(pool, _store_id, location)
    listed = [Kind.SET] if pool else list(Kind)
    names = {kind: _ask(pool, location.names, layout.kind_folder(kind)) for kind in listed}
    small = {kind: _ask(pool, _one_page, location, kind) for kind in Kind if kind not in names}
    found: dict[str, tuple[str, ...]] = {}  # folder → names in it
    asked: dict[str, Callable[[], list[str]]] = {}
    items: dict[Kind, list[str]] = {}
    for kind in Kind:
        page = small[kind]() if kind in small else None
        if page is not None:
            found.update(page)
            items[kind] = sorted({folder.split("/")[1] for folder in page})
            continue
        items[kind] = names[kind]() if kind in names else location.names(layout.kind_folder(kind))
        for name in items[kind]:
            folders = [layout.versions_folder(kind, name)]
            if kind is not Kind.PROFILE:
                folders.append(layout.redirects_folder(kind, name))
            asked |= {folder: _ask(pool, location.names, folder) for folder in folders}
    found |= {folder: tuple(answer()) for folder, answer in asked.items()}
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
    return Listing(store_id(), documents, redirects)


def _ask(
    pool: ThreadPoolExecutor | None, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> Callable[[], R]:
    """Call a function, in the background where there is a pool; the result is had by calling what is returned."""
    if pool is not None:
        return pool.submit(function, *args, **kwargs).result
    answer = function(*args, **kwargs)
    return lambda: answer


def _one_page(location: Location, kind: Kind) -> dict[str, tuple[str, ...]] | None:
    """Folder → file names, of ``versions/`` and ``redirects/``, from one request; None if there are too many files."""
    files = list(itertools.islice(location.files(layout.kind_folder(kind)), _PAGE_FILES))
    if len(files) == _PAGE_FILES:
        return None
    found: dict[str, list[str]] = {}
    for file in files:
        parts = file.path.split("/")
        if len(parts) == 4 and parts[2] in ("versions", "redirects"):
            found.setdefault("/".join(parts[:3]), []).append(parts[3])
    return {folder: tuple(sorted(entries)) for folder, entries in found.items()}


def _store_id(location: Location) -> str:
    try:
        data = location.read_bytes(layout.STORE_RECORD)
        return StoreRecord.from_json_bytes(data, location.url_of(layout.STORE_RECORD)).store_id
    except (NotFoundError, FormatError):
        # Opening the store is where a missing or damaged store.json is reported; an index does without.
        return ""
