"""What an untrusted query may say, checked on its parse tree before any of it runs.

"Is a SELECT" is not enough: ``WITH x AS (COPY … TO …) SELECT 1`` is one, and writes. So every object of the tree must
be of a kind that is listed here, carry nothing but the parts listed for its kind, and name nothing but functions, types
and relations that are listed. What a later DuckDB adds is refused until somebody has looked at it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Mapping
from typing import Any

from nait_store.errors import ForbiddenError
from nait_store.query.sandbox import functions

Node = dict[str, Any]
NEXT_STEP = 'what it may use is listed in docs/sql.md, "Untrusted SQL"'

_EVERYWHERE = frozenset({"type", "class", "alias", "query_location", "query_location_length"})


def _parts(text: str) -> frozenset[str]:
    return _EVERYWHERE | frozenset(text.split())


_QUERIES: Mapping[str, frozenset[str]] = {
    "SELECT_NODE": _parts(
        "modifiers cte_map select_list from_table where_clause group_expressions group_sets aggregate_handling having "
        "sample qualify"
    ),
    "SET_OPERATION_NODE": _parts("modifiers cte_map setop_type left right children setop_all"),
    "RECURSIVE_CTE_NODE": _parts("modifiers cte_map cte_name union_all left right aliases key_targets"),
}
_RELATIONS: Mapping[str, frozenset[str]] = {
    "BASE_TABLE": _parts("sample table_name column_name_alias qualified_name"),
    "EMPTY": _parts(""),
    "EXPRESSION_LIST": _parts("sample expected_names expected_types values"),
    "JOIN": _parts(
        "sample left right condition join_type ref_type using_columns delim_flipped is_implicit nearest_approx "
        "nearest_count nearest_order_type ranking_expression"
    ),
    "PIVOT": _parts("sample source aggregates unpivot_names pivots groups column_name_alias include_nulls"),
    "SHOW_REF": _parts("query show_type qualified_name"),
    "SUBQUERY": _parts("sample subquery column_name_alias"),
    "TABLE_FUNCTION": _parts("sample function column_name_alias with_ordinality"),
}
_MODIFIERS: Mapping[str, frozenset[str]] = {
    "DISTINCT_MODIFIER": _parts("distinct_on_targets"),
    "LIMIT_MODIFIER": _parts("limit limit_type offset"),
    "ORDER_MODIFIER": _parts("orders"),
    "ASCENDING": _parts("expression null_order"),
    "DESCENDING": _parts("expression null_order"),
    "ORDER_DEFAULT": _parts("expression null_order"),
}
_CALL = "function_name arguments distinct filter is_operator order_bys qualified_name"
_EXPRESSIONS: Mapping[str, frozenset[str]] = {
    "BETWEEN": _parts("input lower upper"),
    "CASE": _parts("case_checks else_expr"),
    "CAST": _parts("child try_cast type_expr"),
    "COLLATE": _parts("child collation"),
    "COLUMN_REF": _parts("column_names"),
    "COMPARISON": _parts("left right"),
    "CONJUNCTION": _parts("children"),
    "CONSTANT": _parts("literal"),
    "FUNCTION": _parts(_CALL),
    "LAMBDA": _parts("lhs expr syntax_type"),
    "OPERATOR": _parts("children"),
    "PARAMETER": _parts("identifier"),
    "POSITIONAL_REFERENCE": _parts("index"),
    "STAR": _parts("relation_name exclude_list replace_list columns expr qualified_exclude_list rename_list"),
    "SUBQUERY": _parts("subquery_type subquery child comparison_type"),
    "TYPE": _parts("type_name children qualified_name"),
    "WINDOW": _parts(
        "function_name arguments partitions orders start end start_expr end_expr offset_expr default_expr ignore_nulls "
        "has_ignore_nulls filter_expr exclude_clause distinct arg_orders qualified_name"
    ),
}
_UNTAGGED: Mapping[str, frozenset[str]] = {
    "arguments": _parts("name expression"),
    "case_checks": _parts("when_expr then_expr"),
    "cte_map": _parts("map"),
    "key": _parts("table column"),
    "entries": _parts("alias star_expr values"),
    "literal": _parts("kind text"),
    "map": _parts("key value"),
    "pivots": _parts("entries pivot_expressions unpivot_names"),
    "qualified_exclude_list": _parts("table column"),
    "qualified_name": _parts("path"),
    "rename_list": _parts("key value"),
    "replace_list": _parts("key value"),
    "sample": _parts("sample_size is_percentage method seed repeatable sample_rate"),
    "sample_size": _parts("type is_null value"),
    "subquery": _parts("node named_param_map"),
    "type": _parts("id type_info"),
    "value": _parts("aliases query_node materialized key_targets"),
}
"""Objects without a type of their own, by the key under which they stand."""

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""Names are the same without regard to case, for ASCII letters only: to Python the Kelvin sign is a k, too."""

_PLAIN_NAME = re.compile(r"[^\W\d]\w*\Z")
_SYSTEM_PREFIXES = ("duckdb_", "pragma_", "sqlite_", "pg_")
_SHOWN_CHARACTERS = 60


