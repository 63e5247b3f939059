"""Axolotl: the stanza of a data file in the YAML of a training run."""

from __future__ import annotations

from nait_store.selection.trainers.layouts import Layout

_TYPES = {
    Layout.ALPACA: ["type: alpaca"],
    Layout.TEXT: ["type: completion", "field: text"],
    Layout.MESSAGES: [
        "type: chat_template",
        "field_messages: messages",
        "message_property_mappings:",
        "  role: role",
        "  content: content",
    ],
    Layout.SHAREGPT: [
        "type: chat_template",
        "field_messages: conversations",
        "message_property_mappings:",
        "  role: from",
        "  content: value",
    ],
}


def stanza_of(path: str, layout: Layout, provenance: str) -> str:
    """The ``datasets`` of a configuration: https://docs.axolotl.ai/docs/dataset-formats/.

    Parameters
    ----------
    path
        Of the data file, as the training run will find it.
    layout
        Of its rows.
    provenance
        Name of the side file, for a comment.
    """
    lines = [f"path: {quoted(path)}", "ds_type: json", "split: train", *_TYPES[layout]]
    items = "\n".join(f"  {'- ' if i == 0 else '  '}{line}" for i, line in enumerate(lines))
    return f"# where these samples come from: {quoted(provenance)}\ndatasets:\n{items}\n"


def quoted(text: str) -> str:
    """A double-quoted YAML scalar in ASCII: nothing in it can end it, or begin anything else."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return f"\\{character}"
    if 0x20 <= code < 0x7F:
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
