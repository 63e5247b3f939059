"""Where things come from: the methods of a store that follow versions to their origins and make them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from nait_store.store.facade import Store
    from nait_store.store.lineage.graph import Lineage
    from nait_store.store.lineage.reproduction import Reproduction


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

    def reproduce(self, reference: str, *, moved: Mapping[str, str] | None = None) -> Reproduction:
        """Find the commands that make a version again from its files; nothing is run yet.

        Parameters
        ----------
        reference
            As for :meth:`lineage`.
        moved
            Recorded path, URL or hub id of a file or model → where it is now.

        Returns
        -------
        Reproduction
            ``.script()`` gives the commands, ``.run()`` runs them in a new store and compares the outcome;
            ``.steps.obstacles`` says what is not recorded, or not any more.

        Raises
        ------
        NotFoundError, InvalidInputError
            As for :meth:`lineage`.
        """
        from nait_store.store.lineage.planning import plan_reproduction
        from nait_store.store.lineage.reproduction import Reproduction

        store = cast("Store", self)
        return Reproduction(plan_reproduction(store, reference, moved or {}), store)