class AllowList:
    """Checks parse trees of untrusted queries.

    Parameters
    ----------
    relations
        Names that may follow FROM: views and the caller's tables.
    table_functions
        Those that may follow FROM besides DuckDB's harmless ones.
    """

    def __init__(self, relations: Collection[str], table_functions: Collection[str]) -> None:
        self._relations = frozenset(map(_folded, relations))
        self._table_functions = functions.TABLE_FUNCTIONS | set(map(_folded, table_functions))

    def check(self, root: Node) -> None:
        """Refuse a query unless all of it is allowed.

        Parameters
        ----------
        root
            Root of the parse tree of one SELECT, in the form of ``json_serialize_sql``.

        Raises
        ------
        ForbiddenError
            The first thing found that is not allowed.
        """
        # Without recursion: how deep a tree goes is up to whoever wrote the query.
        pending: list[tuple[Any, str, frozenset[str]]] = [(root, "node", frozenset())]
        while pending:
            value, key, names = pending.pop()
            if isinstance(value, list):
                pending.extend((item, key, names) for item in value)
            elif isinstance(value, dict):
                _require_known_parts(value, key)
                self._check_names(value, key, names)
                if str(value.get("type")) in _QUERIES:
                    names = names | _own_name(value)
                    # Resolved as DuckDB does it, an entry sees those before it: a name out of scope would be looked up
                    # in DuckDB's own catalog, or as a file.
                    for entry in (value.get("cte_map") or {}).get("map") or []:
                        _require_known_parts(entry, "map")
                        pending.append((entry["value"], "value", names))
                        names = names | {_checked_name(str(entry.get("key", "")))}
                pending.extend((part, name, names) for name, part in value.items() if name != "cte_map")

    def _check_names(self, node: Node, key: str, names: frozenset[str]) -> None:
        kind = node.get("type")
        if kind == "BASE_TABLE":
            name = str(node.get("table_name", ""))
            if _folded(name) not in names and _folded(name) not in self._relations:
                raise _refused(f"read {_shown(name)}")
        elif key == "function":  # of a TABLE_FUNCTION
            name = str(node.get("function_name", ""))
            if _folded(name) not in self._table_functions:
                raise _refused(f"use the table function {_shown(name)}")
        elif node.get("class") in ("FUNCTION", "WINDOW"):
            _check_function(node)
        elif kind == "TYPE" and _folded(str(node.get("type_name", ""))) not in functions.TYPES:
            raise _refused(f"use the type {_shown(node.get('type_name'))}")


def _require_known_parts(node: Node, key: str) -> None:
    """Refuse an object of an unknown kind, or with parts that its kind does not have here."""
    kind, expression = node.get("type"), node.get("class")
    if kind == "SHOW_REF" and (node.get("show_type") not in ("DESCRIBE", "SUMMARY") or not node.get("query")):
        raise _refused("use SHOW")
    known: frozenset[str] | None
    if expression is not None:
        known = _EXPRESSIONS.get(str(expression))
        shown = str(expression)
    elif isinstance(kind, str):
        known = _QUERIES.get(kind) or _RELATIONS.get(kind) or _MODIFIERS.get(kind)
        shown = kind.removesuffix("_NODE").removesuffix("_QUERY")
    else:
        known = _UNTAGGED.get(key)
        shown = key
    if known is None:
        raise _refused(f"use {shown.replace('_', ' ')}")
    for name, part in node.items():
        if name not in known and not _is_absent(part):
            if name in ("catalog", "schema", "catalog_name", "schema_name"):
                raise _refused(f"put a schema or database before a name: {_qualified(node)}")
            raise _refused(f"use {name.replace('_', ' ')} in {shown.replace('_', ' ')}")
    path = node.get("path") if key == "qualified_name" else None
    if isinstance(path, list) and len(path) > 1:
        raise _refused(f"put a schema or database before a name: {_shown('.'.join(map(str, path)))}")


def _is_absent(part: Any) -> bool:
    """Whether the serializer says by this value that there is no such part."""
    if isinstance(part, dict):
        return part.get("type") == "ORDER_MODIFIER" and not part.get("orders")
    return part is None or part is False or part in ("", 0) or part == []


def _own_name(query: Node) -> frozenset[str]:
    if query.get("type") != "RECURSIVE_CTE_NODE":
        return frozenset()
    return frozenset({_checked_name(str(query.get("cte_name", "")))})


def _checked_name(name: str) -> str:
    if not _PLAIN_NAME.match(name) or _folded(name).startswith(_SYSTEM_PREFIXES):
        raise _refused(f"give a WITH query the name {_shown(name)}")
    return _folded(name)


def _check_function(node: Node) -> None:
    name = str(node.get("function_name", ""))
    if _folded(name) not in functions.FUNCTIONS:
        raise _refused(f"use the function {_shown(name)}")
    if _folded(name) in functions.NAMED_AGGREGATION:
        arguments = node.get("arguments") or []
        named = any(argument.get("name") for argument in arguments)
        literal = arguments[1]["expression"].get("literal") if len(arguments) > 1 and not named else None
        if not literal or _folded(str(literal.get("text"))) not in functions.AGGREGATES:
            raise _refused(f"use {name}() but with the plain name of an aggregate, such as 'sum'")


def _folded(name: str) -> str:
    return name.translate(_ASCII_LOWER)


def _qualified(node: Node) -> str:
    keys = ("catalog", "catalog_name", "schema", "schema_name", "table_name", "function_name", "type_name")
    return _shown(".".join(str(node[key]) for key in keys if node.get(key)))


def _shown(name: Any) -> str:
    text = str(name)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…")


def _refused(what: str) -> ForbiddenError:
    return ForbiddenError(f"an untrusted query may not {what}", next_step=NEXT_STEP)
