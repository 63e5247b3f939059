"""What can be said about profiles and sets beside the choice itself: the analyses of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nait_store.store.facade import Store


class Analyses:
    """The analyses of a store.

    Parameters
    ----------
    store
        The store; they need its sets, profiles, scores and SQL.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
