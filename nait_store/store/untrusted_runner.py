"""Untrusted SQL over a store: what the fork server imports, and its processes run a query with."""

from __future__ import annotations

import numpy as np

# Imported here, what the parts of a store would import when they are first used is there before a query is.
import nait_store.query.top_rows
import nait_store.scoring.completion
import nait_store.selection.saved
import nait_store.store.inventory
import nait_store.store.sets  # noqa: F401
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.runner import UntrustedQuery
from nait_store.query.sandbox.session import UntrustedSession, UntrustedStatement, approve
from nait_store.scoring.kernels import default_kernels
from nait_store.store.facade import Store


class UntrustedRunner:
    """Runs one query over a store.

    Parameters
    ----------
    url
        The store's root.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def prepare(self, query: UntrustedQuery, limits: SandboxLimits) -> UntrustedStatement:
        """Check a query, and only then open the store and resolve its names.

        Raises
        ------
        ForbiddenError
            It says something that an untrusted query may not.
        NaitStoreError
            It cannot be run as it is.
        """
        approved = approve(query, limits)
        opened = Store.open(self._url)
        location = opened.location.read_only("an untrusted query changes nothing", "run it without the sandbox")
        store = Store(location, opened.record)
        session = UntrustedSession(
            location,
            store.sets.versions,
            store.profiles.registry,
            store.catalog,
            lambda reference: store.selections.open(reference).rows(),
            approved,
            limits,
        )
        return session.prepare()


def warm() -> None:
    """Load the compiled kernels for one vector, or compile them, which takes seconds the first time on a machine."""
    kernels = default_kernels()
    for element in (np.float16, np.float32):
        kernels.project(np.ones((1, 8), element), np.ones((1, 8), np.float32))


def open_runner(url: str) -> UntrustedRunner:
    """Open what the fork server's processes run queries with."""
    return UntrustedRunner(url)
