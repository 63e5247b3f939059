"""The layouts that trainers read: which dialogues each holds without a loss, and how it spells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nait_store.capture.conversations import Turn
from nait_store.selection.trainers.dialogues import Dialogue


class Layout(StrEnum):
    """Fields of a row, as the trainers' documents call them."""

    ALPACA = "alpaca"
    """``instruction``, ``input``, ``output``, and ``system`` where a sample has one."""
    SHAREGPT = "sharegpt"
    """``conversations`` of ``from`` and ``value``."""
    MESSAGES = "messages"
    """``messages`` of ``role`` and ``content``."""
    PROMPT_COMPLETION = "prompt-completion"
    """``prompt`` and ``completion``: two texts where all records are, else two lists of messages."""
    TEXT = "text"
    """``text``: of records that are one bare text."""


class Trainer(StrEnum):
    """Who reads the file."""

    LLAMA_FACTORY = "llama-factory"
    AXOLOTL = "axolotl"
    TRL = "trl"
    HF_DATASETS = "hf-datasets"
    JSONL = "jsonl"
    PARQUET = "parquet"
    IDS = "ids"


LAYOUTS: Mapping[Trainer, Sequence[Layout]] = {
    Trainer.LLAMA_FACTORY: (Layout.ALPACA, Layout.SHAREGPT, Layout.TEXT),
    Trainer.AXOLOTL: (Layout.MESSAGES, Layout.SHAREGPT, Layout.ALPACA, Layout.TEXT),
    Trainer.TRL: (Layout.MESSAGES, Layout.PROMPT_COMPLETION, Layout.TEXT),
    Trainer.HF_DATASETS: tuple(Layout),
    Trainer.JSONL: tuple(Layout),
    Trainer.PARQUET: tuple(Layout),
    Trainer.IDS: (),
}
"""What each reads; where none is asked for, the first that holds every sample is taken."""

AS_THEY_ARE = frozenset({Trainer.HF_DATASETS, Trainer.JSONL, Trainer.PARQUET, Trainer.IDS})
"""Those that take the records, or their ids, as they are where no layout is asked for."""

_SHAREGPT_ROLES = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}
_LLAMA_FACTORY_ROLES = {"user": "human", "assistant": "gpt", "tool": "observation"}


@dataclass(frozen=True)
class Columns:
    """What the rows of one file have in common, so that every column is of one type.

    Attributes
    ----------
    system, tools
        Whether any sample has them; then every row has the column.
    pairs
        Whether every sample is a bare prompt and completion.
    """

    system: bool = False
    tools: bool = False
    pairs: bool = True

    def and_of(self, dialogue: Dialogue) -> Columns:
        """The columns once this sample is among them."""
        return Columns(
            self.system or bool(dialogue.system), self.tools or bool(dialogue.tools), self.pairs and dialogue.is_pair
        )


def misfit(dialogue: Dialogue, layout: Layout, trainer: Trainer) -> str:
    """Why a layout cannot hold a dialogue without losing something; empty where it can."""
    if (dialogue.text is None) == (layout is Layout.TEXT):
        return "it is a dialogue, not one bare text" if layout is Layout.TEXT else "it is one bare text, without turns"
    if layout is Layout.TEXT:
        return ""
    turns, of_llama_factory = dialogue.turns, trainer is Trainer.LLAMA_FACTORY
    if dialogue.tools and not (of_llama_factory and layout is Layout.SHAREGPT):
        return "it describes tools"
    if any(turn.is_call for turn in turns) and not (of_llama_factory and layout is Layout.SHAREGPT):
        return "it calls tools"
    if layout is Layout.ALPACA:
        if dialogue.system and trainer is Trainer.AXOLOTL:
            return "it has a system prompt"
        return "" if [turn.role for turn in turns] == ["user", "assistant"] else f"it has {_spell(turns)}"
    if layout is Layout.PROMPT_COMPLETION and (len(turns) < 2 or turns[-1].role != "assistant"):
        return f"it has {_spell(turns)}, and an answer must be the last"
    if layout is Layout.SHAREGPT and of_llama_factory:
        if any(turn.role == "system" for turn in turns):
            return "it has a system prompt amid its turns"
        asks = [turn.role in ("user", "tool") for turn in turns]
        if len(turns) % 2 or asks != [True, False] * (len(turns) // 2):
            return f"it has {_spell(turns)}, and LLaMA-Factory passes over what does not alternate"
    return ""


def row_of(dialogue: Dialogue, layout: Layout, trainer: Trainer, columns: Columns) -> dict[str, Any]:
    """Spell a dialogue that the layout holds."""
    if layout is Layout.TEXT:
        return {"text": dialogue.text}
    if layout is Layout.ALPACA:
        instruction, context = dialogue.instruction
        row = {"instruction": instruction, "input": context, "output": dialogue.turns[1].content}
        return row | {"system": dialogue.system} if columns.system else row
    if layout is Layout.SHAREGPT and trainer is Trainer.LLAMA_FACTORY:
        spelled = [{"from": _llama_factory_role(turn), "value": turn.content} for turn in dialogue.turns]
        more = {"system": dialogue.system} if columns.system else {}
        return {"conversations": spelled, **more} | ({"tools": dialogue.tools} if columns.tools else {})
    if layout is Layout.SHAREGPT:
        turns = _with_system(dialogue)
        return {"conversations": [{"from": _SHAREGPT_ROLES[turn.role], "value": turn.content} for turn in turns]}
    if layout is Layout.PROMPT_COMPLETION and columns.pairs:
        return {"prompt": dialogue.turns[0].content, "completion": dialogue.turns[1].content}
    messages = [{"role": turn.role, "content": turn.content} for turn in _with_system(dialogue)]
    if layout is Layout.PROMPT_COMPLETION:
        return {"prompt": messages[:-1], "completion": messages[-1:]}
    return {"messages": messages}


def _llama_factory_role(turn: Turn) -> str:
    return "function_call" if turn.is_call else _LLAMA_FACTORY_ROLES[turn.role]


def _with_system(dialogue: Dialogue) -> tuple[Turn, ...]:
    return (Turn("system", dialogue.system), *dialogue.turns) if dialogue.system else dialogue.turns


def _spell(turns: Sequence[Turn]) -> str:
    roles = ", ".join(turn.role for turn in turns[:4]) + (", …" if len(turns) > 4 else "")
    return f"{len(turns)} turn{'' if len(turns) == 1 else 's'} ({roles})"
