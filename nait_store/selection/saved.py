"""Saved selections: named, versioned, immutable, with everything needed to make them again."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nait_store.errors import CorruptChunkError
from nait_store.refs import Kind, Reference, check_name, parse_reference
from nait_store.schemas.selection import SELECTION_SCHEMA, SelectionManifest, SelectionRecord
from nait_store.selection.choosing import Selection
from nait_store.selection.payloads import RECORD_FILE, TABLE_FILE, redirects_of
from nait_store.selection.requests import SelectionRequest
from nait_store.storage import layout
from nait_store.storage.digests import check_file, sha256_bytes, write_payload_file
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.versions import VersionLog, VersionNumbers


@dataclass(frozen=True)
class SavedSelection:
    """One version of a saved selection.

    Attributes
    ----------
    record
        What was selected from what, how, by which query.
    number
        Version number, from 1.
    manifest
        Its document: message, author, time.
    record_sha256
        Of ``selection.json``.
    n_purged
        Samples that it named and that a purge took out of it.
    """

    record: SelectionRecord
    number: int
    manifest: SelectionManifest
    record_sha256: str
    n_purged: int
    _location: Location
    _folder: str

    @property
    def reference(self) -> str:
        """``best@1``."""
        return f"{self.record.name}@{self.number}"

    def rows(self) -> pa.Table:
        """Ranked samples: ``rank``, ``sample_id``, ``score``, in rank order.

        Raises
        ------
        CorruptChunkError
            The file differs from its record.
        """
        for file in self.record.files:
            check_file(self._location, self._folder, file, hashed=True)
        data = self._location.read_bytes(f"{self._folder}/{TABLE_FILE}")
        # Without Arrow's own I/O threads: SQL reads this on one of them, and eight such reads would wait for each
        # other.
        return pq.read_table(io.BytesIO(data), schema=SELECTION_SCHEMA, pre_buffer=False)

    def selection(self) -> Selection:
        """The selection as it was made, to export it again."""
        record = self.record
        request = SelectionRequest.from_record(record)
        return Selection(
            self.rows(), request, record.n_candidates, record.query, shares=record.shares, dropped=record.dropped
        )


class SavedSelections:
    """All saved selections of a store.

    Parameters
    ----------
    location
        The store's root.

    Attributes
    ----------
    log
        The versions' documents.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self.log = VersionLog(location, Kind.SELECTION, SelectionManifest)

    def names(self) -> list[str]:
        """Sorted names."""
        return self.log.names()

    def manifests(self, name: str) -> list[SelectionManifest]:
        """Versions of one selection, oldest first; NotFoundError for an unknown name."""
        self.log.resolve(Reference(Kind.SELECTION, check_name(name, Kind.SELECTION)))
        return [self.log.read(name, number) for number in self.log.numbers(name)]

    def manifest(self, name: str, number: int) -> SelectionManifest:
        """Read one version's document, deleted or not."""
        return self.log.read(name, number)

    def save(
        self, name: str, selection: Selection, *, message: str = "", parameters: Mapping[str, Any] | None = None
    ) -> SavedSelection:
        """Save a selection as the next version; see :meth:`nait_store.store.selections.Selections.save`."""
        check_name(name, Kind.SELECTION)
        self._location.require_writable()
        payload = new_ulid()
        folder = layout.payload_folder(Kind.SELECTION, name, payload)
        buffer = io.BytesIO()
        pq.write_table(selection.rows.cast(SELECTION_SCHEMA), buffer)
        file = write_payload_file(self._location, folder, TABLE_FILE, buffer.getvalue())
        record = SelectionRecord(
            name=name,
            **selection.request.recorded(),
            n_candidates=selection.n_candidates,
            n_selected=selection.n_selected,
            query=selection.query,
            shares=selection.shares,
            dropped=selection.dropped,
            parameters=dict(parameters or {}),
            files=(file,),
            provenance=current_provenance(),
        )
        data = record.to_json_bytes()
        self._location.write_bytes(f"{folder}/{RECORD_FILE}", data)
        manifest = self._commit(name, payload, sha256_bytes(data), message)
        return SavedSelection(record, manifest.number, manifest, sha256_bytes(data), 0, self._location, folder)

    def open(self, reference: Reference | str) -> SavedSelection:
        """Open a version.

        Raises
        ------
        NotFoundError
            Unknown name or version; near names are suggested.
        CorruptChunkError
            ``selection.json`` differs from its digest.
        """
        if isinstance(reference, str):
            reference = parse_reference(reference, Kind.SELECTION)
        return self.version(reference.name, self.log.resolve(reference))

    def version(self, name: str, number: int) -> SavedSelection:
        """Open a version that gc has not taken, deleted or not; errors as for :meth:`open`."""
        manifest = self.manifest(name, number)
        redirects = redirects_of(self._location, manifest)
        current = redirects[-1] if redirects else None
        payload = current.replacement if current else manifest.payload
        record_sha256 = current.record_sha256 if current else manifest.record_sha256
        folder = layout.payload_folder(Kind.SELECTION, name, payload)
        path = f"{folder}/{RECORD_FILE}"
        data = self._location.read_bytes(path)
        if sha256_bytes(data) != record_sha256:
            raise CorruptChunkError(
                f"{self._location.url_of(path)} differs from its recorded SHA-256", next_step="run 'nait-store verify'"
            )
        record = SelectionRecord.from_json_bytes(data, self._location.url_of(path))
        n_purged = sum(redirect.n_removed for redirect in redirects)
        return SavedSelection(record, number, manifest, record_sha256, n_purged, self._location, folder)

    def _commit(self, name: str, payload: str, record_sha256: str, message: str) -> SelectionManifest:
        def propose(numbers: VersionNumbers) -> SelectionManifest:
            return SelectionManifest(
                name=name,
                number=numbers.last + 1,
                payload=payload,
                record_sha256=record_sha256,
                message=message,
                provenance=current_provenance(),
            )

        manifest = self.log.commit_next(name, propose)
        assert manifest is not None
        return manifest
