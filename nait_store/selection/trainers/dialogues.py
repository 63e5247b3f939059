"""A training record as who said what: what the layouts of the trainers are written from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nait_store.capture.conversations import FieldMap, Turn
from nait_store.capture.record_layouts import INPUT_SEPARATOR, find_turns
from nait_store.errors import InvalidInputError

_MEDIA = ("images", "image", "videos", "audios", "audio")


@dataclass(frozen=True)
class Dialogue:
    """A record, understood; every text as it stands in the record.

    Attributes
    ----------
    system
        The system prompt; empty for none.
    turns
        User, assistant and tool in order, the system prompt left out; or one turn of the role ``text``.
    tools
        JSON text that describes the tools; empty for none.
    is_pair
        Whether the record itself is a bare prompt and a bare completion, which no chat template is meant for.
    """

    system: str
    turns: tuple[Turn, ...]
    tools: str = ""
    is_pair: bool = False

    @property
    def text(self) -> str | None:
        """The text of a record that is one bare text; None for others."""
        return self.turns[0].content if self.turns[0].role == "text" else None

    @property
    def instruction(self) -> tuple[str, str]:
        """What the first turn asks: the instruction and, where the record has one, its input apart."""
        first = self.turns[0]
        if first.input_start is None:
            return first.content, ""
        return first.content[: first.input_start - len(INPUT_SEPARATOR)], first.content[first.input_start :]


def read_dialogue(record: Mapping[str, Any], where: str, field_map: FieldMap | None = None) -> Dialogue:
    """Understand a record as ``ingest`` did.

    Parameters
    ----------
    record
        The user's record.
    where
        For messages.
    field_map
        The one that it was ingested with.

    Raises
    ------
    InvalidInputError
        It cannot be read, or holds what no layout has a place for; ``what`` is the reason, without the place.
    """
    mapped = field_map.apply(record, where) if field_map else dict(record)
    preferred = [name for name, _ in field_map.columns] if field_map else []
    turns = find_turns(mapped, where, preferred)
    for name in _MEDIA:
        if mapped.get(name):
            raise InvalidInputError(f"it has {name}")
    for turn in turns:
        if turn.holds:
            raise InvalidInputError(f"a message has {turn.holds}, for which there is no place")
    system = ""
    if turns[0].role == "system":
        system, turns = turns[0].content, turns[1:]
    if not turns:
        raise InvalidInputError("it has nothing but a system prompt")
    if "instruction" in mapped and turns[0].role == "user":
        turns = (*_history(mapped.get("history")), *turns)
    return Dialogue(system, turns, _tools(mapped.get("tools")), _is_pair(mapped, turns, system))


def _history(value: Any) -> tuple[Turn, ...]:
    """Earlier rounds of an Alpaca record: pairs of what was asked and answered."""
    if not value:
        return ()
    turns: list[Turn] = []
    for pair in value if isinstance(value, list) else [None]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise InvalidInputError("its history is no list of pairs of texts")
        turns += (Turn("user", pair[0]), Turn("assistant", pair[1]))
    return tuple(turns)


def _tools(value: Any) -> str:
    if not value:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_pair(record: Mapping[str, Any], turns: tuple[Turn, ...], system: str) -> bool:
    pair = ("prompt", "completion")
    return not system and len(turns) == 2 and [record.get(name) for name in pair] == [turn.content for turn in turns]
