"""Verification of ``catalog.duckdb``: an index that may be lost, but must not be believed when it is damaged."""

from __future__ import annotations

from nait_store.catalog.record import CatalogRecord, read_record
from nait_store.storage import layout
from nait_store.storage.verify import Inspection

_ATTEMPTS = 3
_MADE_AGAIN = "it is not used, and the next query makes it again"


def inspect_catalog(inspection: Inspection) -> None:
    """Compare the catalog in a store's root with its record."""
    inspection.account([layout.CATALOG, layout.CATALOG_RECORD])
    root = inspection.location.local_path()
    if root is None:  # it lies in users' cache folders
        return
    has_catalog, has_record = inspection.is_file(layout.CATALOG), inspection.is_file(layout.CATALOG_RECORD)
    if has_record and inspection.document(layout.CATALOG_RECORD, CatalogRecord) is None:
        return
    if not has_record or not has_catalog:
        if has_catalog:
            inspection.info(layout.CATALOG, f"it has no record: {_MADE_AGAIN}")
        return
    path = root / layout.CATALOG
    for _ in range(_ATTEMPTS):
        record = read_record(path)
        if record is None:  # it is being replaced just now
            return
        same_size = path.is_file() and path.stat().st_size == record.size_bytes
        if same_size and (inspection.quick or record.describes(path)):
            inspection.checked(0 if inspection.quick else record.size_bytes)
            return
        if read_record(path) == record:
            what = "it differs from its recorded SHA-256" if same_size else "its size differs from its record"
            inspection.error(layout.CATALOG, f"{what}: {_MADE_AGAIN}", "the index")
            return
