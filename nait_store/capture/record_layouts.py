"""The layouts of training records, and the turns that each holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nait_store.capture.field_maps import spell_fields
from nait_store.errors import InvalidInputError
from nait_store.schemas.record import canonical_json

INPUT_SEPARATOR = "\n\n"
"""Between an Alpaca record's instruction and input in the text of the user's turn."""

LAYOUTS = (
    "messages (role, content), conversations (from, value), instruction/input/output, question/answer, "
    "prompt/completion, text"
)

_ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "model", "function_call", "tool_call"),
    "tool": ("tool", "function", "function_response", "tool_response", "observation", "ipython"),
}
_CALLS = ("function_call", "tool_call")
_HELD_BESIDE_CONTENT = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
_ROLE_OF = {spelling: role for role, spellings in _ROLES.items() for spelling in spellings}


@dataclass(frozen=True)
class Turn:
    """What one side said.

    Attributes
    ----------
    role
        ``system``, ``user``, ``assistant``, ``tool``, or ``text`` for a record that is one bare text.
    content
        The text; may be empty.
    input_start
        Where an Alpaca record's input begins in ``content``, a blank line after its instruction; None without one.
    is_call
        Whether the record says that the content calls a tool: the roles ``function_call`` and ``tool_call``.
    holds
        Name of a field of the message that says more than ``content``, as ``tool_calls`` does; empty for none.
    """

    role: str
    content: str
    input_start: int | None = None
    is_call: bool = field(default=False, compare=False)
    holds: str = field(default="", compare=False)

    @property
    def own_parts(self) -> tuple[tuple[int, int], ...]:
        """Half-open character ranges of ``content`` that are the record's own text, separators left out."""
        if self.input_start is None:
            return ((0, len(self.content)),)
        return ((0, self.input_start - len(INPUT_SEPARATOR)), (self.input_start, len(self.content)))


def find_turns(record: Mapping[str, Any], where: str, preferred: Collection[str] = ()) -> tuple[Turn, ...]:
    """Detect a record's layout and take out its turns.

    The first layout whose fields are there is taken, in the order of :data:`LAYOUTS`.

    Parameters
    ----------
    record
        After ``--map``.
    where
        For messages.
    preferred
        Fields that the user mapped: a layout that begins with one of them is taken before others.

    Raises
    ------
    InvalidInputError
        No layout fits, a field has the wrong type, a role is unknown, or there is no text at all.
    """
    for name, read in sorted(_READERS, key=lambda reader: reader[0] not in preferred) if preferred else _READERS:
        if record.get(name) is not None:
            turns = read(record, where)
            break
    else:
        raise InvalidInputError(
            f"{where}: the record has no usable fields; it has {spell_fields(record)}",
            next_step=f"accepted layouts: {LAYOUTS}; map others, e.g. --map instruction=FIELD,output=FIELD",
        )
    if not any(turn.content.strip() for turn in turns):
        raise InvalidInputError(
            f"{where}: the record has no text: its turns are empty ({name!r} layout)",
            next_step="leave the record out, or pass --on-error skip",
        )
    return turns


