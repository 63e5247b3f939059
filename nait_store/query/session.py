"""Running SQL over a store: table functions over sets and profiles, and views of what the store holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.catalog.build import Catalog, CatalogState
from nait_store.catalog.rows import TABLES
from nait_store.errors import InvalidInputError, NaitStoreError
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.query.arguments import Arguments, bound_parameters
from nait_store.query.arrow_types import fetch_arrow
from nait_store.query.composition import compose
from nait_store.query.connections import close_later, connect
from nait_store.query.features import FeatureContext
from nait_store.query.functions import FUNCTIONS
from nait_store.query.interruption import interruptible
from nait_store.query.lazy_table import FirstError
from nait_store.query.messages import translate
from nait_store.query.names import Names
from nait_store.query.plan import StatementPlan, plan_statement
from nait_store.query.prepared import PreparedStatement, remaining_parameters
from nait_store.query.result import QueryResult
from nait_store.query.sources import Sources, WantedScores, wanted_target
from nait_store.query.spelling import identifier
from nait_store.query.statement import Node, StatementParser
from nait_store.query.stored_pairs import StoredPairs
from nait_store.query.stored_scores import StoredScores
from nait_store.query.top_k import find_top_k
from nait_store.query.top_rows import columns_in_use, find_best, read_samples
from nait_store.query.user_tables import UserTables
from nait_store.query.views import VIEWS, SelectedRows, Views, create_views
from nait_store.registry.profiles import ProfileRegistry
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location

__all__ = ["QueryResult", "QuerySession", "StatementPlan"]

T = TypeVar("T")
RESERVED = (*TABLES, *VIEWS, *FUNCTIONS)
"""Names that mean something in every statement."""
_REFUSALS = (duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException)
"""What may come before a statement runs, and have a place in it."""


class QuerySession:
    """Runs queries over one store; what is immutable stays in memory between them. Thread-safe, one query at a time.

    Parameters
    ----------
    location
        The store's root.
    sets, registry, catalog
        Of the same store.
    progress
        Told about scans of activations.
    selected
        Reads the rows of a saved selection, for ``selected_samples``.
    settings
        Of the database, besides those that every session has.
    parsing
        A database to parse statements and evaluate their constants with, instead of the session's own.
    """

    def __init__(
        self,
        location: Location,
        sets: ActivationSets,
        registry: ProfileRegistry,
        catalog: Catalog,
        progress: ProgressListener = ignore_progress,
        selected: SelectedRows | None = None,
        *,
        settings: Mapping[str, str | bool | int] | None = None,
        parsing: duckdb.DuckDBPyConnection | None = None,
    ) -> None:
        self._catalog = catalog
        self._catalog_state: CatalogState | None = None
        self._progress = progress
        self._connection = connection = connect(location, settings or {})
        self._closer = close_later(self, connection)
        self._parser = StatementParser(parsing or connection)
        self._arguments = Arguments(parsing or connection)
        self._names = Names(sets, registry)
        self._scores = StoredScores(location, progress)
        self._first_error = FirstError()
        stored = StoredPairs(connection, self._names, self._scores, self._first_error)
        self._sources = Sources(location, connection, self._scores, stored, self._first_error)
        self._views = Views(connection, selected or _no_selections, self._first_error)
        self._user_tables = UserTables(connection, reserved=RESERVED)
        self._lock = threading.RLock()

    def __enter__(self) -> QuerySession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of memory; the session cannot be used afterwards."""
        with self._lock:
            self._closer()

    def sql(
        self,
        query: str,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        tables: Mapping[str, Any] | None = None,
    ) -> QueryResult:
        """Run one query.

        Scores that it needs and that are not stored are computed first, with one pass over each set's arrays, and
        stored where the store can be written.

        Parameters
        ----------
        query
            One SELECT (or DESCRIBE, SHOW, SUMMARIZE, EXPLAIN) in DuckDB's SQL.
        params
            Values of ``$name``, or of ``?`` and ``$1`` in order.
        tables
            Name → table that the query may read: a pandas, polars or Arrow table, a dict of columns, or the path or
            fsspec URL of a Parquet, CSV, JSON, JSON Lines or Arrow file. Variables of the caller are never looked at.

        Returns
        -------
        QueryResult
            All rows, in memory, with warnings about profiles that fit a set with reservations.

        Raises
        ------
        NotFoundError
            Unknown set, profile, version, table, column or function, with near names.
        InvalidInputError
            Not one query; parameters that do not match; an error of the query itself.
        IncompatibleError
            A profile that was built on activations that mean something else.
        StorageError
            A file could not be read.
        KeyboardInterrupt
            Ctrl-C, while it was computing or while DuckDB was.
        """
        with self._prepared(query, params, tables) as prepared:
            return self._run(prepared)

    def explain(
        self,
        query: str,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        tables: Mapping[str, Any] | None = None,
    ) -> StatementPlan:
        """Say what a query would read, without running it.

        Parameters
        ----------
        query, params, tables
            As for :meth:`sql`.

        Returns
        -------
        StatementPlan
            Which scores are there, which passes over arrays the others take, and what else is read.

        Raises
        ------
        NaitStoreError
            As :meth:`sql` would, for slips in the statement too.
        """
        with self._prepared(query, params, tables) as prepared:
            self._check(prepared)
            return plan_statement(prepared.sources, self._scores)

    def score(self, wanted: Sequence[WantedScores]) -> tuple[str, ...]:
        """Compute scores that are not stored, and store them where the store can be written.

        Parameters
        ----------
        wanted
            Names, which are judged as those in a query are.

        Returns
        -------
        tuple of str
            Warnings: scores that could not be kept.

        Raises
        ------
        NotFoundError, InvalidInputError, IncompatibleError
            Names of nothing, or of things that do not belong together.
        """
        with self._lock:
            names = self._names.begin()
            self._scores.compute([wanted_target(one, names) for one in wanted])
            return tuple(self._scores.take_warnings())

    def score_rows(
        self, version: SetVersion, targets: Sequence[ScoringTarget], rows: Mapping[int, NDArray[np.int64]]
    ) -> dict[int, NDArray[np.float64]]:
        """Score some rows of a set version, reading no chunks but those that hold them.

        Parameters
        ----------
        version, targets, rows
            As for :func:`nait_store.scoring.row_scores.score_rows`.
        """
        with self._lock:
            return self._scores.of_rows(version, targets, rows)

    def read_tables(self, tables: Mapping[str, Any]) -> dict[str, pa.Table]:
        """Read the caller's tables and files whole, as :meth:`sql` would understand them.

        Parameters
        ----------
        tables
            As for :meth:`sql`.
        """
        with self._lock, self._user_tables.registered(tables):
            return {name: self._fetch(f"FROM {identifier(name)}", {}) for name in tables}

    def parse_tree(self, query: str) -> list[Node]:
        """Parse SELECT statements without running them: the root node of each in DuckDB's JSON form.

        Raises
        ------
        InvalidInputError
            The text does not parse, or is no SELECT.
        """
        with self._lock:
            return self._parser.tree(query)

    @contextmanager
    def _prepared(
        self, query: str, params: Mapping[str, Any] | Sequence[Any] | None, tables: Mapping[str, Any] | None
    ) -> Iterator[PreparedStatement]:
        """Resolve every name of a statement; what it reads is there as long as the block runs."""
        with self._lock:
            statement = self._parser.parse(query)
            parameters = bound_parameters(statement, params)
            reads_catalog = statement.looks_around or not statement.relations.isdisjoint((*TABLES, *VIEWS))
            if reads_catalog:
                self._load_catalog()
            with self._user_tables.registered(tables or {}):
                self._sources.begin()
                names = self._names.begin()
                context = FeatureContext(names, self._scores, self._progress, self._first_error)
                sources = tuple(
                    self._sources.source(call, self._arguments.values(call, parameters), context)
                    for call in statement.calls
                )
                remaining = remaining_parameters(statement, sources, parameters)
                state = self._catalog_state
                problems = state.problems if state is not None and reads_catalog else ()
                with self._views.filled(statement.relations, names, self._sources.relation):
                    yield PreparedStatement(statement, names, sources, parameters, remaining, problems)

    def _run(self, prepared: PreparedStatement) -> QueryResult:
        statement = prepared.statement
        runs = statement.analyzes or not statement.explains
        pairs = [pair for source in prepared.sources for pair in source.pairs]
        if runs and any(not self._scores.is_stored(pair.version, pair.target) for pair in pairs):
            # A slip in the statement is reported before the scan, not after it.
            self._check(prepared)
            self._scores.compute([(pair.version, pair.target) for pair in pairs])
        table = None if statement.explains else self._run_top_first(prepared)
        if table is None:
            table = self._fetch(prepared.composition.text, prepared.remaining, prepared)
        warnings = [text for source in prepared.sources for text in source.warnings]
        return QueryResult(table, tuple(dict.fromkeys([*warnings, *self._scores.take_warnings(), *prepared.problems])))

    def _check(self, prepared: PreparedStatement) -> None:
        """Let DuckDB bind a statement, which finds unknown columns and wrong types, and runs nothing."""
        text, parameters = prepared.composition.text, prepared.remaining or None
        self._guarded(lambda: self._connection.sql(text, params=parameters), prepared)

    def _load_catalog(self) -> None:
        # SHOW TABLES lists what is registered; only the user's own tables belong there.
        self._sources.hide()
        first = self._catalog_state is None
        self._catalog_state = self._catalog.load_into(self._connection, self._catalog_state)
        if first:
            create_views(self._connection)

    def _run_top_first(self, prepared: PreparedStatement) -> pa.Table | None:
        """Run the statement with its top rows found first; None where it has no such form, or that fails."""
        statement, sources = prepared.statement, list(prepared.sources)
        by_call = {id(source.call): i for i, source in enumerate(sources)}
        tables: dict[str, pa.Table] = {}
        try:
            for top in find_top_k(statement):
                at, beside = by_call[id(top.alignment)], by_call[id(top.samples)]
                pairs, version = sources[at].pairs, sources[beside].version
                if len(pairs) != 1 or version is None or pairs[0].version.reference != version.reference:
                    continue
                [pair] = pairs
                best = find_best(self._scores, pair, top, top.n_rows(prepared.parameters) or 0)
                if best is None:
                    continue
                relation = self._sources.relation(version)
                columns = columns_in_use(statement, top, relation.columns)
                samples = read_samples(relation, best, columns, self._fetch_with)
                if samples.num_rows != len(best.row_ids):
                    return None
                alignment = best.alignment(pair, samples.column("sample_id"))
                for index, rows in ((at, alignment), (beside, samples)):
                    name = f"top rows {index}"
                    tables[name] = rows
                    sources[index] = replace(sources[index], sql=f'FROM "{name}"')
            if not tables:
                return None
            with self._registered(tables):
                return self._fetch(compose(statement, sources).text, prepared.remaining)
        except NaitStoreError:
            # The statement as written gives the answer, or the message that fits what the user wrote.
            return None

    def _fetch_with(self, text: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        with self._registered(tables):
            return self._fetch(text, {})

    @contextmanager
    def _registered(self, tables: Mapping[str, pa.Table]) -> Iterator[None]:
        done: list[str] = []
        try:
            for name, table in tables.items():
                self._connection.register(name, table)
                done.append(name)
            yield
        finally:
            for name in done:
                self._connection.unregister(name)

    def _fetch(self, text: str, parameters: dict[str, Any], prepared: PreparedStatement | None = None) -> pa.Table:
        return self._guarded(lambda: fetch_arrow(self._connection.sql(text, params=parameters or None)), prepared)

    def _guarded(self, run: Callable[[], T], prepared: PreparedStatement | None = None) -> T:
        """Run something in DuckDB; errors come out as ours, with their place, and Ctrl-C as KeyboardInterrupt."""
        self._first_error.take()
        try:
            return interruptible(self._connection, run, lambda: self._first_error.keep(KeyboardInterrupt()))
        except (duckdb.Error, RuntimeError) as error:
            cause = self._first_error.take()
            if cause is not None:
                raise cause from error
            if isinstance(error, duckdb.InterruptException) or str(error) == "Query interrupted":
                raise KeyboardInterrupt from error
            if not isinstance(error, duckdb.Error):
                raise
            columns, fields = [], {}
            if prepared is not None:
                columns, fields = prepared.columns, self._fields_elsewhere(prepared)
            place = ""
            if prepared is not None and isinstance(error, _REFUSALS):
                place = prepared.composition.excerpt(self._connection, prepared.remaining)
            sets = self._names.sets.names()
            raise translate(error, tables=RESERVED, sets=sets, columns=columns, fields=fields, place=place) from error

    def _fields_elsewhere(self, prepared: PreparedStatement) -> dict[str, str]:
        """Columns of samples of the sets that a statement reads, unless it reads those: where each is to be had."""
        if any(source.version is not None for source in prepared.sources):
            return {}
        versions = [pair.version for source in prepared.sources for pair in source.pairs]
        return {name: f"samples('{v.name}')" for v in versions for name in self._sources.relation(v).columns}


def _no_selections(reference: str) -> pa.Table:
    raise InvalidInputError(
        f"the samples of {reference} cannot be read in this session", next_step="open the store with nait_store.open()"
    )
