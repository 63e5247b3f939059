"""The DuckDB file itself: tables that say what it is, schemas of views, and what a browser shows beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
from fsspec.core import url_to_fs

from nait_store.catalog.build import Catalog
from nait_store.errors import StorageError
from nait_store.query.attached.views import ALIGNMENT, SAMPLES, SNAPSHOT
from nait_store.query.messages import translate
from nait_store.query.spelling import identifier, literal
from nait_store.storage.location import Location

STORAGE_VERSION = "v1.0.0"
"""Oldest layout that DuckDB 2 writes: with its own, releases before it could not open the file at all."""

SAMPLE_COMMENTS = {
    "sample_id": "Your id, else the first 128 bits of the content hash; unique within a version",
    "n_tokens": "Tokens that went through the model, template included",
    "n_content_tokens": "The sample's own tokens, which the features reduce over",
    "truncated": "Whether the maximum length cut it",
    "content_hash": "SHA-256 of the record",
    "source_uri": "File it came from",
    "source_index": "Position in that file, from 0",
    "row_id": "Handle of the row within the set; not to be kept",
    "record": "The whole record as JSON",
}
ALIGNMENT_COMMENTS = {
    "activation_set": "Set version: pool@3",
    "profile": "Profile version: math@2",
    "row_id": "As in the samples of the set",
    "sample_id": "As in the samples of the set",
    "score": "Alignment of the sample with the profile; compare scores of one profile only",
    "projections": "Terms of the score, one for each of the profile's layers, in their order",
}

_ABOUT = f"""
CREATE TABLE {SNAPSHOT} (
    snapshot_id VARCHAR NOT NULL,
    store_url VARCHAR NOT NULL,
    store_id VARCHAR NOT NULL,
    attached_at TIMESTAMPTZ NOT NULL,
    writer VARCHAR NOT NULL
);
COMMENT ON TABLE {SNAPSHOT} IS 'One row: what store this file shows, and as it was when';
COMMENT ON COLUMN {SNAPSHOT}.snapshot_id IS 'ULID of this file';
COMMENT ON COLUMN {SNAPSHOT}.store_url IS 'Where the store is, whose files the views read';
COMMENT ON COLUMN {SNAPSHOT}.store_id IS 'ULID of the store';
COMMENT ON COLUMN {SNAPSHOT}.attached_at IS 'When this file was written';
COMMENT ON COLUMN {SNAPSHOT}.writer IS 'Program that wrote it';
CREATE TABLE attached_views (
    schema_name VARCHAR NOT NULL,
    view_name VARCHAR NOT NULL,
    activation_set VARCHAR NOT NULL,
    profile VARCHAR,
    n_rows BIGINT NOT NULL
);
COMMENT ON TABLE attached_views IS 'One row per view of samples or scores: which versions it shows';
COMMENT ON COLUMN attached_views.schema_name IS '{SAMPLES} or {ALIGNMENT}';
COMMENT ON COLUMN attached_views.view_name IS 'To be quoted where it is no plain word';
COMMENT ON COLUMN attached_views.activation_set IS 'Set version: pool@3';
COMMENT ON COLUMN attached_views.profile IS 'Profile version: math@2; NULL for samples';
COMMENT ON COLUMN attached_views.n_rows IS 'Samples that it shows';
CREATE TABLE missing_scores (
    activation_set VARCHAR NOT NULL,
    profile VARCHAR NOT NULL,
    command VARCHAR NOT NULL
);
COMMENT ON TABLE missing_scores IS 'One row per pair that has no view, because its scores are not stored';
COMMENT ON COLUMN missing_scores.activation_set IS 'Set version: pool@3';
COMMENT ON COLUMN missing_scores.profile IS 'Profile version: math@2';
COMMENT ON COLUMN missing_scores.command IS 'What computes the scores; attach again afterwards';
CREATE SCHEMA {SAMPLES};
CREATE SCHEMA {ALIGNMENT};
"""

_BLOCK_BYTES = 16384  # the smallest; with DuckDB's own, 256 KiB, two dozen small tables would take megabytes
_OUR_MISTAKES = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)


@dataclass(frozen=True)
class View:
    """A view to make.

    Attributes
    ----------
    schema, name
        ``main`` for one that stands in no schema.
    query
        What it shows.
    comment
        One sentence.
    columns
        Column → comment.
    """

    schema: str
    name: str
    query: str
    comment: str
    columns: Mapping[str, str]

    @property
    def sql_name(self) -> str:
        """Its name in a statement."""
        return f"{self.schema}.{identifier(self.name)}"


class AttachedDatabase:
    """Writes a DuckDB file; a context manager, whose file is whole once the block has ended normally.

    Parameters
    ----------
    path
        Of the new file.
    location
        The store's root.

    Raises
    ------
    NaitStoreError
        From every method: the kind that fits what DuckDB says.
    """

    def __init__(self, path: Path, location: Location) -> None:
        self._connection = duckdb.connect(
            path,
            config={
                "storage_compatibility_version": STORAGE_VERSION,
                "default_block_size": _BLOCK_BYTES,
                "python_enable_replacements": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        if not location.is_local:
            self._connection.register_filesystem(url_to_fs(location.url)[0])

    def __enter__(self) -> AttachedDatabase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.run("COMMIT")
                self.run("CHECKPOINT")
        finally:
            self._connection.close()

    def begin(
        self, catalog: Catalog, *, snapshot_id: str, store_url: str, store_id: str, at: datetime, writer: str
    ) -> tuple[str, ...]:
        """Make the tables of the catalog, then those about this file; returns what could not be read."""
        state = catalog.load_into(self._connection)
        self.run("BEGIN")  # of everything that follows: a transaction for each statement would take minutes
        self.run(_ABOUT)
        self.add_rows(SNAPSHOT, [(snapshot_id, store_url, store_id, at, writer)])
        return state.problems

    def create(self, view: View) -> None:
        """Make a view, with its comments."""
        statements = [f"CREATE VIEW {view.sql_name} AS {view.query}"]
        statements.append(f"COMMENT ON VIEW {view.sql_name} IS {literal(view.comment)}")
        statements += [
            f"COMMENT ON COLUMN {view.sql_name}.{identifier(column)} IS {literal(comment)}"
            for column, comment in view.columns.items()
        ]
        self.run(";\n".join(statements))

    def add_rows(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Fill one of the tables about this file."""
        for row in rows:
            marks = ", ".join("?" * len(row))
            self._guarded(f"INSERT INTO {table} VALUES ({marks})", row)

    def run(self, sql: str) -> None:
        """Run statements that give no rows."""
        self._guarded(sql)

    def _guarded(self, sql: str, parameters: tuple[Any, ...] | None = None) -> None:
        try:
            self._connection.execute(sql, parameters).fetchall()
        except _OUR_MISTAKES:
            raise
        except (duckdb.IOException, duckdb.HTTPException, duckdb.OutOfMemoryException) as error:
            raise translate(error) from error
        except duckdb.Error as error:  # the footer of a Parquet file is read when a view over it is made
            raise StorageError(
                f"DuckDB could not read a file of the store: {str(error).splitlines()[0]}",
                next_step="run 'nait-store verify' to see what is damaged",
            ) from error
