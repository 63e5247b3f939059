"""The DuckDB index over a store's manifests: built into a new file, swapped in whole, never changed in place.

Beside it lies a record with its digest and what it describes: a file that is damaged, or of another store, or of
another time, is never given to DuckDB, which could take the process down over it; it is built again. So are the lines
about profiles that lie there too: who asks for these alone does without DuckDB.

A read-write handle on a DuckDB file locks out every other process and a read-only one locks out writers, so no
handle is kept: a build closes its file before ``os.replace`` moves it to its place, and readers copy the few rows
and detach. Losing the file loses nothing; two processes that build at once both swap in whole files.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nait_store.catalog.listing import Listing, list_store
from nait_store.catalog.profile_lines import ProfileLines
from nait_store.catalog.record import CatalogRecord, lines_path, read_record, record_path, swap_in
from nait_store.storage import layout
from nait_store.storage.atomic import TEMPORARY_PREFIX
from nait_store.storage.cache_folder import cache_folder
from nait_store.storage.location import Location

if TYPE_CHECKING:  # who asks a fresh index needs none of what reads the documents, and of its lines no DuckDB
    import duckdb

    from nait_store.catalog.documents import Row
    from nait_store.catalog.rows import CatalogRows, Earlier

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CatalogState:
    """What a connection's catalog tables describe.

    Attributes
    ----------
    fingerprint
        Of the store's listing; empty if something could not be read, so that the next look tries again.
    problems
        One sentence per document that could not be read.
    """

    fingerprint: str
    problems: tuple[str, ...] = ()


class Catalog:
    """Index over the manifests of one store.

    Parameters
    ----------
    location
        The store's root.
    path
        Where to keep the index; by default in the root if that is local and writable, else in the user's cache
        folder, else (and for ``memory://``) nowhere.
    """

    def __init__(self, location: Location, path: Path | None = None) -> None:
        self._location = location
        self._path = path

    def path_for_reading(self) -> Path | None:
        """Return the file with a fresh index, built now if the store changed; None where none can be kept."""
        listing = list_store(self._location)
        fresh = self._fresh_file(listing)
        return fresh or self._build(listing, self._read(listing))

    def load_into(self, connection: duckdb.DuckDBPyConnection, state: CatalogState | None = None) -> CatalogState:
        """Make the catalog's tables of a connection describe the store as it is now.

        Parameters
        ----------
        connection
            An in-memory database. The first load creates the tables of ``schemas/ddl``.
        state
            What an earlier load returned, None at first.

        Returns
        -------
        CatalogState
            To be given to the next load; equal to ``state`` where nothing changed.
        """
        listing = list_store(self._location)
        fingerprint = listing.fingerprint
        if state is not None and state.fingerprint == fingerprint:
            return state
        if state is None:
            connection.execute(definition()).fetchall()
        fresh = self._fresh_file(listing)
        if fresh is not None:
            with suppress(*_broken()):
                _copy(connection, fresh)
                return CatalogState(fingerprint)
        rows = self._read(listing)
        self._build(listing, rows)
        _fill(connection, rows.tables)
        return CatalogState("" if rows.problems else fingerprint, tuple(rows.problems))

    def ask(self, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Answer one query of ours over the catalog's tables, as they are now; a session would load much more.

        Parameters
        ----------
        query
            In DuckDB's SQL, over the tables of ``schemas/ddl``.
        values
            Of its question marks.
        """
        import duckdb

        path = self.path_for_reading()
        if path is not None:
            with suppress(*_broken()), _attached(path) as connection:
                connection.execute("USE catalog").fetchall()
                return _dicts(connection, query, values)
        with duckdb.connect(":memory:", config={"python_enable_replacements": False}) as connection:
            self.load_into(connection)
            return _dicts(connection, query, values)

    def profile_lines(self) -> ProfileLines:
        """Return what is listed and searched of profiles, as it is now."""
        listing = list_store(self._location)
        for path, record in self._fresh_records(listing):
            data = record.profile_lines(path)
            lines = None if data is None else ProfileLines.from_bytes(data)
            if lines is not None:
                return lines
        rows = self._read(listing)
        self._build(listing, rows)
        return ProfileLines.of(rows.tables)

    def discard(self) -> None:
        """Delete the index wherever this machine keeps it; the next look builds it anew from the manifests."""
        for path in self._candidates(list_store(self._location)):
            with suppress(OSError):
                for file in (path, _log_of(path), record_path(path), lines_path(path)):
                    file.unlink(missing_ok=True)

    def _candidates(self, listing: Listing) -> list[Path]:
        """Return places for the file, best first."""
        if self._path is not None:
            return [self._path]
        if self._location.protocol == "memory":
            return []
        places = []
        root = self._location.local_path()
        if root is not None and self._location.can_create_atomically and os.access(root, os.W_OK):
            places.append(root / layout.CATALOG)
        # The store's id keeps apart stores that took turns at one URL.
        key = hashlib.sha256(f"{self._location.url}\n{listing.store_id}".encode()).hexdigest()[:32]
        return [*places, cache_folder() / "catalogs" / f"{key}.duckdb"]

    def _fresh_file(self, listing: Listing) -> Path | None:
        for path, record in self._fresh_records(listing):
            if record.describes(path):
                return path
            logger.info("the catalog %s is damaged and is built again", path)
        return None

    def _fresh_records(self, listing: Listing) -> Iterator[tuple[Path, CatalogRecord]]:
        """Places with a record of the store as it is now; whether what lies beside it is whole remains to be seen."""
        wanted = (listing.store_id, listing.fingerprint, definition_sha256())
        for path in self._candidates(listing):
            record = read_record(path)
            if record is not None and (record.store_id, record.fingerprint, record.definition_sha256) == wanted:
                yield path, record

    def _read(self, listing: Listing) -> CatalogRows:
        from nait_store.catalog.rows import CatalogRows

        return CatalogRows(self._location, listing, self._earlier(listing))

    def _earlier(self, listing: Listing) -> Earlier | None:
        """An outdated index of the same store, for what is immutable in it."""
        from nait_store.catalog.rows import TABLES, Earlier

        for path in self._candidates(listing):
            record = read_record(path)
            known = (listing.store_id, definition_sha256())
            if not listing.store_id or record is None or (record.store_id, record.definition_sha256) != known:
                continue
            if record.describes(path):
                with suppress(*_broken()), _attached(path) as connection:
                    tables = {
                        table: connection.sql(f"SELECT * FROM catalog.{table}").to_arrow_table().to_pylist()
                        for table in TABLES
                    }
                    return Earlier(tables, record.redirects, record.labels)
        return None

    def _build(self, listing: Listing, rows: CatalogRows) -> Path | None:
        import duckdb

        lines = ProfileLines.of(rows.tables).data
        about = CatalogRecord(
            store_id=listing.store_id,
            fingerprint="" if rows.problems else listing.fingerprint,
            definition_sha256=definition_sha256(),
            redirects=dict(listing.redirects),
            labels=rows.labels,
        )
        for path in self._candidates(listing):
            temporary = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}.duckdb"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with duckdb.connect(temporary) as connection:
                    connection.execute(definition()).fetchall()
                    _fill(connection, rows.tables)
                    connection.execute("CHECKPOINT").fetchall()
                # A log that a crash left beside the old file would be replayed over the new one.
                _log_of(path).unlink(missing_ok=True)
                swap_in(path, temporary, lines, about)
            except _broken() as error:
                logger.info("the catalog cannot be kept at %s: %s", path, error)
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                    _log_of(temporary).unlink(missing_ok=True)
                continue
            return path
        return None


