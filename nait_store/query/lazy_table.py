"""Tables that make their rows when DuckDB scans them, for the columns and rows that a statement asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs

BATCH_ROWS = 122_880  # DuckDB's row group

K = TypeVar("K")
Batches = Callable[[Sequence[str], Any], Iterator[pa.RecordBatch]]
"""From the names of columns and a filter (a pyarrow expression or None) to batches that have those columns.

The filter is a hint: rows that do not meet it are dropped afterwards in any case. Batches are made on one of Arrow's
few I/O threads: what makes them must not use those itself (``pre_buffer=False`` for Parquet), or several scans at once
would wait for each other for ever.
"""


class FirstError:
    """Keeps the first exception of a statement's scans: DuckDB passes on its text only, and from another thread."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def keep(self, error: BaseException) -> None:
        """Keep an exception unless there is one already."""
        if self.error is None:
            self.error = error

    def check(self) -> None:
        """Raise the exception if there is one: whatever else the statement computes would be in vain."""
        if self.error is not None:
            raise self.error

    def take(self) -> BaseException | None:
        """Return the exception and forget it."""
        error, self.error = self.error, None
        return error


class LazyTable(pyarrow.dataset.InMemoryDataset):  # type: ignore[misc]
    """A table that DuckDB asks, through :meth:`scanner`, for the columns and rows that it needs.

    Parameters
    ----------
    schema
        Its columns.
    batches
        Makes rows; called when a scan begins, maybe in another thread.
    first_error
        Receives what goes wrong in a scan; once it has something, scans end at their next batch.
    """

    def __init__(self, schema: pa.Schema, batches: Batches, first_error: FirstError) -> None:
        # A subclass, though it holds no rows: DuckDB takes objects of pyarrow's own dataset classes only.
        super().__init__(pa.Table.from_batches([], schema=schema))
        self._columns = schema
        self._make = batches
        self._first_error = first_error

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None, **options: Any) -> Any:  # noqa: A002, ARG002
        """Make what DuckDB reads from.

        Parameters
        ----------
        columns
            Those to give; all of them if omitted.
        filter
            pyarrow expression that rows must meet.
        **options
            Hints of the caller, not needed here.
        """
        try:
            names = self._columns.names
            wanted = list(names if columns is None else columns)
            needed = [name for name in names if name in wanted or mentions(filter, name)]
            schema = pa.schema([self._columns.field(name) for name in needed])
            return _Scanner(schema, wanted, self._guarded(needed, filter), filter)
        except BaseException as error:
            self._first_error.keep(error)
            raise

    def _guarded(self, names: Sequence[str], condition: Any) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._make(names, condition):
                self._first_error.check()
                yield batch
        except GeneratorExit:  # DuckDB has enough rows
            raise
        except BaseException as error:
            self._first_error.keep(error)
            raise


class _Scanner:
    """What DuckDB needs of a pyarrow scanner.

    pyarrow's own runs ahead of its reader, by up to a gigabyte and in threads of its own: with a LIMIT it would read
    much for nothing, and batches of activations are large. This one makes a batch when it is asked for one.
    """

    def __init__(self, schema: pa.Schema, wanted: list[str], batches: Iterator[pa.RecordBatch], condition: Any) -> None:
        self._schema = schema
        self._wanted = wanted
        self._batches = batches
        self._condition = condition

    def to_reader(self) -> pa.RecordBatchReader:
        """Rows that meet the filter, with the columns wanted."""
        names, condition = self._wanted, self._condition
        rows = self._batches if condition is None else (batch.filter(condition) for batch in self._batches)
        return pa.RecordBatchReader.from_batches(
            pa.schema([self._schema.field(name) for name in names]),
            rows if names == self._schema.names else (batch.select(names) for batch in rows),
        )


def mentions(condition: Any, name: str) -> bool:
    """Whether a filter may look at a column; its text may name too many, never too few."""
    return condition is not None and name in str(condition)


def may_match(parts: Mapping[K, Any], condition: Any, schema: pa.Schema) -> list[K]:
    """Which parts of a table may hold rows that meet a filter.

    Parameters
    ----------
    parts
        Each with a pyarrow expression that is true of all its rows, such as ``field("profile") == "math@2"``.
    condition
        The filter; None keeps all.
    schema
        Of the table.
    """
    if condition is None:
        return list(parts)
    keys = [str(i) for i in range(len(parts))]
    # No file of these names is ever opened: only pyarrow's own reasoning about partitions is wanted.
    dataset = pyarrow.dataset.FileSystemDataset.from_paths(
        keys,
        schema=schema,
        format=pyarrow.dataset.IpcFileFormat(),
        filesystem=pyarrow.fs.LocalFileSystem(),
        partitions=list(parts.values()),
    )
    kept = {fragment.path for fragment in dataset.get_fragments(filter=condition)}
    return [part for key, part in zip(keys, parts, strict=True) if key in kept]
