"""Saved selections on disk: ranked sample ids with the query, versions and seed that made them."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from nait_store.schemas.record import Document, FileDigest, Name, Provenance, Sha256, Ulid

SELECTION_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
    ]
)
"""Columns of ``selection.parquet``, in rank order from 1; ``score`` is null for random selections without a profile."""


class SelectionRecord(Document):
    """``selection.json`` of a payload. Immutable."""

    name: Name
    set_ref: str
    """Resolved, ``pool@3``."""
    profile_ref: str | None
    """Resolved, ``math@2``; None for a random selection."""
    strategy: Literal["alignment", "lowest", "random"]
    top: str
    """As asked, ``10%`` or ``562``."""
    where: str | None
    seed: int | None
    n_candidates: int = Field(ge=0)
    n_selected: int = Field(ge=0)
    query: str
    """The SQL that reproduces it."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    files: tuple[FileDigest, ...]
    provenance: Provenance


class SelectionManifest(Document):
    """``versions/<n>.json`` of a selection: the sole commit point."""

    name: Name
    number: int = Field(ge=1)
    payload: Ulid
    record_sha256: Sha256
    message: str = ""
    provenance: Provenance


class SelectionRedirect(Document):
    """``redirects/<payload>.json``: another payload stands for this one, without samples that were purged."""

    payload: Ulid
    """The payload that is gone."""
    replacement: Ulid
    record_sha256: Sha256
    """Of the replacement's ``selection.json``."""
    n_removed: int = Field(ge=1)
    """Samples that it has less than the payload it replaces."""
    provenance: Provenance
