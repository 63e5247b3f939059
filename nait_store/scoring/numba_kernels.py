"""The scan's inner loops, compiled by numba. Imported only by :mod:`nait_store.scoring.kernels`, on first use.

What makes them right: every value has the mean of a few of its chunk's rows taken off before it meets a direction
(put back in float64), and float32 sums run over short strips only, which are added up in float64. So rounding is
relative to how much the rows differ, not to what they have in common, which can be thousands of times larger. int8
meets directions rounded to int16, and the products are summed up exactly; what rounding took of what rows have in
common is put back likewise.

What makes them fast: half precision is widened by one instruction per eight values, and each loaded value is used
for several rows (one direction) or several directions (many). They run on one thread and release the GIL; the scan
gives chunks to threads. numba's own ``parallel=True`` is not used: its thread pools do not survive a fork, one of
them must not be entered twice, and it triples the compile time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nait_store.scoring.numba_tiles import code_dots, code_tile, float_tile, prefetch, widening, widening_tile
from nait_store.scoring.packed_vectors import CODE_STRIP, LANES, WIDE_PANEL

STRIP = 512
"""Neurons per float32 partial sum, where eight of them are added up side by side."""

FEW_STRIP = 1024
"""As STRIP for few directions, where adding up across takes longer than for one."""

PANEL_STRIP = 256
"""Neurons per float32 partial sum of a tile: a wide panel's strip takes half of the nearest cache."""

CENTER_ROWS = 8
"""Rows whose mean is taken off; any vector near the rows will do."""

CODE_CENTER_ROWS = 32
"""As CENTER_ROWS for int8, where what rows differ from it by meets what rounding left of the directions."""

CODE_BLOCK = 4 * CODE_STRIP
"""Neurons of a row that are widened to 16 bits at once: memory is slow to give less."""

BLOCK_ROWS = 48
"""Rows that pass a strip of all panels before the next strip; a multiple of what the tiles take."""

GROUP_ROWS = 6
TALL_ROWS = 12
LINE_BYTES = 64

# Not "nnan" and "ninf": the caller looks for overflow in what comes back.
FAST_MATH = {"reassoc", "contract", "nsz"}

# Twelve sums, what they are made of and a product just fill AVX2's 16 registers.
_wide_tile = float_tile(GROUP_ROWS, 2)
_narrow_tile = float_tile(GROUP_ROWS, 1)
_wide_code_tile = code_tile(GROUP_ROWS, 2)
_tall_code_tile = code_tile(TALL_ROWS, 1)

# By whether halves are widened in hardware.
_WIDEN = {hardware: widening(half_in_hardware=hardware) for hardware in (True, False)}
_WIDENING_TILE = {hardware: widening_tile(GROUP_ROWS, 2, half_in_hardware=hardware) for hardware in (True, False)}
widen: Any = _WIDEN[True]
_widening_tile: Any = _WIDENING_TILE[True]


def bind(*, half_in_hardware: bool) -> None:
    """Choose how halves are widened in whatever is compiled from now on."""
    global widen, _widening_tile
    widen = _WIDEN[half_in_hardware]
    _widening_tile = _WIDENING_TILE[half_in_hardware]


