"""What is listed and searched of profiles: one line a version, kept beside the DuckDB index.

Who lists or searches profiles needs no database: to import DuckDB alone takes longer than to read these lines.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from nait_store.refs import Kind
from nait_store.schemas.record import canonical_json

if TYPE_CHECKING:
    from nait_store.catalog.documents import Row
    from nait_store.catalog.rows import Tables


class Rank(IntEnum):
    """Which versions a reader wants: those of one rank, and of all before it."""

    LATEST = 0
    """The latest version of its profile."""
    TOLD_OF = 1
    """An earlier one that has an alias, a tag or a note."""
    ANY = 2
    """Any other."""


class ProfileLine(NamedTuple):
    """One version of a profile, as the catalog's tables ``profiles``, ``aliases``, ``tags`` and ``notes`` have it."""

    rank: int
    profile: str
    version: int
    reference: str
    recipe: str
    method: str
    center: bool
    component: int | None
    profile_feature: str
    feature: str
    metric: str
    made_from: str
    source: str | None
    background: str | None
    n_samples: int | None
    n_layers: int
    n_neurons: int
    ported_from: str | None
    model: str | None
    hook_point: str
    capture_id: str
    n_warnings: int
    message: str
    card: str
    aliases: list[str]
    tags: list[str]
    note: str
    created_at: str
    """UTC, ISO 8601."""
    author: str
    family_keys: list[str]


_TAKEN_OVER = frozenset(ProfileLine._fields) - {
    "rank",
    "n_layers",
    "n_warnings",
    "aliases",
    "tags",
    "note",
    "created_at",
}


@dataclass(frozen=True)
class ProfileLines:
    """The lines of a store, as JSON Lines: a header, then an array a version, by rank, name and number.

    Attributes
    ----------
    data
        Of the file.
    """

    data: bytes

    @classmethod
    def of(cls, tables: Tables) -> ProfileLines:
        """Make the lines of a catalog's rows."""
        aliases, tags = (_labels(tables[table], column) for table, column in (("aliases", "alias"), ("tags", "tag")))
        notes = {_version(row): row["note"] for row in tables["notes"] if row["kind"] == Kind.PROFILE.value}
        lines = []
        for row in tables["profiles"]:
            key = (row["profile"], row["version"])
            told_of = key in aliases or key in tags or key in notes
            line = ProfileLine(
                rank=Rank.LATEST if row["is_latest"] else Rank.TOLD_OF if told_of else Rank.ANY,
                n_layers=len(row["layers"]),
                n_warnings=len(row["warnings"]),
                aliases=sorted(aliases.get(key, ())),
                tags=sorted(tags.get(key, ())),
                note=notes.get(key, ""),
                created_at=row["created_at"].astimezone(UTC).isoformat(),
                **{column: row[column] for column in _TAKEN_OVER},
            )
            lines.append(line)
        lines.sort(key=lambda line: line[:3])
        written = {rank: b"".join(canonical_json(line) + b"\n" for line in lines if line.rank == rank) for rank in Rank}
        ends = itertools.accumulate(map(len, written.values()))
        return cls(canonical_json(_header(list(ends))) + b"\n" + b"".join(written.values()))

    @classmethod
    def from_bytes(cls, data: bytes) -> ProfileLines | None:
        """Take over a file whose digest was compared; None where another release wrote it otherwise."""
        lines = cls(data)
        header = lines._header
        return lines if header == _header(header.get("ends_bytes", [])) else None

    @property
    def _header(self) -> dict[str, Any]:
        return dict(json.loads(self.data[: self.data.index(b"\n")]))

    def read(self, upto: Rank, words: Sequence[str] = ()) -> list[ProfileLine]:
        """Return the versions up to a rank, by name and number.

        Parameters
        ----------
        upto
            The last rank that is wanted.
        words
            Leaves out lines in which one of them does not occur, whatever the case: each must be part of one value.
            It may be of one that the caller does not search.
        """
        start = self.data.index(b"\n") + 1
        text = self.data[start : start + self._header["ends_bytes"][upto]].decode().rstrip("\n")
        if words:
            lines = text.split("\n")
            for word in words:
                escaped = json.dumps(word, ensure_ascii=False)[1:-1].casefold()
                lines = [line for line in lines if escaped in line.casefold()]
            text = "\n".join(lines)
        found = [ProfileLine._make(values) for values in json.loads("[" + text.replace("\n", ",") + "]")]
        if upto > Rank.LATEST:  # one rank is in order already
            found.sort(key=lambda line: line[1:3])
        return found


def _header(ends: list[int]) -> dict[str, Any]:
    """Names of the columns, and for each rank the bytes of its lines and of all before them."""
    return {"columns": list(ProfileLine._fields), "ends_bytes": ends}


def _version(row: Row) -> tuple[str, int]:
    return row["name"], row["version"]


def _labels(rows: Sequence[Row], column: str) -> dict[tuple[str, int], list[str]]:
    found: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        if row["kind"] == Kind.PROFILE.value:
            found.setdefault(_version(row), []).append(row[column])
    return found
