"""The values of a column that are frequent enough to be told apart."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def frequent_values(column: pa.ChunkedArray, most: int) -> tuple[tuple[str, ...], NDArray[np.int64], int]:
    """The most frequent values of a column of texts.

    Parameters
    ----------
    column
        [n] without nulls.
    most
        How many.

    Returns
    -------
    values, codes, n_others
        Most frequent first, equal ones by text; [n] the place of each among them, their number for other values; and
        how many other values there are.
    """
    counts = pc.value_counts(column.combine_chunks())
    counted = zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)
    by_count = sorted(counted, key=lambda one: (-one[1], one[0]))
    values = [value for value, _ in by_count[:most]]
    codes = pc.fill_null(pc.index_in(column, pa.array(values, pa.string())), len(values))
    return tuple(values), codes.to_numpy().astype(np.int64), len(by_count) - len(values)
