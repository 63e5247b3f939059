"""Running SQL over a store: ``samples(set)``, ``alignment(set, profile)`` and the metadata views."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
from fsspec.core import url_to_fs

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.catalog.build import Catalog, CatalogState
from nait_store.catalog.rows import TABLES
from nait_store.errors import NaitStoreError
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.query.alignment_table import SCHEMA, AlignmentTable, FirstError, Pair
from nait_store.query.arguments import Arguments, bound_parameters
from nait_store.query.messages import translate
from nait_store.query.names import Names, Remembered, StatementNames
from nait_store.query.result import QueryResult, with_plain_integers
from nait_store.query.sample_relation import SampleRelation
from nait_store.query.statement import FUNCTIONS, Node, Statement, StatementParser, TableCall, parameters_in
from nait_store.query.stored_pairs import StoredPairs
from nait_store.query.stored_scores import StoredScores
from nait_store.query.top_k import find_top_k
from nait_store.query.top_rows import columns_in_use, find_best, read_samples
from nait_store.query.user_tables import user_table
from nait_store.registry.profiles import ProfileRegistry
from nait_store.storage.location import Location

__all__ = ["QueryResult", "QuerySession"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Source:
    """What stands for one call of a table function in the statement that runs."""

    call: TableCall
    sql: str
    version: SetVersion | None
    pair: Pair | None = None

    @property
    def is_constant(self) -> bool:
        return self.version is not None


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
    """

    def __init__(
        self,
        location: Location,
        sets: ActivationSets,
        registry: ProfileRegistry,
        catalog: Catalog,
        progress: ProgressListener = ignore_progress,
    ) -> None:
        self._location = location
        self._catalog = catalog
        self._catalog_state: CatalogState | None = None
        self._connection = _connect(location)
        # DuckDB complains on stderr about what is still registered when the interpreter goes down.
        self._closer = weakref.finalize(self, self._connection.close)
        self._parser = StatementParser(self._connection, TABLES)
        self._arguments = Arguments(self._connection)
        self._names = Names(sets, registry)
        self._scores = StoredScores(location, progress)
        self._first_error = FirstError()
        self._stored = StoredPairs(self._connection, self._names, self._scores, self._first_error)
        self._samples: Remembered[SampleRelation] = Remembered()
        self._sample_sql: Remembered[str] = Remembered()
        self._alignments: Remembered[str] = Remembered(forget=self._connection.unregister)
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
            Name → pandas, polars or Arrow table (or a dict of columns) that the query may read. Variables of the
            caller are never looked at.

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
        """
        with self._lock:
            statement = self._parser.parse(query)
            parameters = bound_parameters(statement, params)
            reserved = (*TABLES, *FUNCTIONS)
            with self._registered({name: user_table(name, t, reserved=reserved) for name, t in (tables or {}).items()}):
                return self._run(statement, parameters)

    def parse_tree(self, query: str) -> list[Node]:
        """Parse SELECT statements without running them: the root node of each in DuckDB's JSON form.

        Raises
        ------
        InvalidInputError
            The text does not parse, or is no SELECT.
        """
        with self._lock:
            return self._parser.tree(query)

    def _run(self, statement: Statement, parameters: dict[str, Any]) -> QueryResult:
        if statement.reads_catalog:
            self._load_catalog()
        names = self._names.begin()
        sources = [self._source(call, parameters, names) for call in statement.calls]
        pairs = [source.pair for source in sources if source.pair is not None]
        warnings = [text for pair in pairs for text in names.fit(names.profile(pair.profile), pair.version)]
        remaining = _remaining(statement, sources, parameters)
        written = _compose(statement, sources)
        columns = self._columns(sources)
        runs = statement.analyzes or not statement.explains
        if runs and any(not self._scores.is_stored(pair.version, pair.target) for pair in pairs):
            # A slip in the statement is reported before the scan, not after it.
            self._guarded(lambda: self._connection.sql(written, params=remaining or None), columns)
            self._scores.compute([(pair.version, pair.target) for pair in pairs])
        table = None
        if not statement.explains:
            table = self._run_top_first(statement, sources, parameters, remaining)
        if table is None:
            table = self._fetch(written, remaining, columns)
        problems = self._catalog_state.problems if self._catalog_state and statement.reads_catalog else ()
        return QueryResult(table, tuple(dict.fromkeys([*warnings, *self._scores.take_warnings(), *problems])))

    def _source(self, call: TableCall, parameters: dict[str, Any], names: StatementNames) -> _Source:
        values = self._arguments.values(call, parameters)
        if call.function == "samples":
            version = names.version(values["activation_set"] or "")
            return _Source(call, self._samples_sql(version), version)
        set_name, profile_name = values["activation_set"], values["profile"]
        if set_name is None or profile_name is None:
            scope = None if set_name is None else names.version(set_name)
            if profile_name is not None:
                names.profile(profile_name)
            return _Source(call, self._stored.macro(scope, names), None)
        version = names.version(set_name)
        profile = names.profile(profile_name)
        names.fit(profile, version)
        pair = Pair(version, profile.reference, names.target(profile))
        return _Source(call, f'FROM "{self._alignment(pair)}"', version, pair)

    def _relation(self, version: SetVersion) -> SampleRelation:
        return self._samples.get(version.state, lambda: SampleRelation(self._location, version))

    def _samples_sql(self, version: SetVersion) -> str:
        return self._sample_sql.get(version.state, lambda: self._relation(version).sql())

    def _alignment(self, pair: Pair) -> str:
        """Name of the registered table of a pair."""
        name = f"alignment of {pair.version.state} with {pair.profile}"

        def register() -> str:
            self._connection.register(name, AlignmentTable(lambda: [pair], self._scores, self._first_error))
            return name

        return self._alignments.get(name, register)

    def _load_catalog(self) -> None:
        # SHOW TABLES lists what is registered; only the user's own tables belong there.
        self._alignments.clear()
        self._catalog_state = self._catalog.load_into(self._connection, self._catalog_state)

    def _run_top_first(
        self, statement: Statement, sources: Sequence[_Source], parameters: dict[str, Any], remaining: dict[str, Any]
    ) -> pa.Table | None:
        """Run the statement with its top rows found first; None where it has no such form, or that fails."""
        by_call = {id(source.call): i for i, source in enumerate(sources)}
        replaced = list(sources)
        tables: dict[str, pa.Table] = {}
        try:
            for top in find_top_k(statement):
                at, beside = by_call[id(top.alignment)], by_call[id(top.samples)]
                pair, version = sources[at].pair, sources[beside].version
                if pair is None or version is None or pair.version.reference != version.reference:
                    continue
                best = find_best(self._scores, pair, top, top.n_rows(parameters) or 0)
                if best is None:
                    continue
                relation = self._relation(version)
                columns = columns_in_use(statement, top, relation.columns)
                samples = read_samples(relation, best, columns, self._fetch_with)
                if samples.num_rows != len(best.row_ids):
                    return None
                alignment = best.alignment(pair, samples.column("sample_id"))
                for index, call, rows in ((at, top.alignment, alignment), (beside, top.samples, samples)):
                    name = f"top rows {index}"
                    tables[name] = rows
                    replaced[index] = _Source(call, f'FROM "{name}"', version)
            if not tables:
                return None
            with self._registered(tables):
                return self._fetch(_compose(statement, replaced), remaining)
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

    def _columns(self, sources: Sequence[_Source]) -> list[str]:
        """Columns of the statement's calls, to suggest near ones."""
        columns = dict.fromkeys(SCHEMA.names if any(s.call.function == "alignment" for s in sources) else ())
        for source in sources:
            if source.call.function == "samples" and source.version is not None:
                columns.update(dict.fromkeys(self._relation(source.version).columns))
        return list(columns)

    def _fetch(self, text: str, parameters: dict[str, Any], columns: Sequence[str] = ()) -> pa.Table:
        def fetch() -> pa.Table:
            relation = self._connection.sql(text, params=parameters or None)
            types = [str(kind) for kind in relation.types]
            return with_plain_integers(relation.to_arrow_table(), types)

        return self._guarded(fetch, columns)

    def _guarded(self, run: Callable[[], T], columns: Sequence[str] = ()) -> T:
        """Run something in DuckDB; errors come out as ours, Ctrl-C as KeyboardInterrupt."""
        self._first_error.take()
        try:
            return run()
        except (duckdb.Error, RuntimeError) as error:
            cause = self._first_error.take()
            if cause is not None:
                raise cause from error
            if isinstance(error, duckdb.InterruptException) or str(error) == "Query interrupted":
                raise KeyboardInterrupt from error
            if not isinstance(error, duckdb.Error):
                raise
            raise translate(
                error, tables=[*TABLES, *FUNCTIONS], sets=self._names.sets.names(), columns=columns
            ) from error


