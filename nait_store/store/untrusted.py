"""Untrusted SQL over a store: the caller's side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fsspec import get_filesystem_class

from nait_store.catalog.rows import TABLES
from nait_store.errors import InvalidInputError
from nait_store.query.arguments import named_parameters
from nait_store.query.arrow_types import with_plain_integers
from nait_store.query.result import QueryResult
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.pool import shared_pool
from nait_store.query.sandbox.processes import RunnerSource
from nait_store.query.sandbox.runner import UntrustedQuery
from nait_store.query.sources import WantedScores
from nait_store.query.views import VIEWS
from nait_store.storage.location import Location

if TYPE_CHECKING:
    from nait_store.store.facade import Store

_OPENER = "nait_store.store.untrusted_runner:open_runner"
_SCANNING = ("similar",)
"""Functions that scan activations while the query runs, with compiled kernels."""

_CACHE_VARIABLES = ("NAIT_STORE_CACHE", "XDG_CACHE_HOME", "HOME")
_REMOTE_PREFIXES = ("AWS_", "FSSPEC_", "GOOGLE_", "AZURE_", "SSL_CERT_", "REQUESTS_CA_", "HTTP_PROXY", "HTTPS_PROXY")
"""Where the clients of remote filesystems look for addresses and credentials."""


def run_untrusted(
    store: Store,
    query: str,
    params: Mapping[str, Any] | Sequence[Any] | None,
    tables: Mapping[str, Any] | None,
    sandbox: bool | SandboxLimits,
) -> QueryResult:
    """Run one untrusted query; see :meth:`~nait_store.store.facade.Store.sql`.

    What it needs to be computed or kept, the store's own session does.
    """
    limits = SandboxLimits() if sandbox is True else sandbox
    if not isinstance(limits, SandboxLimits):
        raise InvalidInputError(f"sandbox is {sandbox!r}", next_step="give True, or SandboxLimits(…)")
    pool = shared_pool(_source(store.location))
    session = store.session
    given = session.read_tables(tables) if tables else {}
    warnings: list[str] = []

    def compute(pairs: Sequence[WantedScores]) -> None:
        warnings.extend(session.score(pairs))

    if any(name in query.lower() for name in (*TABLES, *VIEWS)):
        # Kept fresh here, because the query's process can write nothing.
        store.catalog.path_for_reading()
    warm = any(name in query.lower() for name in _SCANNING)
    answer = pool.run(UntrustedQuery(query, named_parameters(params), given), limits, compute, store.url, warm=warm)
    table = with_plain_integers(answer.table, list(answer.duckdb_types))
    return QueryResult(table, tuple(dict.fromkeys([*answer.warnings, *warnings])))


def _source(location: Location) -> RunnerSource:
    if not location.is_local and not location.is_remote:
        raise InvalidInputError(
            f"untrusted SQL cannot be run over {location.url}, which lives in this process alone",
            next_step="copy the store to a folder, or leave the sandbox out for SQL that you trust",
        )
    passed = _CACHE_VARIABLES if location.is_local else (*_CACHE_VARIABLES, *_REMOTE_PREFIXES)
    modules = () if location.is_local else (get_filesystem_class(location.protocol).__module__,)
    environment = {name: value for name, value in os.environ.items() if name.upper().startswith(passed)}
    return RunnerSource(_OPENER, modules, location.is_remote, tuple(sorted(environment.items())))
