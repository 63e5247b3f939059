"""What versions a store has: one listing of names, and a fingerprint of it that says whether an index is fresh."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nait_store.errors import FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.record import json_digest
from nait_store.schemas.store_record import StoreRecord
from nait_store.storage import layout
from nait_store.storage.location import Location

_DOCUMENT = re.compile(r"([1-9][0-9]*)\.json\Z")


@dataclass(frozen=True)
class Listing:
    """Names of every version document of a store.

    Attributes
    ----------
    store_id
        Of ``store.json``; empty where there is none.
    documents
        Kind → name → sorted file names in its ``versions/`` folder.
    """

    store_id: str
    documents: Mapping[Kind, Mapping[str, tuple[str, ...]]]

    @property
    def fingerprint(self) -> str:
        """Digest that changes with every commit to the store; documents are immutable, so names suffice."""
        named = {kind.value: {n: list(d) for n, d in names.items()} for kind, names in self.documents.items()}
        return json_digest([self.store_id, named])

    def numbers(self, kind: Kind) -> dict[str, tuple[int, ...]]:
        """Name → ascending version numbers, of everything that has a version."""
        found = {
            name: tuple(sorted(int(match[1]) for entry in entries if (match := _DOCUMENT.match(entry))))
            for name, entries in self.documents[kind].items()
        }
        return {name: numbers for name, numbers in found.items() if numbers}


def list_store(location: Location) -> Listing:
    """List every version document of a store: one listing per set, profile and selection.

    Parameters
    ----------
    location
        The store's root.
    """
    documents = {
        kind: {
            name: tuple(entries)
            for name in location.names(layout.kind_folder(kind))
            if (entries := location.names(layout.versions_folder(kind, name)))
        }
        for kind in Kind
    }
    return Listing(_store_id(location), documents)


def _store_id(location: Location) -> str:
    try:
        data = location.read_bytes(layout.STORE_RECORD)
        return StoreRecord.from_json_bytes(data, location.url_of(layout.STORE_RECORD)).store_id
    except (NotFoundError, FormatError):
        # Opening the store is where a missing or damaged store.json is reported; an index does without.
        return ""
