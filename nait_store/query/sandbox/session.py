"""A query session for one untrusted query, in the process that serves it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from nait_store.activations.versions import ActivationSets
from nait_store.catalog.build import Catalog
from nait_store.catalog.rows import TABLES
from nait_store.errors import ForbiddenError, InvalidInputError
from nait_store.query.alignment_table import Pair
from nait_store.query.arrow_types import portable
from nait_store.query.functions import FUNCTIONS
from nait_store.query.prepared import PreparedStatement
from nait_store.query.sandbox.allow_list import NEXT_STEP, AllowList
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.lockdown import lock, parsing_connection, sandbox_config
from nait_store.query.sandbox.runner import Answer, UntrustedQuery
from nait_store.query.session import QuerySession
from nait_store.query.sources import WantedScores
from nait_store.query.statement import StatementParser
from nait_store.query.views import ALL_SAMPLES, VIEWS, SelectedRows
from nait_store.registry.profiles import ProfileRegistry
from nait_store.storage.location import Location

_CLASSES: Mapping[str, type[duckdb.Error]] = {
    "Conversion Error": duckdb.ConversionException,
    "IO Error": duckdb.IOException,
    "Out of Memory Error": duckdb.OutOfMemoryException,
}
_BATCH_ROWS = 2048
"""Few, so that a query which gives too much is stopped early."""


@dataclass(frozen=True, eq=False)
class ApprovedQuery:
    """A query of which nothing has run, and nothing is on no list; made by :func:`approve`.

    Attributes
    ----------
    query
        The query.
    parsing
        The locked, empty database that it was parsed with.
    """

    query: UntrustedQuery
    parsing: duckdb.DuckDBPyConnection


def approve(query: UntrustedQuery, limits: SandboxLimits) -> ApprovedQuery:
    """Parse a query and check it against the allow-list.

    Raises
    ------
    ForbiddenError
        It says something that an untrusted query may not.
    InvalidInputError
        It is not one query, or does not parse.
    """
    parsing = parsing_connection(limits)
    statement = StatementParser(parsing).parse(query.text)
    if statement.explains:
        raise ForbiddenError("an untrusted query may not use EXPLAIN", next_step=NEXT_STEP)
    AllowList([*TABLES, *VIEWS, *query.tables], FUNCTIONS).check(statement.root)
    return ApprovedQuery(query, parsing)


class UntrustedSession(QuerySession):
    """Resolves the names of one query and runs it with the database locked.

    Parameters
    ----------
    location
        The store's root, read-only.
    sets, registry, catalog, selected
        As for :class:`~nait_store.query.session.QuerySession`.
    approved
        The query.
    limits
        How much it may take.
    """

    def __init__(
        self,
        location: Location,
        sets: ActivationSets,
        registry: ProfileRegistry,
        catalog: Catalog,
        selected: SelectedRows,
        approved: ApprovedQuery,
        limits: SandboxLimits,
    ) -> None:
        super().__init__(
            location,
            sets,
            registry,
            catalog,
            selected=selected,
            settings=sandbox_config(limits),
            parsing=approved.parsing,
        )
        self._query = approved.query

    def prepare(self) -> UntrustedStatement:
        """Resolve the names of the query, and lock the database.

        Raises
        ------
        NaitStoreError
            It cannot be run as it is.
        """
        return UntrustedStatement(self, self._prepared(self._query.text, self._query.parameters, self._query.tables))

    def missing(self, prepared: PreparedStatement) -> list[Pair]:
        """Pairs that a statement needs and whose scores are not stored."""
        pairs = {pair.key: pair for source in prepared.sources for pair in source.pairs}
        return [pair for pair in pairs.values() if not self._scores.is_stored(pair.version, pair.target)]

    def lock(self, prepared: PreparedStatement) -> None:
        """Lock the database, but for the files of a statement whose names are all resolved."""
        lock(self._connection, self._files(prepared))

    def check(self, prepared: PreparedStatement) -> None:
        """Find slips in a statement before anything is computed for it."""
        self._check(prepared)

    def run(self, prepared: PreparedStatement) -> Answer:
        """Run a statement in the locked database."""
        warnings = tuple(dict.fromkeys([text for source in prepared.sources for text in source.warnings]))
        table = self._run_top_first(prepared)
        if table is not None:
            types = tuple(str(field.type) for field in table.schema)
            return Answer(table.to_reader(_BATCH_ROWS), types, (*warnings, *prepared.problems))
        text, parameters = prepared.composition.text, prepared.remaining or None
        relation = self._guarded(lambda: self._connection.sql(text, params=parameters), prepared)
        reader = self._guarded(lambda: portable(relation).to_arrow_reader(_BATCH_ROWS), prepared)
        guarded = pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader, prepared))
        return Answer(guarded, tuple(str(kind) for kind in relation.types), (*warnings, *prepared.problems))

    def _files(self, prepared: PreparedStatement) -> Sequence[str]:
        """Files that a statement reads: the samples of the set versions that it names."""
        versions = [source.version for source in prepared.sources if source.version is not None]
        if ALL_SAMPLES in prepared.statement.relations:
            versions += prepared.names.latest_versions()
        relations = [self._sources.relation(version) for version in versions]
        return list(dict.fromkeys(path for relation in relations for path in relation.files()))

    def _batches(self, reader: pa.RecordBatchReader, prepared: PreparedStatement) -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except (pa.ArrowException, OSError) as error:
            # Arrow passes on the text of DuckDB's error, and not its class.
            self._guarded(functools.partial(_raise_again, error), prepared)


def _raise_again(error: Exception) -> None:
    text = str(error)
    raise _CLASSES.get(text.partition(":")[0], duckdb.Error)(text) from error


class UntrustedStatement:
    """A query whose names are resolved; it belongs to a session that runs no other.

    Parameters
    ----------
    session
        The session.
    preparing
        Resolves the names, and keeps what the statement reads in place until it is left, which the process's end does.
    """

    def __init__(self, session: UntrustedSession, preparing: AbstractContextManager[PreparedStatement]) -> None:
        self._session = session
        self._preparing = preparing
        self._prepared = preparing.__enter__()
        session.lock(self._prepared)
        self.missing = [
            WantedScores(pair.version.reference, pair.profile, pair.target.feature.value, pair.target.metric.value)
            for pair in session.missing(self._prepared)
        ]
        if self.missing:
            session.check(self._prepared)

    def run(self) -> Answer:
        """Run it.

        Raises
        ------
        InvalidInputError
            Its scores are not stored after all.
        NaitStoreError
            An error of the query itself.
        """
        for pair in self._session.missing(self._prepared):
            raise InvalidInputError(
                f"the scores of {pair.version.reference} under {pair.profile} cannot be kept in the store, and an "
                "untrusted query reads no others",
                next_step="score them where the store can be written: nait-store score SET PROFILE…",
            )
        return self._session.run(self._prepared)
