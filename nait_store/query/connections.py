"""A session's DuckDB database, and what becomes of it in a process that is forked from this one.

A fork has the database but not its threads. DuckDB would wait for them when the database goes, be it closed, collected
as garbage or dropped at exit, and the process would crash: a worker of a data loader, say. So in a fork the databases
of its parent are never closed.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Mapping

import duckdb
from fsspec.core import url_to_fs

from nait_store.storage.location import Location

_open: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()


def connect(location: Location, settings: Mapping[str, str | bool | int]) -> duckdb.DuckDBPyConnection:
    """Open a database in memory that reads and writes nothing by itself.

    Parameters
    ----------
    location
        The store's root: an object store's files can be read.
    settings
        Of the database, besides those that every session has.
    """
    connection = duckdb.connect(
        ":memory:",
        config={
            # A table that is not there must be an error, never a variable of the caller that has its name.
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            **settings,
        },
    )
    _open.add(connection)
    connection.execute("SET TimeZone = 'UTC'").fetchall()
    connection.execute("SET enable_progress_bar = false").fetchall()  # notebooks would show one beside ours
    if not location.is_local:
        connection.register_filesystem(url_to_fs(location.url)[0])
    return connection


def close_later(owner: object, connection: duckdb.DuckDBPyConnection) -> weakref.finalize:  # type: ignore[type-arg]
    """Close a connection when its owner goes, at exit, or when the result is called; in a fork, never.

    DuckDB complains on stderr about what is still registered when the interpreter goes down.
    """
    return weakref.finalize(owner, _close, connection, os.getpid())


def _close(connection: duckdb.DuckDBPyConnection, opened_by: int) -> None:
    if os.getpid() == opened_by:
        connection.close()


def _keep_for_ever() -> None:
    """Let no database of the parent be destroyed in this process."""
    for connection in list(_open):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


os.register_at_fork(after_in_child=_keep_for_ever)
