"""From a source record to a sample: its id, its turns, and the fields that become SQL columns.

A sample's identity is the record's, never the rendered text's, so that it is the same for every model and template.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nait_store.capture.field_maps import FieldMap
from nait_store.capture.record_layouts import Turn, find_turns
from nait_store.capture.source_records import SourceRecord
from nait_store.errors import InvalidInputError, did_you_mean
from nait_store.schemas.record import canonical_json
from nait_store.schemas.samples import MAX_USER_FIELDS, is_usable_field_name, sql_column_name

__all__ = ["FieldMap", "Sample", "Turn", "make_sample"]

MAX_ID_CHARACTERS = 512


@dataclass(frozen=True)
class Sample:
    """One training record, understood.

    Attributes
    ----------
    sample_id
        The user's id field as text if named, else the first 32 hexadecimal digits of ``content_hash``.
    content_hash
        SHA-256 of the canonical JSON of the record after ``--map``: all its fields, mapped ones under their
        canonical names. 64 hexadecimal digits.
    source_uri, source_index
        Where it was read.
    record_json
        Canonical JSON of the source record, before ``--map``.
    fields
        Top-level fields (before ``--map``) that can be SQL columns.
    turns
        What was said by whom, in order; at least one with text.
    """

    sample_id: str
    content_hash: str
    source_uri: str
    source_index: int
    record_json: str = field(repr=False)
    fields: dict[str, Any] = field(repr=False)
    turns: tuple[Turn, ...]


def make_sample(
    source_record: SourceRecord, *, field_map: FieldMap | None = None, id_field: str | None = None
) -> Sample:
    """Detect a record's layout and give it its id.

    Parameters
    ----------
    source_record
        A record in plain JSON values.
    field_map
        Renames fields to canonical names before anything else is done.
    id_field
        Field (before renaming) that holds the id: text or a whole number.

    Returns
    -------
    Sample
        Equal records give equal ids, whatever file, model or template.

    Raises
    ------
    InvalidInputError
        No usable fields, a mapped field is missing, or the id is missing, null, empty, too long or not a scalar;
        the message says where, what the record has, and what is accepted.
    """
    record, where = source_record.record, source_record.where
    try:
        record_json = source_record.record_json or canonical_json(record).decode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInputError(
            f"{where}: the record has no canonical JSON form: {error}", next_step="correct or leave out the record"
        ) from error
    mapped = field_map.apply(record, where) if field_map else record
    mapped_bytes = canonical_json(mapped) if field_map else record_json.encode("utf-8")
    content_hash = hashlib.sha256(mapped_bytes).hexdigest()
    return Sample(
        sample_id=content_hash[:32] if id_field is None else _named_id(record, id_field, where),
        content_hash=content_hash,
        source_uri=source_record.source_uri,
        source_index=source_record.source_index,
        record_json=record_json,
        fields=_column_fields(record),
        turns=find_turns(mapped, where, [name for name, _ in field_map.columns] if field_map else ()),
    )


def _named_id(record: Mapping[str, Any], id_field: str, where: str) -> str:
    if id_field not in record:
        raise InvalidInputError(
            f"{where}: the record has no id field {id_field!r}",
            next_step=f"correct --id-field: {did_you_mean(id_field, map(str, record))}",
        )
    value = record[id_field]
    problem = None
    if isinstance(value, bool) or not isinstance(value, str | int):
        problem = "null" if value is None else f"{type(value).__name__}, not text or a whole number"
    elif not str(value).strip():
        problem = "empty"
    elif len(str(value)) > MAX_ID_CHARACTERS:
        problem = f"longer than {MAX_ID_CHARACTERS} characters"
    elif any(unicodedata.category(character) == "Cc" for character in str(value)):
        problem = "text with control characters"
    if problem:
        raise InvalidInputError(
            f"{where}: the id field {id_field!r} is {problem}",
            next_step="correct the record, or leave --id-field out: ids are then made from the content",
        )
    return str(value)


def _column_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that can be columns: usable names, the first of those that differ only in case, at most 256."""
    return {name: record[name] for name in _column_names(tuple(record))}


@functools.lru_cache(maxsize=16)
def _column_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of a record's names that can be columns; the records of a file mostly have the same ones."""
    columns: list[str] = []
    taken: set[str] = set()
    for name in names:
        column = sql_column_name(name).lower()
        if is_usable_field_name(name) and column not in taken and len(columns) < MAX_USER_FIELDS:
            taken.add(column)
            columns.append(name)
    return tuple(columns)
