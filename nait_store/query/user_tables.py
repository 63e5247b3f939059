"""Tables and files that a caller hands to a query by name."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset
from fsspec.core import url_to_fs

from nait_store.errors import InvalidInputError, NaitStoreError, NotFoundError, StorageError
from nait_store.query.messages import translate
from nait_store.query.spelling import identifier, literal, without_wildcards

_READERS = {
    "parquet": "read_parquet",
    "pq": "read_parquet",
    "csv": "read_csv",
    "tsv": "read_csv",
    "json": "read_json",
    "jsonl": "read_json",
    "ndjson": "read_json",
}
_ARROW_ENDINGS = ("arrow", "feather", "ipc")
_COMPRESSIONS = ("gz", "zst", "zstd")


class UserTables:
    """Makes tables of the caller's readable in a session's database, as long as a statement runs.

    Parameters
    ----------
    connection
        The session's database.
    reserved
        Names that mean something in every query.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, reserved: Collection[str]) -> None:
        self._connection = connection
        self._reserved = frozenset(reserved)

    @contextmanager
    def registered(self, tables: Mapping[str, Any]) -> Iterator[None]:
        """Make tables readable as long as the block runs.

        Parameters
        ----------
        tables
            Name → pandas, polars or Arrow table, record batches or dataset, a dict of columns, or the path or fsspec
            URL of a Parquet, CSV, JSON, JSON Lines or Arrow file (or a glob of them).

        Raises
        ------
        InvalidInputError
            A name that is taken or empty, a value that is not a table, or a file that is not what its ending says.
        NotFoundError
            There is no such file.
        StorageError
            A file cannot be read.
        """
        views: list[str] = []
        registered: list[str] = []
        seen: dict[str, str] = {}
        try:
            for name, value in tables.items():
                self._check_name(name, seen)
                if isinstance(value, (str, os.PathLike)):
                    if self._open_file(name, os.fspath(value)):
                        views.append(name)
                    else:
                        registered.append(name)
                else:
                    self._connection.register(name, arrow_table(name, value))
                    registered.append(name)
            yield
        finally:
            for name in registered:
                self._connection.unregister(name)
            for name in views:
                self._connection.execute(f"DROP VIEW IF EXISTS temp.{identifier(name)}").fetchall()

    def _check_name(self, name: Any, seen: dict[str, str]) -> None:
        if not isinstance(name, str) or not name.strip() or "\x00" in name:
            raise InvalidInputError(
                f"{name!r} cannot name a table", next_step="use a word, e.g. tables={'mine': frame}"
            )
        if name.lower() in self._reserved:
            raise InvalidInputError(f"the table name {name!r} is taken by the store", next_step="choose another name")
        if name.lower() in seen:
            raise InvalidInputError(
                f"the table names {seen[name.lower()]!r} and {name!r} are the same to SQL",
                next_step="names are compared without regard to case; choose another",
            )
        seen[name.lower()] = name

    def _open_file(self, name: str, path: str) -> bool:
        """Make a file readable; whether that took a view."""
        ending = _ending(path)
        if ending not in _READERS and ending not in _ARROW_ENDINGS:
            raise InvalidInputError(
                f"the table {name!r}: {path!r} ends in none of "
                f"{', '.join('.' + known for known in (*_READERS, *_ARROW_ENDINGS))}",
                next_step="name a file of one of these kinds (.gz and .zst may follow), or pass a data frame",
            )
        try:
            spelled = self._spelled(name, path)
            if ending in _ARROW_ENDINGS:
                filesystem, inner = url_to_fs(path)
                self._connection.register(name, pyarrow.dataset.dataset(inner, format="ipc", filesystem=filesystem))
                return False
            self._connection.execute(
                f"CREATE TEMP VIEW {identifier(name)} AS FROM {_READERS[ending]}({literal(spelled)})"
            ).fetchall()
        except NaitStoreError:
            raise
        except (duckdb.Error, pa.ArrowException, OSError, ValueError) as error:
            reason = translate(error).what if isinstance(error, duckdb.Error) else str(error)
            raise InvalidInputError(
                f"the table {name!r} cannot be read from {path}: {reason}",
                next_step="check that the file is what its ending says",
            ) from error
        return True

    def _spelled(self, name: str, path: str) -> str:
        """A path as DuckDB is to be given it; NotFoundError where nothing is there."""
        filesystem, inner = url_to_fs(path)
        local = "file" in _protocols(filesystem)
        try:
            exists = filesystem.exists(inner)
            matches = [] if exists else filesystem.glob(inner)
        except Exception as error:  # a remote filesystem may raise what it likes
            raise StorageError(
                f"the table {name!r}: {path} cannot be reached: {error}", next_step="check the address and credentials"
            ) from error
        if not exists and not matches:
            where = Path(inner).resolve() if local else path
            raise NotFoundError(f"the table {name!r}: there is no file {where}", next_step="check the path")
        if not local:
            # The session may have registered it already, for a store on such a URL.
            if set(_protocols(filesystem)).isdisjoint(self._connection.list_filesystems()):
                self._connection.register_filesystem(filesystem)
            return path
        # A file of this very name is meant, whatever characters of it could be taken for a pattern.
        return without_wildcards(inner) if exists else inner


def arrow_table(name: str, value: Any) -> Any:
    """Turn a table of the caller's into an Arrow table or dataset.

    Parameters
    ----------
    name
        Name that the query uses.
    value
        pandas, polars or Arrow table, record batches or dataset, or a dict of columns.

    Raises
    ------
    InvalidInputError
        It is not a table.
    """
    if isinstance(value, pyarrow.dataset.Dataset):
        return value
    try:
        if isinstance(value, pa.Table):
            table = value
        elif isinstance(value, Mapping):
            table = pa.table(dict(value))
        elif type(value).__module__.partition(".")[0] == "pandas":
            table = pa.Table.from_pandas(value, preserve_index=False)
        else:
            table = pa.table(value)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"the table {name!r} cannot be read: {error}",
            next_step="give a pandas, polars or Arrow table, a dict of columns of equal length, or the path of a file",
        ) from error
    for i, column in enumerate(table.schema):
        if pa.types.is_float16(column.type):  # DuckDB has no such type
            table = table.set_column(i, column.with_type(pa.float32()), table.column(i).cast(pa.float32()))
    return table


def _ending(path: str) -> str:
    parts = path.lower().rsplit("/", 1)[-1].split(".")
    if len(parts) > 2 and parts[-1] in _COMPRESSIONS:
        parts.pop()
    return parts[-1] if len(parts) > 1 else ""


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
