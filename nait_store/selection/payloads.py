"""Payloads of saved selections: which one a version means now, and how samples are taken out of them."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nait_store.errors import AlreadyExistsError, CorruptChunkError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.selection import SELECTION_SCHEMA, SelectionManifest, SelectionRecord, SelectionRedirect
from nait_store.storage import layout
from nait_store.storage.digests import check_file, sha256_bytes, write_payload_file
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.versions import VersionLog

TABLE_FILE = "selection.parquet"
RECORD_FILE = "selection.json"


def current_payload(location: Location, manifest: SelectionManifest) -> tuple[str, str]:
    """Return the payload that a version means now, and the SHA-256 of its record: redirects are followed."""
    followed = redirects_of(location, manifest)
    if not followed:
        return manifest.payload, manifest.record_sha256
    return followed[-1].replacement, followed[-1].record_sha256


def redirects_of(location: Location, manifest: SelectionManifest) -> list[SelectionRedirect]:
    """Read the redirects from a version's payload to the one that it means now, in order; mostly there are none."""
    redirects = location.names(layout.redirects_folder(Kind.SELECTION, manifest.name))
    payload, followed = manifest.payload, list[SelectionRedirect]()
    while f"{payload}.json" in redirects:
        followed.append(_read_redirect(location, manifest.name, payload))
        payload = followed[-1].replacement
    return followed


@dataclass(frozen=True)
class NamedSamples:
    """A version of a selection that names samples which are to go.

    Attributes
    ----------
    manifest
        Its document.
    payload
        The payload that it means now.
    record
        That payload's record.
    rows
        Its table.
    n_named
        How many of the samples it names.
    """

    manifest: SelectionManifest
    payload: str
    record: SelectionRecord
    rows: pa.Table
    n_named: int

    @property
    def reference(self) -> str:
        """``selection:best@1``."""
        return f"{Kind.SELECTION}:{self.manifest.name}@{self.manifest.number}"


def find_samples(location: Location, set_names: Collection[str], sample_ids: Collection[str]) -> list[NamedSamples]:
    """Find the versions of all selections from some sets, deleted ones included, that name some samples.

    Raises
    ------
    CorruptChunkError, FormatError
        A selection cannot be read, so that nobody knows what it names.
    """
    log = VersionLog(location, Kind.SELECTION, SelectionManifest)
    wanted = pa.array(sorted(sample_ids), pa.string())
    found = []
    for name in log.all_names():
        listing = log.listing(name)
        for number in listing.documents:
            manifest = log.read(name, number)
            payload, record_sha256 = current_payload(location, manifest)
            folder = layout.payload_folder(Kind.SELECTION, name, payload)
            try:
                record = _read_record(location, folder, record_sha256)
            except NotFoundError:
                if number in listing.collected:
                    continue
                raise
            if record.set_ref.partition("@")[0] not in set_names:
                continue
            for file in record.files:
                check_file(location, folder, file, hashed=True)
            rows = pq.read_table(io.BytesIO(location.read_bytes(f"{folder}/{TABLE_FILE}")), schema=SELECTION_SCHEMA)
            n_named = pc.sum(pc.is_in(rows.column("sample_id"), wanted)).as_py() or 0
            if n_named:
                found.append(NamedSamples(manifest, payload, record, rows, n_named))
    return found


def take_out(location: Location, named: NamedSamples, sample_ids: Collection[str]) -> str:
    """Put a payload without the samples in the place of one that names them; the other samples keep their ranks.

    The old payload is deleted. Where another writer replaces it first, theirs stays and the caller has to look again.

    Returns
    -------
    str
        The folder that is gone.
    """
    name = named.manifest.name
    kept = named.rows.filter(pc.invert(pc.is_in(named.rows.column("sample_id"), pa.array(sorted(sample_ids)))))
    payload = new_ulid()
    folder = layout.payload_folder(Kind.SELECTION, name, payload)
    buffer = io.BytesIO()
    pq.write_table(kept.cast(SELECTION_SCHEMA), buffer)
    file = write_payload_file(location, folder, TABLE_FILE, buffer.getvalue())
    record = named.record.model_copy(update={"n_selected": kept.num_rows, "files": (file,)})
    data = record.to_json_bytes()
    location.write_bytes(f"{folder}/{RECORD_FILE}", data)
    redirect = SelectionRedirect(
        payload=named.payload,
        replacement=payload,
        record_sha256=sha256_bytes(data),
        n_removed=named.n_named,
        provenance=current_provenance(),
    )
    gone = layout.payload_folder(Kind.SELECTION, name, named.payload)
    try:
        location.create_bytes(_redirect_path(name, named.payload), redirect.to_json_bytes())
    except AlreadyExistsError:
        location.delete(folder)
    location.delete(gone)
    return gone


def delete_replaced_payloads(location: Location) -> list[str]:
    """Delete the folders of payloads that others stand for; returns their paths."""
    deleted = []
    for name in location.names(layout.kind_folder(Kind.SELECTION)):
        for entry in location.names(layout.redirects_folder(Kind.SELECTION, name)):
            folder = layout.payload_folder(Kind.SELECTION, name, entry.removesuffix(".json"))
            if location.exists(folder):
                location.delete(folder)
                deleted.append(folder)
    return deleted


def _redirect_path(name: str, payload: str) -> str:
    return f"{layout.redirects_folder(Kind.SELECTION, name)}/{payload}.json"


def _read_redirect(location: Location, name: str, payload: str) -> SelectionRedirect:
    path = _redirect_path(name, payload)
    return SelectionRedirect.from_json_bytes(location.read_bytes(path), location.url_of(path))


def _read_record(location: Location, folder: str, record_sha256: str) -> SelectionRecord:
    path = f"{folder}/{RECORD_FILE}"
    data = location.read_bytes(path)
    if sha256_bytes(data) != record_sha256:
        raise CorruptChunkError(
            f"{location.url_of(path)} differs from its recorded SHA-256", next_step="run 'nait-store repair'"
        )
    return SelectionRecord.from_json_bytes(data, location.url_of(path))
