"""The statement that DuckDB gets for a user's, and the way back: which place of the user's text a place in it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from nait_store.query.sources import Source
from nait_store.query.spelling import identifier
from nait_store.query.statement import Statement

_EXPLAIN = "EXPLAIN "
_SHOWN_CHARACTERS = 72


@dataclass(frozen=True)
class Composition:
    """A statement with every call replaced by what stands for it.

    Attributes
    ----------
    text
        What DuckDB gets.
    statement
        What the user wrote.
    kept
        Stretches that are as written: byte offset in ``text``, byte offset in the user's text, bytes.
    """

    text: str
    statement: Statement
    kept: tuple[tuple[int, int, int], ...]

    def excerpt(self, connection: duckdb.DuckDBPyConnection, parameters: dict[str, Any]) -> str:
        """The line of the user's text that DuckDB refuses to bind, with a mark below the place; else nothing.

        Parameters
        ----------
        connection
            Where the text was refused.
        parameters
            Values of those that it has.
        """
        place = None if self.statement.explains else _refused_place(connection, self.text, parameters)
        if place is None:
            return ""
        at, n_bytes = place
        for start, original, length in self.kept:
            if start <= at < start + length:
                return _marked(self.statement.text, original + at - start, n_bytes)
        return ""


def compose(statement: Statement, sources: Sequence[Source]) -> Composition:
    """Replace every call of a statement; all the rest stays as written."""
    edits: list[tuple[int, int, bytes]] = []
    for source in sources:
        call = source.call
        # What a call without alias is called by the rest of the statement.
        alias = b"" if call.alias else f" AS {identifier(call.relation_name)}".encode()  # SIMILAR is a keyword
        if source.is_constant:
            edits.append((call.start, call.end, f"(\n{source.sql}\n)".encode() + alias))
        else:
            edits.append((call.start, call.name_end, source.sql.encode()))
            edits.append((call.end, call.end, alias))
    # With some of them gone, the other question marks would count differently.
    replaced = [(start, end) for start, end, _ in edits]
    for at, name in statement.question_marks:
        if not any(start <= at < end for start, end in replaced):
            edits.append((at, at + 1, f"${name}".encode()))
    parts: list[bytes] = []
    kept: list[tuple[int, int, int]] = []
    position = n_bytes = 0
    for start, end, text in [*sorted(edits, key=lambda edit: edit[:2]), (len(statement.text), 0, b"")]:
        kept.append((n_bytes, position, start - position))
        parts += [statement.text[position:start], text]
        n_bytes += start - position + len(text)
        position = end
    return Composition(b"".join(parts).decode(), statement, tuple(kept))


def _refused_place(
    connection: duckdb.DuckDBPyConnection, text: str, parameters: dict[str, Any]
) -> tuple[int, int] | None:
    """Byte offset and length of what cannot be bound, where DuckDB says so."""
    connection.execute("SET errors_as_json = true").fetchall()
    try:
        # The error of a relation lacks the place. EXPLAIN binds, and runs nothing.
        connection.execute(_EXPLAIN + text, parameters or None).fetchall()
        return None
    except duckdb.Error as error:
        _, _, document = str(error).partition(": ")
    finally:
        connection.execute("RESET errors_as_json").fetchall()
    try:
        at, n_bytes = json.loads(json.loads(document)["location"])
    except (ValueError, KeyError, TypeError):
        return None
    return int(at) - len(_EXPLAIN), int(n_bytes)


def _marked(text: bytes, at: int, n_bytes: int) -> str:
    """``LINE 2: …`` and a line of ``^`` below the place; a long line is cut around it."""
    begin = text.rfind(b"\n", 0, at) + 1
    end = text.find(b"\n", at)
    line = text[begin : end if end >= 0 else len(text)].decode(errors="replace")
    column = len(text[begin:at].decode(errors="replace"))
    width = max(1, min(len(text[at : at + n_bytes].decode(errors="replace").partition("\n")[0]), len(line) - column))
    first = max(0, column - _SHOWN_CHARACTERS // 2) if len(line) > _SHOWN_CHARACTERS else 0
    shown = line[first : first + _SHOWN_CHARACTERS]
    before, after = "…" * (first > 0), "…" * (first + len(shown) < len(line))
    number = text.count(b"\n", 0, at) + 1
    label = f"LINE {number}: "
    indent = len(label) + len(before) + column - first
    plain = "".join(c if c.isprintable() else " " for c in shown)
    return f"{label}{before}{plain}{after}\n{' ' * indent}{'^' * min(width, first + len(shown) - column)}"