def find_center(A: Any, V: Any, center: Any, common: Any) -> None:
    """What a chunk's rows have in common: their mean, of a few of them, and what it is along each direction.

    A [n, J] as :func:`widen` takes it, V [P, J] float32; center [J] float32 and common [P] float64 are written.
    """
    n, J = A.shape
    k = min(n, CENTER_ROWS if A.itemsize > 1 else CODE_CENTER_ROWS)
    center[:] = 0
    for q in range(k):
        row = A[(q * n) // k]
        for j in range(J):
            center[j] += widen(row[j])
    for j in range(J):
        center[j] /= np.float32(k)
    for p in range(V.shape[0]):
        direction = V[p]
        t: Any = 0.0
        for j in range(J):
            t += np.float64(center[j]) * np.float64(direction[j])
        common[p] = t


def project_one(A: Any, center: Any, common: Any, V: Any, out: Any) -> None:
    """One direction: ``out[i, 0] = A_i·V_0``; bound by memory, so four rows share every load of V.

    A [n, J] as :func:`widen` takes it, center and common from :func:`find_center`, V [1, J] float32, out
    [n, 1] float64.
    """
    n, J = A.shape
    v = V[0]
    for i0 in range(0, n, 4):
        i1 = min(i0 + 1, n - 1)  # the last rows may be computed more than once
        i2 = min(i0 + 2, n - 1)
        i3 = min(i0 + 3, n - 1)
        t0 = t1 = t2 = t3 = common[0]
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


def project_few(A: Any, center: Any, common: Any, V: Any, out: Any) -> None:
    """A few directions: ``out[i, p] = A_i·V_p`` in tiles of 3 rows × 4 directions, widening in place.

    Rows are read from end to end, which the processor foresees. Twelve sums, three values and the one that meets them
    just fill AVX2's 16 registers.

    A, center and common as for :func:`project_one`, V [P, J] float32 with P a multiple of 4, out [n, P] float64.
    """
    n, J = A.shape
    P = V.shape[0]
    for i0 in range(0, n, 3):
        i1 = min(i0 + 1, n - 1)  # the last rows may be computed more than once
        i2 = min(i0 + 2, n - 1)
        for p in range(0, P, 4):
            t00 = t10 = t20 = common[p]
            t01 = t11 = t21 = common[p + 1]
            t02 = t12 = t22 = common[p + 2]
            t03 = t13 = t23 = common[p + 3]
            for start in range(0, J, FEW_STRIP):
                end = min(start + FEW_STRIP, J)
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


def project_many(A: Any, center: Any, common: Any, panels: Any, out: Any) -> None:
    """More directions: ``out[i, p] = A_i·V_p`` by strips of six rows, each widened while the one before is multiplied.

    A, center and common as for :func:`project_one`, panels as in :class:`PackedVectors`, at least one of them wide. out
    [n', P'] float64, n' and P' being n and P rounded up to TALL_ROWS and LANES.
    """
    n, J = A.shape
    P = out.shape[1]
    for i in range(out.shape[0]):
        for p in range(P):
            out[i, p] = common[p]
    X = np.zeros((2 * GROUP_ROWS, PANEL_STRIP), np.float32)
    here, there = 0, GROUP_ROWS  # where in X the group's strip is, and where the next one goes
    for i0 in range(0, n, BLOCK_ROWS):
        stop = min(i0 + BLOCK_ROWS, n)
        widened = False
        for start in range(0, J, PANEL_STRIP):
            end = min(start + PANEL_STRIP, J)
            for i in range(i0, stop, GROUP_ROWS):
                if not widened:
                    for r in range(GROUP_ROWS):
                        row = A[min(i + r, n - 1), start:end]
                        mean = center[start:end]
                        x = X[here + r]
                        for j in range(end - start):
                            x[j] = widen(row[j]) - mean[j]
                next_i, next_start = i + GROUP_ROWS, start
                if next_i >= stop:
                    next_i, next_start = i0, end
                widened = next_start + PANEL_STRIP <= J
                x0, k, t = here * PANEL_STRIP, start * WIDE_PANEL, i * P
                if widened:
                    _widening_tile(
                        X, x0, PANEL_STRIP, panels, k, PANEL_STRIP // LANES, out, t, P,
                        A, n - 1, next_i, next_start, center, there * PANEL_STRIP,
                    )  # fmt: skip
                else:
                    _wide_tile(X, x0, PANEL_STRIP, panels, k, end - start, out, t, P)
                for p in range(WIDE_PANEL, P, WIDE_PANEL):
                    if p + WIDE_PANEL <= P:
                        _wide_tile(X, x0, PANEL_STRIP, panels, p * J + k, end - start, out, t + p, P)
                    else:
                        k = start * LANES
                        _narrow_tile(X, x0, PANEL_STRIP, panels, p * J + k, end - start, out, t + p, P)
                here, there = there, here


def project_codes_few(A: Any, codes: Any, steps: Any, out: Any) -> None:
    """A few directions and rows of codes: ``out[i, p] = Σ_s steps[s, p] · Σ_{j in s} A[i, j] · codes[p, j]``.

    A [n, J] int8, codes and steps as in :class:`VectorCodes`, out [n, P] float64.
    """
    n, J = A.shape
    for i0 in range(0, n, 4):
        i1 = min(i0 + 1, n - 1)  # the last rows may be computed more than once
        i2 = min(i0 + 2, n - 1)
        i3 = min(i0 + 3, n - 1)
        for p in range(codes.shape[0]):
            t0 = t1 = t2 = t3 = 0.0
            for start in range(0, J, CODE_STRIP):
                end = min(start + CODE_STRIP, J)
                step = steps[start // CODE_STRIP, p]
                sixteens = (end - start) // 16
                s0 = s1 = s2 = s3 = np.int64(0)
                if sixteens:
                    s0, s1, s2, s3 = code_dots(
                        A, i0 * J + start, i1 * J + start, i2 * J + start, i3 * J + start,
                        codes, p * codes.shape[1] + start, sixteens,
                    )  # fmt: skip
                for j in range(start + 16 * sixteens, end):
                    code = np.int64(codes[p, j])
                    s0 += A[i0, j] * code
                    s1 += A[i1, j] * code
                    s2 += A[i2, j] * code
                    s3 += A[i3, j] * code
                t0 += step * s0
                t1 += step * s1
                t2 += step * s2
                t3 += step * s3
            out[i0, p] = t0
            out[i1, p] = t1
            out[i2, p] = t2
            out[i3, p] = t3


def project_codes_many(A: Any, panels: Any, steps: Any, out: Any) -> None:
    """Several directions and rows of codes, with the sums of :func:`project_codes_few`, bit for bit.

    A [n, J] int8, panels and steps as in :class:`VectorCodes`, out [n', P'] float64 as in :func:`project_many`.
    """
    n, J = A.shape
    P = out.shape[1]
    n_pairs = (J + 1) // 2
    out[:] = 0.0
    X = np.zeros((BLOCK_ROWS, CODE_BLOCK), np.int16)
    for i0 in range(0, n, BLOCK_ROWS):
        n_rows = min(BLOCK_ROWS, n - i0)
        for block in range(0, J, CODE_BLOCK):
            stop = min(block + CODE_BLOCK, J)
            for r in range(n_rows):
                # What this row's place in X takes next: more of the same row, then of the next rows.
                following = (i0 + r) * J + stop if stop < J else (i0 + r + BLOCK_ROWS) * J
                for j in range(following, following + CODE_BLOCK, LINE_BYTES):
                    prefetch(A, j)
                row = A[i0 + r, block:stop]
                x = X[r]
                for j in range(stop - block):
                    x[j] = row[j]
            for p in range(0, P, WIDE_PANEL):
                wide = p + WIDE_PANEL <= P
                for start in range(block, stop, CODE_STRIP):
                    pairs = (min(start + CODE_STRIP, J) - start + 1) // 2  # the codes beside an odd one are zeros
                    s = start // CODE_STRIP * P + p
                    at = 2 * n_pairs * p + start * (WIDE_PANEL if wide else LANES)
                    x0 = start - block
                    t = i0 * P + p
                    if wide:
                        for r in range(0, n_rows, GROUP_ROWS):
                            _wide_code_tile(
                                X, x0 + r * CODE_BLOCK, CODE_BLOCK, panels, at, pairs, steps, s, out, t + r * P, P
                            )
                    else:
                        for r in range(0, n_rows, TALL_ROWS):
                            _tall_code_tile(
                                X, x0 + r * CODE_BLOCK, CODE_BLOCK, panels, at, pairs, steps, s, out, t + r * P, P
                            )


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
