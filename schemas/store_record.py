"""``store.json``: what a store is and who may read or write it."""

from __future__ import annotations

from nait_store.errors import UnsupportedVersionError
from nait_store.schemas.record import Document, Timestamp, Ulid

FORMAT_VERSION = 1
DTYPES_FEATURE = "dtypes"
"""Sets may hold arrays of dtype bfloat16 or int8, and versions made by ``convert``."""
PROJECTIONS_FEATURE = "projections"
"""Sets may keep projections in the place of activations."""
SOURCELESS_FEATURE = "sourceless"
"""Profiles may be imported or combined, and so without in-domain samples."""
KNOWN_READER_FEATURES: frozenset[str] = frozenset({DTYPES_FEATURE, PROJECTIONS_FEATURE, SOURCELESS_FEATURE})
KNOWN_WRITER_FEATURES: frozenset[str] = KNOWN_READER_FEATURES


class StoreRecord(Document):
    """The root document; written by ``init``, and again only to add a feature."""

    format_version: int
    store_id: Ulid
    created_at: Timestamp
    reader_features: tuple[str, ...] = ()
    """A reader that does not know one of these MUST refuse the store."""
    writer_features: tuple[str, ...] = ()
    """A writer that does not know one of these MUST open the store read-only."""

    def check_readable(self, url: str) -> None:
        """Refuse a store that this release cannot read correctly.

        Raises
        ------
        UnsupportedVersionError
            Newer format version, or an unknown reader feature.
        """
        unknown = sorted(set(self.reader_features) - KNOWN_READER_FEATURES)
        if self.format_version > FORMAT_VERSION or unknown:
            reason = (
                f"format version {self.format_version} (this release reads up to {FORMAT_VERSION})"
                if self.format_version > FORMAT_VERSION
                else f"unknown reader features {', '.join(unknown)}"
            )
            raise UnsupportedVersionError(
                f"the store at {url} was written by a newer release: {reason}",
                next_step="upgrade: pip install --upgrade nait-store",
            )

    def unknown_writer_features(self) -> list[str]:
        """Writer features that make the store read-only for this release."""
        return sorted(set(self.writer_features) - KNOWN_WRITER_FEATURES)
