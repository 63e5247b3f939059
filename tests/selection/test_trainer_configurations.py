"""dataset_info.json of LLaMA-Factory and the stanza of Axolotl."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from nait_store.errors import AlreadyExistsError, InvalidInputError
from nait_store.selection.trainers.axolotl import quoted, stanza_of
from nait_store.selection.trainers.layouts import Columns, Layout
from nait_store.selection.trainers.llama_factory import entry_of, merged

ENTRY: dict[str, Any] = {"file_name": "best-1.jsonl"}
HOSTILE = "a\"b\\c\n- d: #e\t\u0085\u2028\u2029\x00\x7fé😀'{}[]&*!|>%@`: "


def test_other_entries_stay_as_they_are_and_in_place() -> None:
    before = {"z": {"file_name": "z.json", "note": "für später"}, "a": {"hf_hub_url": "x/y", "columns": {}}}
    data = merged(json.dumps(before, ensure_ascii=False).encode(), "best-1", ENTRY, "info", overwrite=False)
    after = json.loads(data)
    assert after == before | {"best-1": ENTRY}
    assert list(after) == ["z", "a", "best-1"]
    assert data.isascii()


@pytest.mark.parametrize("existing", [None, b"", b" \n", b"\xef\xbb\xbf{}"])
def test_a_missing_or_empty_file_is_begun(existing: bytes | None) -> None:
    assert json.loads(merged(existing, "best-1", ENTRY, "info", overwrite=False)) == {"best-1": ENTRY}


def test_the_same_entry_again_is_no_conflict() -> None:
    once = merged(None, "best-1", ENTRY, "info", overwrite=False)
    assert merged(once, "best-1", ENTRY, "info", overwrite=False) == once


def test_another_entry_of_the_name_is_named_and_kept() -> None:
    existing = b'{"best-1": {"file_name": "other.json"}}'
    with pytest.raises(AlreadyExistsError, match=r"another data set 'best-1': .*other\.json") as caught:
        merged(existing, "best-1", ENTRY, "info", overwrite=False)
    assert "--name" in str(caught.value.next_step)
    assert json.loads(merged(existing, "best-1", ENTRY, "info", overwrite=True)) == {"best-1": ENTRY}


@pytest.mark.parametrize("existing", [b"{", b"[]", b"\xff", b"3"])
def test_a_file_that_is_none_is_refused(existing: bytes) -> None:
    with pytest.raises(InvalidInputError, match="info "):
        merged(existing, "best-1", ENTRY, "info", overwrite=True)


def test_columns_that_no_sample_has_are_not_named() -> None:
    assert "system" not in entry_of("x", Layout.ALPACA, Columns())["columns"]
    entry = entry_of("x", Layout.SHAREGPT, Columns(system=True, tools=True))
    assert entry["columns"] == {"messages": "conversations", "system": "system", "tools": "tools"}


def test_quoted_text_is_one_scalar_to_yaml() -> None:
    assert yaml.safe_load(f"- {quoted(HOSTILE)}") == [HOSTILE]


@pytest.mark.parametrize("layout", [Layout.ALPACA, Layout.MESSAGES, Layout.SHAREGPT, Layout.TEXT])
def test_a_stanza_has_one_data_set_whatever_its_path_is_called(layout: Layout) -> None:
    text = stanza_of(HOSTILE, layout, HOSTILE)
    [data_set] = yaml.safe_load(text)["datasets"]
    assert (data_set["path"], data_set["ds_type"], data_set["split"]) == (HOSTILE, "json", "train")
    assert text.isascii()
    expected = {
        Layout.ALPACA: {"type": "alpaca"},
        Layout.TEXT: {"type": "completion", "field": "text"},
        Layout.MESSAGES: {
            "type": "chat_template",
            "field_messages": "messages",
            "message_property_mappings": {"role": "role", "content": "content"},
        },
        Layout.SHAREGPT: {
            "type": "chat_template",
            "field_messages": "conversations",
            "message_property_mappings": {"role": "from", "content": "value"},
        },
    }[layout]
    assert {key: data_set[key] for key in expected} == expected
