"""``neuron`` and ``activation``: one neuron, or all neurons of one layer, of every sample."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.activations.stored_values import decode
from nait_store.activations.versions import SetVersion
from nait_store.errors import NotFoundError
from nait_store.progress import ProgressEvent
from nait_store.query.features.table import FeatureContext, FeatureTable, array_read, chosen_feature
from nait_store.query.lazy_table import mentions
from nait_store.schemas.activation_set import ROW_BITS
from nait_store.schemas.capture import Feature
from nait_store.scoring.scan import thread_count
from nait_store.storage.fetching import work_ahead

_HELD_BYTES = 256 << 20
_BATCH_BYTES = 16 << 20


def neuron(context: FeatureContext, values: Mapping[str, Any]) -> FeatureTable:
    """``neuron(activation_set, layer, index)``: one FLOAT per visible row; reads the chunks of one layer.

    Raises
    ------
    NotFoundError
        Unknown set; a layer, neuron or feature that it does not have.
    """
    index = values["index"]
    version = context.names.version(values["activation_set"])
    made = _layer_table(context, version, values, pa.float32(), slice(index, index + 1))
    n_neurons = version.record.n_neurons
    if index >= n_neurons:
        raise NotFoundError(
            f"layer {values['layer']} of set {version.reference} has no neuron {index}",
            next_step=f"its neurons are 0 to {n_neurons - 1}",
        )
    return made


def activation(context: FeatureContext, values: Mapping[str, Any]) -> FeatureTable:
    """``activation(activation_set, layer)``: a FLOAT[] of J values per visible row; reads the chunks of one layer.

    Raises
    ------
    NotFoundError
        Unknown set; a layer or feature that it does not have.
    """
    version = context.names.version(values["activation_set"])
    return _layer_table(context, version, values, pa.list_(pa.float32()), slice(None))


@dataclass(frozen=True)
class _Block:
    """Rows of one chunk that are asked for."""

    segment: SegmentReader
    number: int
    span: slice
    rows: NDArray[np.int64]
    """Ascending, of the segment."""

    @property
    def within(self) -> slice | NDArray[np.int64]:
        """The rows as an index into the chunk; a slice, which copies nothing, where that is all of it."""
        everything = len(self.rows) == self.span.stop - self.span.start
        return slice(None) if everything else self.rows - self.span.start


def _layer_table(
    context: FeatureContext,
    version: SetVersion,
    values: Mapping[str, Any],
    kind: pa.DataType,
    neurons: slice,
) -> FeatureTable:
    """A table of some neurons of one layer: a number for each row, or a list of them, as ``kind`` says."""
    layer, feature = values["layer"], chosen_feature(values.get("feature"), version)
    version.require([feature], [layer])
    schema = pa.schema([("row_id", pa.int64()), ("sample_id", pa.string()), ("activation", kind)])
    n_neurons = version.record.n_neurons

    def read(block: _Block) -> tuple[NDArray[np.float32], int]:
        chunk = block.segment.chunk(feature, layer, block.number)
        scales = block.segment.scales(feature, [layer])
        factors = None if scales is None else scales[block.span, 0][block.within]
        taken = decode(chunk[block.within, neurons], factors)
        if not pa.types.is_list(kind):
            taken = taken[:, 0]
        return np.ascontiguousarray(taken, dtype=np.float32), chunk.nbytes

    def batches(names: Sequence[str], condition: Any) -> Iterator[pa.RecordBatch]:
        wanted = pa.schema([schema.field(name) for name in names])
        blocks = _blocks(context, version, feature, condition)
        if "activation" not in names:
            for block in blocks:
                yield _batch(context, block, wanted, None)
            return
        started = time.monotonic()
        n_rows = n_bytes = 0
        for block, (taken, chunk_bytes) in work_ahead(
            read,
            blocks,
            size_bytes=lambda block: (block.span.stop - block.span.start) * n_neurons * 4,
            limit_bytes=_HELD_BYTES,
            n_threads=thread_count(remote=any(segment.is_remote for segment in version.segments)),
        ):
            n_rows += len(block.rows)
            n_bytes += chunk_bytes
            total = version.n_samples if condition is None else None
            elapsed = time.monotonic() - started
            context.progress(ProgressEvent("read", n_rows, total, bytes_done=n_bytes, elapsed_seconds=elapsed))
            yield from _parts(context, block, wanted, taken)

    return FeatureTable(schema, batches, (array_read(version, feature, [layer]),))


def _blocks(context: FeatureContext, version: SetVersion, feature: Feature, condition: Any) -> Iterator[_Block]:
    """Chunks with rows that are visible and may meet a filter."""
    for segment in version.segments:
        rows = _rows(context, version, segment, condition)
        for number, span in enumerate(segment.blocks(feature)):
            low, high = np.searchsorted(rows, (span.start, span.stop))
            if low < high:
                yield _Block(segment, number, span, rows[low:high])


def _rows(context: FeatureContext, version: SetVersion, segment: SegmentReader, condition: Any) -> NDArray[np.int64]:
    visible = version.visible_rows(segment)
    rows = np.arange(segment.n_rows) if visible is None else np.flatnonzero(visible)
    if condition is None or mentions(condition, "activation"):
        return rows
    columns = {name: _identity(context, segment, rows, name) for name in ("row_id", "sample_id")
               if mentions(condition, name)}  # fmt: skip
    found: NDArray[np.int64] = pa.table({**columns, "row": rows}).filter(condition).column("row").to_numpy()
    return found


def _parts(
    context: FeatureContext, block: _Block, schema: pa.Schema, taken: NDArray[np.float32]
) -> Iterator[pa.RecordBatch]:
    """Batches of bounded size."""
    at_once = max(1, _BATCH_BYTES // max(1, taken[:1].nbytes))
    for start in range(0, len(taken), at_once):
        part = slice(start, start + at_once)
        rows = _Block(block.segment, block.number, block.span, block.rows[part])
        yield _batch(context, rows, schema, taken[part])


def _batch(
    context: FeatureContext, block: _Block, schema: pa.Schema, taken: NDArray[np.float32] | None
) -> pa.RecordBatch:
    arrays = []
    for name in schema.names:
        if name != "activation":
            arrays.append(_identity(context, block.segment, block.rows, name))
        elif taken is None or taken.ndim == 1:
            arrays.append(pa.array(taken))
        else:
            n, width = taken.shape
            offsets = np.arange(0, n * width + 1, width, dtype=np.int32)
            arrays.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(taken.reshape(-1))))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _identity(context: FeatureContext, segment: SegmentReader, rows: NDArray[np.int64], name: str) -> pa.Array:
    """``row_id`` or ``sample_id`` of ascending rows."""
    if name == "row_id":
        return pa.array((segment.ordinal << ROW_BITS) + rows)
    ids = context.scores.sample_ids(segment)
    if len(rows) and len(rows) == rows[-1] - rows[0] + 1:
        return ids.slice(rows[0], len(rows))
    return ids.take(pa.array(rows))
