from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nait_store.activations.stored_values import encode
from nait_store.schemas.capture import StoredDtype
from nait_store.scoring import kernels as kernels_module
from nait_store.scoring.kernels import Kernels, NumbaKernels, NumpyKernels, default_kernels
from nait_store.scoring.packed_vectors import CODE_STRIP, pack

ALL = {"numba": NumbaKernels(), "software": NumbaKernels(half_in_hardware=False), "numpy": NumpyKernels()}


@pytest.fixture(params=["numba", "numpy"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return ALL[request.param]


def exact_projections(A: NDArray[Any], V: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.stack([(A.astype(np.float64) * v.astype(np.float64)).sum(axis=1) for v in V], axis=1)


def _plain_values(stored: NDArray[Any], scales: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """What stored numbers stand for, without the code under test."""
    if scales is None:
        return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16).to(torch.float64).numpy()
    return stored.astype(np.float64) * scales.astype(np.float64)[:, None]


def exact_distances(A: NDArray[Any], O: NDArray[np.float32]) -> NDArray[np.float64]:  # noqa: E741
    return np.stack([np.square(A.astype(np.float64) - o.astype(np.float64)).sum(axis=1) for o in O], axis=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("n_vectors", [1, 2, 3, 5, 8, 12, 13, 17, 32, 33])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (4, 512), (33, 511), (65, 1025), (31, 3000)])
def test_projections_equal_float64_for_any_shape(
    kernels: Kernels, dtype: type, n_vectors: int, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(n_vectors)
    A = rng.standard_normal(shape).astype(dtype)
    V = rng.standard_normal((n_vectors, shape[1])).astype(np.float32)
    expected = exact_projections(A, V)
    # One row, or one neuron, has no standard deviation to speak of: compare with what one would expect.
    assert np.abs(kernels.project(A, V) - expected).max() < 1e-5 * np.sqrt(shape[1])


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 70),
    J=st.integers(1, 1100),
    n_vectors=st.integers(1, 35),
    common=st.sampled_from([0.0, 3.0, 100.0, 1000.0]),
    half=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_rounding_is_relative_to_how_much_rows_differ(
    n: int, J: int, n_vectors: int, common: float, half: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    A = (common + rng.standard_normal((n, J))).astype(np.float16 if half else np.float32)
    # All of one sign and so along what the rows have in common: the score's mean is common · √J, its sd about 1.
    V = (np.abs(rng.standard_normal((n_vectors, J))) / np.sqrt(J)).astype(np.float32)
    expected = exact_projections(A, V)
    for name in ("numba", "numpy"):
        assert np.abs(ALL[name].project(A, V) - expected).max() < 1e-5


@settings(max_examples=40, deadline=None)
@given(
    n=st.one_of(st.integers(1, 7), st.integers(40, 110)),
    J=st.integers(1, 1100),
    n_vectors=st.integers(1, 33),
    kind=st.sampled_from(["float16", "float32", "bfloat16"]),
    hardware=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_number_of_rows_neurons_and_vectors_is_projected(
    n: int, J: int, n_vectors: int, kind: str, hardware: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    stored, _ = encode(rng.standard_normal((n, J)).astype(np.float32), StoredDtype(kind))
    A = _plain_values(stored, None) if kind == "bfloat16" else stored.astype(np.float64)
    V = rng.standard_normal((n_vectors, J)).astype(np.float32)
    found = ALL["numba" if hardware else "software"].project(stored, V)
    assert found.shape == (n, n_vectors)
    assert np.abs(found - exact_projections(A, V)).max() < 1e-5 * np.sqrt(J)


def quantisation_bound(scales: NDArray[np.float32], V: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far rounding each coefficient to a step of its strip can move a dot product, [n, P]."""
    half_steps = np.zeros(len(V))
    for start in range(0, V.shape[1], CODE_STRIP):
        strip = V[:, start : start + CODE_STRIP].astype(np.float64)
        half_steps += strip.shape[1] * np.abs(strip).max(axis=1) / 65400
    return 254 * scales.astype(np.float64)[:, None] * half_steps  # rows differ by twice the largest code at most


_CODED = (StoredDtype.BFLOAT16, StoredDtype.INT8)


@pytest.mark.parametrize("kernels", ALL, indirect=True)
@pytest.mark.parametrize("dtype", _CODED)
@pytest.mark.parametrize("n_vectors", [1, 2, 9, 14, 33])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (33, 511), (65, 1025)])
def test_coded_numbers_are_projected_and_measured_as_what_they_stand_for(
    kernels: Kernels, dtype: StoredDtype, n_vectors: int, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(n_vectors)
    # rows of very different size, so that every row needs its own scale
    X = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, (shape[0], 1))).astype(np.float32)
    stored, scales = encode(X, dtype)
    A = _plain_values(stored, scales)
    V = rng.standard_normal((n_vectors, shape[1])).astype(np.float32)
    size = np.sqrt(np.square(A).sum(axis=1, keepdims=True) * np.square(V.astype(np.float64)).sum(axis=1))
    largest = size.max()  # rows of a chunk share what is taken off them, so the largest one decides
    error = np.abs(kernels.project(stored, V, scales) - exact_projections(A, V))
    if scales is None:
        assert error.max() < 1e-6 * largest
    else:
        assert (error <= quantisation_bound(scales, V) + 1e-12 * size).all()
    np.testing.assert_allclose(kernels.squared_distances(stored, V, scales), exact_distances(A, V), rtol=1e-5)


@pytest.mark.parametrize("kernels", ALL, indirect=True)
def test_every_bfloat16_and_every_code_is_widened_exactly(kernels: Kernels) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    values = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).to(torch.float64).numpy()
    usual = np.isfinite(values) & (np.abs(values) < 1e18) & ((np.abs(values) > 1e-18) | (values == 0))
    found = kernels.squared_distances(bits[usual].reshape(-1, 1), np.zeros((1, 1), np.float32))[:, 0]
    np.testing.assert_allclose(found, np.square(values[usual]), rtol=1e-6)
    for value in (bits[usual][0], bits[usual][9000], bits[usual][-1]):
        A = np.full((9, 1), value)
        expected = values[value]
        assert (kernels.project(A, np.ones((2, 1), np.float32)) == expected).all()
    codes = np.arange(-127, 128, dtype=np.int8).reshape(-1, 1)
    scales = np.full(255, 0.5, np.float32)
    one = np.ones((1, 1), np.float32)
    error = np.abs(kernels.project(codes, one, scales)[:, 0] - np.arange(-127, 128) / 2)
    assert (error <= quantisation_bound(scales, one)[:, 0]).all()
    lengths = kernels.squared_distances(codes, np.zeros((1, 1), np.float32), scales)[:, 0]
    assert (lengths == np.square(np.arange(-127, 128) / 2)).all()


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), J=st.integers(1, 1100), n_vectors=st.integers(1, 33), seed=st.integers(0, 2**32 - 1))
def test_int8_projections_are_those_of_the_rounded_vectors(n: int, J: int, n_vectors: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (n, J)).astype(np.int8)
    # coefficients of very different size, strips of zeros among them
    V = (rng.standard_normal((n_vectors, J)) * 10.0 ** rng.integers(-6, 7, (n_vectors, 1))).astype(np.float32)
    V[:, : CODE_STRIP * int(rng.integers(0, 2))] = 0
    packed = pack(V)
    rows = packed.code_rows
    steps = np.repeat(rows.steps.T, CODE_STRIP, axis=1)[:, :J]
    rounded = steps * rows.codes[:, :J]
    assert (np.abs(rounded - V) <= steps / 2 * (1 + 1e-6)).all()
    assert (rows.residuals == V - rounded).all()
    found = ALL["numba"].project(codes, packed, np.ones(n, np.float32))
    # But for what is put back of the rounding, which is the same for all rows.
    difference = found - codes.astype(np.float64) @ rounded.T
    tolerance = 1e-10 * np.abs(V).max(axis=1) * J
    assert (np.abs(difference - difference[0]) <= tolerance).all()
    assert (np.abs(difference[0]) <= 127 * np.abs(V - rounded).sum(axis=1) + tolerance).all()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 60), J=st.integers(300, 1100), n_vectors=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_rounding_int8_vectors_is_relative_to_how_much_rows_differ(n: int, J: int, n_vectors: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.clip(rng.integers(-110, 111, J) + rng.integers(-1, 2, (n, J)), -127, 127).astype(np.int8)
    V = (rng.standard_normal((n_vectors, J)) / np.sqrt(J)).astype(np.float32)
    expected = exact_projections(codes, V)  # by about 60 from zero, by 0.8 from each other
    assert np.abs(ALL["numba"].project(codes, V, np.ones(n, np.float32)) - expected).max() < 2e-4


def test_an_int8_score_does_not_depend_on_the_vectors_beside_it() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (101, 1111)).astype(np.int8)
    scales = rng.uniform(1, 2, 101).astype(np.float32)
    V = rng.standard_normal((33, 1111)).astype(np.float32)
    together = ALL["numba"].project(codes, V, scales)
    for n_vectors in (1, 2, 5, 6, 8, 16, 17, 24):
        assert (ALL["numba"].project(codes, V[:n_vectors], scales) == together[:, :n_vectors]).all()


@pytest.mark.parametrize("n_vectors", [1, 6, 16])
@pytest.mark.parametrize("code", [-128, 127])
def test_the_largest_sums_of_codes_do_not_overflow(n_vectors: int, code: int) -> None:
    codes = np.full((3, 3 * CODE_STRIP + 5), code, np.int8)
    V = np.ones((n_vectors, codes.shape[1]), np.float32)
    found = ALL["numba"].project(codes, V, np.ones(3, np.float32))
    np.testing.assert_allclose(found, float(code) * codes.shape[1], rtol=1e-12)


def test_vectors_without_codes_give_what_float64_gives() -> None:
    codes = np.ones((2, 3), np.int8)
    largest = np.full((1, 3), np.finfo(np.float32).max, np.float32)
    found = ALL["numba"].project(codes, largest, np.ones(2, np.float32))
    assert (found == 3 * np.float64(np.finfo(np.float32).max)).all()
    V = np.array([[1, np.inf, 0], [1, 2, 3]], np.float32)
    found = ALL["numba"].project(codes, V, np.ones(2, np.float32))
    assert found.tolist() == [[np.inf, 6.0], [np.inf, 6.0]]


def test_the_largest_bfloat16_and_scales_do_not_overflow(kernels: Kernels) -> None:
    X = np.random.default_rng(0).uniform(-3, 3, (6, 900)).astype(np.float32) * np.float32(1e38)
    V = np.random.default_rng(1).standard_normal((4, 900)).astype(np.float32)
    for dtype in _CODED:
        stored, scales = encode(X, dtype)
        A = _plain_values(stored, scales)
        for vectors in (V[:1], V):
            expected = exact_projections(A, vectors)
            error = np.abs(kernels.project(stored, vectors, scales) - expected)
            assert (
                error <= 1e-4 * np.abs(expected) + (0 if scales is None else quantisation_bound(scales, vectors))
            ).all()
        np.testing.assert_allclose(kernels.squared_distances(stored, V, scales), exact_distances(A, V), rtol=1e-6)


def test_top_k_is_that_of_float64_under_a_large_common_offset(kernels: Kernels) -> None:
    rng = np.random.default_rng(7)
    A = (50 + rng.standard_normal((2000, 700))).astype(np.float16)
    V = (np.abs(rng.standard_normal((4, 700))) / np.sqrt(700)).astype(np.float32)
    found, expected = kernels.project(A, V), exact_projections(A, V)
    for p in range(4):
        assert np.argsort(-found[:, p], kind="stable")[:200].tolist() == (
            np.argsort(-expected[:, p], kind="stable")[:200].tolist()
        )


@pytest.mark.parametrize("kernels", ALL, indirect=True)
def test_every_half_is_widened_exactly(kernels: Kernels) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    # Columns of one value, so that nothing is rounded against another: denormals, zeros, ±65504.
    for n_vectors in (1, 2):
        V = np.ones((n_vectors, 1), np.float32)
        for part in np.array_split(finite, 64):
            for value in (part[0], part[len(part) // 2], part[-1]):
                A = np.full((9, 1), value)
                assert (kernels.project(A, V) == np.float64(value)).all()
    distances = kernels.squared_distances(finite.reshape(-1, 1), np.zeros((1, 1), np.float32))[:, 0]
    np.testing.assert_allclose(distances, np.square(finite.astype(np.float64)), rtol=1e-7)


def test_the_largest_halves_do_not_overflow(kernels: Kernels) -> None:
    A = np.full((5, 2000), np.finfo(np.float16).max)
    A[::2] *= -1
    V = np.full((2, 2000), 1000.0, np.float32)
    np.testing.assert_allclose(kernels.project(A, V), exact_projections(A, V), rtol=1e-6)
    np.testing.assert_allclose(kernels.squared_distances(A, V), exact_distances(A, V), rtol=1e-6)


def test_float32_beyond_float32_sums_is_still_right(kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    A = (rng.uniform(-3, 3, (6, 900)) * 1e38).astype(np.float32)
    for n_vectors in (1, 4):
        V = rng.standard_normal((n_vectors, 900)).astype(np.float32)
        np.testing.assert_allclose(kernels.project(A, V), exact_projections(A, V), rtol=1e-4)
    np.testing.assert_allclose(kernels.squared_distances(A, V), exact_distances(A, V), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (5, 513), (33, 3000)])
def test_distances_equal_float64_next_to_a_far_away_origin(
    kernels: Kernels, dtype: type, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(3)
    A = (100 + rng.standard_normal(shape)).astype(dtype)
    O = (100 + 0.1 * rng.standard_normal((3, shape[1]))).astype(np.float32)  # noqa: E741
    np.testing.assert_allclose(kernels.squared_distances(A, O), exact_distances(A, O), rtol=1e-6)


def test_rows_equal_to_a_point_are_at_distance_zero(kernels: Kernels) -> None:
    A = np.random.default_rng(0).standard_normal((4, 100)).astype(np.float16)
    assert kernels.squared_distances(A, A[2:3].astype(np.float32))[2, 0] == 0


@pytest.mark.parametrize(
    "view",
    [
        lambda A: A[::2],
        lambda A: np.asfortranarray(A),
        lambda A: A.astype(A.dtype.newbyteorder(">")),
        lambda A: np.frombuffer(b"x" + A.tobytes(), A.dtype, offset=1).reshape(A.shape),
    ],
    ids=["strided", "fortran", "big-endian", "unaligned"],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_any_memory_layout_is_taken(kernels: Kernels, dtype: type, view: Any) -> None:
    A = view(np.random.default_rng(1).standard_normal((10, 33)).astype(dtype))
    V = np.random.default_rng(2).standard_normal((2, 33)).astype(np.float32)
    np.testing.assert_allclose(kernels.project(A, V), exact_projections(A, V), atol=1e-5)


def test_vectors_that_are_laid_out_once_give_the_same_as_plain_ones() -> None:
    rng = np.random.default_rng(0)
    V = rng.standard_normal((20, 300)).astype(np.float32)
    packed = pack(V)
    for dtype in (StoredDtype.FLOAT16, StoredDtype.INT8):
        A, scales = encode(rng.standard_normal((9, 300)).astype(np.float32), dtype)
        for name in ("numba", "numpy"):
            assert (ALL[name].project(A, packed, scales) == ALL[name].project(A, V, scales)).all()


def test_threads_share_kernels_from_their_first_use() -> None:
    shared = NumbaKernels(cached=False)
    A = np.random.default_rng(1).standard_normal((64, 100)).astype(np.float16)
    V = np.random.default_rng(2).standard_normal((3, 100)).astype(np.float32)
    found: list[NDArray[np.float64]] = []
    threads = [threading.Thread(target=lambda: found.append(shared.project(A, V))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(np.allclose(each, exact_projections(A, V), atol=1e-5) for each in found)


SCORE = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=logging.INFO)
import numpy as np
from nait_store.scoring.kernels import default_kernels
kernels = default_kernels()
print(type(kernels).__name__, kernels.project(np.ones((2, 3), np.float16), np.ones((1, 3), np.float32))[:, 0])
"""


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compiled_code_is_kept_in_the_cache_folder_and_found_again(tmp_path: Path) -> None:
    assert "NumbaKernels [3. 3.]" in run_python(SCORE, NAIT_STORE_CACHE=str(tmp_path))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")}
    assert any(path.suffix == ".nbc" for path in written)
    assert "NumbaKernels [3. 3.]" in run_python(SCORE, NAIT_STORE_CACHE=str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")} == written


def test_a_home_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    found = run_python(SCORE, HOME=str(tmp_path / "home"), XDG_CACHE_HOME="", NAIT_STORE_CACHE="")
    assert "INFO compiled kernels are not cached" in found
    assert "NumbaKernels [3. 3.]" in found
    assert not list(Path(kernels_module.__file__).parent.rglob("*.nbi"))


def test_damaged_cache_files_are_done_without(tmp_path: Path) -> None:
    run_python(SCORE, NAIT_STORE_CACHE=str(tmp_path))
    for path in tmp_path.rglob("*.nb*"):
        path.write_bytes(b"garbage")
    assert "NumbaKernels [3. 3.]" in run_python(SCORE, NAIT_STORE_CACHE=str(tmp_path))


def test_without_numba_numpy_scores_and_says_so() -> None:
    found = run_python("import sys; sys.modules['numba'] = None\n" + SCORE)
    assert "WARNING scoring falls back to NumPy" in found
    assert "NumpyKernels [3. 3.]" in found


def test_with_numba_switched_off_numpy_scores_and_says_so() -> None:
    found = run_python(SCORE, NUMBA_DISABLE_JIT="1")
    assert "WARNING scoring falls back to NumPy" in found
    assert "NumpyKernels [3. 3.]" in found


def test_a_processor_chosen_without_half_instructions_is_served_in_software(tmp_path: Path) -> None:
    assert "NumbaKernels [3. 3.]" in run_python(SCORE, NUMBA_CPU_NAME="generic", NAIT_STORE_CACHE=str(tmp_path))


def test_kernels_that_return_wrong_numbers_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(NumbaKernels, "project", lambda self, chunk, vectors: np.zeros((len(chunk), 1)))
    with caplog.at_level(logging.WARNING):
        assert isinstance(default_kernels.__wrapped__(), NumpyKernels)
    assert "falls back to NumPy" in caplog.text


def test_importing_the_package_does_not_load_numba() -> None:
    code = (
        "import sys, nait_store, nait_store.scoring.sidecars; print([m for m in sys.modules if m.startswith('numba')])"
    )
    assert run_python(code).strip() == "[]"
