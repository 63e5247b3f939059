"""A user's SQL as a parse tree: that it is one query, which table functions it calls and with what.

The tree is DuckDB's own (``json_serialize_sql``), so comments, strings and quoting mean here what they mean there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from nait_store.errors import InvalidInputError, did_you_mean
from nait_store.query.functions import FUNCTIONS, TableFunction
from nait_store.query.messages import translate

Node = dict[str, Any]

_QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_NESTED_SQL = frozenset({"query", "query_table"})
_CATALOG_SCHEMAS = frozenset({"information_schema", "pg_catalog"})
_CATALOG_PREFIXES = ("duckdb_", "pragma_", "pg_", "sqlite_")
_REMEMBERED_STATEMENTS = 256


@dataclass(frozen=True)
class TableCall:
    """One call of one of our table functions.

    Attributes
    ----------
    function
        Key of :data:`FUNCTIONS`.
    arguments
        Name → expression of each argument that is given.
    start, name_end, end
        Byte offsets in the statement's text: of the call, of the end of its name, of its end.
    alias
        Name that the statement gives the relation; empty where it gives none.
    relation_name
        How the statement may refer to the relation's columns, ``relation_name.column``: the alias, else the
        function's name, numbered where a FROM has several calls without alias.
    node
        The call's node of the parse tree.
    """

    function: str
    arguments: Mapping[str, Node]
    start: int
    name_end: int
    end: int
    alias: str
    relation_name: str
    node: Node


@dataclass(frozen=True, eq=False)
class Statement:
    """One parsed query.

    Attributes
    ----------
    text
        As written, UTF-8.
    root
        Root of the parse tree.
    calls
        Calls of our table functions, by position in the text.
    explains
        It is an ``EXPLAIN``; nothing is to be computed for it unless ``analyzes``.
    analyzes
        It is an ``EXPLAIN ANALYZE``.
    parameters
        How often each parameter occurs.
    question_marks
        Byte offset of each ``?`` and the parameter it stands for.
    relations
        Names of the tables and views that it mentions, in lower case; not those of common table expressions alone.
    looks_around
        It asks what tables, views and columns there are.
    """

    text: bytes
    root: Node
    calls: tuple[TableCall, ...]
    explains: bool
    analyzes: bool
    parameters: Mapping[str, int]
    question_marks: tuple[tuple[int, str], ...]
    relations: frozenset[str]
    looks_around: bool


class StatementParser:
    """Parses statements with DuckDB's parser and remembers the latest ones.

    Parameters
    ----------
    connection
        Any DuckDB connection.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._known: dict[str, Statement] = {}

    def parse(self, query: str) -> Statement:
        """Parse one query.

        Raises
        ------
        InvalidInputError
            It does not parse, is empty, several statements, not a query, or changes something.
        """
        known = self._known.get(query)
        if known is None:
            known = self._parse(query)
            if len(self._known) >= _REMEMBERED_STATEMENTS:
                self._known.pop(next(iter(self._known)))
            self._known[query] = known
        return known

    def tree(self, query: str) -> list[Node]:
        """Return the root node of every SELECT statement in ``query``; InvalidInputError where it does not parse."""
        try:
            [(text,)] = self._connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()
        except duckdb.Error as error:
            raise translate(error) from error
        try:
            document = json.loads(text)
        except RecursionError as error:
            raise InvalidInputError("the SQL is nested too deeply", next_step="write it flatter") from error
        if document.get("error"):
            raise InvalidInputError(f"the SQL cannot be read: {document.get('error_message', 'unknown reason')}")
        return [statement["node"] for statement in document["statements"]]

    def _parse(self, query: str) -> Statement:
        if "\x00" in query:
            raise InvalidInputError("the SQL holds a NUL character", next_step="remove it")
        try:
            text = query.encode()
            found = self._connection.extract_statements(query)
        except UnicodeEncodeError as error:
            raise InvalidInputError("the SQL is not valid Unicode text", next_step="remove the surrogates") from error
        except duckdb.Error as error:
            raise translate(error) from error
        if len(found) != 1:
            what = "the query is empty" if not found else f"the query holds {len(found)} statements"
            raise InvalidInputError(what, next_step="write one SELECT statement")
        kind = found[0].type.name
        offset, analyzes = 0, False
        if kind == "EXPLAIN":
            offset, analyzes = _explained(query)
        elif kind != "SELECT":
            raise InvalidInputError(
                f"only queries can be run here, not {kind.replace('_', ' ')}",
                next_step="write one SELECT statement; 'nait-store --help' lists what changes a store"
                if kind != "MULTI"
                else "name the values to pivot on: PIVOT … ON column IN (…) inside a SELECT's FROM",
            )
        nodes = self.tree(text[offset:].decode())
        if len(nodes) != 1:
            raise InvalidInputError("only SELECT statements can be explained", next_step="EXPLAIN SELECT …")
        calls: list[TableCall] = []
        parameters: Counter[str] = Counter()
        question_marks: list[tuple[int, str]] = []
        relations: set[str] = set()
        looks_around = False
        for node in walk(nodes[0]):
            kind = str(node.get("type", ""))
            if kind.endswith("_NODE") and kind not in _QUERY_NODES:
                raise InvalidInputError(
                    f"only queries can be run here, not {kind.removesuffix('_NODE').replace('_', ' ')}",
                    next_step="write one SELECT statement",
                )
            if kind == "TABLE_FUNCTION":
                function = node["function"]
                name = function["function_name"].lower()
                if name in FUNCTIONS and not function["schema"] and not function["catalog"]:
                    calls.append(_call(text, offset, FUNCTIONS[name], node))
                elif name in _NESTED_SQL:
                    raise InvalidInputError(
                        f"{name}() hides which sets and profiles a query needs", next_step="write the query itself"
                    )
                looks_around = looks_around or name.startswith(_CATALOG_PREFIXES)
            elif kind == "BASE_TABLE":
                name, schema = node["table_name"].lower(), node["schema_name"].lower()
                relations.add(name)
                looks_around = looks_around or schema in _CATALOG_SCHEMAS or name.startswith(_CATALOG_PREFIXES)
            elif kind == "SHOW_REF":
                looks_around = True
            elif kind == "VALUE_PARAMETER":
                parameters[node["identifier"]] += 1
                at = offset + int(node["query_location"])
                if text[at : at + 1] == b"?":
                    question_marks.append((at, node["identifier"]))
        return Statement(
            text=text,
            root=nodes[0],
            calls=_told_apart(nodes[0], sorted(calls, key=lambda call: call.start)),
            explains=found[0].type.name == "EXPLAIN",
            analyzes=analyzes,
            parameters=dict(parameters),
            question_marks=tuple(sorted(question_marks)),
            relations=frozenset(relations),
            looks_around=looks_around,
        )


