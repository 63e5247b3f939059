"""A tokenizer's own chat template, and where in its output the turns' own text lies.

A template is a program: it may trim, rewrite or drop what it is given, and add system prompts and dates of its own.
So nothing is assumed about it; where a text lies is established, in this order, by

1. the template's *skeleton*: it is rendered once per sequence of roles with marks for contents; what stands
   between the marks is found again in the sample's own rendering, and the contents lie between;
2. prefix difference: the rendering of the first i turns is a prefix of the rendering of i + 1, which bounds where
   the turn's text is looked for;
3. search in the rendered text, each turn after the one before.

Assistant masks (``{% generation %}``), where a template has them, bound the search for the assistant's turns, and
stand for a turn whose text is not found; a mask that covers nothing is not believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from nait_store.capture.record_layouts import Turn
from nait_store.capture.templates import Piece, RenderedText, policy_of, shifted_parts
from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import TemplatePolicy

_TEMPLATE_DATE = datetime(2024, 7, 26)
"""What templates that write today's date are told, so that the same sample is the same text tomorrow."""

_FIXED_DATE = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('%{code}', '{_TEMPLATE_DATE.strftime('%' + code)}')" for code in "dbBYmyaAHMSIpj")
    + " }}{% endmacro %}\n"
)
"""Put in front of such a template: transformers lets no function of ours in. The line end goes with the block."""

_MIN_REMAINDER_CHARACTERS = 4
"""Less than this in common with a turn's text is chance."""

_FOLD_SEPARATOR = "\n\n"


def default_chat_template(tokenizer: Any) -> str | None:
    """Return the tokenizer's chat template, the ``default`` one where it has several."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) and template.strip() else None


class ChatTemplate:
    """Renders conversations with a tokenizer's chat template.

    Where a template refuses a system turn, its text is put before the first user turn's, a blank line between.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer.

    Raises
    ------
    InvalidInputError
        It has no chat template, or one that cannot be compiled.
    """

    def __init__(self, tokenizer: Any) -> None:
        template = default_chat_template(tokenizer)
        if template is None:
            raise InvalidInputError(
                "the tokenizer has no chat template", next_step="use --template auto, plain or alpaca"
            )
        self._tokenizer = tokenizer
        self._template = template
        self._dated_template = _FIXED_DATE + template if "strftime_now" in template else template
        self._has_mask = "generation" in template and "endgeneration" in template
        self._skeletons: dict[tuple[str, ...], _Skeleton | None] = {}

    @property
    def policy(self) -> TemplatePolicy:
        """``chat``, with the digest of the template's text."""
        return policy_of("chat", self._template)

    def render(self, turns: Sequence[Turn]) -> RenderedText | str:
        """Render a conversation, or say why the template refuses it."""
        if turns[0].role == "text":
            text = turns[0].content
            return RenderedText(text, tuple(shifted_parts(turns[0], 0)), adds_special_tokens=True)
        try:
            return self._rendered(turns)
        except _TemplateRefusal as refusal:
            folded = _fold_system(turns)
            if folded is None:
                return f"the chat template refuses it: {refusal}"
        try:
            return self._rendered(folded)
        except _TemplateRefusal as refusal:
            return f"the chat template refuses it: {refusal}"

    def _rendered(self, turns: Sequence[Turn]) -> RenderedText:
        text, masks = self._apply(turns)
        bounds = self._between_scaffolding(turns, text) or self._segments(turns, text)
        return RenderedText(text, tuple(_search(turns, text, bounds, masks)), adds_special_tokens=False)

    def _apply(self, turns: Sequence[Turn]) -> tuple[str, list[tuple[int, int]]]:
        """Run the template; return its text and the character ranges of its assistant mask."""
        from transformers.utils.chat_template_utils import render_jinja_template

        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            texts, masks = render_jinja_template(
                [messages],
                chat_template=self._dated_template,
                return_assistant_tokens_mask=self._has_mask,
                **self._tokenizer.special_tokens_map,
            )
        except Exception as error:  # a template may fail in any way that Jinja and Python know
            raise _TemplateRefusal(str(error).partition("\n")[0] or type(error).__name__) from error
        return texts[0], [(int(start), int(end)) for start, end in (masks[0] if masks else []) if end > start]

    def _between_scaffolding(self, turns: Sequence[Turn], text: str) -> list[tuple[int, int]] | None:
        """Range of each content between the scaffolding that this sequence of roles always has; None if it differs.

        A content that is there as given, or trimmed, ends where it ends; another one, where the scaffolding that
        follows it is first found.
        """
        roles = tuple(turn.role for turn in turns)
        if roles not in self._skeletons:
            self._skeletons[roles] = self._skeleton(roles)
        skeleton = self._skeletons[roles]
        if skeleton is None or not text.startswith(skeleton.before):
            return None
        at, bounds = len(skeleton.before), dict[int, tuple[int, int]]()
        for index, after in skeleton.contents:
            last = len(bounds) == len(turns) - 1
            content = turns[index].content
            for front, length in _variants(content):
                end = at + length
                fits = end + len(after) == len(text) if last else True
                if fits and text.startswith(content[front : front + length] + after, at):
                    break
            else:
                end = len(text) - len(after) if last else text.find(after, at)
                if end < at or not text.startswith(after, end) or not after:
                    return None
            bounds[index] = (at, end)
            at = end + len(after)
        return [bounds[index] for index in range(len(turns))]

    def _skeleton(self, roles: tuple[str, ...]) -> _Skeleton | None:
        """Render marks in place of contents; None where the template does not keep every one."""
        marks = [f"NAITSTOREMARK{index}X" for index in range(len(roles))]
        try:
            text, _ = self._apply([Turn(role, mark) for role, mark in zip(roles, marks, strict=True)])
        except _TemplateRefusal:
            return None
        if any(text.count(mark) != 1 for mark in marks):
            return None
        order = sorted(range(len(marks)), key=lambda index: text.index(marks[index]))
        before, *between = re.split("|".join(marks), text)
        return _Skeleton(before, tuple(zip(order, between, strict=True)))

    def _segments(self, turns: Sequence[Turn], text: str) -> list[tuple[int, int]] | None:
        """Range of each turn by prefix difference; None where a shorter conversation is no prefix."""
        ends = [0]
        for count in range(1, len(turns)):
            try:
                prefix, _ = self._apply(turns[:count])
            except _TemplateRefusal:
                return None
            if not text.startswith(prefix) or len(prefix) < ends[-1]:
                return None
            ends.append(len(prefix))
        return list(pairwise([*ends, len(text)]))


