"""The kernels for CUDA, run on torch's CPU device: the same code, but for streams and page-locked memory."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nait_store.activations.set_version import SetVersion
from nait_store.activations.stored_values import encode
from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import StoredDtype
from nait_store.schemas.profile import Metric
from nait_store.scoring.packed_vectors import pack
from nait_store.scoring.scan import scan
from nait_store.scoring.scoring_devices import DEVICE_VARIABLE, kernels_on
from nait_store.scoring.torch_kernels import TorchKernels
from nait_store.testing.scores import plain_projections, random_target

SMALL = 10_000  # bytes of a piece, so that a chunk takes several


@pytest.fixture(scope="module")
def kernels() -> TorchKernels:
    return TorchKernels("cpu", piece_bytes=SMALL)


def plain(stored: NDArray[Any], scales: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """What stored numbers stand for, without the code under test."""
    if scales is not None:
        return stored.astype(np.float64) * scales.astype(np.float64)[:, None]
    if stored.dtype == np.uint16:
        return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16).to(torch.float64).numpy()
    return stored.astype(np.float64)


@pytest.mark.parametrize("dtype", StoredDtype)
@pytest.mark.parametrize("n_vectors", [1, 5, 32])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (33, 512), (70, 1300)])
def test_projections_equal_float64(
    kernels: TorchKernels, dtype: StoredDtype, n_vectors: int, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(n_vectors)
    stored, scales = encode(rng.standard_normal(shape).astype(np.float32), dtype)
    V = rng.standard_normal((n_vectors, shape[1])).astype(np.float32)
    found = kernels.project(stored, V, scales)
    assert found.dtype == np.float64
    assert np.abs(found - plain(stored, scales) @ V.T.astype(np.float64)).max() < 1e-5 * np.sqrt(shape[1])


@pytest.mark.parametrize("common", [0.0, 100.0, 1000.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rounding_is_relative_to_how_much_rows_differ(kernels: TorchKernels, common: float, dtype: type) -> None:
    rng = np.random.default_rng(3)
    A = (common + rng.standard_normal((50, 1100))).astype(dtype)
    V = (np.abs(rng.standard_normal((3, 1100))) / np.sqrt(1100)).astype(np.float32)
    exact = A.astype(np.float64) @ V.T.astype(np.float64)
    assert np.abs(kernels.project(A, V) - exact).max() < 1e-5


@pytest.mark.parametrize("dtype", StoredDtype)
@pytest.mark.parametrize("n_points", [0, 1, 3])
def test_distances_equal_float64(kernels: TorchKernels, dtype: StoredDtype, n_points: int) -> None:
    rng = np.random.default_rng(5)
    stored, scales = encode(rng.standard_normal((41, 777)).astype(np.float32), dtype)
    points = rng.standard_normal((n_points, 777)).astype(np.float32)
    A = plain(stored, scales)
    exact = np.array([[np.square(a - o.astype(np.float64)).sum() for o in points] for a in A]).reshape(41, n_points)
    np.testing.assert_allclose(kernels.squared_distances(stored, points, scales), exact, rtol=1e-6)


def test_no_rows_are_no_results(kernels: TorchKernels) -> None:
    empty = np.empty((0, 8), np.float16)
    assert kernels.project(empty, np.ones((3, 8), np.float32)).shape == (0, 3)
    assert kernels.squared_distances(empty, np.ones((2, 8), np.float32)).shape == (0, 2)


def test_sums_that_overflow_float32_are_right_all_the_same(kernels: TorchKernels) -> None:
    A = np.full((2, 600), 3e38, np.float32)
    A[1] *= -1
    assert np.array_equal(kernels.project(A, np.ones((1, 600), np.float32)), A.astype(np.float64).sum(1, keepdims=True))
    distances = kernels.squared_distances(A, np.zeros((1, 600), np.float32))
    np.testing.assert_allclose(distances[:, 0], 600 * float(np.float32(3e38)) ** 2)


def test_products_are_exact_where_the_program_allows_rounded_ones(kernels: TorchKernels) -> None:
    rng = np.random.default_rng(0)
    A, V = rng.standard_normal((20, 300)).astype(np.float32), rng.standard_normal((2, 300)).astype(np.float32)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = kernels.project(A, V)
    finally:
        torch.set_float32_matmul_precision(before)
    assert np.abs(found - A.astype(np.float64) @ V.T.astype(np.float64)).max() < 1e-5 * np.sqrt(300)


def test_vectors_stay_on_the_device_as_long_as_they_are_used() -> None:
    kernels = TorchKernels("cpu")
    packed = pack(np.ones((2, 8), np.float32))
    A = np.ones((3, 8), np.float16)
    kernels.project(A, packed)
    kernels.project(A, packed)
    assert len(kernels._laid_out) == 1
    del packed
    gc.collect()
    assert len(kernels._laid_out) == 0


def test_threads_do_not_disturb_each_other(kernels: TorchKernels) -> None:
    rng = np.random.default_rng(1)
    chunks = [rng.standard_normal((60, 700)).astype(np.float16) for _ in range(4)]
    V = pack(rng.standard_normal((4, 700)).astype(np.float32))
    wrong: list[int] = []

    def work(i: int) -> None:
        exact = chunks[i].astype(np.float64) @ V.vectors.T.astype(np.float64)
        for _ in range(10):
            if np.abs(kernels.project(chunks[i], V) - exact).max() > 1e-3:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_scan_with_them_equals_float64(version: SetVersion, kernels: TorchKernels) -> None:
    targets = [
        random_target(i, layers=(0, 1, 2), n_neurons=37, metric=metric, offset=offset)
        for i, (metric, offset) in enumerate([(Metric.DOT, None), (Metric.COSINE, None), (Metric.COSINE, 2.0)])
    ]
    segment = version.segments[0]
    exact = {id(target): plain_projections(segment, target).sum(axis=1) for target in targets}
    for found in scan([(segment, targets)], kernels=kernels):
        expected = exact[id(found.target)]
        assert np.abs(found.scores.scores - expected[found.rows]).max() <= 1e-5 * expected.std()


def test_the_environment_chooses_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, "tpu")
    with pytest.raises(InvalidInputError, match=r"not computed on 'tpu' \(NAIT_STORE_SCORE_DEVICE\)\n.*cuda:1"):
        kernels_on()
    assert kernels_on("cpu") is not None


@pytest.mark.parametrize("device", ["cuda:99", "cuda:1000"])
def test_a_cuda_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(InvalidInputError, match=f"cannot be computed on {device}: .*\n.*leave the device out"):
        kernels_on(device)


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "mps", "gpu"])
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(InvalidInputError, match="are not computed on"):
        kernels_on(device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", StoredDtype)
def test_a_cuda_device_gives_the_same(dtype: StoredDtype) -> None:
    rng = np.random.default_rng(9)
    stored, scales = encode(rng.standard_normal((900, 1300)).astype(np.float32), dtype)
    V = rng.standard_normal((33, 1300)).astype(np.float32)
    kernels = TorchKernels("cuda", piece_bytes=100_000)
    A = plain(stored, scales)
    assert np.abs(kernels.project(stored, V, scales) - A @ V.T.astype(np.float64)).max() < 1e-5 * np.sqrt(1300)
    exact = np.stack([np.square(A - v.astype(np.float64)).sum(axis=1) for v in V[:2]], axis=1)
    np.testing.assert_allclose(kernels.squared_distances(stored, V[:2], scales), exact, rtol=1e-6)
