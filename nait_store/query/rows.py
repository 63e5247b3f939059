"""Conditions on samples and weights of them, as expressions over the columns of ``samples(set)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.versions import SetVersion
from nait_store.errors import InvalidInputError
from nait_store.query.session import QuerySession
from nait_store.query.statement import Node, walk
from nait_store.registry.profiles import Profile, RowSubset
from nait_store.schemas.activation_set import ROW_BITS

_NUMERIC = frozenset(f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")) | {
    "INTEGER",
    "UINTEGER",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
}
_POSITIONS = ("query_location", "query_location_length")


def matching_rows(session: QuerySession, version: SetVersion, where: str) -> RowSubset:
    """Find the visible rows of a set version that meet a condition.

    Parameters
    ----------
    session
        Of the store that holds the set.
    version
        The set version.
    where
        Boolean SQL expression over the columns of ``samples(set)``.

    Returns
    -------
    dict of int to ndarray
        Segment ordinal → ascending row indices, int64; segments without matches are absent.

    Raises
    ------
    InvalidInputError
        Not exactly one expression, or not a boolean one.
    NotFoundError
        An unknown column, with near names.
    """
    check_condition(session, version, where)
    return _by_ordinal(_matching(session, version, where, "row_id"))


def weigh_samples(session: QuerySession, version: SetVersion, expression: str) -> dict[str, float | None]:
    """Compute a number of every visible sample of a set version.

    Parameters
    ----------
    session, version
        As for :func:`matching_rows`.
    expression
        Numeric SQL expression over the columns of ``samples(set)``; most often one of them.

    Returns
    -------
    dict of str to float or None
        By sample id; None where SQL says NULL.

    Raises
    ------
    InvalidInputError
        Not exactly one expression, or not a numeric one.
    NotFoundError
        An unknown column, with near names.
    """
    found = _type_of(session, version, expression, "the weight", 'name a column, or write e.g. "ln(n_tokens)"')
    if found.partition("(")[0] not in _NUMERIC:
        raise InvalidInputError(
            f"the weight {expression!r} is of type {found}, not a number",
            next_step=f'make it one, e.g. "CAST({expression} AS DOUBLE)"',
        )
    query = f"SELECT sample_id, CAST((\n{expression}\n) AS DOUBLE) AS weight FROM samples('{version.reference}')"
    table = session.sql(query).arrow()
    return dict(zip(table.column("sample_id").to_pylist(), table.column("weight").to_pylist(), strict=True))


def score_samples(session: QuerySession, version: SetVersion, profiles: Sequence[Profile], where: str) -> pa.Table:
    """Score the samples that meet a condition, reading no chunks but those that hold them.

    Parameters
    ----------
    session, version, where
        As for :func:`matching_rows`.
    profiles
        Those that apply to the set; each once.

    Returns
    -------
    pyarrow.Table
        ``sample_id`` and, under each profile's reference, its scores (float64); in the order of ``row_id``.

    Raises
    ------
    InvalidInputError, NotFoundError
        As :func:`matching_rows`.
    """
    check_condition(session, version, where)
    found = _matching(session, version, where, "row_id, sample_id")
    by_ordinal = session.score_rows(version, [p.target() for p in profiles], _by_ordinal(found))
    scores = np.concatenate([np.empty((0, len(profiles))), *(by_ordinal[o] for o in sorted(by_ordinal))])  # [m, P]
    columns = [pa.array(scores[:, p]) for p in range(len(profiles))]
    return pa.table([found.column("sample_id"), *columns], names=["sample_id", *(p.reference for p in profiles)])


def _matching(session: QuerySession, version: SetVersion, where: str, columns: str) -> pa.Table:
    query = f"SELECT {columns} FROM samples('{version.reference}') WHERE (\n{where}\n) ORDER BY row_id"
    return session.sql(query).arrow()


def _by_ordinal(found: pa.Table) -> RowSubset:
    row_ids: NDArray[np.int64] = found.column("row_id").to_numpy()
    ordinals, rows = row_ids >> ROW_BITS, row_ids & ((1 << ROW_BITS) - 1)
    return {int(ordinal): rows[ordinals == ordinal] for ordinal in np.unique(ordinals)}


def check_condition(session: QuerySession, version: SetVersion, where: str) -> None:
    """Refuse a condition that is not exactly one boolean expression over the samples of a set version.

    Raises
    ------
    InvalidInputError, NotFoundError
        As :func:`matching_rows`.
    """
    example = "write what would follow WHERE, e.g. \"n_tokens < 512 AND source = 'gsm8k'\""
    found = _type_of(session, version, where, "the condition", example)
    if found != "BOOLEAN":
        raise InvalidInputError(
            f"the condition is of type {found}, not true or false",
            next_step='compare it with something, e.g. "n_tokens < 512"',
        )


def _type_of(session: QuerySession, version: SetVersion, text: str, what: str, example: str) -> str:
    """SQL type of what must be exactly one expression over the samples of a set version."""
    expression = _only_expression(session, text)
    if expression is None:
        shown = text if len(text) <= 80 else text[:77] + "…"
        raise InvalidInputError(f"{what} {shown!r} is not one SQL expression", next_step=example)
    if any(node.get("type") == "VALUE_PARAMETER" for node in walk(expression)):
        raise InvalidInputError(
            f"{what} has a parameter, and nothing to fill it with", next_step="write the value itself"
        )
    query = f"DESCRIBE SELECT (\n{text}\n) FROM samples('{version.reference}')"
    return str(session.sql(query).fetchall()[0][1])


def _only_expression(session: QuerySession, where: str) -> Node | None:
    """The parse tree of ``where`` if it is one expression, whole and on its own."""
    # Each form alone can be escaped: the first by further items and clauses, the second by closing its parenthesis.
    forms = (f"SELECT\n{where}\n", f"SELECT (\n{where}\n)")
    found = []
    for form in forms:
        try:
            nodes = session.parse_tree(form)
        except InvalidInputError:
            return None
        if len(nodes) != 1 or not _is_bare(nodes[0]):
            return None
        found.append(nodes[0]["select_list"][0])
    return found[0] if _without_positions(found[0]) == _without_positions(found[1]) else None


def _is_bare(node: Node) -> bool:
    """Whether a query is ``SELECT expression`` and nothing else."""
    if node["type"] != "SELECT_NODE" or node["modifiers"] or node["cte_map"]["map"]:
        return False
    clauses = ("where_clause", "group_expressions", "group_sets", "having", "sample", "qualify")
    if any(node[clause] for clause in clauses) or node["from_table"]["type"] != "EMPTY":
        return False
    items = node["select_list"]
    return len(items) == 1 and items[0]["class"] != "STAR" and not items[0]["alias"]


def _without_positions(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_positions(value) for key, value in node.items() if key not in _POSITIONS}
    return [_without_positions(item) for item in node] if isinstance(node, list) else node
