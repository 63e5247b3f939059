"""How turns become one text, and where in it the sample's own text lies.

Three policies: ``chat``, the tokenizer's own template; ``alpaca``, the prompt of the Alpaca project; ``plain``, the
turns with a blank line between them. A record of one bare text is that text under each of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from nait_store.capture.record_layouts import INPUT_SEPARATOR, Turn
from nait_store.schemas.capture import TemplatePolicy


@dataclass(frozen=True)
class Piece:
    """A half-open character range of a rendered text that is a turn's own text."""

    start: int
    end: int
    role: str


@dataclass(frozen=True)
class RenderedText:
    """A sample as the text that the model reads.

    Attributes
    ----------
    text
        All of it.
    pieces
        The turns' own text, ascending and disjoint; the rest is scaffolding.
    adds_special_tokens
        Whether the tokenizer should add its special tokens; a chat template writes them itself.
    """

    text: str
    pieces: tuple[Piece, ...]
    adds_special_tokens: bool


class Template(Protocol):
    """One way to turn conversations into text."""

    @property
    def policy(self) -> TemplatePolicy:
        """Its name and the digest of its text."""

    def render(self, turns: Sequence[Turn]) -> RenderedText | str:
        """Render a conversation, or say in words why it cannot be."""


class PlainTemplate:
    """The turns that have text, with a blank line between them, and nothing else."""

    _SEPARATOR = "\n\n"

    @property
    def policy(self) -> TemplatePolicy:
        """``plain``."""
        return policy_of("plain", f"{{turn}}{self._SEPARATOR}{{turn}}")

    def render(self, turns: Sequence[Turn]) -> RenderedText | str:
        """Render a conversation; never refuses."""
        text = _Text()
        for turn in turns:
            if turn.content:
                text.scaffold(self._SEPARATOR if text.length else "")
                text.own(turn)
        return text.rendered()


class AlpacaTemplate:
    """The prompt that Alpaca was trained with; a system turn takes the place of its opening sentence.

    Later exchanges of a conversation follow under the same headings, tool results under ``### Tool:``.
    """

    _OPENING: ClassVar = {
        True: "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.",
        False: "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.",
    }
    _HEADINGS: ClassVar = {
        "system": "",
        "user": "### Instruction:\n",
        "assistant": "### Response:\n",
        "tool": "### Tool:\n",
    }
    _INPUT = "### Input:\n"
    _SEPARATOR = "\n\n"

    @property
    def policy(self) -> TemplatePolicy:
        """``alpaca``."""
        words = [self._OPENING[True], self._OPENING[False], self._INPUT, self._SEPARATOR, *self._HEADINGS.values()]
        return policy_of("alpaca", "\x00".join(words))

    def render(self, turns: Sequence[Turn]) -> RenderedText | str:
        """Render a conversation; never refuses."""
        text = _Text()
        if turns[0].role == "text":
            text.own(turns[0])
            return text.rendered()
        if turns[0].role != "system":
            text.scaffold(self._OPENING[any(turn.input_start is not None for turn in turns)])
        for turn in turns:
            text.scaffold(self._SEPARATOR if text.length else "")
            text.scaffold(self._HEADINGS[turn.role])
            if turn.input_start is None:
                text.own(turn)
            else:
                text.own_part(turn.content[: turn.input_start - len(INPUT_SEPARATOR)], turn.role)
                text.scaffold(self._SEPARATOR + self._INPUT)
                text.own_part(turn.content[turn.input_start :], turn.role)
        if turns[-1].role != "assistant":
            text.scaffold(self._SEPARATOR + self._HEADINGS["assistant"])
        return text.rendered()


def policy_of(name: str, template_text: str) -> TemplatePolicy:
    """Name a policy by the digest of its template's text."""
    return TemplatePolicy(name=name, sha256=hashlib.sha256(template_text.encode("utf-8")).hexdigest())


class _Text:
    """A text that grows, and the pieces in it."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._pieces: list[Piece] = []
        self.length = 0

    def scaffold(self, text: str) -> None:
        self._parts.append(text)
        self.length += len(text)

    def own(self, turn: Turn) -> None:
        self._pieces.extend(shifted_parts(turn, self.length))
        self.scaffold(turn.content)

    def own_part(self, content: str, role: str) -> None:
        if content:
            self._pieces.append(Piece(self.length, self.length + len(content), role))
        self.scaffold(content)

    def rendered(self) -> RenderedText:
        return RenderedText("".join(self._parts), tuple(self._pieces), adds_special_tokens=True)


def shifted_parts(turn: Turn, start: int, *, cut_front: int = 0, length: int | None = None) -> Iterator[Piece]:
    """Yield the pieces of a turn whose content (less ``cut_front`` characters, ``length`` long) begins at ``start``."""
    whole = len(turn.content) if length is None else cut_front + length
    for begin, end in turn.own_parts:
        begin, end = max(begin, cut_front), min(end, whole)
        if begin < end:
            yield Piece(start + begin - cut_front, start + end - cut_front, turn.role)


def template_named(name: str, tokenizer: Any) -> Template:
    """Return the template of a policy name.

    Parameters
    ----------
    name
        ``auto`` (``chat`` if the tokenizer has a chat template, else ``plain``), ``chat``, ``alpaca`` or ``plain``.
    tokenizer
        Whose chat template is meant.

    Raises
    ------
    InvalidInputError
        Unknown name, or ``chat`` with a tokenizer that has no (default) chat template.
    """
    from nait_store.capture.chat_templates import ChatTemplate, default_chat_template
    from nait_store.errors import InvalidInputError, did_you_mean

    if name == "auto":
        return ChatTemplate(tokenizer) if default_chat_template(tokenizer) else PlainTemplate()
    if name == "chat":
        return ChatTemplate(tokenizer)
    if name == "alpaca":
        return AlpacaTemplate()
    if name == "plain":
        return PlainTemplate()
    raise InvalidInputError(
        f"{name!r} is not a template policy", next_step=did_you_mean(name, ("auto", "chat", "alpaca", "plain"))
    )
