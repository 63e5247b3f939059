"""Following a version to what it was made from, and to what was made from it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from nait_store.errors import InvalidInputError, NotFoundError, did_you_mean
from nait_store.refs import Kind, Reference, check_name, parse_reference
from nait_store.store.lineage.graph import Lineage, LineageEdge, LineageNode, NodeKind, NodeState, without_cycles
from nait_store.store.lineage.origins import Origin, Origins

if TYPE_CHECKING:
    from nait_store.store.facade import Store

Direction = Literal["up", "down", "both"]
DIRECTIONS = ("up", "down", "both")


def trace(store: Store, reference: str, direction: Direction = "both") -> Lineage:
    """Make the graph around a version; see :meth:`nait_store.store.tracing.Tracing.lineage`."""
    if direction not in DIRECTIONS:
        raise InvalidInputError(f"{direction!r} is no direction of a lineage", next_step="use up, down or both")
    origins = Origins(store)
    start = find_version(store, reference, origins)
    graph = _Graph(origins)
    graph.add_version(start)
    if direction != "down":
        graph.go_up(start)
    if direction != "up":
        graph.go_down(start)
    return graph.finished(start)


class _Graph:
    """Nodes and edges as they are found."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins
        self._nodes: dict[str, LineageNode] = {}
        self._edges: dict[LineageEdge, None] = {}

    def add_version(self, version: Reference) -> None:
        """Describe a version, once."""
        if version.qualified not in self._nodes:
            self._nodes[version.qualified] = self._origins.node(version)

    def go_up(self, start: Reference) -> None:
        """Add everything that a version was made from, nearest first."""
        seen, waiting = {start}, [start]
        for version in waiting:  # grows while it is gone through
            for origin in self._origins.of(version):
                found = self._add(origin, version)
                if found is not None and found not in seen:
                    seen.add(found)
                    waiting.append(found)

    def go_down(self, start: Reference) -> None:
        """Add everything that was made from a version, nearest first, deleted versions included."""
        products: dict[Reference, list[tuple[Reference, Origin]]] = defaultdict(list)
        for kind in Kind:
            for name in self._origins.names(kind):
                numbers = self._origins.listing(kind, name)
                for number in numbers.documents:
                    product = Reference(kind, name, version=number)
                    if number in numbers.collected and kind is not Kind.SET:
                        continue  # its payload is gone
                    for origin in self._origins.of(product, outside=False):
                        if origin.version is not None:
                            products[origin.version].append((product, origin))
        seen, waiting = {start}, [start]
        for version in waiting:
            for product, origin in products[version]:
                self.add_version(product)
                self._add(origin, product)
                if product not in seen:
                    seen.add(product)
                    waiting.append(product)

    def finished(self, start: Reference) -> Lineage:
        """The graph, without the edges that hand-written records claim and that cannot be."""
        edges, impossible = without_cycles(self._edges)
        for edge in impossible:
            self._origins.gaps[
                f"{edge.target} cannot have been made from {edge.source} ({edge.relation}), which was made from it"
            ] = None
        return Lineage(start.qualified, tuple(self._nodes.values()), tuple(edges), tuple(self._origins.gaps))

    def _add(self, origin: Origin, product: Reference) -> Reference | None:
        """Add one origin of a version; returns it if it is a version itself."""
        if origin.version is not None:
            self.add_version(origin.version)
            source = origin.version.qualified
        else:
            assert origin.thing is not None
            source = origin.thing.id
            known = self._nodes.get(source)
            if known is None or (known.kind is NodeKind.MODEL and "not recorded" in known.name):
                self._nodes[source] = origin.thing
        self._edges[LineageEdge(source, product.qualified, origin.relation)] = None
        return origin.version


def find_version(store: Store, text: str, origins: Origins | None = None) -> Reference:
    """The version that a reference of any kind means; an explicit number may be that of a deleted one.

    Parameters
    ----------
    store
        The store.
    text
        ``math``, ``math@3``, ``pool@paper``, ``selection:best``.
    origins
        Where documents are read that are read already.

    Raises
    ------
    InvalidInputError
        The name is that of a set and of a profile, say: write which one.
    NotFoundError
        Nothing has this name, or it has no such version.
    """
    origins = origins or Origins(store)
    prefix, colon, _ = text.partition(":")
    if colon and prefix in set(Kind):
        return _resolved(store, parse_reference(text, Kind(prefix)), origins)
    name = check_name(text.partition("@")[0], "set, profile or selection")
    known = {kind: origins.names(kind) for kind in Kind}
    kinds = [kind for kind in Kind if name in known[kind] and origins.listing(kind, name).last]
    if not kinds:
        every = sorted({one for names in known.values() for one in names})
        raise NotFoundError(
            f"there is no set, profile or selection {name!r} in {store.url}", next_step=did_you_mean(name, every)
        )
    if len(kinds) > 1:
        choices = " or ".join(f"{kind}:{text}" for kind in kinds)
        raise InvalidInputError(f"{name!r} is a {' and a '.join(kinds)}", next_step=f"write {choices}")
    return _resolved(store, parse_reference(text, kinds[0]), origins)


def _resolved(store: Store, parsed: Reference, origins: Origins) -> Reference:
    if parsed.version is not None and origins.state(parsed) is not NodeState.MISSING:
        return parsed
    number = {
        Kind.SET: lambda: store.sets.versions.resolve(parsed),
        Kind.PROFILE: lambda: store.profiles.registry.resolve(parsed),
        Kind.SELECTION: lambda: store.selections.open(parsed).number,
    }[parsed.kind]()
    return replace(parsed, version=number, alias=None)