def _connect(location: Location) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        ":memory:",
        config={
            # A table that is not there must be an error, never a variable of the caller that has its name.
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'").fetchall()
    if not location.is_local:
        connection.register_filesystem(url_to_fs(location.url)[0])
    return connection


def _compose(statement: Statement, sources: Sequence[_Source]) -> str:
    """The statement with every call replaced by what stands for it; all the rest stays as written."""
    edits: list[tuple[int, int, bytes]] = []
    for source in sources:
        call = source.call
        # What a call without alias is called by the rest of the statement.
        alias = b"" if call.alias else f" AS {call.relation_name}".encode()
        if source.is_constant:
            edits.append((call.start, call.end, f"(\n{source.sql}\n)".encode() + alias))
        else:
            edits.append((call.start, call.name_end, source.sql.encode()))
            edits.append((call.end, call.end, alias))
    # With some of them gone, the other question marks would count differently.
    replaced = [(start, end) for start, end, _ in edits]
    for at, name in statement.question_marks:
        if not any(start <= at < end for start, end in replaced):
            edits.append((at, at + 1, f"${name}".encode()))
    parts, position = [], 0
    for start, end, text in sorted(edits, key=lambda edit: edit[:2]):
        parts += [statement.text[position:start], text]
        position = end
    return b"".join([*parts, statement.text[position:]]).decode()


def _remaining(statement: Statement, sources: Sequence[_Source], parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters that still occur once the calls with constant arguments are replaced."""
    used = parameters_in([argument for s in sources if s.is_constant for argument in s.call.arguments])
    return {name: value for name, value in parameters.items() if statement.parameters.get(name, 0) > used[name]}
