"""Verification of a saved selection: every version's documents and ranks."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from nait_store.refs import Kind
from nait_store.schemas.selection import SELECTION_SCHEMA, SelectionManifest, SelectionRecord, SelectionRedirect
from nait_store.storage import layout
from nait_store.storage.verify import Inspection
from nait_store.storage.version_checks import inspect_labels, inspect_payloads, inspect_versions

RECORD_FILE = "selection.json"
TABLE_FILE = "selection.parquet"


class SelectionInspection:
    """The part of a verification that is about one saved selection.

    Parameters
    ----------
    inspection
        The whole; it has walked the selection's folder.
    name
        The selection.
    """

    def __init__(self, inspection: Inspection, name: str) -> None:
        self._inspection = inspection
        self._name = name
        self._payloads = layout.payload_folder(Kind.SELECTION, name)
        self._records: dict[str, SelectionRecord] = {}

    def structure(self) -> None:
        """Check documents and references, and say what is expected of every other file."""
        name = self._name

        def problem_of(number: int, manifest: SelectionManifest) -> str | None:
            same = (manifest.number, manifest.name) == (number, name)
            return None if same else "the document names another selection or version"

        versions = inspect_versions(self._inspection, Kind.SELECTION, name, SelectionManifest, problem_of)
        inspect_labels(self._inspection, Kind.SELECTION, name, versions.numbers)
        redirects = self._redirects()
        wanted = {}
        for manifest in versions.kept.values():
            payload, digest, seen = manifest.payload, manifest.record_sha256, set[str]()
            while payload in redirects and payload not in seen:
                seen.add(payload)
                payload, digest = redirects[payload].replacement, redirects[payload].record_sha256
            wanted[payload] = digest
        self._records = inspect_payloads(
            self._inspection,
            self._payloads,
            RECORD_FILE,
            SelectionRecord,
            wanted,
            files_of=lambda record: record.files,
            places=lambda record: lambda _: f"{record.n_selected:,} ranked samples",
            replaced={payload: redirect.replacement for payload, redirect in redirects.items()},
        )
        for payload, record in self._records.items():
            if record.name != name:
                self._inspection.error(f"{self._payloads}/{payload}/{RECORD_FILE}", f"it is of {record.name!r}", "name")

    def contents(self) -> None:
        """Check the ranks of files that are what was written; nothing under ``quick``."""
        if self._inspection.quick:
            return
        for payload, record in self._records.items():
            path = f"{self._payloads}/{payload}/{TABLE_FILE}"
            if not self._inspection.is_sound([path]):
                continue
            data = self._inspection.bytes_of(path)
            if data is None:
                continue
            try:
                n_rows = pq.read_table(io.BytesIO(data), schema=SELECTION_SCHEMA).num_rows
            except (pa.ArrowException, OSError) as error:
                self._inspection.error(path, f"it cannot be read as Parquet: {error}")
                continue
            if n_rows != record.n_selected:
                self._inspection.error(path, f"it has {n_rows:,} ranks where {RECORD_FILE} says {record.n_selected:,}")

    def _redirects(self) -> dict[str, SelectionRedirect]:
        folder = layout.redirects_folder(Kind.SELECTION, self._name)
        paths = [f"{folder}/{name}" for name in self._inspection.names(folder) if name.endswith(".json")]
        redirects = {}
        for path, redirect in self._inspection.documents(paths, SelectionRedirect):
            if redirect is None:
                continue
            if path != f"{folder}/{redirect.payload}.json":
                self._inspection.error(path, f"it is about payload {redirect.payload}", "payload")
            else:
                redirects[redirect.payload] = redirect
        return redirects
