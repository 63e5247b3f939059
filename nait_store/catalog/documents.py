"""Documents that the catalog is made of, read ahead where each costs a request; and what all its rows have."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeVar

from nait_store.errors import CorruptChunkError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.activation_set import SetManifest
from nait_store.schemas.profile import ProfileManifest
from nait_store.schemas.record import Document, Provenance
from nait_store.schemas.selection import SelectionManifest
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.fetching import FilePart
from nait_store.storage.location import Location

Row = dict[str, Any]
D = TypeVar("D", bound=Document)
_DOCUMENT_BYTES = 1 << 16  # about; it only bounds what is fetched ahead


class Documents:
    """Reads the documents of a store.

    Parameters
    ----------
    location
        The store's root.

    Attributes
    ----------
    location
        As given.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self._ahead: dict[str, bytes] = {}

    def fetch(self, paths: Iterable[str]) -> None:
        """Read documents ahead, many at a time, where each costs a request."""
        if self.location.is_local or self.location.protocol == "memory":
            return
        parts = [FilePart(path, _DOCUMENT_BYTES) for path in paths if path not in self._ahead]
        with suppress(NotFoundError):  # whoever wants the missing one reports it
            for part, data in self.location.read_many(parts):
                self._ahead[part.path] = data

    def read(self, record_type: type[D], path: str, sha256: str | None = None) -> D:
        """Read a document, and compare it with its digest where one is given."""
        data = self._ahead.pop(path, None) or self.location.read_bytes(path)
        if sha256 is not None and sha256_bytes(data) != sha256:
            raise CorruptChunkError(f"{self.location.url_of(path)} differs from its recorded SHA-256")
        return record_type.from_json_bytes(data, self.location.url_of(path))


def version_row(
    kind: Kind,
    name: str,
    number: int,
    manifest: SetManifest | ProfileManifest | SelectionManifest,
    parent: int | None,
    operation: str,
    n_samples: int | None,
) -> Row:
    """One row of ``versions``."""
    return {
        "kind": kind.value,
        "name": name,
        "version": number,
        "reference": f"{name}@{number}",
        "parent": parent,
        "operation": operation,
        "message": manifest.message,
        "n_samples": n_samples,
        "writer": manifest.provenance.writer,
        **written(manifest.provenance),
    }


def written(provenance: Provenance) -> Row:
    """When, and by whom."""
    return {"created_at": provenance.created_at, "author": provenance.author}
