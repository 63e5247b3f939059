"""Rounding a batch by several threads gives the bits of one."""

from __future__ import annotations

import numpy as np
import pytest

from nait_store.activations import encoding
from nait_store.activations.chunks import numpy_dtype
from nait_store.activations.encoding import encode_layers
from nait_store.schemas.capture import StoredDtype


@pytest.mark.parametrize("dtype", list(StoredDtype))
@pytest.mark.parametrize("rows", [slice(1, 5), np.array([0, 2, 5])], ids=["slice", "indices"])
def test_several_threads_give_the_bits_of_one(
    dtype: StoredDtype, rows: slice | np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).standard_normal((6, 7, 33), dtype=np.float32)
    n_rows = len(values[rows])
    found = []
    for n_threads in (1, 3):
        monkeypatch.setattr(encoding, "_THREADS", n_threads)
        monkeypatch.setattr(encoding, "_MUCH", 0)
        out = np.full((7, n_rows, 33), 99, numpy_dtype(dtype))
        norms, scales = encode_layers(values, rows, dtype, out)
        found.append([out.tobytes(), norms.tobytes(), None if scales is None else scales.tobytes()])
        exact = np.linalg.norm(values[rows].astype(np.float64), axis=-1)
        np.testing.assert_allclose(norms, exact, rtol=2e-2 if dtype is StoredDtype.INT8 else 5e-3)
    assert found[0] == found[1]


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(encoding, "_THREADS", 2)
    monkeypatch.setattr(encoding, "_MUCH", 0)
    monkeypatch.setattr(encoding, "encode", fail)
    out = np.empty((2, 3, 4), np.float16)
    with pytest.raises(MemoryError, match="no room"):
        encode_layers(np.zeros((3, 2, 4), np.float32), slice(0, 3), StoredDtype.FLOAT16, out)