def walk(node: Any) -> Iterator[Node]:
    """Yield every object of a parse tree, outer before inner, without recursion."""
    pending = [node]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            yield current
            pending.extend(current.values())
        elif isinstance(current, list):
            pending.extend(current)


def parameters_in(nodes: Sequence[Node]) -> Counter[str]:
    """How often each parameter occurs in these expressions."""
    found = (node for expression in nodes for node in walk(expression))
    return Counter(node["identifier"] for node in found if node.get("type") == "VALUE_PARAMETER")


def _told_apart(root: Node, calls: Sequence[TableCall]) -> tuple[TableCall, ...]:
    """Number the calls without alias of which one FROM has several; DuckDB cannot tell them apart by one name."""
    named: dict[int, str] = {}
    by_node = {id(call.node): call for call in calls}
    for select in walk(root):
        if select.get("type") != "SELECT_NODE":
            continue
        seen: Counter[str] = Counter()
        for leaf in _joined(select["from_table"]):
            call = by_node.get(id(leaf))
            if call is not None and not call.alias:
                seen[call.function] += 1
                if seen[call.function] > 1:
                    named[id(leaf)] = f"{call.function}_{seen[call.function]}"
    return tuple(replace(call, relation_name=named.get(id(call.node), call.relation_name)) for call in calls)


def _joined(source: Node) -> Iterator[Node]:
    """Yield the relations of a FROM, left to right."""
    pending = [source]
    while pending:
        current = pending.pop()
        if current["type"] == "JOIN":
            pending += [current["right"], current["left"]]
        else:
            yield current


