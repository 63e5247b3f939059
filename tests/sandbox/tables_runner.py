"""Runs queries over nothing but the tables that came with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import duckdb

from nait_store.errors import InvalidInputError
from nait_store.query.messages import translate
from nait_store.query.sandbox.allow_list import AllowList
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.lockdown import lock, parsing_connection, sandbox_config
from nait_store.query.sandbox.runner import Answer, ScorePair, UntrustedQuery


class Prepared:
    def __init__(self, query: UntrustedQuery, limits: SandboxLimits, missing: Sequence[ScorePair]) -> None:
        self._query, self._limits, self.missing = query, limits, missing

    def run(self) -> Answer:
        connection = duckdb.connect(":memory:", config=dict(sandbox_config(self._limits)))
        for name, table in self._query.tables.items():
            connection.register(name, table)
        lock(connection)
        try:
            relation = connection.sql(self._query.text, params=self._query.parameters or None)
            types = tuple(str(kind) for kind in relation.types)
            return Answer(relation.to_arrow_reader(), types)
        except duckdb.Error as error:
            raise translate(error) from error


class TablesRunner:
    def prepare(self, query: UntrustedQuery, limits: SandboxLimits) -> Prepared:
        connection = parsing_connection(limits)
        try:
            statements = connection.extract_statements(query.text)
            [(text,)] = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query.text]).fetchall()
        except duckdb.Error as error:
            raise translate(error) from error
        document = json.loads(text)
        if len(statements) != 1 or statements[0].type.name != "SELECT" or document["error"]:
            raise InvalidInputError("not one SELECT")
        AllowList(query.tables, ["samples", "alignment"]).check(document["statements"][0]["node"])
        return Prepared(query, limits, [])


def open_runner(option: Any, limits: SandboxLimits) -> TablesRunner:
    return TablesRunner()
