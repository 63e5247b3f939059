"""DuckDB's errors in our words: what, where, and the next step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import duckdb

from nait_store.activations.chunks import SAMPLES_FILE
from nait_store.errors import InvalidInputError, NaitStoreError, NotFoundError, StorageError, did_you_mean
from nait_store.query.functions import FUNCTIONS

_KIND = re.compile(r"\A[A-Z][A-Za-z ]* Error: ")
_NO_COLUMN = re.compile(r'(?:Referenced column|does not have a column named|column named) "((?:[^"]|"")*)"')
_AMBIGUOUS = re.compile(r'Ambiguous reference to column name "([^"]*)" \(use: (.*)\)')
_CANDIDATES = re.compile(r"Candidate (?:bindings|tables): (.*)")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_NO_TABLE = re.compile(r"Table with name (.*?) does not exist")
_NO_RELATION = re.compile(r'Referenced table "((?:[^"]|"")*)" not found')
_NO_FUNCTION = re.compile(r"(Scalar|Table|Aggregate|Macro|Table Macro)? ?Function with name (\S+) does not exist")
_NO_FILE = re.compile(r'No files found that match the pattern "(.*)"')
_OVERLOADS = "Candidate functions:"
_NO_FROM = "FROM clause is missing"
_INTERNAL = re.compile(r"\bunnamed_(?:query|subquery)\d*\b")


def translate(
    error: Exception,
    *,
    tables: Iterable[str] = (),
    sets: Iterable[str] = (),
    columns: Iterable[str] = (),
    fields: Mapping[str, str] = MappingProxyType({}),
    place: str = "",
) -> NaitStoreError:
    """Turn an error of DuckDB into one of ours.

    Parameters
    ----------
    error
        What DuckDB raised.
    tables
        Names that can follow FROM, for near matches.
    sets
        Names of activation sets: ``FROM pool`` is a common slip for ``FROM samples('pool')``.
    columns
        Names of the columns of the query's own tables, for near matches beyond those that DuckDB names.
    fields
        Columns of samples that the query does not read → the call that has them.
    place
        Lines that show where in the query it is.

    Returns
    -------
    NaitStoreError
        To be raised ``from`` the original.
    """
    full = _KIND.sub("", str(error)).strip()
    what, _, excerpt = full.partition("\n\nLINE ")
    what = _INTERNAL.sub("the query", what)
    if isinstance(error, duckdb.ParserException):
        shown = f"\nLINE {excerpt}" if excerpt else ""
        return InvalidInputError(f"the SQL cannot be read: {what}{shown}", next_step="correct the statement")
    if isinstance(error, duckdb.OutOfMemoryException):
        return StorageError(
            f"the query needs more memory than there is: {_first_line(what)}",
            next_step="select fewer columns or rows, or aggregate in SQL",
        )
    if (match := _NO_FILE.search(what)) and not match[1].endswith(f"/{SAMPLES_FILE}"):
        where = match[1] if "://" in match[1] else Path(match[1]).absolute()
        return NotFoundError(f"there is no file {where}", next_step="check the path")
    if isinstance(error, (duckdb.IOException, duckdb.HTTPException)):
        return StorageError(
            f"the query could not read its files: {_first_line(what)}",
            next_step="if it is a file of the store, run 'nait-store verify'",
        )
    found = _unknown_name(what, list(tables), list(sets), list(columns), fields) or _refusal(error, what)
    return type(found)(f"{found.what}\n{place}", next_step=found.next_step) if place else found


def _refusal(error: Exception, what: str) -> NaitStoreError:
    if match := _AMBIGUOUS.search(what):
        return InvalidInputError(f"the column {match[1]!r} is ambiguous", next_step=f"write one of {match[2]}")
    first, _, rest = what.partition("\n")
    advice = " ".join(rest.split())
    if _OVERLOADS in rest:  # dozens for an operator
        advice = "write the types that are meant: CAST(x AS DOUBLE)"
    elif isinstance(error, duckdb.ConversionException):
        advice = (
            "text is written in single quotes, as in sample_id = '5'; TRY_CAST gives NULL where a value does not fit"
        )
    return InvalidInputError(f"the query failed: {first}", next_step=advice or "correct the statement")


def _unknown_name(
    what: str, tables: list[str], sets: list[str], columns: list[str], fields: Mapping[str, str]
) -> NaitStoreError | None:
    candidates = _CANDIDATES.search(what)
    names = [_column_of(name) for name in _QUOTED.findall(candidates[1])] if candidates else []
    if match := _NO_COLUMN.search(what):
        name = match[1].replace('""', '"')
        near = did_you_mean(name, [*names, *columns])
        if name in fields:
            near = f"{fields[name]} has it: JOIN {fields[name]} USING (sample_id)"
        elif name in sets:
            near = f"names of sets and profiles are text: '{name}'"
        elif _NO_FROM in what:
            near = f"say where from, FROM samples('pool'); text is written in single quotes: '{name}'"
        return NotFoundError(f"there is no column {name!r} in this part of the query", next_step=near)
    if match := _NO_RELATION.search(what):
        near = did_you_mean(match[1], names) if names else "give the table that name with AS"
        return NotFoundError(f"there is no table {match[1]!r} in this part of the query", next_step=near)
    if match := _NO_TABLE.search(what):
        name = match[1].strip('"')
        if name in sets:
            return NotFoundError(f"there is no table {name!r}", next_step=f"a set is read as samples('{name}')")
        if name.lower() in FUNCTIONS:
            usage = FUNCTIONS[name.lower()].usage
            return NotFoundError(f"there is no table {name!r}", next_step=f"it is a function: write FROM {usage}")
        advice = did_you_mean(name, tables)
        return NotFoundError(
            f"there is no table {name!r}", next_step=f"{advice}; files are read by path, FROM 'file.csv'"
        )
    if match := _NO_FUNCTION.search(what):
        own = list(FUNCTIONS) if match[1] in ("Table", "Table Macro") else []
        suggestion = re.search(r'Did you mean "([^"]*)"', what)
        next_step = did_you_mean(match[2], own) if own else "see https://duckdb.org/docs/stable/sql/functions/overview"
        if not own and suggestion:
            next_step = f"did you mean {suggestion[1]!r}?"
        if match[2].lower() in FUNCTIONS:
            next_step = f"it gives a table: write FROM {match[2].lower()}(…)"
        return NotFoundError(f"there is no function {match[2]!r}", next_step=next_step)
    return None


def _column_of(binding: str) -> str:
    return binding.replace('""', '"').rsplit(".", 1)[-1]


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