def _messages(record: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
    key = next(name for name in _MESSAGE_FIELDS if record.get(name) is not None)
    turns = _message_turns(record[key], key, where)
    return _with_system(record, turns, where)


def _alpaca(record: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
    answer = _first_name(record, ("output", "response", "completion", "answer"))
    if answer is None:
        raise InvalidInputError(
            f"{where}: the record has an instruction but no output; it has {spell_fields(record)}",
            next_step="name the field that holds the answer, e.g. --map output=FIELD",
        )
    context = _first_name(record, ("input", "context"))
    instruction = _text(record["instruction"], "instruction", where)
    context_text = "" if context is None else _text(record[context], context, where)
    if instruction and context_text.strip():
        start = len(instruction) + len(INPUT_SEPARATOR)
        user = Turn("user", instruction + INPUT_SEPARATOR + context_text, start)
    else:
        user = Turn("user", instruction or context_text)
    return _with_system(record, (user, Turn("assistant", _text(record[answer], answer, where))), where)


def _pair(ask: str, answers: Sequence[str]) -> Callable[[Mapping[str, Any], str], tuple[Turn, ...]]:
    """Return the reader of a layout with one question and one answer; either may be a list of messages."""

    def read(record: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
        answer = _first_name(record, answers)
        if answer is None:
            raise InvalidInputError(
                f"{where}: the record has {ask!r} but none of {', '.join(map(repr, answers))}; "
                f"it has {spell_fields(record)}",
                next_step="name the field that holds the answer, e.g. --map instruction=FIELD,output=FIELD",
            )
        turns: tuple[Turn, ...] = ()
        for name, role in ((ask, "user"), (answer, "assistant")):
            value = record[name]
            turns += _message_turns(value, name, where) if _is_list(value) else (Turn(role, _text(value, name, where)),)
        return _with_system(record, turns, where)

    return read


def _bare_text(record: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
    return (Turn("text", _text(record["text"], "text", where)),)


_MESSAGE_FIELDS = ("messages", "conversations", "conversation")
_READERS: tuple[tuple[str, Callable[[Mapping[str, Any], str], tuple[Turn, ...]]], ...] = (
    *((name, _messages) for name in _MESSAGE_FIELDS),
    ("instruction", _alpaca),
    ("question", _pair("question", ("answer", "response", "output"))),
    ("prompt", _pair("prompt", ("completion", "response", "output", "answer"))),
    ("text", _bare_text),
)
"""The field that begins each layout, and what reads it."""


def _message_turns(value: Any, field: str, where: str) -> tuple[Turn, ...]:
    messages = _as_list(value)
    if messages is None:
        raise InvalidInputError(
            f"{where}: {field!r} is {_kind(value)}, not a list of messages",
            next_step="each message needs 'role' and 'content', or 'from' and 'value'",
        )
    return tuple(_message_turn(message, f"{field}[{index}]", where) for index, message in enumerate(messages))


def _message_turn(message: Any, field: str, where: str) -> Turn:
    if not isinstance(message, Mapping) or not ({"role", "from"} & message.keys()):
        has = f"; it has {spell_fields(message)}" if isinstance(message, Mapping) else f" but {_kind(message)}"
        raise InvalidInputError(
            f"{where}: {field} is no message with 'role' and 'content' (or 'from' and 'value'){has}",
            next_step="correct the record, or map its fields with --map",
        )
    spelled = message["role"] if message.get("role") is not None else message.get("from")
    role = _ROLE_OF.get(spelled.strip().lower()) if isinstance(spelled, str) else None
    if role is None:
        raise InvalidInputError(
            f"{where}: {field} has the unknown role {str(spelled)[:60]!r}",
            next_step=f"known roles: {', '.join(sorted(_ROLE_OF))}",
        )
    content = message["content"] if message.get("content") is not None else message.get("value")
    if content is None and isinstance(message.get("text"), str):
        content = message["text"]
    text = _text(content, field, where)
    calls = message.get("tool_calls") or message.get("function_call")
    if not text and calls:
        text = canonical_json(calls).decode("utf-8")  # the call is what the assistant said
    holds = next((name for name in _HELD_BESIDE_CONTENT if message.get(name)), "")
    return Turn(role, text, is_call=str(spelled).strip().lower() in _CALLS, holds=holds)


def _with_system(record: Mapping[str, Any], turns: tuple[Turn, ...], where: str) -> tuple[Turn, ...]:
    """Put a record's ``system`` (``system_prompt``) field in front, unless the turns begin with one."""
    name = _first_name(record, ("system", "system_prompt"))
    if name is None or (turns and turns[0].role == "system"):
        return turns
    text = _text(record[name], name, where)
    return (Turn("system", text), *turns) if text.strip() else turns


def _text(value: Any, field: str, where: str) -> str:
    """Return a field's text: a string, a number as JSON writes it, nothing for null, or text parts joined."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list):
        return "".join(_part_text(part, field, where) for part in value)
    raise InvalidInputError(
        f"{where}: {field!r} is {_kind(value)}, not text", next_step="map the field that holds the text with --map"
    )


def _part_text(part: Any, field: str, where: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") in ("text", "input_text", "output_text"):
        text = part.get("text")
        if isinstance(text, str):
            return text
    kind = part.get("type") if isinstance(part, Mapping) else None
    raise InvalidInputError(
        f"{where}: {field!r} holds {f'a part of type {kind!r}' if kind else _kind(part)}, not text",
        next_step="only text can be captured: leave the record out, or pass --on-error skip",
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping) and "role" in value[0]


def _as_list(value: Any) -> list[Any] | None:
    """Return messages as a list: given so, as JSON text (CSV), or as columns (``datasets`` sequences)."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
        columns: list[list[Any]] = list(value.values())
        if len({len(column) for column in columns}) == 1:
            return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    return value if isinstance(value, list) else None


def _first_name(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """First of the names that the record has, preferring one that is not null."""
    for name in names:  # a million records take this path
        if record.get(name) is not None:
            return name
    return next((name for name in names if name in record), None)


def _kind(value: Any) -> str:
    kinds = {"str": "text", "list": "a list", "dict": "an object", "NoneType": "null", "bool": "true or false"}
    return kinds.get(type(value).__name__, "a number")
