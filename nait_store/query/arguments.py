"""Values of parameters and of the arguments of our table functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from nait_store.errors import InvalidInputError, did_you_mean
from nait_store.query.messages import translate
from nait_store.query.statement import FUNCTIONS, Node, Statement, TableCall, parameters_in, walk

_DEPENDS_ON_ROWS = frozenset({"COLUMN_REF", "SUBQUERY", "WINDOW", "STAR"})


def bound_parameters(statement: Statement, params: Mapping[str, Any] | Sequence[Any] | None) -> dict[str, Any]:
    """Match given values with the parameters of a statement.

    Parameters
    ----------
    statement
        The parsed statement.
    params
        By name, or in the order of ``?`` (``$1``, ``$2`` …).

    Raises
    ------
    InvalidInputError
        One is missing, or one is given that the statement does not have.
    """
    if isinstance(params, (str, bytes)):
        raise InvalidInputError("the parameters are a single text", next_step="give a list or a dict of values")
    if params is None:
        given: dict[str, Any] = {}
    elif isinstance(params, Mapping):
        given = {str(name).removeprefix("$"): value for name, value in params.items()}
    else:
        given = {str(i): value for i, value in enumerate(params, start=1)}
    missing = sorted(set(statement.parameters) - set(given))
    if missing:
        raise InvalidInputError(
            f"the query has the parameter ${missing[0]} and no value was given for it",
            next_step='give it a value: params={"' + missing[0] + '": …}',
        )
    unknown = sorted(set(given) - set(statement.parameters))
    if unknown:
        raise InvalidInputError(
            f"a value was given for ${unknown[0]}, which the query does not have",
            next_step=did_you_mean(unknown[0], statement.parameters) if statement.parameters else "leave it out",
        )
    return given


class Arguments:
    """Evaluates arguments that are constant within a statement.

    Parameters
    ----------
    connection
        Any DuckDB connection; it folds expressions such as ``'po' || 'ol'``.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def values(self, call: TableCall, parameters: Mapping[str, Any]) -> dict[str, str | None]:
        """Values of a call's arguments by name; None where one depends on rows of the query.

        Raises
        ------
        InvalidInputError
            A value that is not text, or a ``samples(…)`` whose set is no constant.
        """
        found: dict[str, str | None] = {}
        for name, expression in zip(FUNCTIONS[call.function], call.arguments, strict=True):
            where = f"the argument {name} of {call.function}()"
            if any(node.get("class") in _DEPENDS_ON_ROWS for node in walk(expression)):
                if call.function == "samples":
                    raise InvalidInputError(
                        f"{where} must be a constant: which columns there are depends on it", next_step=_quoting(call)
                    )
                found[name] = None
                continue
            value = self._evaluate(expression, parameters)
            if isinstance(value, list):
                raise InvalidInputError(
                    f"{where} is a list", next_step="name one at a time and put the parts together with UNION ALL"
                )
            if not isinstance(value, str):
                shown = "NULL" if value is None else repr(value)
                raise InvalidInputError(f"{where} is {shown}, not text", next_step=_quoting(call))
            found[name] = value
        return found

    def _evaluate(self, expression: Node, parameters: Mapping[str, Any]) -> Any:
        if expression.get("type") == "VALUE_PARAMETER":
            return parameters[expression["identifier"]]
        literal = expression.get("literal", {})
        if expression.get("type") == "VALUE_CONSTANT" and literal.get("kind") == "STRING":
            return literal["text"]
        used = {name: parameters[name] for name in parameters_in([expression])}
        try:
            [(template,)] = self._connection.execute("SELECT json_serialize_sql('SELECT 1')").fetchall()
            document = json.loads(template)
            document["statements"][0]["node"]["select_list"] = [expression]
            document["statements"][0]["named_param_map"] = [{"key": k, "value": i} for i, k in enumerate(used, start=1)]
            [(text,)] = self._connection.execute(
                "SELECT json_deserialize_sql(?::VARCHAR::JSON)", [json.dumps(document)]
            ).fetchall()
            [(value,)] = self._connection.execute(text, used or None).fetchall()
        except duckdb.Error as error:
            raise translate(error) from error
        return value


def _quoting(call: TableCall) -> str:
    example = {"samples": "samples('pool')", "alignment": "alignment('pool', 'math')"}[call.function]
    return f"names are text in single quotes, or parameters: {example}"
