"""Records in the layouts of trainers: what each holds, how it is spelled, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from nait_store.capture.conversations import FieldMap
from nait_store.errors import InvalidInputError
from nait_store.selection.trainers.dialogues import read_dialogue
from nait_store.selection.trainers.layouts import Columns, Layout, Trainer, misfit, row_of

ALPACA = {"instruction": "Add.\n", "input": " 2\n\n3 ", "output": "5"}
BARE = {"instruction": "Say hi", "output": "hi"}
SYSTEM = {"system": "Be brief.", "question": "Why?", "answer": "So."}
PAIR = {"prompt": "Q: 2+2\nA:", "completion": " 4"}
TEXT = {"text": "Once upon\u2028a time"}
MESSAGES = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": ""},
    ]
}
SHAREGPT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
CALLS = {
    "conversations": [
        {"from": "human", "value": "weather?"},
        {"from": "function_call", "value": '{"name": "w", "arguments": {}}'},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains."},
    ],
    "tools": [{"name": "w"}],
}
HISTORY = {"instruction": "and 3?", "input": "", "output": "4", "history": [["1 and 1?", "2"], ["and 2?", "3"]]}


def spelled(record: dict[str, Any], layout: Layout, trainer: Trainer = Trainer.TRL, **columns: bool) -> dict[str, Any]:
    dialogue = read_dialogue(record, "it")
    assert misfit(dialogue, layout, trainer) == ""
    own = Columns(bool(dialogue.system), bool(dialogue.tools), dialogue.is_pair)
    return row_of(dialogue, layout, trainer, Columns(**columns) if columns else own)


def why(record: dict[str, Any], layout: Layout, trainer: Trainer) -> str:
    return misfit(read_dialogue(record, "it"), layout, trainer)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (ALPACA, ALPACA),
        (BARE, {"instruction": "Say hi", "input": "", "output": "hi"}),
        (SYSTEM, {"instruction": "Why?", "input": "", "output": "So.", "system": "Be brief."}),
        (PAIR, {"instruction": "Q: 2+2\nA:", "input": "", "output": " 4"}),
        (SHAREGPT, {"instruction": "a", "input": "", "output": "b"}),
    ],
)
def test_single_rounds_as_alpaca(record: dict[str, Any], expected: dict[str, Any]) -> None:
    assert spelled(record, Layout.ALPACA, Trainer.LLAMA_FACTORY) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (ALPACA, [("user", "Add.\n\n\n 2\n\n3 "), ("assistant", "5")]),
        (SYSTEM, [("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")]),
        (MESSAGES, [(one["role"], one["content"]) for one in MESSAGES["messages"]]),
        (SHAREGPT, [("user", "a"), ("assistant", "b")]),
        (
            HISTORY,
            [
                ("user", "1 and 1?"),
                ("assistant", "2"),
                ("user", "and 2?"),
                ("assistant", "3"),
                ("user", "and 3?"),
                ("assistant", "4"),
            ],
        ),
    ],
)
def test_dialogues_as_messages(record: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    row = spelled(record, Layout.MESSAGES)
    assert list(row) == ["messages"]
    assert [(one["role"], one["content"]) for one in row["messages"]] == expected
    assert all(list(one) == ["role", "content"] for one in row["messages"])


def test_calls_and_tools_as_llama_factory_reads_them() -> None:
    row = spelled(CALLS, Layout.SHAREGPT, Trainer.LLAMA_FACTORY)
    assert row["conversations"] == CALLS["conversations"]
    assert row["tools"] == '[{"name": "w"}]'


def test_a_system_prompt_is_a_column_of_llama_factory_and_a_turn_of_axolotl() -> None:
    row = spelled(MESSAGES, Layout.SHAREGPT, Trainer.LLAMA_FACTORY)
    assert row["system"] == "Be kind."
    assert [one["from"] for one in row["conversations"]] == ["human", "gpt", "human", "gpt"]
    row = spelled(MESSAGES, Layout.SHAREGPT, Trainer.AXOLOTL)
    assert list(row) == ["conversations"]
    assert [one["from"] for one in row["conversations"]] == ["system", "human", "gpt", "human", "gpt"]


def test_a_row_has_the_columns_of_the_others() -> None:
    assert spelled(BARE, Layout.ALPACA, Trainer.LLAMA_FACTORY, system=True)["system"] == ""
    row = spelled(SHAREGPT, Layout.SHAREGPT, Trainer.LLAMA_FACTORY, system=True, tools=True)
    assert (row["system"], row["tools"]) == ("", "")


def test_pairs_of_texts_stay_texts_and_others_become_messages() -> None:
    assert spelled(PAIR, Layout.PROMPT_COMPLETION) == PAIR
    row = spelled(PAIR, Layout.PROMPT_COMPLETION, pairs=False)
    assert row == {
        "prompt": [{"role": "user", "content": "Q: 2+2\nA:"}],
        "completion": [{"role": "assistant", "content": " 4"}],
    }
    row = spelled(MESSAGES, Layout.PROMPT_COMPLETION)
    assert row == {"prompt": MESSAGES["messages"][:4], "completion": MESSAGES["messages"][4:]}


def test_bare_text_is_left_alone() -> None:
    assert spelled(TEXT, Layout.TEXT) == TEXT


@pytest.mark.parametrize(
    ("record", "layout", "trainer", "reason"),
    [
        (MESSAGES, Layout.ALPACA, Trainer.LLAMA_FACTORY, "it has 4 turns (user, assistant, user, assistant)"),
        (HISTORY, Layout.ALPACA, Trainer.LLAMA_FACTORY, "it has 6 turns (user, assistant, user, assistant, …)"),
        (SYSTEM, Layout.ALPACA, Trainer.AXOLOTL, "it has a system prompt"),
        (CALLS, Layout.MESSAGES, Trainer.TRL, "it describes tools"),
        ({**CALLS, "tools": None}, Layout.MESSAGES, Trainer.TRL, "it calls tools"),
        (CALLS, Layout.ALPACA, Trainer.LLAMA_FACTORY, "it describes tools"),
        (TEXT, Layout.MESSAGES, Trainer.TRL, "it is one bare text, without turns"),
        (BARE, Layout.TEXT, Trainer.TRL, "it is a dialogue, not one bare text"),
    ],
)
def test_what_would_lose_something_is_refused(
    record: dict[str, Any], layout: Layout, trainer: Trainer, reason: str
) -> None:
    assert why(record, layout, trainer) == reason


@pytest.mark.parametrize(
    "roles",
    [("user",), ("assistant", "user"), ("user", "user", "assistant"), ("user", "assistant", "user"), ("user", "tool")],
)
def test_what_llama_factory_would_pass_over_silently_is_refused(roles: tuple[str, ...]) -> None:
    record = {"messages": [{"role": role, "content": "x"} for role in roles]}
    assert "LLaMA-Factory passes over what does not alternate" in why(record, Layout.SHAREGPT, Trainer.LLAMA_FACTORY)
    assert why(record, Layout.MESSAGES, Trainer.TRL) == ""


def test_a_system_prompt_amid_the_turns_has_no_place_in_llama_factory() -> None:
    roles = ("user", "assistant", "user", "system")
    record = {"messages": [{"role": role, "content": "x"} for role in roles]}
    assert why(record, Layout.SHAREGPT, Trainer.LLAMA_FACTORY) == "it has a system prompt amid its turns"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "a message has tool_calls, for which there is no place",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "gpt", "content": "y", "reasoning_content": "z"}]},
            "a message has reasoning_content, for which there is no place",
        ),
        ({**BARE, "images": ["a.png"]}, "it has images"),
        ({**BARE, "history": "earlier"}, "its history is no list of pairs of texts"),
        ({"messages": [{"role": "system", "content": "x"}]}, "it has nothing but a system prompt"),
    ],
)
def test_what_no_layout_has_a_place_for_is_refused(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_dialogue(record, "it")
    assert caught.value.what == reason


def test_fields_are_read_as_they_were_ingested() -> None:
    dialogue = read_dialogue({"q": "a", "a": "b"}, "it", FieldMap.of({"instruction": "q", "output": "a"}))
    assert [(turn.role, turn.content) for turn in dialogue.turns] == [("user", "a"), ("assistant", "b")]
