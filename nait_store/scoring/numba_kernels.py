"""The scan's inner loops, compiled by numba. Imported only by :mod:`nait_store.scoring.kernels`, on first use.

What makes them right: every value has the mean of a few of its chunk's rows taken off before it meets a direction
(put back in float64), and float32 sums run over short strips only, which are added up in float64. So rounding is
relative to how much the rows differ, not to what they have in common, which can be thousands of times larger.

What makes them fast: half precision is widened by one instruction per eight values, and each loaded value is used
for several rows (one direction) or several directions (many). They run on one thread and release the GIL; the scan
gives chunks to threads. numba's own ``parallel=True`` is not used: its thread pools do not survive a fork, one of
them must not be entered twice, and it triples the compile time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

STRIP = 512
"""Neurons per float32 partial sum."""

CENTER_ROWS = 8
"""Rows whose mean is taken off; any vector near the rows will do."""

# Not "nnan" and "ninf": the caller looks for overflow in what comes back.
FAST_MATH = {"reassoc", "contract", "nsz"}


def _widen_other(builder: Any, element: Any, bits: Any) -> Any:
    """float32 of an int8, of a bfloat16 whose bits come as an int16, and of a float32, which stays as it is."""
    if element == types.int8:
        return builder.sitofp(bits, ir.FloatType())
    if element == types.int16:
        i32 = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(bits, i32), ir.Constant(i32, 16)), ir.FloatType())
    return bits


def _widen(_typing: Any, value: Any) -> Any:
    """float32 of a half given as its 16 bits, by the processor's own instruction; others by :func:`_widen_other`."""

    def generate(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (bits,) = arguments
        if signature.args[0] == types.uint16:
            return builder.fpext(builder.bitcast(bits, ir.HalfType()), ir.FloatType())
        return _widen_other(builder, signature.args[0], bits)

    return types.float32(value), generate


def _widen_in_software(_typing: Any, value: Any) -> Any:
    """As :func:`_widen` without F16C, where LLVM would call a C function that is not there.

    The half's exponent and fraction are moved to a float's places, and 2^112 corrects the exponent's bias, which
    also turns denormals into normal numbers. Infinity and NaN, which are never stored, come out finite.
    """

    def generate(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (bits,) = arguments
        if signature.args[0] != types.uint16:
            return _widen_other(builder, signature.args[0], bits)
        i32 = ir.IntType(32)
        wide = builder.zext(bits, i32)
        magnitude = builder.shl(builder.and_(wide, ir.Constant(i32, 0x7FFF)), ir.Constant(i32, 13))
        scaled = builder.fmul(builder.bitcast(magnitude, ir.FloatType()), ir.Constant(ir.FloatType(), 2.0**112))
        sign = builder.shl(builder.and_(wide, ir.Constant(i32, 0x8000)), ir.Constant(i32, 16))
        return builder.bitcast(builder.or_(builder.bitcast(scaled, i32), sign), ir.FloatType())

    return types.float32(value), generate


def bind(*, half_in_hardware: bool) -> None:
    """Choose how halves are widened in whatever is compiled from now on."""
    global widen
    widen = intrinsic(_widen if half_in_hardware else _widen_in_software)


widen: Any = intrinsic(_widen)


def project_one(A: Any, V: Any, out: Any) -> None:
    """One direction: ``out[i, 0] = A_i·V_0``; bound by memory, so four rows share every load of V.

    A [n, J] as :func:`widen` takes it, V [1, J] float32, out [n, 1] float64.
    """
    n, J = A.shape
    v = V[0]
    center = np.zeros(J, np.float32)
    common: Any = 0.0
    k = min(n, CENTER_ROWS)
    for q in range(k):
        row = A[(q * n) // k]
        for j in range(J):
            center[j] += widen(row[j])
    for j in range(J):
        center[j] /= np.float32(k)
        common += np.float64(center[j]) * np.float64(v[j])
    for i0 in range(0, n, 4):
        i1 = min(i0 + 1, n - 1)  # the last rows may be computed more than once
        i2 = min(i0 + 2, n - 1)
        i3 = min(i0 + 3, n - 1)
        t0 = t1 = t2 = t3 = common
        for start in range(0, J, STRIP):
            end = min(start + STRIP, J)
            a0 = A[i0, start:end]
            a1 = A[i1, start:end]
            a2 = A[i2, start:end]
            a3 = A[i3, start:end]
            direction = v[start:end]
            mean = center[start:end]
            s0 = s1 = s2 = s3 = np.float32(0)
            for j in range(end - start):
                y = direction[j]
                m = mean[j]
                s0 += (widen(a0[j]) - m) * y
                s1 += (widen(a1[j]) - m) * y
                s2 += (widen(a2[j]) - m) * y
                s3 += (widen(a3[j]) - m) * y
            t0 += s0
            t1 += s1
            t2 += s2
            t3 += s3
        out[i0, 0] = t0
        out[i1, 0] = t1
        out[i2, 0] = t2
        out[i3, 0] = t3


def project_many(A: Any, V: Any, out: Any) -> None:
    """Several directions: ``out[i, p] = A_i·V_p`` in register tiles of 3 rows × 4 directions, widening in place.

    Twelve sums, three values and the one that meets them just fill AVX2's 16 registers. Rows are read from end to
    end, which the processor foresees; going through all rows strip by strip, with the directions in the nearest
    cache, takes twice as long.

    A [n, J] as :func:`widen` takes it, V [P, J] float32 with P a multiple of 4, out [n, P] float64.
    """
    n, J = A.shape
    P = V.shape[0]
    center = np.zeros(J, np.float32)
    common = np.zeros(P, np.float64)
    k = min(n, CENTER_ROWS)
    for q in range(k):
        row = A[(q * n) // k]
        for j in range(J):
            center[j] += widen(row[j])
    for j in range(J):
        center[j] /= np.float32(k)
    for p in range(P):
        direction = V[p]
        t: Any = 0.0
        for j in range(J):
            t += np.float64(center[j]) * np.float64(direction[j])
        common[p] = t
    for i0 in range(0, n, 3):
        i1 = min(i0 + 1, n - 1)  # the last rows may be computed more than once
        i2 = min(i0 + 2, n - 1)
        for p in range(0, P, 4):
            t00 = t10 = t20 = common[p]
            t01 = t11 = t21 = common[p + 1]
            t02 = t12 = t22 = common[p + 2]
            t03 = t13 = t23 = common[p + 3]
            for start in range(0, J, STRIP):
                end = min(start + STRIP, J)
                a0 = A[i0, start:end]
                a1 = A[i1, start:end]
                a2 = A[i2, start:end]
                v0 = V[p, start:end]
                v1 = V[p + 1, start:end]
                v2 = V[p + 2, start:end]
                v3 = V[p + 3, start:end]
                mean = center[start:end]
                s00 = s01 = s02 = s03 = np.float32(0)
                s10 = s11 = s12 = s13 = np.float32(0)
                s20 = s21 = s22 = s23 = np.float32(0)
                for j in range(end - start):
                    m = mean[j]
                    x0 = widen(a0[j]) - m
                    x1 = widen(a1[j]) - m
                    x2 = widen(a2[j]) - m
                    y = v0[j]
                    s00 += x0 * y
                    s10 += x1 * y
                    s20 += x2 * y
                    y = v1[j]
                    s01 += x0 * y
                    s11 += x1 * y
                    s21 += x2 * y
                    y = v2[j]
                    s02 += x0 * y
                    s12 += x1 * y
                    s22 += x2 * y
                    y = v3[j]
                    s03 += x0 * y
                    s13 += x1 * y
                    s23 += x2 * y
                t00 += s00
                t01 += s01
                t02 += s02
                t03 += s03
                t10 += s10
                t11 += s11
                t12 += s12
                t13 += s13
                t20 += s20
                t21 += s21
                t22 += s22
                t23 += s23
            out[i0, p] = t00
            out[i0, p + 1] = t01
            out[i0, p + 2] = t02
            out[i0, p + 3] = t03
            out[i1, p] = t10
            out[i1, p + 1] = t11
            out[i1, p + 2] = t12
            out[i1, p + 3] = t13
            out[i2, p] = t20
            out[i2, p + 1] = t21
            out[i2, p + 2] = t22
            out[i2, p + 3] = t23


def distances(A: Any, O: Any, out: Any) -> None:  # noqa: E741 - the offsets' letter in the formulas
    """Squared distances, ``out[i, q] = ‖A_i − O_q‖²``: taken term by term, since ‖A‖² − 2A·O + ‖O‖² cancels.

    A [n, J] as :func:`widen` takes it, O [Q, J] float32, out [n, Q] float64.
    """
    n, J = A.shape
    for i in range(n):
        for q in range(O.shape[0]):
            t: Any = 0.0
            for start in range(0, J, STRIP):
                end = min(start + STRIP, J)
                row = A[i, start:end]
                offset = O[q, start:end]
                s = np.float32(0)
                for j in range(end - start):
                    d = widen(row[j]) - offset[j]
                    s += d * d
                t += s
            out[i, q] = t


def scaled_distances(A: Any, S: Any, O: Any, out: Any) -> None:  # noqa: E741
    """As :func:`distances`, of rows that stand for S_i · A_i.

    A [n, J] int8, S [n, 1] float32, O [Q, J] float32, out [n, Q] float64.
    """
    n, J = A.shape
    for i in range(n):
        scale = S[i, 0]
        for q in range(O.shape[0]):
            t: Any = 0.0
            for start in range(0, J, STRIP):
                end = min(start + STRIP, J)
                row = A[i, start:end]
                offset = O[q, start:end]
                s = np.float32(0)
                for j in range(end - start):
                    d = widen(row[j]) * scale - offset[j]
                    s += d * d
                t += s
            out[i, q] = t
