"""The answer of a query, materialised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from nait_store.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas
    import polars

_SHOWN_ROWS = 10
_SHOWN_CHARACTERS = 40


class QueryResult:
    """Rows of a query, in memory.

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
        """Names of the columns."""
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

    def df(self) -> pandas.DataFrame:
        """The rows as a pandas data frame.

        Raises
        ------
        MissingExtraError
            pandas is not installed.
        """
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise _missing("pandas", ".df()") from error
        frame: pandas.DataFrame = self._table.to_pandas()
        return frame

    def pl(self) -> polars.DataFrame:
        """The rows as a polars data frame.

        Raises
        ------
        MissingExtraError
            polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise _missing("polars", ".pl()") from error
        frame = polars.from_arrow(self._table)
        return frame if isinstance(frame, polars.DataFrame) else frame.to_frame()

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows as tuples of Python values."""
        return list(self)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row, or None where there is none; it does not advance."""
        return next(iter(self), None)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for batch in self._table.to_batches(max_chunksize=4096):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def __repr__(self) -> str:
        shown = self._table.slice(0, _SHOWN_ROWS)
        cells = [self.columns] + [[_cell(value) for value in row] for row in QueryResult(shown)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        lines.insert(1, "  ".join("─" * width for width in widths))
        more = self.n_rows - shown.num_rows
        counted = f"{self.n_rows:,} row{'s' * (self.n_rows != 1)}"
        return "\n".join([*lines, f"({counted})" if not more else f"… {more:,} more ({counted})"])


def with_plain_integers(table: pa.Table, duckdb_types: list[str]) -> pa.Table:
    """Make 64-bit integers of DuckDB's 128-bit ones (``sum`` of integers) where every value fits.

    Parameters
    ----------
    table
        Result of a query; HUGEINT arrives as decimal(38, 0).
    duckdb_types
        DuckDB's type of each column.
    """
    for i, kind in enumerate(duckdb_types):
        if kind == "HUGEINT":
            try:
                column = pc.cast(table.column(i), pa.int64())
            except pa.ArrowInvalid:
                continue
            table = table.set_column(i, table.field(i).with_type(pa.int64()), column)
    return table


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "NULL" if value is None else " ".join(str(value).split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _missing(package: str, method: str) -> MissingExtraError:
    return MissingExtraError(
        f"{method} needs {package}, which is not installed",
        next_step=f"pip install {package}, or use .arrow() or .fetchall()",
    )
