"""``alignment`` with arguments that are no constants: served from what is stored, never computed on the way.

Which profiles such a call asks for is known only while it runs, row by row. A scalar function in the macro looks at
every value: an unknown name, or a pair whose scores are not stored, is an error and never an empty result.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

from nait_store.activations.versions import SetVersion
from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.query.alignment_table import SCHEMA, Pair, alignment_table
from nait_store.query.lazy_table import FirstError
from nait_store.query.names import Names, StatementNames
from nait_store.query.stored_scores import StoredScores

_ANY_SET = "any set"


class StoredPairs:
    """Makes the macros that stand for such calls.

    Parameters
    ----------
    connection
        The session's database.
    names
        Of the session.
    scores
        Where scores come from.
    first_error
        Receives what goes wrong while a query runs.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, names: Names, scores: StoredScores, first_error: FirstError
    ) -> None:
        self._connection = connection
        self._names = names
        self._scores = scores
        self._first_error = first_error
        self._statement: StatementNames | None = None
        self._made: dict[str, str] = {}
        self._has_checks = False

    def macro(self, version: SetVersion | None, names: StatementNames) -> str:
        """Name of a table macro with the arguments of ``alignment``, ready to be called.

        Parameters
        ----------
        version
            What the set argument means where that is a constant.
        names
            Of the statement that is about to run.
        """
        if not self._has_checks:
            for name, check in (("nait_store_set", self._check_set), ("nait_store_profile", self._check_profile)):
                count = 1 if check == self._check_set else 2
                self._connection.create_function(name, check, ["VARCHAR"] * count, "VARCHAR", side_effects=True)
            self._has_checks = True
        self._statement = names
        scope = _ANY_SET if version is None else version.reference
        macro, table = f'"stored alignment of {scope}"', f"stored pairs of {scope}"
        if scope not in self._made:
            scanned = alignment_table(lambda: list(self._pairs(version)), self._scores, self._first_error)
            self._connection.register(table, scanned)
            self._connection.execute(
                f'CREATE OR REPLACE MACRO {macro}("set reference", "profile reference") AS TABLE '
                f'SELECT {", ".join(SCHEMA.names)} FROM "{table}" t '
                'WHERE t.activation_set = nait_store_set("set reference") '
                'AND t.profile = nait_store_profile("set reference", "profile reference")'
            ).fetchall()
            self._made[scope] = table
        return macro

    def hide(self) -> None:
        """Take the tables behind the macros out of the database, where SHOW TABLES would list them."""
        for table in self._made.values():
            self._connection.unregister(table)
        self._made.clear()

    def _check_set(self, set_reference: str) -> str:
        try:
            assert self._statement is not None
            return self._statement.version(set_reference).reference
        except BaseException as error:
            self._first_error.keep(error)
            raise

    def _check_profile(self, set_reference: str, profile_reference: str) -> str:
        try:
            assert self._statement is not None
            version = self._statement.version(set_reference)
            profile = self._statement.profile(profile_reference)
            self._statement.fit(profile, version)
            if not self._scores.is_stored(version, self._statement.target(profile)):
                raise InvalidInputError(
                    f"the scores of {version.reference} under {profile.reference} are not stored, and which profiles "
                    "this query needs cannot be known before it runs",
                    next_step=f"run 'nait-store score {version.reference} {profile.reference}' first, "
                    "or write the profile's name as a constant",
                )
            return profile.reference
        except BaseException as error:
            self._first_error.keep(error)
            raise

    def _pairs(self, only: SetVersion | None) -> Iterator[Pair]:
        assert self._statement is not None
        names, statement = self._names, self._statement
        versions = [only] if only is not None else []
        if only is None:
            for name in names.sets.names():
                versions += [statement.version(f"{name}@{number}") for number in names.sets.numbers(name)]
        for name in names.registry.names():
            for number in names.registry.numbers(name):
                profile = statement.profile(f"{name}@{number}")
                for version in versions:
                    try:
                        statement.fit(profile, version)
                    except IncompatibleError:
                        continue
                    target = statement.target(profile)
                    if self._scores.is_stored(version, target):
                        yield Pair(version, profile.reference, target)
