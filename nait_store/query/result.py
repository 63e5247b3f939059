"""The answer of a query, materialised."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from nait_store.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    import pandas
    import polars

T = TypeVar("T")
_ROWS_PER_BATCH = 4096
_SHOWN_ROWS = 10
_SHOWN_CHARACTERS = 40


class QueryResult:
    """Rows of a query, in memory.

    Whatever reads Arrow reads it without a copy: ``polars.DataFrame(result)``, ``pyarrow.table(result)``, or
    ``tables={"earlier": result}`` in the next query.

    Parameters
    ----------
    table
        The rows.
    warnings
        What to know about the numbers in them.

    Attributes
    ----------
    warnings
        As given.
    """

    def __init__(self, table: pa.Table, warnings: tuple[str, ...] = ()) -> None:
        self._table = table
        self.warnings = warnings

    @property
    def columns(self) -> list[str]:
        """Names of the columns, as the query has them: several may be the same."""
        return list(self._table.column_names)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self._table.num_rows)

    def __len__(self) -> int:
        return self.n_rows

    def arrow(self) -> pa.Table:
        """The rows as an Arrow table, without a copy."""
        return self._table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)

    def df(self) -> pandas.DataFrame:
        """The rows as a pandas data frame.

        DECIMAL columns are float64, as in DuckDB's own. Of columns with one name the later ones get a number: ``x_1``.

        Raises
        ------
        MissingExtraError
            pandas is not installed.
        InvalidInputError
            A column holds what pandas cannot; the message names it.
        """
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise _missing("pandas", ".df()") from error
        columns = [pc.cast(c, pa.float64()) if pa.types.is_decimal(c.type) else c for c in self._table.columns]
        table = pa.Table.from_arrays(columns, names=distinct_names(self.columns))
        frame: pandas.DataFrame = _converted(table, "pandas", lambda part: part.to_pandas())
        return frame

    def pl(self) -> polars.DataFrame:
        """The rows as a polars data frame; of columns with one name the later ones get a number: ``x_1``.

        Raises
        ------
        MissingExtraError
            polars is not installed.
        InvalidInputError
            A column holds what polars cannot; the message names it.
        """
        try:
            import polars
        except ImportError as error:
            raise _missing("polars", ".pl()") from error
        table = self._table.rename_columns(distinct_names(self.columns))
        frame: polars.DataFrame = _converted(table, "polars", lambda part: polars.DataFrame(part))
        return frame

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows as tuples of Python values."""
        return list(self)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row, or None where there is none; it does not advance."""
        return next(iter(self), None)

    def to_dicts(self) -> list[dict[str, Any]]:
        """All rows as dicts by column; of columns with one name the later ones get a number: ``x_1``."""
        names = distinct_names(self.columns)
        return [dict(zip(names, row, strict=True)) for row in self]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for batch in self._table.to_batches(max_chunksize=_ROWS_PER_BATCH):
            columns = zip(self.columns, batch.columns, strict=True)
            yield from zip(*(python_values(name, column) for name, column in columns), strict=True)

    def __repr__(self) -> str:
        rows, note = self._excerpt()
        cells = [self.columns, *rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        lines.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join([*lines, note])

    def _repr_html_(self) -> str:
        """What notebooks show."""
        rows, note = self._excerpt()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{note}</p>"

    def _excerpt(self) -> tuple[list[list[str]], str]:
        """Cells of the first rows, and how many there are."""
        shown = self._table.slice(0, _SHOWN_ROWS)
        more = self.n_rows - shown.num_rows
        counted = f"{self.n_rows:,} row{'s' * (self.n_rows != 1)}"
        columns = [[_cell(value) for value in _shown_values(column)] for column in shown.columns]
        rows = [list(row) for row in zip(*columns, strict=True)]
        return rows, f"… {more:,} more ({counted})" if more else f"({counted})"


def distinct_names(names: Sequence[str]) -> list[str]:
    """Number names that stand earlier: ``x, x, y`` → ``x, x_1, y``."""
    taken, found = set(names), []
    seen: set[str] = set()
    for name in names:
        distinct, number = name, 0
        while distinct in seen or (number and distinct in taken):
            number += 1
            distinct = f"{name}_{number}"
        seen.add(distinct)
        found.append(distinct)
    return found


def python_values(name: str, column: pa.Array) -> list[Any]:
    """Values of a column.

    Parameters
    ----------
    name
        Its name, for the message.
    column
        Any array or chunked array.

    Raises
    ------
    InvalidInputError
        A time that Python has no object for: before the year 1, after 9999, infinite.
    """
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError) as error:
        raise _unfit("Python", name, column.type, error) from error
    return values


def _converted(table: pa.Table, library: str, convert: Callable[[pa.Table], T]) -> T:
    """Convert a whole table; where that fails, say which column is the cause."""
    try:
        return convert(table)
    except Exception as failure:  # polars has classes of its own for it
        for i, name in enumerate(table.column_names):
            try:
                convert(table.select([i]))
            except Exception as error:
                raise _unfit(library, name, table.column(i).type, error) from failure
        raise


def _unfit(library: str, name: str, kind: pa.DataType, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"{library} cannot hold the column {name!r} ({kind}): {error}",
        next_step=f"write CAST({name} AS VARCHAR) in the query, or take .arrow()",
    )


def _shown_values(column: pa.Array) -> list[Any]:
    try:
        return python_values("", column)
    except InvalidInputError:  # showing a result must not fail
        return list(pc.cast(column, pa.string()).to_pylist())


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "NULL" if value is None else " ".join(str(value).split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _missing(package: str, method: str) -> MissingExtraError:
    return MissingExtraError(
        f"{method} needs {package}, which is not installed",
        next_step=f"pip install {package}, or use .arrow() or .fetchall()",
    )
