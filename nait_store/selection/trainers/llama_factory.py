"""LLaMA-Factory: the entry of a data file in ``dataset_info.json``, laid into what stands there already."""

from __future__ import annotations

import json
from typing import Any

from nait_store.errors import AlreadyExistsError, InvalidInputError
from nait_store.selection.trainers.layouts import Columns, Layout

INFO_FILE = "dataset_info.json"


def entry_of(file_name: str, layout: Layout, columns: Columns) -> dict[str, Any]:
    """The description of a data file: https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md."""
    if layout is Layout.TEXT:
        return {"file_name": file_name, "columns": {"prompt": "text"}}
    more = {"system": "system"} if columns.system else {}
    if layout is Layout.ALPACA:
        return {
            "file_name": file_name,
            "columns": {"prompt": "instruction", "query": "input", "response": "output"} | more,
        }
    more |= {"tools": "tools"} if columns.tools else {}
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"} | more,
        "tags": {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": "human",
            "assistant_tag": "gpt",
            "observation_tag": "observation",
            "function_tag": "function_call",
            "system_tag": "system",
        },
    }


def merged(existing: bytes | None, name: str, entry: dict[str, Any], where: str, *, overwrite: bool) -> bytes:
    """Lay an entry into ``dataset_info.json``; every other entry stays as it is, in its place.

    Parameters
    ----------
    existing
        The file's bytes, or None where there is none.
    name, entry
        Of the data set.
    where
        Of the file, for messages.
    overwrite
        Whether an entry of this name may be replaced.

    Returns
    -------
    bytes
        ASCII, because LLaMA-Factory reads the file in the machine's own encoding.

    Raises
    ------
    InvalidInputError
        The file is no JSON object.
    AlreadyExistsError
        It has another entry of this name.
    """
    info: Any = {}
    if existing is not None and existing.strip():
        try:
            info = json.loads(existing.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(
                f"{where} cannot be read as JSON: {error}", next_step="correct it, or export into another folder"
            ) from error
        if not isinstance(info, dict):
            raise InvalidInputError(f"{where} is no JSON object", next_step="correct it, or export into another folder")
    if name in info and info[name] != entry and not overwrite:
        raise AlreadyExistsError(
            f"{where} has another data set {name!r}: {json.dumps(info[name], ensure_ascii=False)[:200]}",
            next_step="give ours another name with --name, or replace that one with --force",
        )
    return (json.dumps(info | {name: entry}, indent=2) + "\n").encode("ascii")
