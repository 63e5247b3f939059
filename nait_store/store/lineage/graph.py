"""The graph of what was made from what, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property


class NodeKind(StrEnum):
    """What a node is: a version in this store, or what versions are made from in the end."""

    SET = "set"
    PROFILE = "profile"
    SELECTION = "selection"
    FILE = "file"
    MODEL = "model"
    SHARED = "shared"
    """A version in a registry that stores share."""


class NodeState(StrEnum):
    """Whether a version is there: visible, deleted and still kept, taken by gc, or referred to and never there.

    Files, models and what others publish lie outside of the store; whether they are where they were nobody looks.
    """

    PRESENT = "present"
    DELETED = "deleted"
    COLLECTED = "collected"
    MISSING = "missing"
    OUTSIDE = "outside"


@dataclass(frozen=True)
class LineageNode:
    """One version, file or model.

    Attributes
    ----------
    id
        Unique in the graph, and the same in every graph of the store: ``set:pool@3``, ``profile:math@2``,
        ``file:pool.jsonl#9f86d081884c``, ``model:2c26b46b68ff``, ``shared:s3://team/registry#math@3``.
    kind
        What it is.
    name
        For people: ``pool@3``, the file's path or URL, the model's path or hub id as it was given.
    state
        Whether it is there.
    what
        What it is made of, in words; empty where that is not known.
    digest
        SHA-256 of the file's bytes, of a profile's directions, of the document of a set's or selection's version, of
        the record of a published version; fingerprint of the model. None where it is not recorded, or not any more.
    size_bytes, n_samples
        Of a file; of a set or selection, and of a profile's in-domain samples.
    author, created_at
        Of a version.
    """

    id: str
    kind: NodeKind
    name: str
    state: NodeState
    what: str = ""
    digest: str | None = None
    size_bytes: int | None = None
    n_samples: int | None = None
    author: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True)
class LineageEdge:
    """One thing was made from another.

    Attributes
    ----------
    source, target
        Ids of nodes; the target was made from the source.
    relation
        What the source was to the target: ``built from``, ``ingested``, ``captured with`` …
    """

    source: str
    target: str
    relation: str


@dataclass(frozen=True)
class Lineage:
    """What a version was made from and what was made from it; a graph without cycles.

    Attributes
    ----------
    root
        Id of the node that was asked for.
    nodes
        Every node once; the root first, then what it was made from, nearest first, then what was made from it.
    edges
        Between these nodes.
    gaps
        What is not known, or not any more, and why; empty where the graph is whole.
    """

    root: str
    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]
    gaps: tuple[str, ...] = ()

    def node(self, node_id: str) -> LineageNode:
        """The node of this id; KeyError where there is none."""
        return self._by_id[node_id]

    def origins(self, node_id: str) -> tuple[LineageEdge, ...]:
        """Edges from all that a node was made from."""
        return self._by_target.get(node_id, ())

    def products(self, node_id: str) -> tuple[LineageEdge, ...]:
        """Edges to all that was made from a node."""
        return self._by_source.get(node_id, ())

    @cached_property
    def _by_id(self) -> dict[str, LineageNode]:
        return {node.id: node for node in self.nodes}

    @cached_property
    def _by_target(self) -> dict[str, tuple[LineageEdge, ...]]:
        return _grouped(self.edges, lambda edge: edge.target)

    @cached_property
    def _by_source(self) -> dict[str, tuple[LineageEdge, ...]]:
        return _grouped(self.edges, lambda edge: edge.source)

    def mermaid(self) -> str:
        """Draw it as a Mermaid flowchart, which GitHub, GitLab and many notebooks show."""
        from nait_store.store.lineage.drawing import mermaid

        return mermaid(self)

    def dot(self) -> str:
        """Draw it in Graphviz's language: ``nait-store lineage best --format dot | dot -Tsvg``."""
        from nait_store.store.lineage.drawing import dot

        return dot(self)


def without_cycles(edges: Iterable[LineageEdge]) -> tuple[list[LineageEdge], list[LineageEdge]]:
    """Split edges into those that make no cycle, in their order, and those that would close one.

    No honest store has any: what a version was made from existed before it. Records that somebody wrote by hand may
    claim otherwise.
    """
    kept: list[LineageEdge] = []
    left_out: list[LineageEdge] = []
    products: dict[str, list[str]] = {}

    def reaches(start: str, end: str) -> bool:
        seen, waiting = {start}, [start]
        while waiting:
            at = waiting.pop()
            if at == end:
                return True
            fresh = [one for one in products.get(at, ()) if one not in seen]
            seen.update(fresh)
            waiting += fresh
        return False

    for edge in edges:
        if reaches(edge.target, edge.source):
            left_out.append(edge)
        else:
            kept.append(edge)
            products.setdefault(edge.source, []).append(edge.target)
    return kept, left_out


def _grouped(edges: Iterable[LineageEdge], key: Callable[[LineageEdge], str]) -> dict[str, tuple[LineageEdge, ...]]:
    found: dict[str, list[LineageEdge]] = {}
    for edge in edges:
        found.setdefault(key(edge), []).append(edge)
    return {name: tuple(some) for name, some in found.items()}
