"""The scan's arithmetic alone, beside what the processor can do and what BLAS does.

One thread, one chunk of 380 rows, which stays in the cache: no disk, no chunk mapping, no sidecars. What bounds it is
measured in the same run: multiply-adds of float32, and of 16-bit integers summed up in 32 bits, on registers alone, as
if nothing had to be loaded, widened or stored.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Options, Report, ratio_of, run
from benchmarks.timing import Timing
from nait_store.activations.stored_values import encode
from nait_store.schemas.capture import StoredDtype
from nait_store.scoring.kernels import NumbaKernels, NumpyKernels
from nait_store.scoring.packed_vectors import pack

N_ROWS = 380
FULL_NEURONS = 11008
TOY_NEURONS = 704
PROFILE_COUNTS = (1, 4, 8, 16, 32)
DTYPES = (StoredDtype.FLOAT16, StoredDtype.BFLOAT16, StoredDtype.FLOAT32, StoredDtype.INT8)
REPEATS = 40
"""Calls in a round, of which the fastest counts."""

_SPINS = 20_000
_ACCUMULATORS = 14  # as many as the registers hold beside what they are multiplied by
MUST = {StoredDtype.FLOAT16: 0.75, StoredDtype.BFLOAT16: 0.7, StoredDtype.FLOAT32: 0.7, StoredDtype.INT8: 0.7}


def body(options: Options, report: Report) -> None:
    """Time every kernel between two measurements of the processor's limits."""
    import torch

    torch.set_num_threads(1)
    J = TOY_NEURONS if options.toy else FULL_NEURONS
    repeats = 1 if options.toy else REPEATS
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N_ROWS, J), dtype=np.float32)
    chunks = {dtype: encode(X, dtype) for dtype in DTYPES}
    kernels = NumbaKernels()
    spin_floats, spin_integers = register_loops()
    lane_products = {"float32 multiply-adds on registers": 8, "int16 multiply-adds on registers": 16}
    peaks: dict[str, Callable[[], object]] = {
        "float32 multiply-adds on registers": lambda: spin_floats(_SPINS),
        "int16 multiply-adds on registers": lambda: spin_integers(_SPINS),
    }
    float_peak, integer_peak = peaks
    rows = []
    shares: dict[tuple[StoredDtype, int], Any] = {}
    seconds: dict[tuple[StoredDtype, int], tuple[float, ...]] = {}
    for n_profiles in PROFILE_COUNTS:
        V = rng.standard_normal((n_profiles, J), dtype=np.float32)
        packed, columns = pack(V), np.ascontiguousarray(V.T)
        check(kernels, chunks, V)

        def kernel(dtype: StoredDtype, packed: Any = packed) -> Callable[[], object]:
            chunk, scales = chunks[dtype]
            return lambda: kernels.project(chunk, packed, scales)

        sgemm, torch_sgemm = "NumPy's @ over float32", "torch's @ over float32"
        tensors = torch.from_numpy(X), torch.from_numpy(columns)
        cases: dict[str, Callable[[], object]] = {dtype.value: kernel(dtype) for dtype in DTYPES}
        cases[sgemm] = lambda columns=columns: X @ columns  # type: ignore[misc]
        cases[torch_sgemm] = lambda tensors=tensors: tensors[0] @ tensors[1]  # type: ignore[misc]
        times = fastest(peaks | cases, options.rounds, repeats)
        n_products = N_ROWS * J * n_profiles
        limits = {
            name: [_SPINS * _ACCUMULATORS * lane_products[name] / each for each in times[name].seconds]
            for name in peaks
        }
        for name in cases:
            rates = [n_products / each for each in times[name].seconds]
            peak = integer_peak if name == StoredDtype.INT8.value else float_peak
            share = ratio_of(rates, limits[peak])
            if name in {dtype.value for dtype in DTYPES}:
                shares[StoredDtype(name), n_profiles] = share
                seconds[StoredDtype(name), n_profiles] = times[name].seconds
            rows.append(
                [
                    f"{n_profiles}",
                    name,
                    f"{times[name].median * 1e3:.3f}",
                    f"{np.median(rates) / 1e9:.1f}",
                    f"{np.median(limits[peak]) / 1e9:.1f}",
                    str(share),
                ]
            )
    report.table(
        f"{N_ROWS} rows × {J:,} neurons, one thread",
        ("profiles", "what", "ms", "10⁹ products/s", "of at most", "share"),
        rows,
        "At most: multiply-adds on registers, of 16-bit integers for int8 and of float32 for the others, same rounds.",
    )
    many = PROFILE_COUNTS[-1]
    for dtype, must in MUST.items():
        report.limit(f"{dtype.value}, {many} profiles, share of what registers allow", "≥", must, shares[dtype, many])
    report.limit(
        f"{many} profiles, float16 / int8",
        "≥",
        1.3,
        ratio_of(seconds[StoredDtype.FLOAT16, many], seconds[StoredDtype.INT8, many]),
    )


