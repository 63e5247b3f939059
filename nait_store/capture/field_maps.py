"""``--map instruction=question,output=answer``: the user's names for the canonical fields."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

from nait_store.errors import InvalidInputError, did_you_mean
from nait_store.schemas.record import canonical_json

CANONICAL_FIELDS = ("instruction", "input", "output", "text", "messages", "system")
_MOST_MAPPED, _MOST_FIELDS = 3, 12  # to look for: 28,000 maps, half a second


@dataclass(frozen=True)
class FieldMap:
    """Which of a record's fields stands for which canonical one.

    Attributes
    ----------
    columns
        Pairs (canonical name, the record's name), sorted by canonical name.
    """

    columns: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> FieldMap:
        """Parse ``canonical=column`` pairs separated by commas.

        Raises
        ------
        InvalidInputError
            Not of that form, an unknown canonical name, or one named twice.
        """
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        if not pairs or any(not equals or not column.strip() for _, equals, column in pairs):
            raise InvalidInputError(
                f"{text!r} does not map fields", next_step="write e.g. --map instruction=question,output=answer"
            )
        names = [name.strip() for name, _, _ in pairs]
        if len(set(names)) < len(names):
            raise InvalidInputError(f"{text!r} maps a field twice", next_step="name each canonical field once")
        return cls.of({name: column.strip() for name, (_, _, column) in zip(names, pairs, strict=True)})

    @classmethod
    def of(cls, columns: Mapping[str, str]) -> FieldMap:
        """Make a map from ``{canonical: column}``; InvalidInputError for an unknown canonical name."""
        for name in columns:
            if name not in CANONICAL_FIELDS:
                raise InvalidInputError(
                    f"{name!r} is not a canonical field ({', '.join(CANONICAL_FIELDS)})",
                    next_step=f"write canonical=column, e.g. instruction=question: "
                    f"{did_you_mean(name, CANONICAL_FIELDS)}",
                )
        return cls(tuple(sorted(columns.items())))

    def apply(self, record: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Rename a record's fields to their canonical names.

        A field that already bears a canonical name which another field is mapped to is dropped; all others stay.

        Raises
        ------
        InvalidInputError
            The record lacks a mapped field; its fields and near names are listed.
        """
        for _, column in self.columns:
            if column not in record:
                raise InvalidInputError(
                    f"{where}: the record has no field {column!r}; it has {spell_fields(record)}",
                    next_step=f"correct --map: {did_you_mean(column, map(str, record))}",
                )
        renamed = {name for pair in self.columns for name in pair}
        kept = {name: value for name, value in record.items() if name not in renamed}
        return kept | {name: record[column] for name, column in self.columns}


def find_field_map(record: Mapping[str, Any], content_hash: str) -> FieldMap | None:
    """Find the map under which a record has a content hash; None where no map of up to three fields gives it.

    A hash tells which map it was beyond doubt, so that who stored it did not have to write the map down as well.
    """
    columns = list(record)
    if len(columns) > _MOST_FIELDS:
        return None
    for n in range(1, _MOST_MAPPED + 1):
        for names in combinations(CANONICAL_FIELDS, n):
            for chosen in permutations(columns, n):
                found = FieldMap.of(dict(zip(names, chosen, strict=True)))
                if hashlib.sha256(canonical_json(found.apply(record, ""))).hexdigest() == content_hash:
                    return found
    return None


def spell_fields(record: Mapping[str, Any]) -> str:
    """List a record's fields for a message, cut short."""
    names = [repr(name if len(name) <= 40 else name[:39] + "…") for name in record]
    if not names:
        return "no fields"
    return ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
