"""Lineages as pictures, in Mermaid's and in Graphviz's language.

Names and conditions come from users and from other people's stores: whatever they hold is shown as it is, and acts on
neither language.
"""

from __future__ import annotations

from nait_store.store.lineage.graph import Lineage, LineageNode, NodeKind, NodeState

_SHOWN_DIGITS = 12
_SHOWN_CHARACTERS = 60
_SHAPES = {
    NodeKind.SET: ('[("', '")]', "cylinder"),
    NodeKind.PROFILE: ('{{"', '"}}', "hexagon"),
    NodeKind.SELECTION: ('(["', '"])', "oval"),
    NodeKind.FILE: ('["', '"]', "note"),
    NodeKind.MODEL: ('[["', '"]]', "component"),
    NodeKind.SHARED: ('(("', '"))', "folder"),
}
"""Around a label in Mermaid, and the shape in Graphviz."""
_PLAIN = frozenset(" .,@/_-+=()")
"""What needs no escape in a Mermaid label, beside letters and digits."""


def mermaid(lineage: Lineage) -> str:
    """Draw a lineage as a Mermaid flowchart, from left (what it was made from) to right."""
    places = {node.id: f"n{i}" for i, node in enumerate(lineage.nodes)}
    lines = ["flowchart LR"]
    for node in lineage.nodes:
        opening, closing, _ = _SHAPES[node.kind]
        label = "<br/>".join(map(_mermaid_text, label_lines(node)))
        lines.append(f"  {places[node.id]}{opening}{label}{closing}")
    for edge in lineage.edges:
        lines.append(f'  {places[edge.source]} -- "{_mermaid_text(edge.relation)}" --> {places[edge.target]}')
    lines.append(f"  style {places[lineage.root]} stroke-width:4px")
    gone = [places[node.id] for node in lineage.nodes if _is_gone(node)]
    lines += [f"  style {place} stroke-dasharray:5" for place in gone]
    return "\n".join(lines) + "\n"


def dot(lineage: Lineage) -> str:
    """Draw a lineage in the language of Graphviz, from left (what it was made from) to right."""
    places = {node.id: f"n{i}" for i, node in enumerate(lineage.nodes)}
    lines = ["digraph lineage {", "  rankdir=LR;", '  node [fontname="sans-serif"];', '  edge [fontname="sans-serif"];']
    for node in lineage.nodes:
        styles = ["dashed"] if _is_gone(node) else []
        styles += ["bold"] if node.id == lineage.root else []
        style = f', style="{",".join(styles)}"' if styles else ""
        label = "\\n".join(map(_dot_text, label_lines(node)))
        lines.append(f'  {places[node.id]} [shape={_SHAPES[node.kind][2]}, label="{label}"{style}];')
    for edge in lineage.edges:
        lines.append(f'  {places[edge.source]} -> {places[edge.target]} [label="{_dot_text(edge.relation)}"];')
    lines.append("}")
    return "\n".join(lines) + "\n"


def label_lines(node: LineageNode) -> list[str]:
    """What a picture says of a node: its kind and name, what it is made of, how to tell it from another."""
    state = f" ({node.state})" if _is_gone(node) else ""
    lines = [f"{node.kind} {_cut(node.name)}{state}"]
    if node.what:
        lines.append(_cut(node.what))
    if node.digest and node.kind in (NodeKind.FILE, NodeKind.MODEL):
        word = "sha256" if node.kind is NodeKind.FILE else "fingerprint"
        lines.append(f"{word} {node.digest[:_SHOWN_DIGITS]}…")
    return lines


def _is_gone(node: LineageNode) -> bool:
    return node.state in (NodeState.DELETED, NodeState.COLLECTED, NodeState.MISSING)


def _cut(text: str) -> str:
    """One line: control characters are spelled, and what is long is cut in its middle."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(shown) <= _SHOWN_CHARACTERS:
        return shown
    half = _SHOWN_CHARACTERS // 2
    return f"{shown[: half - 1]}…{shown[-half:]}"


def _mermaid_text(text: str) -> str:
    # By number, and all but the plainest: quotes end a label, "`" begins Markdown, "<" begins HTML, and a colon
    # before an escape makes Mermaid take a label for a style.
    return "".join(c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in text)


def _dot_text(text: str) -> str:
    # "&" begins an HTML entity even in quoted labels; a backslash begins an escape.
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
