"""All layers of a batch rounded to what is stored, by several threads where that is much work.

On a machine with fast GPUs one core does not keep up: float16 of 128 samples with 32 layers of 11,008 neurons takes it
half a second, as long as an H200 takes to compute them.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.stored_values import encode, row_norms
from nait_store.schemas.capture import StoredDtype

_THREADS = max(1, min(4, (os.cpu_count() or 1) // 4))
"""A quarter of the cores: the model's own work and the reader's need the others."""
_MUCH = 4 << 20
"""Values; fewer are rounded in milliseconds, and starting threads would not pay."""


def encode_layers(
    values: NDArray[np.float32], rows: Any, dtype: StoredDtype, out: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Round the chosen rows of a batch.

    Parameters
    ----------
    values
        [S, L, J].
    rows
        Which n of the S: a slice, or indices.
    dtype
        What to store.
    out
        [L, n, J], takes the stored numbers.

    Returns
    -------
    norms, scales
        [n, L] float32 each; no scales unless the dtype is int8.
    """
    n_layers, n_rows, width = out.shape
    norms = np.empty((n_rows, n_layers), dtype="<f4")
    scales = np.empty_like(norms) if dtype is StoredDtype.INT8 else None

    def encode_layer(layer: int) -> None:
        stored, factors = encode(values[rows, layer], dtype, out=out[layer])
        norms[:, layer] = row_norms(stored, factors)
        if scales is not None:
            scales[:, layer] = factors

    if _THREADS == 1 or n_layers * n_rows * width < _MUCH:
        for layer in range(n_layers):
            encode_layer(layer)
    else:
        with ThreadPoolExecutor(min(_THREADS, n_layers), thread_name_prefix="nait-encode") as pool:
            for _ in pool.map(encode_layer, range(n_layers)):
                pass
    return norms, scales
