"""What people say about versions, as plain values: the text now, and every earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nait_store.schemas.history import NoteRecord


@dataclass(frozen=True)
class NoteText:
    """One text of a note; empty where it was taken away."""

    text: str
    author: str
    written_at: datetime


@dataclass(frozen=True)
class NoteSummary:
    """The note on a version.

    Attributes
    ----------
    reference
        The version, ``math@3``.
    text
        What it says now; empty where it was taken away.
    author, written_at
        Of this text.
    texts
        Every text, oldest first.
    """

    reference: str
    text: str
    author: str
    written_at: datetime
    texts: tuple[NoteText, ...]


def note_summary(name: str, version: int, records: Sequence[NoteRecord]) -> NoteSummary:
    """A note from its documents, oldest first."""
    texts = tuple(NoteText(record.text, record.provenance.author, record.provenance.created_at) for record in records)
    last = texts[-1]
    return NoteSummary(f"{name}@{version}", last.text, last.author, last.written_at, texts)
