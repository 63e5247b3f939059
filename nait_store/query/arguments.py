"""Values of parameters and of the arguments of our table functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from nait_store.errors import InvalidInputError, did_you_mean
from nait_store.query.functions import FUNCTIONS, Argument, ArgumentKind
from nait_store.query.messages import translate
from nait_store.query.statement import Node, Statement, TableCall, parameters_in, walk

_DEPENDS_ON_ROWS = frozenset({"COLUMN_REF", "SUBQUERY", "WINDOW", "STAR"})


def named_parameters(params: Mapping[str, Any] | Sequence[Any] | None) -> dict[str, Any]:
    """Values of parameters by name; those given in order are called ``1``, ``2`` ….

    Raises
    ------
    InvalidInputError
        A single text, which is hardly meant to be a list of characters.
    """
    if isinstance(params, (str, bytes)):
        raise InvalidInputError("the parameters are a single text", next_step="give a list or a dict of values")
    if params is None:
        return {}
    if isinstance(params, Mapping):
        return {str(name).removeprefix("$"): value for name, value in params.items()}
    return {str(i): value for i, value in enumerate(params, start=1)}


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
    given = named_parameters(params)
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

    def values(self, call: TableCall, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Values of a call's arguments by name.

        Returns
        -------
        dict
            Text, a list of texts, a number, or a list of numbers, as the function declares; None for one that depends
            on rows of the query. What was not given is absent.

        Raises
        ------
        InvalidInputError
            A value of another type, or one that depends on rows where the function does not allow it.
        """
        function = FUNCTIONS[call.function]
        found: dict[str, Any] = {}
        for name, expression in call.arguments.items():
            argument = function.argument(name)
            assert argument is not None  # the parser let no other through
            where = f"the argument {name} of {call.function}()"
            if any(node.get("class") in _DEPENDS_ON_ROWS for node in walk(expression)):
                if not function.follows_rows or argument.by_name_only:
                    raise InvalidInputError(f"{where} must be a constant", next_step=_usage(call))
                found[name] = None
                continue
            found[name] = _checked(self._evaluate(expression, parameters), argument, where, call)
        if None in found.values():
            options = {argument.name for argument in function.arguments if argument.by_name_only}
            if options & found.keys() or any(isinstance(value, list) and len(value) > 1 for value in found.values()):
                raise InvalidInputError(
                    f"{call.function}() takes no lists and no options where a name depends on rows of the query",
                    next_step="write the names of sets and profiles as constants",
                )
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


def _checked(value: Any, argument: Argument, where: str, call: TableCall) -> Any:
    """The value in its plain form: a text, a list of distinct texts, a number, or a list of distinct numbers."""
    kind = argument.kind
    many = kind in (ArgumentKind.NAMES, ArgumentKind.NUMBERS)
    items = list(value) if many and isinstance(value, (list, tuple)) else [value]
    if many and not items:
        raise InvalidInputError(f"{where} is an empty list", next_step=_usage(call))
    for item in items:
        wanted = str if kind in (ArgumentKind.NAME, ArgumentKind.NAMES) else int
        if not isinstance(item, wanted) or isinstance(item, bool) or (isinstance(item, int) and item < 0):
            shown = "NULL" if item is None else "a list" if isinstance(item, (list, tuple)) else repr(item)
            raise InvalidInputError(f"{where} is {shown}, not {kind}", next_step=_usage(call))
    return list(dict.fromkeys(items)) if many else items[0]


def _usage(call: TableCall) -> str:
    return f"names are text in single quotes, or parameters: {FUNCTIONS[call.function].usage}"
