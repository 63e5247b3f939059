"""DuckDB with everything shut that a query does not need: the second of the sandbox's walls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb

from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.spelling import literal, without_wildcards

_NESTING = 250
"""How deep expressions may be nested; DuckDB's own limit is 1000, too many for its stack in places."""


def sandbox_config(limits: SandboxLimits) -> Mapping[str, str | bool | int]:
    """Settings to open a database with, in which trusted statements still prepare the ground.

    Parameters
    ----------
    limits
        How much a query may take.
    """
    return {
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allow_unsigned_extensions": False,
        "allow_persistent_secrets": False,
        "threads": limits.threads,
        "memory_limit": f"{limits.memory_bytes}B",
        "temp_directory": "",
        "max_expression_depth": _NESTING,
    }


def lock(connection: duckdb.DuckDBPyConnection, files: Sequence[str] = ()) -> None:
    """Shut a database for good.

    Parameters
    ----------
    connection
        Any connection to it.
    files
        Exact paths that it may go on reading. DuckDB would also write them if it were asked to: what keeps it from
        that is the allow-list before it and the kernel below it.
    """
    # A path that has characters of a pattern is read through the pattern that matches nothing else: both are asked for.
    spellings = dict.fromkeys(spelling for path in files for spelling in (path, without_wildcards(path)))
    listed = ", ".join(map(literal, spellings))
    for setting in (
        f"allowed_paths = [{listed}]",
        "allow_extension_repositories = 'forbidden'",
        "allowed_configs = ['errors_as_json']",  # how an error is told; the session asks for the place in a query
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}").fetchall()


def parsing_connection(limits: SandboxLimits) -> duckdb.DuckDBPyConnection:
    """Open an empty, locked database, to parse statements and to evaluate constants with.

    Parameters
    ----------
    limits
        How much that may take.
    """
    connection = duckdb.connect(":memory:", config=dict(sandbox_config(limits)))
    connection.execute("SET TimeZone = 'UTC'").fetchall()
    lock(connection)
    return connection