def _explained(query: str) -> tuple[int, bool]:
    """Byte offset of the statement that an EXPLAIN explains, and whether it runs it."""
    text = query.encode()
    tokens = _tokens(text, 0)
    analyzes = len(tokens) > 1 and tokens[1][1].upper() in ("ANALYZE", "ANALYSE")
    position = 2 if analyzes else 1
    if position < len(tokens) and tokens[position][1] == "(" and not _begins_query(tokens, position + 1):
        depth = 0
        while position < len(tokens):
            depth += {"(": 1, ")": -1}.get(tokens[position][1], 0)
            analyzes = analyzes or tokens[position][1].upper() in ("ANALYZE", "ANALYSE")
            position += 1
            if depth == 0:
                break
    return (tokens[position][0] if position < len(tokens) else len(text)), analyzes


def _begins_query(tokens: Sequence[tuple[int, str]], position: int) -> bool:
    while position < len(tokens) and tokens[position][1] == "(":
        position += 1
    first = tokens[position][1].upper() if position < len(tokens) else ""
    return first in ("SELECT", "WITH", "FROM", "VALUES", "TABLE", "DESCRIBE", "SHOW", "SUMMARIZE")


def _tokens(text: bytes, start: int) -> list[tuple[int, str]]:
    """Tokens from a byte offset on, without comments: (byte offset, text without surrounding space)."""
    part = text[start:]
    found = duckdb.tokenize(part.decode())
    tokens: list[tuple[int, str]] = []
    for i, (at, kind) in enumerate(found):
        if kind == duckdb.token_type.comment:
            continue
        end = found[i + 1][0] if i + 1 < len(found) else len(part)
        raw = part[at:end].decode()
        tokens.append((start + at, raw.strip()))
    return tokens


def _call(text: bytes, offset: int, function: TableFunction, node: Node) -> TableCall:
    if node["with_ordinality"] != "WITHOUT_ORDINALITY":
        raise InvalidInputError(
            f"{function.name}() cannot be read WITH ORDINALITY", next_step="use row_number() OVER (ORDER BY row_id)"
        )
    start = offset + int(node["query_location"])
    # The location covers LATERAL before the call and the alias after it.
    tokens = _tokens(text[: start + int(node["query_location_length"])], start)
    if tokens and tokens[0][1].upper() == "LATERAL":
        tokens = tokens[1:]
    name = tokens[0][1].strip('"').lower() if tokens else ""
    end = _closing_parenthesis(tokens) if len(tokens) > 2 and tokens[1][1] == "(" else None
    if name != function.name or end is None:
        raise InvalidInputError(
            f"the call of {function.name}() could not be located in the query",
            next_step=f"write it plainly: FROM {function.usage}",
        )
    return TableCall(
        function=function.name,
        arguments=_arguments(function, node["function"]["arguments"]),
        start=tokens[0][0],
        name_end=tokens[1][0],
        end=end,
        alias=node["alias"],
        relation_name=node["alias"] or function.name,
        node=node,
    )


def _closing_parenthesis(tokens: Sequence[tuple[int, str]]) -> int | None:
    """Byte offset after the parenthesis that closes the first one, or None."""
    depth = 0
    for at, token in tokens:
        depth += {"(": 1, ")": -1}.get(token, 0)
        if token == ")" and depth == 0:
            return at + 1
    return None


def _arguments(function: TableFunction, given: Sequence[Node]) -> dict[str, Node]:
    usage = f"write {function.usage}"
    found: dict[str, Node] = {}
    for position, argument in enumerate(given):
        name = argument["name"].lower()
        if not name:
            n_positional = len(function.positional)
            if position >= n_positional:
                named = [a.name for a in function.arguments if a.by_name_only]
                raise InvalidInputError(
                    f"{function.name}() takes {n_positional} argument{'s' * (n_positional != 1)}, not {len(given)}",
                    next_step=usage + (f"; {' and '.join(named)} are given as {named[0]} := …" if named else ""),
                )
            name = function.positional[position].name
        if function.argument(name) is None:
            names = [a.name for a in function.arguments]
            raise InvalidInputError(f"{function.name}() has no argument {name!r}", next_step=did_you_mean(name, names))
        if name in found:
            raise InvalidInputError(f"{function.name}() got its argument {name!r} twice", next_step=usage)
        found[name] = argument["expression"]
    missing = [a.name for a in function.required if a.name not in found]
    if missing:
        raise InvalidInputError(f"{function.name}() needs {' and '.join(missing)}", next_step=usage)
    return found
