"""Runs queries over nothing but the tables that came with them; its walls can be taken down one by one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from nait_store.query.messages import translate
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.lockdown import lock, sandbox_config
from nait_store.query.sandbox.runner import Answer, UntrustedQuery
from nait_store.query.sandbox.session import approve
from nait_store.query.sources import WantedScores


class Prepared:
    missing: Sequence[WantedScores]

    def __init__(self, query: UntrustedQuery, limits: SandboxLimits, files: Sequence[str] | None) -> None:
        self._query, self._limits, self._files = query, limits, files
        self.missing = (
            [WantedScores("pool@1", name.as_py(), "mean", "dot") for name in query.tables["missing"]["profile"]]
            if ("missing" in query.tables)
            else []
        )

    def run(self) -> Answer:
        config = dict(sandbox_config(self._limits)) if self._files is not None else {}
        connection = duckdb.connect(":memory:", config=config)
        for name, table in self._query.tables.items():
            connection.register(name, table)
        if self._files is not None:
            lock(connection, self._files)
        if "attempts" in self._query.tables:
            return self._attempts(connection)
        try:
            relation = connection.sql(self._query.text, params=self._query.parameters or None)
            types = tuple(str(kind) for kind in relation.types)
            return Answer(relation.to_arrow_reader(), types)
        except duckdb.Error as error:
            raise translate(error) from error

    def _attempts(self, connection: duckdb.DuckDBPyConnection) -> Answer:
        """What comes of each of many statements: its rows, or its error."""
        outcomes = []
        for text in self._query.tables["attempts"]["query"].to_pylist():
            try:
                relation = connection.sql(text)
                outcomes.append(str(None if relation is None else relation.fetchall()))
            except Exception as error:
                outcomes.append(str(error))
        return Answer(pa.table({"outcome": outcomes}).to_reader(), ("VARCHAR",))


class TablesRunner:
    """A runner.

    Parameters
    ----------
    checks
        Whether queries are checked against the allow-list.
    files
        What DuckDB may read once it is locked; None leaves it open.
    """

    def __init__(self, checks: bool, files: Sequence[str] | None) -> None:
        self._checks, self._files = checks, files

    def prepare(self, query: UntrustedQuery, limits: SandboxLimits) -> Prepared:
        if self._checks:
            approve(query, limits)
        return Prepared(query, limits, self._files)


def open_runner(option: Any) -> TablesRunner:
    return TablesRunner(checks=True, files=())


def open_without_allow_list(option: list[str]) -> TablesRunner:
    return TablesRunner(checks=False, files=option)


def open_without_any(option: Any) -> TablesRunner:
    return TablesRunner(checks=False, files=None)


def open_hostile(option: Any) -> Any:
    """What a process would do that somebody else has taken over."""
    return HostileRunner()


class HostileRunner:
    def prepare(self, query: UntrustedQuery, limits: SandboxLimits) -> Any:
        # The answer's pipe is the only one that can be written.
        for fd in range(3, 64):
            try:
                os.write(fd, bytes.fromhex(query.text))
            except OSError:
                continue
        os._exit(0)


def open_environment(option: Any) -> Any:
    """Tells the names of the variables that its process has."""
    return EnvironmentRunner()


class EnvironmentRunner:
    missing: Sequence[WantedScores] = ()

    def prepare(self, query: UntrustedQuery, limits: SandboxLimits) -> EnvironmentRunner:
        return self

    def run(self) -> Answer:
        return Answer(pa.table({"name": list(os.environ)}).to_reader(), ("VARCHAR",))
