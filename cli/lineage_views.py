"""How lineages look to people: a tree of what a version was made from, and one of what was made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nait_store.cli.quantities import count, size
from nait_store.cli.tables import cell

if TYPE_CHECKING:
    from nait_store.store.lineage.graph import Lineage, LineageNode
    from nait_store.store.lineage.tracing import Direction

_SHOWN_DIGITS = 12


def lineage(found: Lineage, direction: Direction) -> Iterator[str]:
    """The version itself, then a tree for each direction, then what is not known."""
    yield _line(found.node(found.root))
    if direction != "down":
        yield ""
        yield "made from"
        yield from _tree(found, found.root, upwards=True) or ["  nothing that is recorded"]
    if direction != "up":
        yield ""
        yield "made from it"
        yield from _tree(found, found.root, upwards=False) or ["  nothing"]
    if found.gaps:
        yield ""
        yield "not known"
        yield from (f"  {cell(gap)}" for gap in found.gaps)


def _tree(found: Lineage, root: str, *, upwards: bool) -> list[str]:
    """One line a node below its neighbour; what stands further up already is not gone through again."""
    lines: list[str] = []
    told: set[str] = set()
    edges = found.origins(root) if upwards else found.products(root)
    waiting = [(edge, 1) for edge in reversed(edges)]
    while waiting:
        edge, depth = waiting.pop()
        node_id = edge.source if upwards else edge.target
        following = found.origins(node_id) if upwards else found.products(node_id)
        again = node_id in told and bool(following)
        lines.append(f"{'  ' * depth}{edge.relation}: {_line(found.node(node_id))}" + (" (see above)" if again else ""))
        if node_id not in told:
            told.add(node_id)
            waiting += [(one, depth + 1) for one in reversed(following)]
    return lines


def _line(node: LineageNode) -> str:
    """``profile math@1: default: …; 64 samples of maths@1, 2026-11-25 by me@laptop``."""
    facts = []
    if node.what:
        facts.append(cell(node.what))
    if node.kind == "file":
        if node.size_bytes is not None:
            facts.append(size(node.size_bytes))
        facts.append(f"sha256 {node.digest[:_SHOWN_DIGITS]}…" if node.digest else "digest not recorded")
    elif node.kind == "model" and node.digest:
        facts.append(f"fingerprint {node.digest[:_SHOWN_DIGITS]}…")
    elif node.kind in ("set", "selection") and node.n_samples is not None:
        facts.append(count(node.n_samples, "sample"))
    if node.created_at is not None:
        facts.append(f"{node.created_at:%Y-%m-%d}" + (f" by {cell(node.author)}" if node.author else ""))
    state = "" if node.state in ("present", "outside") else f" ({node.state})"
    return f"{node.kind} {cell(node.name)}{state}" + (f": {', '.join(facts)}" if facts else "")
