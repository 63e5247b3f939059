"""Verification of ``catalog.duckdb``: an index that may be lost, but must not be believed when it is damaged."""

from __future__ import annotations

from pathlib import Path

from nait_store.catalog.record import CatalogRecord, lines_path, read_record
from nait_store.storage import layout
from nait_store.storage.verify import Inspection

_ATTEMPTS = 3
_MADE_AGAIN = "it is not used, and the next query makes it again"


def inspect_catalog(inspection: Inspection) -> None:
    """Compare the catalog in a store's root with its record."""
    inspection.account([layout.CATALOG, layout.CATALOG_RECORD, layout.CATALOG_PROFILES])
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
        damage = _damage(record, path, quick=inspection.quick)
        if damage is None:
            inspection.checked(0 if inspection.quick else record.size_bytes)
            if record.profiles_sha256:
                inspection.checked(lines_path(path).stat().st_size)
            return
        if read_record(path) == record:
            file, what, loses = damage
            inspection.error(file, f"{what}: {_MADE_AGAIN}", loses)
            return


def _damage(record: CatalogRecord, path: Path, *, quick: bool) -> tuple[str, str, str] | None:
    """Which of the index's files differs from its record, in what, and what that loses."""
    differs = "it differs from its recorded SHA-256"
    if not path.is_file() or path.stat().st_size != record.size_bytes:
        return layout.CATALOG, "its size differs from its record", "the index"
    if record.profiles_sha256 and record.profile_lines(path) is None:  # earlier releases wrote none
        return layout.CATALOG_PROFILES, differs, "the lines about profiles"
    return None if quick or record.describes(path) else (layout.CATALOG, differs, "the index")
