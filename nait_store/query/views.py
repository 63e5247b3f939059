"""``all_samples`` and ``selected_samples``: views whose rows are too many to be kept in the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow.dataset import field

from nait_store.activations.set_version import SetVersion
from nait_store.query.lazy_table import FirstError, LazyTable, may_match
from nait_store.query.names import StatementNames
from nait_store.query.sample_relation import BASE_COLUMNS, SampleRelation
from nait_store.query.spelling import literal

ALL_SAMPLES, SELECTED_SAMPLES = "all_samples", "selected_samples"
VIEWS = (ALL_SAMPLES, SELECTED_SAMPLES)

SelectedRows = Callable[[str], pa.Table]
"""From a reference such as ``best@1`` to the columns ``rank``, ``sample_id`` and ``score``."""

_SELECTED_COLUMNS = {
    "selection": "VARCHAR",
    "version": "INTEGER",
    "reference": "VARCHAR",
    "activation_set": "VARCHAR",
    "rank": "BIGINT",
    "sample_id": "VARCHAR",
    "score": "DOUBLE",
}
_ARROW_TYPES = {"VARCHAR": pa.string(), "INTEGER": pa.int32(), "BIGINT": pa.int64(), "DOUBLE": pa.float64()}
_SELECTED_SCHEMA = pa.schema([pa.field(name, _ARROW_TYPES[kind]) for name, kind in _SELECTED_COLUMNS.items()])
_COMMENTS = {
    ALL_SAMPLES: (
        "One row per sample of the latest version of every set; samples(set) has your own fields as columns",
        {
            "activation_set": "Resolved reference of the set, pool@3",
            "sample_id": "The user's id, else the first 128 bits of the content hash; unique within a set",
            "n_tokens": "Tokens that went through the model, template included",
            "n_content_tokens": "K, the sample's own tokens, which the features reduce over",
            "truncated": "Whether --max-length cut it",
            "content_hash": "SHA-256 of the record; equal in all sets that hold the same record",
            "source_uri": "File it came from",
            "source_index": "Position in that file, from 0",
            "row_id": "Handle of the row within its set; not to be kept outside the store",
            "record": "The whole record as JSON",
        },
    ),
    SELECTED_SAMPLES: (
        "One row per sample of every version of every saved selection",
        {
            "selection": "Name of the selection",
            "version": "Number, from 1",
            "reference": "How to refer to it: best@1",
            "activation_set": "Set version it chose from: pool@3",
            "rank": "Place in the selection, from 1",
            "sample_id": "The sample",
            "score": "Its score; NULL in a random selection without a profile",
        },
    ),
}


def create_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Make both views, typed and commented and without rows, for DESCRIBE and for tools that look around."""
    types = {ALL_SAMPLES: {"activation_set": "VARCHAR", **BASE_COLUMNS}, SELECTED_SAMPLES: _SELECTED_COLUMNS}
    for view, (comment, of_columns) in _COMMENTS.items():
        columns = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in types[view].items())
        statements = [f"CREATE VIEW {view} AS SELECT {columns} WHERE false"]
        statements.append(f"COMMENT ON VIEW {view} IS {literal(comment)}")
        statements += [f"COMMENT ON COLUMN {view}.{name} IS {literal(text)}" for name, text in of_columns.items()]
        for statement in statements:
            connection.execute(statement).fetchall()


class Views:
    """Fills the views of a session's database while a statement asks for them.

    Parameters
    ----------
    connection
        The session's database.
    selected
        Reads the rows of a saved selection.
    first_error
        Receives what goes wrong in a scan.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, selected: SelectedRows, first_error: FirstError) -> None:
        self._connection = connection
        self._selected = selected
        self._first_error = first_error

    @contextmanager
    def filled(
        self, mentioned: frozenset[str], names: StatementNames, relation: Callable[[SetVersion], SampleRelation]
    ) -> Iterator[None]:
        """Fill the views that a statement mentions, as long as the block runs.

        Parameters
        ----------
        mentioned
            Names of relations.
        names
            Of the statement: which version of each set is meant.
        relation
            The samples of a set version.
        """
        wanted = [view for view in VIEWS if view in mentioned]
        try:
            # Temporary relations are found before the empty views of the same name.
            if ALL_SAMPLES in wanted and (query := _all_samples(names.latest_versions(), relation)):
                self._execute(f"CREATE TEMP VIEW {ALL_SAMPLES} AS {query}")
            if SELECTED_SAMPLES in wanted:
                saved = self._connection.sql(
                    "SELECT selection, version, reference, activation_set FROM selections ORDER BY ALL"
                ).fetchall()
                rows = _SelectedRows(saved, self._selected)
                self._connection.register(
                    SELECTED_SAMPLES, LazyTable(_SELECTED_SCHEMA, rows.batches, self._first_error)
                )
            yield
        finally:
            if ALL_SAMPLES in wanted:
                self._execute(f"DROP VIEW IF EXISTS temp.{ALL_SAMPLES}")
            if SELECTED_SAMPLES in wanted:
                self._connection.unregister(SELECTED_SAMPLES)

    def _execute(self, sql: str) -> None:
        self._connection.execute(sql).fetchall()


class _SelectedRows:
    """Rows of saved selections, of those only that a filter lets through."""

    def __init__(self, saved: Sequence[tuple[str, int, str, str]], read: SelectedRows) -> None:
        self._saved = saved
        self._read = read

    def batches(self, names: Sequence[str], condition: Any) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([_SELECTED_SCHEMA.field(name) for name in names])
        guarantees = {
            saved: (field("selection") == saved[0])
            & (field("version") == saved[1])
            & (field("reference") == saved[2])
            & (field("activation_set") == saved[3])
            for saved in self._saved
        }
        for saved in may_match(guarantees, condition, _SELECTED_SCHEMA):
            rows = self._read(saved[2])
            constants = dict(zip(_SELECTED_SCHEMA.names, saved, strict=False))
            columns = [
                pa.repeat(pa.scalar(constants[name], schema.field(name).type), rows.num_rows)
                if name in constants
                else rows.column(name)
                for name in names
            ]
            yield from pa.table(columns, schema=schema).to_batches()


def _all_samples(versions: Sequence[SetVersion], relation: Callable[[SetVersion], SampleRelation]) -> str:
    """A query for the samples of these set versions; empty where there are none."""
    columns = ", ".join(BASE_COLUMNS)
    return "\nUNION ALL\n".join(
        f"SELECT {literal(version.reference)} AS activation_set, {columns} "
        f"FROM (\n{relation(version).sql(columns=BASE_COLUMNS)}\n)"
        for version in versions
    )
