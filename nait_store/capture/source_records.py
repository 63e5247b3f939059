"""What a reader yields: one record, or one reason why a record could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nait_store.schemas.record import canonical_json

MAX_RECORD_BYTES = 64 << 20
"""A longer record is rejected without being held in memory."""

RAW_CHARACTERS = 2_000
"""How much of a rejected record is kept for the rejects file."""


@dataclass(frozen=True)
class SourceRecord:
    """One record as its source has it, in plain JSON values.

    Attributes
    ----------
    record
        The record; an object at the top.
    source_uri
        File, URL or data set it comes from, as the user named it.
    source_index
        Zero-based position among the source's records, rejected ones counted.
    line
        One-based line of a text file on which it begins.
    record_json
        Canonical JSON of ``record``.
    """

    record: dict[str, Any]
    source_uri: str
    source_index: int
    line: int | None = None
    record_json: str | None = field(default=None, repr=False, compare=False)

    @property
    def where(self) -> str:
        """``file:line``, or the position where the source has no lines."""
        return place(self.source_uri, self.source_index, self.line)


@dataclass(frozen=True)
class RejectedRecord:
    """One record that could not be read or used.

    Attributes
    ----------
    source_uri, source_index, line
        As for :class:`SourceRecord`.
    reason
        What is wrong with it, a phrase without the place.
    raw
        Its first 2,000 characters.
    """

    source_uri: str
    source_index: int
    line: int | None
    reason: str
    raw: str

    @property
    def where(self) -> str:
        """``file:line``, or the position where the source has no lines."""
        return place(self.source_uri, self.source_index, self.line)


def place(source_uri: str, source_index: int, line: int | None) -> str:
    """Spell where a record is, for a message."""
    return f"{source_uri}:{line}" if line is not None else f"{source_uri}, record {source_index} (from 0)"


def accept(value: Any, source_uri: str, source_index: int, line: int | None, raw: str) -> SourceRecord | RejectedRecord:
    """Take a parsed value as a record if it is an object that canonical JSON can express.

    Parameters
    ----------
    value
        What the parser made of it.
    source_uri, source_index, line
        Where it is.
    raw
        Its text, for the rejects file; cut to 2,000 characters.
    """
    reason: str
    if not isinstance(value, dict):
        reason = f"{_json_kind(value)}, not an object with named fields"
    else:
        try:
            text = canonical_json(value).decode("utf-8")
        except UnicodeEncodeError:
            reason = "text that is not valid Unicode: invalid UTF-8 bytes or a lone surrogate escape"
        except RecursionError:
            reason = "nested too deeply"
        except TypeError as error:
            reason = f"a value that JSON has no form for ({error})"
        except ValueError:
            reason = f"NaN or infinity{_name_of_non_finite(value)}, which JSON cannot express"
        else:
            return SourceRecord(value, source_uri, source_index, line, text)
    return RejectedRecord(source_uri, source_index, line, reason, printable(raw))


def printable(raw: str | bytes) -> str:
    """First 2,000 characters of a raw record as text that any file can hold."""
    if isinstance(raw, bytes):
        return raw[: 4 * RAW_CHARACTERS].decode("utf-8", errors="replace")[:RAW_CHARACTERS]
    return raw[:RAW_CHARACTERS].encode("utf-8", errors="replace").decode("utf-8")


def _json_kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "a list"
    return "text" if isinstance(value, str) else f"the value {str(value)[:40]}"


def _name_of_non_finite(record: dict[str, Any]) -> str:
    for name, value in record.items():
        try:
            canonical_json(value)
        except ValueError:
            return f" in {name!r}"
    return ""