def fastest(cases: dict[str, Callable[[], object]], rounds: int, repeats: int) -> dict[str, Timing]:
    """Time the fastest of several calls in every round: a call is so short that one of them goes undisturbed."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for call in cases.values():
        call()
    for number in range(rounds):
        for name in cases if number % 2 == 0 else reversed(cases):
            taken = []
            for _ in range(repeats):
                started = time.perf_counter()
                cases[name]()
                taken.append(time.perf_counter() - started)
            seconds[name].append(min(taken))
    return {name: Timing(name, tuple(values)) for name, values in seconds.items()}


def check(kernels: NumbaKernels, chunks: dict[StoredDtype, tuple[Any, Any]], V: NDArray[np.float32]) -> None:
    """Require what float64 gives, to a part in 5,000 of the scores' standard deviation."""
    for dtype, (chunk, scales) in chunks.items():
        exact = NumpyKernels().project(chunk, V, scales)
        if np.abs(kernels.project(chunk, V, scales) - exact).max() > 2e-4 * exact.std():
            raise ArithmeticError(f"the kernel for {dtype.value} is wrong for {len(V)} profiles")


def register_loops() -> tuple[Callable[[int], object], Callable[[int], object]]:
    """Two loops that only multiply and add registers: float32, and pairs of int16 summed up in 32 bits."""
    import numba
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    from nait_store.scoring.numba_tiles import LANES, multiply_pairs, register_loop

    floats, ints = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)
    pairs = ir.VectorType(ir.IntType(16), 2 * LANES)
    first = ir.Constant(ir.IntType(32), 0)

    @intrinsic
    def spin_floats(_typing: Any, _n: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            one = ir.Constant(floats, [1.0000001] * LANES)

            def step(_j: Any, sums: list[Any]) -> list[Any]:
                flags = ("contract",)
                return [builder.fadd(builder.fmul(s, one, flags=flags), one, flags=flags) for s in sums]

            start = [ir.Constant(floats, [float(k)] * LANES) for k in range(_ACCUMULATORS)]
            total, *others = register_loop(builder, arguments[0], start, step)
            for other in others:
                total = builder.fadd(total, other)
            return builder.extract_element(total, first)

        return types.float32(types.int64), generate

    @intrinsic
    def spin_integers(_typing: Any, _n: Any, _factor: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            nothing = ir.Constant(ints, ir.Undefined)
            one = builder.insert_element(nothing, builder.trunc(arguments[1], ir.IntType(32)), first)
            factor = builder.bitcast(builder.shuffle_vector(one, nothing, ir.Constant(ints, [0] * LANES)), pairs)

            def step(_j: Any, sums: list[Any]) -> list[Any]:
                return [builder.add(s, multiply_pairs(builder, builder.bitcast(s, pairs), factor)) for s in sums]

            start = [ir.Constant(ints, [3 * k + 1] * LANES) for k in range(_ACCUMULATORS)]
            total, *others = register_loop(builder, arguments[0], start, step)
            for other in others:
                total = builder.add(total, other)
            return builder.extract_element(total, first)

        return types.int32(types.int64, types.int64), generate

    @numba.njit(nogil=True)
    def floats_for(n: int) -> Any:
        return spin_floats(n)

    @numba.njit(nogil=True)
    def integers_for(n: int, factor: int) -> Any:
        return spin_integers(n, factor)

    return floats_for, lambda n: integers_for(n, 3)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy loads it, in the process that is started for this
    run(__doc__, body, packages=("numba", "numpy", "torch"))
