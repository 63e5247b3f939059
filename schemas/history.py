"""What is written beside versions: deletions, the names that people give to versions, and what they say of them."""

from __future__ import annotations

from pydantic import Field

from nait_store.schemas.record import Document, Name, Provenance


class DeletionRecord(Document):
    """``versions/<n>.deleted.json``: the version is out of sight, and can be brought back until it is collected."""

    number: int = Field(ge=1)
    reason: str = ""
    provenance: Provenance


class CollectionRecord(Document):
    """``versions/<n>.collected.json``: gc has taken the version's data; the number stays used."""

    number: int = Field(ge=1)
    provenance: Provenance


class LabelRecord(Document):
    """``aliases/<alias>/<n>.json`` and ``tags/<tag>/<n>.json``: the highest ``n`` is the alias, or the tag, now."""

    label: Name
    number: int = Field(ge=1)
    """Counts the moves, from 1."""
    version: int | None = Field(default=None, ge=1)
    """The version that it names; None: it was removed."""
    reason: str = ""
    provenance: Provenance


class NoteRecord(Document):
    """``notes/<version>/<n>.json``: the highest ``n`` is what is said about the version now."""

    version: int = Field(ge=1)
    """The version that it is about; it never moves to another."""
    number: int = Field(ge=1)
    """Counts the texts, from 1."""
    text: str
    """Free text without space around it; empty: the note was taken away."""
    provenance: Provenance