@dataclass(frozen=True)
class _Skeleton:
    """The scaffolding of one sequence of roles."""

    before: str
    """What precedes all contents."""
    contents: tuple[tuple[int, str], ...]
    """Index of each turn, in the order in which the template writes them, and what follows its content."""


class _TemplateRefusal(Exception):  # noqa: N818 - an answer, not an error
    """The template raised."""


def _variants(content: str) -> list[tuple[int, int]]:
    """(characters cut in front, length) of the forms in which templates write a content: as it is, or trimmed."""
    front = len(content) - len(content.lstrip())
    kept = len(content.strip())
    forms = [(0, len(content)), (front, kept), (0, len(content.rstrip())), (front, len(content) - front)]
    return list(dict.fromkeys(forms))


def _search(
    turns: Sequence[Turn], text: str, bounds: Sequence[tuple[int, int]] | None, masks: Sequence[tuple[int, int]]
) -> list[Piece]:
    """Look for each turn's text within its bounds and mask; without either, after the turn before.

    Of a turn that is not there whole, what the template kept of its end is taken.
    """
    at = 0
    n_answers = sum(turn.role == "assistant" for turn in turns)
    # One range an answer, else they cannot be told apart and are not believed.
    answers = iter(masks if len(masks) == n_answers else ())
    found: list[list[Piece]] = []
    for index, turn in enumerate(turns):
        low, high = bounds[index] if bounds else (at, len(text))
        mask = next(answers, None) if turn.role == "assistant" else None
        if mask is not None and low < mask[1] and mask[0] < high:
            low, high = max(low, mask[0]), min(high, mask[1])
        else:
            mask = None
        found.append(_place(turn, text, low, high, last=bounds is not None or mask is not None))
        if not found[-1] and mask is not None and turn.content.strip():
            found[-1] = [Piece(low, high, turn.role)]
        at = found[-1][-1].end if found[-1] else at
    for index, turn in enumerate(turns):
        if not found[index]:
            before = [piece.end for pieces in found[:index] for piece in pieces]
            after = [piece.start for pieces in found[index + 1 :] for piece in pieces]
            between = max(before, default=0), min(after, default=len(text))
            found[index] = _remainder(turn, text, *(bounds[index] if bounds else between))
    return sorted((piece for pieces in found for piece in pieces), key=lambda piece: piece.start)


def _place(turn: Turn, text: str, low: int, high: int, *, last: bool) -> list[Piece]:
    """Find a turn's text, as it is or trimmed, in a range; of several places the last one where that is asked for.

    In a range that is bounded by its own turn the text follows the role's name, which may look like it.
    """
    for front, length in _variants(turn.content):
        body = turn.content[front : front + length]
        start = text.rfind(body, low, high) if last else text.find(body, low, high)
        if start >= 0 and length:
            return list(shifted_parts(turn, start, cut_front=front, length=length))
    return []


def _remainder(turn: Turn, text: str, low: int, high: int) -> list[Piece]:
    """Find the longest end of a turn's text that the template kept (many drop the reasoning of earlier answers)."""
    content = turn.content.strip()
    shortest, longest = 0, len(content)  # if an end is in the range, every shorter one is
    while shortest < longest:
        length = (shortest + longest + 1) // 2
        if text.find(content[-length:], low, high) >= 0:
            shortest = length
        else:
            longest = length - 1
    kept = content[len(content) - shortest :].lstrip()
    if len(kept) < _MIN_REMAINDER_CHARACTERS:
        return []
    start = text.rfind(kept, low, high)
    return [Piece(start, start + len(kept), turn.role)]


def _fold_system(turns: Sequence[Turn]) -> list[Turn] | None:
    """Put a leading system turn's text into the user turn after it; None where there is no such pair."""
    if len(turns) < 2 or turns[0].role != "system" or turns[1].role != "user":
        return None
    system, user = turns[0], turns[1]
    front = system.content + _FOLD_SEPARATOR
    start = None if user.input_start is None else len(front) + user.input_start
    return [Turn("user", front + user.content, start), *turns[2:]]
