from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nait_store.activations.chunks import ArraySpec, chunk_rows_for, numpy_dtype, raw_grid, zarr_metadata
from nait_store.errors import FormatError
from nait_store.schemas.capture import StoredDtype

_MIB = 1 << 20


@given(st.integers(1, 200_000), st.sampled_from(StoredDtype))
def test_chunks_of_large_segments_take_4_to_8_mib(n_neurons: int, dtype: StoredDtype) -> None:
    chunk_bytes = chunk_rows_for(n_neurons, dtype) * n_neurons * numpy_dtype(dtype).itemsize
    assert 4 * _MIB <= chunk_bytes <= 8 * _MIB


def test_chunks_of_a_usual_7b_model_have_256_rows() -> None:
    assert chunk_rows_for(11008, StoredDtype.FLOAT16) == 256


def test_a_vector_beyond_8_mib_is_a_chunk_of_its_own() -> None:
    assert chunk_rows_for(10_000_000, StoredDtype.FLOAT32) == 1


@given(st.integers(1, 3000), st.integers(256, 40_000), st.sampled_from(StoredDtype))
def test_a_known_number_of_rows_is_divided_with_little_padding(rows: int, n_neurons: int, dtype: StoredDtype) -> None:
    chunk_rows = chunk_rows_for(n_neurons, dtype, rows)
    n_blocks = -(-rows // chunk_rows)
    assert chunk_rows * n_neurons * numpy_dtype(dtype).itemsize <= 8 * _MIB
    if n_blocks <= 4:
        assert n_blocks * chunk_rows - rows < n_blocks


def _document(**changes: object) -> bytes:
    spec = ArraySpec("mean", (10, 2, 8), (4, 1, 8), "<f2", {})
    meta = json.loads(zarr_metadata([spec], {})["mean/zarr.json"])
    return json.dumps(meta | changes).encode()


def test_what_we_write_can_be_mapped() -> None:
    grid = raw_grid(_document(), "zarr.json")
    assert grid is not None
    assert (grid.shape, grid.chunk_rows, grid.dtype) == ((10, 2, 8), 4, np.dtype("<f2"))


def _chunks(*shape: int) -> dict[str, object]:
    return {"name": "regular", "configuration": {"chunk_shape": shape}}


@pytest.mark.parametrize(
    "change",
    [
        {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd", "configuration": {}}]},
        {"codecs": [{"name": "sharding_indexed", "configuration": {}}]},
        {"codecs": []},
        {"chunk_grid": _chunks(4, 2, 8)},
        {"chunk_grid": _chunks(4, 1, 4)},
        {"chunk_grid": {"name": "rectangular", "configuration": {"chunk_shape": [4, 1, 8]}}},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "/"}}},
        {"data_type": "float64"},
        {"data_type": "bfloat16"},
        {"shape": [10, 2, 8, 1]},
        {"storage_transformers": [{"name": "x"}]},
    ],
)
def test_anything_else_is_left_to_zarr(change: dict[str, object]) -> None:
    assert raw_grid(_document(**change), "zarr.json") is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b'{"zarr_format": 2, "node_type": "array"}',
        _document(node_type="group"),
        _document(chunk_grid=None),
        _document(shape=5),
    ],
)
def test_what_is_no_zarr_v3_array_is_a_format_error_that_names_the_file(document: bytes) -> None:
    with pytest.raises(FormatError, match=r"mean/zarr\.json"):
        raw_grid(document, "mean/zarr.json")
