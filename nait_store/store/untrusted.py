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
from nait_store.query.sandbox.confinement import Reach
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.pool import shared_pool
from nait_store.query.sandbox.processes import RunnerSource, RunnerTask
from nait_store.query.sandbox.runner import UntrustedQuery
from nait_store.query.sources import WantedScores
from nait_store.query.spelling import without_wildcards
from nait_store.query.views import VIEWS
from nait_store.storage import layout
from nait_store.storage.cache_folder import cache_folder
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
    task = RunnerTask(store.url, _reach(store.location), _environment(store.location), warm)
    answer = pool.run(UntrustedQuery(query, named_parameters(params), given), limits, compute, task)
    table = with_plain_integers(answer.table, list(answer.duckdb_types))
    return QueryResult(table, tuple(dict.fromkeys([*answer.warnings, *warnings])))


def _reach(location: Location) -> Reach:
    root = location.local_path()
    if root is None:
        # Clients of remote filesystems read what they like: certificates, names of hosts, credentials.
        return Reach(readable=None, network=True)
    # Sets and profiles may be links to other disks; of scores there may be thousands, and none is a folder.
    folders = [root, *(entry for entry in root.iterdir() if entry.is_dir() and entry.name != layout.SCORES)]
    linked = [entry.resolve() for folder in folders for entry in folder.iterdir() if entry.is_symlink()]
    # A file below a folder whose name has characters of a pattern is found by listing the folder above.
    patterns = [path.parent for path in (root, *root.parents) if without_wildcards(path.name) != path.name]
    return Reach(tuple(map(str, (root, cache_folder(), *linked))), tuple(map(str, patterns)))


def _source(location: Location) -> RunnerSource:
    if not location.is_local and not location.is_remote:
        raise InvalidInputError(
            f"untrusted SQL cannot be run over {location.url}, which lives in this process alone",
            next_step="copy the store to a folder, or leave the sandbox out for SQL that you trust",
        )
    # The client of a remote filesystem takes long to import.
    return RunnerSource(_OPENER, () if location.is_local else (get_filesystem_class(location.protocol).__module__,))


def _environment(location: Location) -> dict[str, str]:
    passed = _CACHE_VARIABLES if location.is_local else (*_CACHE_VARIABLES, *_REMOTE_PREFIXES)
    return {name: value for name, value in os.environ.items() if name.upper().startswith(passed)}
