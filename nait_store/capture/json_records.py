"""Records from JSON Lines and JSON text, in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from nait_store.capture.source_records import MAX_RECORD_BYTES, RejectedRecord, SourceRecord, accept, printable
from nait_store.errors import InvalidInputError

_BLOCK_BYTES = 1 << 20
TOO_LONG = f"longer than {MAX_RECORD_BYTES >> 20} MiB"
_SPACE = re.compile(r"[ \t\r\n]*")
_NEAR_END_CHARACTERS = 16
"""A parse error this close to the end of what is read so far may be a token that is cut in two."""


def read_lines(stream: BinaryIO, limit_bytes: int = MAX_RECORD_BYTES) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (line number from 1, the line with its end, whether it is whole).

    Of a line above the limit only the beginning is yielded; the rest is read past without being kept.
    """
    number, held, held_bytes, overlong = 1, list[bytes](), 0, False
    while block := stream.read(_BLOCK_BYTES):
        lines = block.split(b"\n")
        for index, piece in enumerate(lines):
            ends = index < len(lines) - 1
            if not overlong:
                held.append(piece + b"\n" if ends else piece)
                held_bytes += len(piece)
                if held_bytes > limit_bytes:
                    overlong, held = True, [b"".join(held)[:_BLOCK_BYTES]]
            if ends:
                yield number, b"".join(held) if len(held) > 1 else held[0], not overlong
                number, held, held_bytes, overlong = number + 1, [], 0, False
    if held_bytes:
        yield number, b"".join(held), not overlong


def read_json_lines(stream: BinaryIO, uri: str) -> Iterator[SourceRecord | RejectedRecord]:
    """Yield one record a line; blank lines are passed over. Of a key that an object repeats, the last value counts."""
    index = -1
    for number, line, whole in read_lines(stream):
        if whole and not line.strip():
            continue
        index += 1
        reason = None if whole else TOO_LONG
        value: Any = None
        if whole:
            try:
                value = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                reason = f"invalid UTF-8 at byte {error.start + 1} of the line"
            except json.JSONDecodeError as error:
                reason = f"not valid JSON: {error.msg} at column {error.colno}"
            except RecursionError:
                reason = "nested too deeply"
            except ValueError:
                reason = "a number with more digits than can be read"
        if reason is None:
            yield accept(value, uri, index, number, line.decode("utf-8"))
        else:
            yield RejectedRecord(uri, index, number, reason, printable(line))


def read_json(stream: BinaryIO, uri: str) -> Iterator[SourceRecord | RejectedRecord]:
    """Yield the records of a JSON array of objects, or of objects one after the other, whatever the line breaks.

    Only the array's current element is held. A broken element ends the reading even where records may be
    skipped, for what follows it cannot be told apart; elements that are whole but unusable are rejected singly.

    Raises
    ------
    InvalidInputError
        Not JSON, with the line; an element above 64 MiB; or one object whose fields are columns.
    """
    text = _JsonText(stream, uri)
    in_array = text.take_opening_bracket()
    index, first_raw = 0, None
    while text.at_value(in_array, first=index == 0):
        line, raw, value = text.take_value()
        if index == 0 and not in_array:
            first_raw = (line, raw, value)  # one object alone in its file may be no record at all
        else:
            if first_raw is not None:
                yield accept(first_raw[2], uri, 0, first_raw[0], first_raw[1])
                first_raw = None
            yield accept(value, uri, index, line, raw)
        index += 1
    if first_raw is not None:
        line, raw, value = first_raw
        _refuse_columns(value, uri)
        yield accept(value, uri, 0, line, raw)


class _JsonText:
    """A window over a JSON text: values are taken from its front, blocks are read at its end."""

    def __init__(self, stream: BinaryIO, uri: str) -> None:
        self._stream = stream
        self._uri = uri
        # Invalid bytes become surrogates, which accept() rejects with the one element that holds them.
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape").decode
        self._decoder = json.JSONDecoder()
        self._text, self._at, self._line, self._ended = "", 0, 1, False

    def take_opening_bracket(self) -> bool:
        """Pass a ``[`` and return True if that is what the text begins with."""
        found = self._skip_space() == "["
        self._at += found
        return found

    def at_value(self, in_array: bool, *, first: bool) -> bool:
        """Pass what separates values; return whether another one follows."""
        character = self._skip_space()
        if not in_array:
            return character != ""
        if character == "]":
            self._at += 1
            if self._skip_space():
                raise self._broken("text after the array's closing bracket")
            return False
        if first:
            return True
        if character != ",":
            raise self._broken("expected ',' or ']' after an element" if character else "the array is not closed")
        self._at += 1
        self._skip_space()
        return True

    def take_value(self) -> tuple[int, str, Any]:
        """Parse the value at the front: (its line, its text cut short, the value)."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or not self._may_be_cut(error):
                    raise self._broken(error.msg, error.pos) from error
            except RecursionError as error:
                raise self._broken("nested too deeply") from error
            except ValueError as error:
                raise self._broken("a number with more digits than can be read") from error
            else:
                if end < len(self._text) or self._ended:
                    break
            if len(self._text) - self._at > MAX_RECORD_BYTES:
                raise self._broken(f"a record {TOO_LONG}")
            self._read(len(self._text) - self._at)
        line, begin = self._line, self._at
        self._line += self._text.count("\n", begin, end)
        self._at = end
        return line, self._text[begin : min(end, begin + 4_000)], value

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _NEAR_END_CHARACTERS

    def _skip_space(self) -> str:
        """Pass white space; return the next character, or ``""`` at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            end = match.end() if match else self._at
            self._line += self._text.count("\n", self._at, end)
            self._at = end
            if end < len(self._text):
                return self._text[end]
            if self._ended:
                return ""
            self._read(_BLOCK_BYTES)

    def _read(self, n_bytes: int) -> None:
        block = self._stream.read(max(n_bytes, _BLOCK_BYTES))
        self._ended = not block
        self._text = self._text[self._at :] + self._decode(block, final=self._ended)
        self._at = 0

    def _broken(self, problem: str, position: int | None = None) -> InvalidInputError:
        line = self._line + (self._text.count("\n", self._at, position) if position is not None else 0)
        return InvalidInputError(
            f"{self._uri}:{line}: not valid JSON: {problem}",
            next_step="correct the file; nothing after this point can be read, even with --on-error skip "
            "(JSON Lines, one record a line, would lose only the broken one)",
        )


def _refuse_columns(value: Any, uri: str) -> None:
    """Refuse a file that is one object of lists: a table by columns, or records wrapped under a key."""
    if not isinstance(value, dict) or not value or not all(isinstance(field, list) for field in value.values()):
        return
    if len(value) == 1 and next(iter(value)) in ("messages", "conversations", "conversation"):
        return
    wrapped = [name for name, field in value.items() if field and all(isinstance(item, dict) for item in field)]
    if wrapped:
        found = f"one object that wraps lists of records under {', '.join(map(repr, list(value)[:5]))}"
        step = f"take the list out, e.g. jq -c '.{wrapped[0]}[]' FILE > records.jsonl"
    else:
        found = f"one object whose fields {', '.join(map(repr, list(value)[:5]))} are lists (a table by columns)"
        step = "write one object per record: a JSON array of objects, or JSON Lines"
    raise InvalidInputError(f"{uri} holds {found}, not records", next_step=step)
