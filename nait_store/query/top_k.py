"""Recognising the natural statement, so that the best rows are found before their samples are looked up.

``FROM alignment(S, P) JOIN samples(S) USING (sample_id) … ORDER BY score DESC LIMIT k``, run as written, joins a
million rows to throw all but k away. Where every alignment row meets exactly one sample row, and the order is by
the alignment's own columns, ordering and limiting the alignment first gives the same rows. Everything that this
module does not recognise runs as written.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nait_store.query.alignment_table import SCHEMA
from nait_store.query.statement import Node, Statement, TableCall, walk

ALIGNMENT_COLUMNS = tuple(SCHEMA.names)
_KEYS = frozenset({"sample_id", "row_id"})
_UNSHARED = frozenset({"score", "activation_set", "profile"})
"""Columns that ``samples`` never has: user fields of these names are renamed."""

_ROW_WISE_CLASSES = frozenset(
    {"COLUMN_REF", "CONSTANT", "PARAMETER", "CAST", "TYPE", "OPERATOR", "COMPARISON", "CONJUNCTION", "CASE"}
    | {"BETWEEN", "STAR", "FUNCTION"}
)
_ROW_WISE_FUNCTIONS = frozenset(
    {"abs", "ceil", "coalesce", "concat", "concat_ws", "contains", "exp", "floor", "format", "greatest", "ifnull"}
    | {"json_extract", "json_extract_string", "least", "left", "len", "length", "ln", "log", "lower", "ltrim"}
    | {"nullif", "printf", "regexp_extract", "regexp_matches", "regexp_replace", "replace", "right", "round"}
    | {"rtrim", "sign", "split_part", "sqrt", "strlen", "substr", "substring", "trim", "upper"}
)
"""Scalar functions that may stand beside the columns; an aggregate or ``unnest`` would change what LIMIT counts."""


@dataclass(frozen=True)
class OrderKey:
    """One key of the order: a column of ``alignment``."""

    column: str
    descending: bool


@dataclass(frozen=True)
class TopK:
    """A select whose alignment can be ordered and limited first, if both calls mean the same set version.

    Attributes
    ----------
    alignment, samples
        The two sides of the join.
    order
        Keys of the order.
    limit, offset
        Constants or parameters of the tree; ``offset`` may be None.
    """

    alignment: TableCall
    samples: TableCall
    order: tuple[OrderKey, ...]
    limit: Node
    offset: Node | None

    def n_rows(self, parameters: Mapping[str, object]) -> int | None:
        """How many alignment rows are wanted, or None where the limit is no plain count."""
        total = 0
        for node in (self.limit, self.offset):
            if node is None:
                continue
            value: object
            if node.get("type") == "VALUE_PARAMETER":
                value = parameters.get(node["identifier"])
            else:
                literal = node.get("literal", {})
                value = int(literal["text"]) if literal.get("kind") == "INTEGER" else None
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                return None
            total += value
        return total


@functools.lru_cache(maxsize=256)
def find_top_k(statement: Statement) -> tuple[TopK, ...]:
    """Find every select of the statement that has the natural form.

    Parameters
    ----------
    statement
        Any parsed statement.
    """
    calls = {id(call.node): call for call in statement.calls}
    found = (_recognise(node, calls) for node in walk(statement.root) if node.get("type") == "SELECT_NODE")
    return tuple(top for top in found if top is not None)


def _recognise(node: Node, calls: Mapping[int, TableCall]) -> TopK | None:
    if node["where_clause"] or node["group_expressions"] or node["group_sets"] or node["having"]:
        return None
    if node["sample"] or node["qualify"] or node["aggregate_handling"] != "STANDARD_HANDLING":
        return None
    modifiers = {modifier["type"]: modifier for modifier in node["modifiers"]}
    if set(modifiers) != {"ORDER_MODIFIER", "LIMIT_MODIFIER"} or len(node["modifiers"]) != 2:
        return None
    limit = modifiers["LIMIT_MODIFIER"]
    if limit["limit_type"] != "ROW_COUNT" or limit["limit"] is None:
        return None
    sides = _joined(node["from_table"], calls)
    if sides is None or not all(_is_row_wise(item) for item in node["select_list"]):
        return None
    alignment, samples, shared = sides
    order = []
    for key in modifiers["ORDER_MODIFIER"]["orders"]:
        column = _order_column(key["expression"], node["select_list"], alignment, samples, shared)
        if column is None:
            return None
        # Where NULLs go does not matter: the alignment's columns have none.
        order.append(OrderKey(column, key["type"] == "DESCENDING"))
    return TopK(alignment, samples, tuple(order), limit["limit"], limit["offset"])


def _joined(source: Node, calls: Mapping[int, TableCall]) -> tuple[TableCall, TableCall, frozenset[str]] | None:
    """The two calls of an inner join on the sample, and the columns that USING merges."""
    if source["type"] != "JOIN" or source["join_type"] != "INNER" or source["ref_type"] != "REGULAR":
        return None
    left, right = calls.get(id(source["left"])), calls.get(id(source["right"]))
    if left is None or right is None or {left.function, right.function} != {"alignment", "samples"}:
        return None
    if left.relation_name.lower() == right.relation_name.lower():
        return None
    if any(call.node["sample"] or call.node["column_name_alias"] for call in (left, right)):
        return None
    if source["sample"] or source["alias"] or source["ranking_expression"]:
        return None
    alignment, samples = (left, right) if left.function == "alignment" else (right, left)
    merged = frozenset(name.lower() for name in source["using_columns"])
    if merged:
        return (alignment, samples, merged) if merged <= _KEYS and source["condition"] is None else None
    return (alignment, samples, merged) if _equates_samples(source["condition"], alignment, samples) else None


def _equates_samples(condition: Node | None, alignment: TableCall, samples: TableCall) -> bool:
    if condition is None or condition["type"] != "COMPARE_EQUAL":
        return False
    names = [_column_names(condition[side]) for side in ("left", "right")]
    if any(len(name) != 2 for name in names) or names[0][1] != names[1][1] or names[0][1] not in _KEYS:
        return False
    return {names[0][0], names[1][0]} == {alignment.relation_name.lower(), samples.relation_name.lower()}


def _order_column(
    expression: Node, select_list: Sequence[Node], alignment: TableCall, samples: TableCall, shared: frozenset[str]
) -> str | None:
    """The alignment's column that an ORDER BY expression means, or None."""
    names = _column_names(expression)
    if len(names) == 2:
        relation, column = names
        if relation == alignment.relation_name.lower() and column in ALIGNMENT_COLUMNS:
            return column
        # The samples' keys have the same values, row by row.
        return column if relation == samples.relation_name.lower() and column in _KEYS else None
    if len(names) != 1 or names[0] not in _UNSHARED | shared:
        return None
    for item in _items(select_list):
        # ORDER BY prefers a name that the select list gives to a name of a column.
        if item["alias"].lower() == names[0] and _column_names(item)[-1:] != (names[0],):
            return None
    return names[0]


def _items(select_list: Sequence[Node]) -> Iterator[Node]:
    for item in select_list:
        if item["class"] != "STAR":
            yield item


def _column_names(expression: Node) -> tuple[str, ...]:
    if expression.get("class") != "COLUMN_REF":
        return ()
    return tuple(name.lower() for name in expression["column_names"])


def _is_row_wise(item: Node) -> bool:
    """Whether a select item gives one value for each row, out of that row."""
    for node in walk(item):
        kind = node.get("class")
        if kind is None:
            if "type" in node and node["type"].endswith("_NODE"):
                return False
            continue
        if kind not in _ROW_WISE_CLASSES:
            return False
        if kind == "STAR" and (node["replace_list"] or node["rename_list"] or node["columns"] or node["expr"]):
            return False
        if kind == "FUNCTION":
            plain = not node["filter"] and not node["distinct"] and not node["order_bys"]["orders"]
            if not plain or not (node["is_operator"] or node["function_name"].lower() in _ROW_WISE_FUNCTIONS):
                return False
    return True
