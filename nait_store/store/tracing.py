"""Where things come from: the methods of a store that follow versions to their origins and make them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from nait_store.store.facade import Store
    from nait_store.store.lineage.graph import Lineage


class Tracing:
    """The methods of :class:`~nait_store.store.facade.Store`, its only subclass, that are about origins."""

    def lineage(self, reference: str, direction: Literal["up", "down", "both"] = "both") -> Lineage:
        """Say what a version was made from, back to files and models, and what was made from it.

        Everything is read from the documents of the store, deleted versions included, until gc takes them; what is
        not known any more is among the ``gaps``. Going down reads the documents of every version of the store.

        Parameters
        ----------
        reference
            Any set, profile or selection: ``best``, ``math@3``, ``pool@paper``; with its kind where a name is used
            twice, ``profile:math``. A deleted version by its number.
        direction
            ``up``: what it was made from; ``down``: what was made from it.

        Returns
        -------
        Lineage
            Nodes and edges; ``.mermaid()`` and ``.dot()`` draw it.

        Raises
        ------
        NotFoundError
            Nothing has this name or version.
        InvalidInputError
            No reference, or one that could mean two things.
        """
        from nait_store.store.lineage.tracing import trace

        return trace(cast("Store", self), reference, direction)
