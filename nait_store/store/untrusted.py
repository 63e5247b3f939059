"""Untrusted SQL over a store: the caller's side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nait_store.errors import InvalidInputError
from nait_store.query.arguments import named_parameters
from nait_store.query.result import QueryResult, with_plain_integers
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.pool import SandboxPool
from nait_store.query.sandbox.processes import RunnerSource
from nait_store.query.sandbox.runner import UntrustedQuery
from nait_store.query.sources import WantedScores

if TYPE_CHECKING:
    from nait_store.store.facade import Store

_OPENER = "nait_store.store.untrusted_runner:open_runner"
_CACHE_VARIABLES = ("NAIT_STORE_CACHE", "XDG_CACHE_HOME", "HOME")
_REMOTE_PREFIXES = ("AWS_", "FSSPEC_", "GOOGLE_", "AZURE_", "SSL_CERT_", "REQUESTS_CA_", "HTTP_PROXY", "HTTPS_PROXY")
"""Where the clients of remote filesystems look for addresses and credentials."""


class UntrustedSql:
    """Runs untrusted queries over a store.

    Parameters
    ----------
    store
        The store. What a query needs to be computed or kept, its session does.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(
        self,
        query: str,
        params: Mapping[str, Any] | Sequence[Any] | None,
        tables: Mapping[str, Any] | None,
        limits: SandboxLimits,
    ) -> QueryResult:
        """Run one query; see :meth:`~nait_store.store.facade.Store.sql`."""
        session = self._store.session
        given = session.read_tables(tables) if tables else {}
        warnings: list[str] = []

        def compute(pairs: Sequence[WantedScores]) -> None:
            warnings.extend(session.score(pairs))

        # Kept fresh here, because the query's process can write nothing.
        self._store.catalog.path_for_reading()
        answer = self._pool.run(UntrustedQuery(query, named_parameters(params), given), limits, compute)
        table = with_plain_integers(answer.table, list(answer.duckdb_types))
        return QueryResult(table, tuple(dict.fromkeys([*answer.warnings, *warnings])))

    @cached_property
    def _pool(self) -> SandboxPool:
        location = self._store.location
        if not location.is_local and not location.is_remote:
            raise InvalidInputError(
                f"untrusted SQL cannot be run over {location.url}, which lives in this process alone",
                next_step="copy the store to a folder, or leave the sandbox out for SQL that you trust",
            )
        passed = _CACHE_VARIABLES if location.is_local else (*_CACHE_VARIABLES, *_REMOTE_PREFIXES)
        environment = {name: value for name, value in os.environ.items() if name.upper().startswith(passed)}
        return SandboxPool(RunnerSource(_OPENER, location.url, network=location.is_remote, environment=environment))
