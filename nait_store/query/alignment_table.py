"""``alignment(set, profile)`` as a table that DuckDB scans: columns are read, or computed, when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from nait_store.activations.reader import SegmentReader
from nait_store.activations.versions import SetVersion
from nait_store.query.stored_scores import StoredScores
from nait_store.schemas.activation_set import ROW_BITS
from nait_store.scoring.targets import ScoringTarget

SCHEMA = pa.schema(
    [
        pa.field("activation_set", pa.string()),
        pa.field("profile", pa.string()),
        pa.field("row_id", pa.int64()),
        pa.field("sample_id", pa.string()),
        pa.field("score", pa.float64()),
    ]
)
_BATCH_ROWS = 122_880  # DuckDB's row group


@dataclass(frozen=True, eq=False)
class Pair:
    """A set version and the profile version that scores it.

    Attributes
    ----------
    version
        The set version.
    profile
        Resolved reference of the profile, ``math@2``.
    target
        What it scores against.
    """

    version: SetVersion
    profile: str
    target: ScoringTarget


class FirstError:
    """Keeps the first exception of a scan: DuckDB passes on its text only, and from another thread."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def keep(self, error: BaseException) -> None:
        """Keep an exception unless there is one already."""
        if self.error is None:
            self.error = error

    def take(self) -> BaseException | None:
        """Return the exception and forget it."""
        error, self.error = self.error, None
        return error


class AlignmentTable(pyarrow.dataset.InMemoryDataset):  # type: ignore[misc]
    """Rows of :data:`SCHEMA` for some pairs; DuckDB asks :meth:`scanner` for the columns and rows that it needs.

    Parameters
    ----------
    pairs
        What to give, asked for when a scan begins.
    scores
        Where columns come from.
    first_error
        Receives what goes wrong in a scan.
    """

    def __init__(self, pairs: Callable[[], Sequence[Pair]], scores: StoredScores, first_error: FirstError) -> None:
        # A subclass, though it holds no rows: DuckDB takes objects of pyarrow's own dataset classes only.
        super().__init__(pa.Table.from_batches([], schema=SCHEMA))
        self._pairs = pairs
        self._scores = scores
        self._first_error = first_error

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None, **options: Any) -> Any:  # noqa: A002, ARG002
        """Make the scanner that DuckDB reads from.

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
            wanted = list(SCHEMA.names if columns is None else columns)
            # A filter may name columns that are not asked for; its text may name too many, never too few.
            needed = [n for n in SCHEMA.names if n in wanted or (filter is not None and n in str(filter))]
            schema = pa.schema([SCHEMA.field(name) for name in needed])
            batches = self._batches(needed, schema)
            return pyarrow.dataset.Scanner.from_batches(batches, schema=schema, columns=wanted, filter=filter)
        except BaseException as error:
            self._first_error.keep(error)
            raise

    def _batches(self, names: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            for pair in self._pairs():
                for segment in pair.version.segments:
                    arrays = [self._array(name, pair, segment) for name in names]
                    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
                    visible = pair.version.visible_rows(segment)
                    if visible is not None:
                        batch = batch.filter(pa.array(visible))
                    for start in range(0, batch.num_rows, _BATCH_ROWS):
                        yield batch.slice(start, _BATCH_ROWS)
        except BaseException as error:
            self._first_error.keep(error)
            raise

    def _array(self, name: str, pair: Pair, segment: SegmentReader) -> pa.Array:
        if name == "score":
            return self._scores.scores(segment, pair.target)
        if name == "sample_id":
            return self._scores.sample_ids(segment)
        if name == "row_id":
            first = segment.ordinal << ROW_BITS
            return pa.array(np.arange(first, first + segment.n_rows, dtype=np.int64))
        text = pair.version.reference if name == "activation_set" else pair.profile
        return pa.repeat(pa.scalar(text), segment.n_rows)
