"""A segment that is taken away while it is being read is an error that says so, never other numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zarr

from nait_store.activations.reader import SegmentReader
from nait_store.errors import CorruptChunkError
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import Feature
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.store.garbage.items import delete_in_order
from nait_store.testing.stores import build_segment, fake_row


@pytest.fixture
def record(location: Location) -> SegmentRecord:
    rows = [fake_row(f"s{i}", i) for i in range(9)]
    return build_segment(location, "pool", rows, {Feature.MEAN: np.ones((9, 2, 8), np.float32)}, chunk_rows=4)


def take(location: Location, record: SegmentRecord) -> None:
    delete_in_order(location, layout.segment_folder("pool", record.segment_id), first=["segment.json"])


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.chunk(Feature.MEAN, 1, 1),
        lambda reader: reader.read(Feature.MEAN),
        lambda reader: reader.norms(Feature.MEAN),
        lambda reader: reader.samples(["sample_id"]),
    ],
    ids=["chunk", "read", "norms", "samples"],
)
def test_it_says_that_the_segment_was_taken(
    location: Location, record: SegmentRecord, read: Callable[[SegmentReader], Any]
) -> None:
    reader = SegmentReader(location, record)
    reader.chunk(Feature.MEAN, 0, 0)
    take(location, record)
    with pytest.raises(CorruptChunkError, match="missing with its whole segment: gc took it"):
        read(reader)


def test_zeros_of_a_generic_reader_are_not_taken_for_numbers(location: Location, record: SegmentRecord) -> None:
    """zarr shows a missing chunk as fill values; segment.json goes first, and is looked for after each read."""
    folder = layout.segment_folder("pool", record.segment_id)
    location.delete(f"{folder}/data.zarr/mean")
    local = location.local_path(f"{folder}/data.zarr")
    where = location.url_of(f"{folder}/data.zarr")
    store = zarr.storage.LocalStore(local) if local else zarr.storage.FsspecStore.from_url(where)
    compressed = zarr.open_group(store, mode="a").create_array(
        "mean", shape=(9, 2, 8), dtype=np.float16, chunks=(4, 1, 8), compressors=zarr.codecs.ZstdCodec()
    )
    compressed[...] = np.ones((9, 2, 8))
    rewritten = record.model_copy(update={"files": ()})
    reader = SegmentReader(location, rewritten)
    assert reader.chunk(Feature.MEAN, 0, 0).all()
    take(location, record)
    with pytest.raises(CorruptChunkError, match="missing with its whole segment"):
        reader.chunk(Feature.MEAN, 0, 1)