@functools.cache
def definition() -> str:
    """Return the SQL that makes the catalog's tables: every file of ``schemas/ddl`` in order."""
    folder = importlib.resources.files("nait_store.schemas") / "ddl"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


@functools.cache
def definition_sha256() -> str:
    """Digest of :func:`definition`: an index made by another release is rebuilt."""
    return hashlib.sha256(definition().encode()).hexdigest()


def _broken() -> tuple[type[Exception], ...]:
    """What a damaged, foreign or locked catalog file may raise; the manifests still have every answer."""
    import duckdb

    return duckdb.Error, OSError, RuntimeError, ValueError


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


@contextmanager
def _attached(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    if not path.is_file():
        raise FileNotFoundError(path)
    with duckdb.connect(":memory:", config={"python_enable_replacements": False}) as connection:
        _attach(connection, path)
        yield connection


def _attach(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    # The log belongs to a writer that crashed before this file replaced its own: never to this file.
    if _log_of(path).exists():
        _log_of(path).unlink()
    quoted = str(path).replace("'", "''")
    connection.execute("SET TimeZone = 'UTC'").fetchall()
    connection.execute(f"ATTACH '{quoted}' AS catalog (READ_ONLY)").fetchall()


def _copy(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Copy every table of the file into the connection's own, in one transaction, and let go of the file."""
    from nait_store.catalog.rows import TABLES

    _attach(connection, path)
    try:
        connection.execute("BEGIN").fetchall()
        try:
            for table in TABLES:
                connection.execute(f"DELETE FROM main.{table}").fetchall()
                connection.execute(f"INSERT INTO main.{table} BY NAME FROM catalog.{table}").fetchall()
            connection.execute("COMMIT").fetchall()
        except BaseException:
            connection.execute("ROLLBACK").fetchall()
            raise
    finally:
        connection.execute("DETACH catalog").fetchall()


def _dicts(connection: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    result = connection.execute(query, list(values))
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _fill(connection: duckdb.DuckDBPyConnection, tables: dict[str, list[Row]]) -> None:
    import pyarrow as pa

    from nait_store.catalog.rows import TABLES

    connection.execute("BEGIN").fetchall()
    try:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}").fetchall()
            if tables[table]:
                schema = connection.sql(f"SELECT * FROM {table} LIMIT 0").to_arrow_table().schema
                connection.register("catalog rows", pa.Table.from_pylist(tables[table], schema=schema))
                connection.execute(f'INSERT INTO {table} BY NAME FROM "catalog rows"').fetchall()
                connection.unregister("catalog rows")
        connection.execute("COMMIT").fetchall()
    except BaseException:
        connection.execute("ROLLBACK").fetchall()
        raise
