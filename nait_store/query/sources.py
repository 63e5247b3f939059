"""What stands for each call of a table function in the statement that runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from nait_store.activations.set_version import SetVersion
from nait_store.errors import InvalidInputError, NotFoundError, did_you_mean
from nait_store.query.alignment_table import LAYERS_SCHEMA, SCHEMA, Pair, alignment_table, layers_table
from nait_store.query.features import FEATURE_FUNCTIONS, ArrayRead, FeatureContext
from nait_store.query.features.table import named_feature
from nait_store.query.lazy_table import FirstError, LazyTable
from nait_store.query.names import Remembered, StatementNames
from nait_store.query.sample_relation import SampleRelation
from nait_store.query.statement import TableCall
from nait_store.query.stored_pairs import StoredPairs
from nait_store.query.stored_scores import StoredScores
from nait_store.schemas.profile import Metric
from nait_store.schemas.record import json_digest
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location

_REGISTERED = 64


@dataclass(frozen=True)
class Source:
    """What stands for one call.

    Attributes
    ----------
    call
        The call.
    sql
        A query, or, if not ``is_constant``, the name of a macro with the call's arguments.
    is_constant
        Whether all that the call names is known before the statement runs.
    columns
        Names of its columns.
    version
        Set version of a call of ``samples``.
    pairs
        What must be scored for it.
    warnings
        About profiles that fit a set with reservations.
    reads
        Arrays that it reads besides those that scores are made of.
    """

    call: TableCall
    sql: str
    is_constant: bool = True
    columns: tuple[str, ...] = ()
    version: SetVersion | None = None
    pairs: tuple[Pair, ...] = ()
    warnings: tuple[str, ...] = ()
    reads: tuple[ArrayRead, ...] = ()


@dataclass(frozen=True)
class WantedScores:
    """Scores by names.

    Attributes
    ----------
    activation_set, profile
        References.
    feature, metric
        By their names.
    """

    activation_set: str
    profile: str
    feature: str
    metric: str


class Sources:
    """Makes what stands for calls, and keeps what is immutable of it.

    Parameters
    ----------
    location
        The store's root.
    connection
        The session's database; lazy tables are registered there.
    scores
        Where scores come from.
    stored
        Serves ``alignment`` with names that are no constants.
    first_error
        Receives what goes wrong in a scan.
    """

    def __init__(
        self,
        location: Location,
        connection: duckdb.DuckDBPyConnection,
        scores: StoredScores,
        stored: StoredPairs,
        first_error: FirstError,
    ) -> None:
        self._location = location
        self._connection = connection
        self._scores = scores
        self._stored = stored
        self._first_error = first_error
        self._relations: Remembered[SampleRelation] = Remembered()
        self._relation_sql: Remembered[str] = Remembered()
        self._registered: Remembered[str] = Remembered(sys.maxsize, forget=connection.unregister)

    def source(self, call: TableCall, values: dict[str, Any], context: FeatureContext) -> Source:
        """What stands for a call with these arguments.

        Raises
        ------
        NotFoundError, InvalidInputError, IncompatibleError
            Names of nothing, or of things that do not belong together.
        """
        names = context.names
        if call.function == "samples":
            version = names.version(values["activation_set"])
            sql = self._relation_sql.get(version.state, lambda: self.relation(version).sql())
            return Source(call, sql, columns=self.relation(version).columns, version=version)
        if call.function in FEATURE_FUNCTIONS:
            made = FEATURE_FUNCTIONS[call.function](context, values)
            # Registered under the call's position: it lives until the next statement.
            table = LazyTable(made.schema, made.batches, self._first_error)
            sql = self._register(f"{call.function} at {call.start}", lambda: table, anew=True)
            return Source(call, sql, columns=tuple(made.schema.names), reads=made.reads)
        if None in values.values():
            return self._by_rows(call, values, names)
        pairs, warnings = _pairs(call, values, names)
        if call.function == "alignment_layers":
            sql = self._register(
                _name("layers", pairs),
                lambda: layers_table(pairs, self._scores, self._first_error),
            )
            return Source(call, sql, columns=tuple(LAYERS_SCHEMA.names), pairs=pairs, warnings=warnings)
        sql = self._register(
            _name("alignment", pairs),
            lambda: alignment_table(lambda: pairs, self._scores, self._first_error),
        )
        return Source(call, sql, columns=tuple(SCHEMA.names), pairs=pairs, warnings=warnings)

    def relation(self, version: SetVersion) -> SampleRelation:
        """The samples of a set version."""
        return self._relations.get(version.state, lambda: SampleRelation(self._location, version))

    def begin(self) -> None:
        """Begin a statement: what the last ones needed may be forgotten now, and must not be while this one runs."""
        if len(self._registered) > _REGISTERED:
            self._registered.clear()

    def hide(self) -> None:
        """Take lazy tables out of the database, where SHOW TABLES would list them."""
        self._registered.clear()
        self._stored.hide()

    def _by_rows(self, call: TableCall, values: dict[str, Any], names: StatementNames) -> Source:
        set_name, profile_name = (_only(values[name]) for name in ("activation_set", "profile"))
        scope = None if set_name is None else names.version(set_name)
        if profile_name is not None:
            names.profile(profile_name)
        return Source(call, self._stored.macro(scope, names), is_constant=False, columns=tuple(SCHEMA.names))

    def _register(self, name: str, make: Callable[[], LazyTable], *, anew: bool = False) -> str:
        """A query that reads a lazy table, made and registered unless it is known."""

        def register() -> str:
            self._connection.register(name, make())
            return name

        if anew:
            self._registered.forget(name)
        return f'FROM "{self._registered.get(name, register)}"'


def wanted_target(wanted: WantedScores, names: StatementNames) -> tuple[SetVersion, ScoringTarget]:
    """What must be scored against what.

    Raises
    ------
    NotFoundError, InvalidInputError, IncompatibleError
        Names of nothing, or of things that do not belong together.
    """
    version, profile = names.version(wanted.activation_set), names.profile(wanted.profile)
    feature = named_feature(wanted.feature)
    names.fit(profile, version, feature)
    return version, names.target(profile, _metric(wanted.metric), feature)


def _pairs(call: TableCall, values: dict[str, Any], names: StatementNames) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """Every set version that the call names with every profile, and what to know about how they fit."""
    metric = None if "metric" not in values else _metric(values["metric"])
    feature = None if "feature" not in values else named_feature(values["feature"])
    versions = {version.reference: version for version in map(names.version, values["activation_set"])}
    pairs: dict[str, Pair] = {}
    warnings: list[str] = []
    for version in versions.values():
        if call.function == "alignment_all":
            profiles = names.fitting_profiles(version, feature)
            if not profiles:
                raise NotFoundError(
                    f"no profile applies to set {version.reference}",
                    next_step="build one: nait-store profile build NAME --from IN_DOMAIN_SET; "
                    "'nait-store profile list' shows those that there are",
                )
        else:
            profiles = [names.profile(name) for name in values["profile"]]
        for profile in profiles:
            warnings += names.fit(profile, version, feature)
            pair = Pair(version, profile.reference, names.target(profile, metric, feature))
            pairs[pair.key] = pair
    return tuple(pairs.values()), tuple(dict.fromkeys(warnings))


def _name(kind: str, pairs: Sequence[Pair]) -> str:
    """Name of the lazy table of some pairs; a thousand of them do not make it longer."""
    return f"{kind} {json_digest([pair.key for pair in pairs])}"


def _only(value: list[str] | None) -> str | None:
    return None if value is None else value[0]


def _metric(text: str) -> Metric:
    try:
        return Metric(text)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is not a metric", next_step=did_you_mean(text, list(Metric))) from error
