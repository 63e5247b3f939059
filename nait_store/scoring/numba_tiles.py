"""What the compiled kernels are made of that numba has no words for: widening, prefetching, and tiles of dot products.

A tile keeps sums of several rows × several directions in registers over a strip of neurons, so that each loaded
number is used many times. They are written as LLVM vectors of eight lanes, which LLVM maps to what the processor has:
one register each with AVX2, two with NEON or SSE, where the same numbers come out more slowly.

Panels hold directions side by side, neuron after neuron: lane c of a vector is direction c. A tile multiplies it by
one row's number for that neuron, broadcast to all lanes, as the inner loops of BLAS do; no sum across lanes is needed,
and the strip may have any length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8

_HALF, _FLOAT, _DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOATS, _DOUBLES = ir.VectorType(_FLOAT, LANES), ir.VectorType(_DOUBLE, LANES)
_INTS, _PAIRS = ir.VectorType(_I32, LANES), ir.VectorType(_I16, 2 * LANES)
_WIDE_PAIRS = ir.VectorType(_I32, 2 * LANES)

_Body = Callable[[Any, list[Any]], list[Any]]


def _intrinsic(function: Callable[..., Any]) -> Any:
    return intrinsic(function)


def _widened(builder: Any, element: Any, bits: Any, *, half_in_hardware: bool) -> Any:
    """float32 of stored numbers, one or a vector of them.

    int8 and float32 come as they are, halves as the bits of a uint16, bfloat16 as those of an int16: numba has no types
    for these. Without F16C LLVM would call a C function for a half, which is not there. Then its exponent and fraction
    are moved to a float's places, and 2^112 corrects the exponent's bias, which also turns denormals into normal
    numbers; infinity and NaN, which are never stored, come out finite.
    """

    def shaped(scalar: Any) -> Any:
        return ir.VectorType(scalar, bits.type.count) if isinstance(bits.type, ir.VectorType) else scalar

    def constant(scalar: Any, value: float) -> Any:
        shape = shaped(scalar)
        return ir.Constant(shape, [value] * shape.count if isinstance(shape, ir.VectorType) else value)

    if element == types.int8:
        return builder.sitofp(bits, shaped(_FLOAT))
    if element == types.float32:
        return bits
    if element == types.uint16 and half_in_hardware:
        return builder.fpext(builder.bitcast(bits, shaped(_HALF)), shaped(_FLOAT))
    wide = builder.zext(bits, shaped(_I32))
    if element == types.int16:
        return builder.bitcast(builder.shl(wide, constant(_I32, 16)), shaped(_FLOAT))
    magnitude = builder.shl(builder.and_(wide, constant(_I32, 0x7FFF)), constant(_I32, 13))
    scaled = builder.fmul(builder.bitcast(magnitude, shaped(_FLOAT)), constant(_FLOAT, 2.0**112))
    sign = builder.shl(builder.and_(wide, constant(_I32, 0x8000)), constant(_I32, 16))
    return builder.bitcast(builder.or_(builder.bitcast(scaled, shaped(_I32)), sign), shaped(_FLOAT))


def widening(*, half_in_hardware: bool) -> Any:
    """Make ``widen(bits)``: float32 of a stored number, with or without the processor's instruction for halves."""

    @_intrinsic
    def widen(_typing: Any, value: Any) -> Any:
        def generate(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _widened(builder, signature.args[0], arguments[0], half_in_hardware=half_in_hardware)

        return types.float32(value), generate

    return widen


@_intrinsic
def prefetch(_typing: Any, A: Any, position: Any) -> Any:
    """``prefetch(A, k)``: ask for the cache line of A's k-th number; where there is none, nothing happens."""
    signature = types.void(A, position)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _prefetch(builder, _at(context, builder, signature, arguments, 0, arguments[1]))
        return context.get_dummy_value()

    return signature, generate


def float_tile(n_rows: int, n_vectors: int) -> Any:
    """Make ``tile(X, x, x_step, panel, k, n, out, t, t_step)``, for a panel of width n_vectors · 8.

    Adds to ``out[t + r·t_step + c]``, float64, the float32 sum over n ≥ 1 neurons j of
    ``X[x + r·x_step + j] · panel[k + j·width + c]``, for each row r and direction c. Positions are flat.
    """

    @_intrinsic
    def tile(
        _typing: Any, X: Any, x: Any, x_step: Any, panel: Any, k: Any, n: Any, out: Any, t: Any, t_step: Any
    ) -> Any:
        i = types.int64
        signature = types.void(X, i, i, panel, i, i, out, i, i)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, x, x_step, _, k, n, _, t, t_step = arguments
            rows = _rows(builder, _at(context, builder, signature, arguments, 0, x), x_step, n_rows)
            directions = _at(context, builder, signature, arguments, 3, k)

            def step(j: Any, sums: list[Any]) -> list[Any]:
                return _multiply(builder, rows, directions, j, sums)

            sums = register_loop(builder, n, [ir.Constant(_FLOATS, [0.0] * LANES)] * (n_rows * n_vectors), step)
            totals = _rows(builder, _at(context, builder, signature, arguments, 6, t), t_step, n_rows)
            _add_floats(builder, totals, sums)
            return context.get_dummy_value()

        return signature, generate

    return tile


def widening_tile(n_rows: int, n_vectors: int, *, half_in_hardware: bool) -> Any:
    """Make ``tile(X, x, x_step, panel, k, n, out, t, t_step, A, last, i, j, center, next_x)``.

    What :func:`float_tile` does, over n ≥ 1 times eight neurons; and on the way, on units that multiplying leaves idle,
    the next rows: ``X[next_x + r·x_step + …] = widen(A[i + r, j + …]) - center[j + …]`` for as many neurons, the row
    ``last`` standing in for those after it. What comes after them in memory is prefetched.
    """

    @_intrinsic
    def tile(
        _typing: Any,
        X: Any,
        x: Any,
        x_step: Any,
        panel: Any,
        k: Any,
        n: Any,
        out: Any,
        t: Any,
        t_step: Any,
        A: Any,
        last: Any,
        i: Any,
        j: Any,
        center: Any,
        next_x: Any,
    ) -> Any:
        whole = types.int64
        signature = types.void(
            X, whole, whole, panel, whole, whole, out, whole, whole, A, whole, whole, whole, center, whole
        )

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, x, x_step, _, k, n, _, t, t_step, A, last, i, j, _, next_x = arguments
            rows = _rows(builder, _at(context, builder, signature, arguments, 0, x), x_step, n_rows)
            widened = _rows(builder, _at(context, builder, signature, arguments, 0, next_x), x_step, n_rows)
            directions = _at(context, builder, signature, arguments, 3, k)
            means = _at(context, builder, signature, arguments, 13, j)
            n_neurons = cgutils.unpack_tuple(
                builder, context.make_array(signature.args[9])(context, builder, A).shape, 2
            )[1]
            stored = []
            for r in range(n_rows):
                row = builder.add(i, ir.Constant(_I64, r))
                row = builder.select(builder.icmp_signed("<", row, last), row, last)
                at = builder.add(builder.mul(row, n_neurons), j)
                stored.append(_at(context, builder, signature, arguments, 9, at))
            vector = ir.VectorType(stored[0].type.pointee, LANES)
            ahead = builder.mul(n, ir.Constant(_I64, LANES))

            def step(eight: Any, sums: list[Any]) -> list[Any]:
                first = builder.mul(eight, ir.Constant(_I64, LANES))
                for lane in range(LANES):
                    sums = _multiply(builder, rows, directions, builder.add(first, ir.Constant(_I64, lane)), sums)
                    if lane < n_rows:
                        at = builder.gep(stored[lane], [first])
                        bits = _load(builder, at, 0, vector)
                        number = _widened(builder, signature.args[9].dtype, bits, half_in_hardware=half_in_hardware)
                        difference = builder.fsub(number, _load(builder, builder.gep(means, [first]), 0, _FLOATS))
                        place = builder.bitcast(builder.gep(widened[lane], [first]), _FLOATS.as_pointer())
                        builder.store(difference, place, align=4)
                        _prefetch(builder, builder.gep(at, [ahead]))
                return sums

            sums = register_loop(builder, n, [ir.Constant(_FLOATS, [0.0] * LANES)] * (n_rows * n_vectors), step)
            totals = _rows(builder, _at(context, builder, signature, arguments, 6, t), t_step, n_rows)
            _add_floats(builder, totals, sums)
            return context.get_dummy_value()

        return signature, generate

    return tile


def code_tile(n_rows: int, n_vectors: int) -> Any:
    """Make ``tile(X, x, x_step, panel, k, n, steps, s, out, t, t_step)``, the tile of int16 codes.

    Adds to ``out[t + r·t_step + c]``, float64, ``steps[s + c]`` times the int32 sum over n ≥ 1 pairs of neurons of
    ``X[x + r·x_step + 2·j + h] · panel[k + 2·(j·width + c) + h]``, h = 0, 1. The sum must not leave int32.
    """
    width = n_vectors * LANES

    @_intrinsic
    def tile(
        _typing: Any,
        X: Any,
        x: Any,
        x_step: Any,
        panel: Any,
        k: Any,
        n: Any,
        steps: Any,
        s: Any,
        out: Any,
        t: Any,
        t_step: Any,
    ) -> Any:
        i = types.int64
        signature = types.void(X, i, i, panel, i, i, steps, i, out, i, i)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, x, x_step, _, k, n, _, s, _, t, t_step = arguments
            starts = _rows(builder, _at(context, builder, signature, arguments, 0, x), x_step, n_rows)
            rows = [builder.bitcast(start, _I32.as_pointer()) for start in starts]  # a pair at once
            directions = _at(context, builder, signature, arguments, 3, k)

            def step(j: Any, sums: list[Any]) -> list[Any]:
                at = builder.gep(directions, [builder.mul(j, ir.Constant(_I64, 2 * width))])
                loaded = [_load(builder, at, c * 2 * LANES, _PAIRS) for c in range(n_vectors)]
                after = []
                for r, row in enumerate(rows):
                    pair = _broadcast(builder, builder.load(builder.gep(row, [j]), align=2), _INTS)
                    for c, vector in enumerate(loaded):
                        product = multiply_pairs(builder, builder.bitcast(pair, _PAIRS), vector)
                        after.append(builder.add(sums[r * n_vectors + c], product))
                return after

            sums = register_loop(builder, n, [ir.Constant(_INTS, [0] * LANES)] * (n_rows * n_vectors), step)
            factors = _at(context, builder, signature, arguments, 6, s)
            totals = _rows(builder, _at(context, builder, signature, arguments, 8, t), t_step, n_rows)
            for index, total in enumerate(sums):
                r, c = divmod(index, n_vectors)
                factor = _load(builder, factors, c * LANES, _DOUBLES)
                _add_to(builder, totals[r], c * LANES, builder.fmul(factor, builder.sitofp(total, _DOUBLES)))
            return context.get_dummy_value()

        return signature, generate

    return tile


@_intrinsic
def code_dots(_typing: Any, A: Any, a0: Any, a1: Any, a2: Any, a3: Any, codes: Any, k: Any, n: Any) -> Any:
    """``code_dots(A, a0, a1, a2, a3, codes, k, n)``: four sums Σ_j A[a_r + j] · codes[k + j] over 16·n neurons, n ≥ 1.

    A int8, codes int16; the sums, given as int64, must not leave int32.
    """
    i = types.int64
    signature = types.UniTuple(types.int64, 4)(A, i, i, i, i, codes, i, i)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = [_at(context, builder, signature, arguments, 0, start) for start in arguments[1:5]]
        direction = _at(context, builder, signature, arguments, 5, arguments[6])

        def step(j: Any, sums: list[Any]) -> list[Any]:
            at = builder.mul(j, ir.Constant(_I64, 2 * LANES))
            vector = _load(builder, builder.gep(direction, [at]), 0, _PAIRS)
            after = []
            for row, s in zip(rows, sums, strict=True):
                narrow = _load(builder, builder.gep(row, [at]), 0, ir.VectorType(_I8, 2 * LANES))
                after.append(builder.add(s, multiply_pairs(builder, builder.sext(narrow, _PAIRS), vector)))
            return after

        sums = register_loop(builder, arguments[7], [ir.Constant(_INTS, [0] * LANES)] * 4, step)
        across = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_I32, [_INTS]), f"llvm.vector.reduce.add.v{LANES}i32"
        )
        totals = [builder.sext(builder.call(across, [s]), _I64) for s in sums]
        return context.make_tuple(builder, signature.return_type, totals)

    return signature, generate


def register_loop(builder: Any, n: Any, initial: Sequence[Any], body: _Body) -> list[Any]:
    """``for j in range(n)``, n ≥ 1, over values that stay in registers; returns what they are in the end."""
    entry, loop, done = builder.block, builder.append_basic_block("tile"), builder.append_basic_block("tiled")
    builder.branch(loop)
    builder.position_at_end(loop)
    j = builder.phi(_I64)
    j.add_incoming(ir.Constant(_I64, 0), entry)
    values = [builder.phi(value.type) for value in initial]
    after = body(j, list(values))
    following = builder.add(j, ir.Constant(_I64, 1))
    j.add_incoming(following, loop)
    for value, start, end in zip(values, initial, after, strict=True):
        value.add_incoming(start, entry)
        value.add_incoming(end, loop)
    builder.cbranch(builder.icmp_signed("<", following, n), loop, done)
    builder.position_at_end(done)
    return after


def _at(context: Any, builder: Any, signature: Any, arguments: Any, which: int, position: Any) -> Any:
    """Address of an array argument's number at a flat position."""
    array = context.make_array(signature.args[which])(context, builder, arguments[which])
    return builder.gep(array.data, [position])


def _rows(builder: Any, start: Any, step: Any, n_rows: int) -> list[Any]:
    return [builder.gep(start, [builder.mul(step, ir.Constant(_I64, r))]) for r in range(n_rows)]


def _multiply(builder: Any, rows: list[Any], directions: Any, j: Any, sums: list[Any]) -> list[Any]:
    """Sums of rows × vectors, with the products of neuron j added."""
    n_vectors = len(sums) // len(rows)
    at = builder.gep(directions, [builder.mul(j, ir.Constant(_I64, n_vectors * LANES))])
    loaded = [_load(builder, at, c * LANES, _FLOATS) for c in range(n_vectors)]
    after = []
    for r, row in enumerate(rows):
        number = _broadcast(builder, builder.load(builder.gep(row, [j]), align=4), _FLOATS)
        for c, vector in enumerate(loaded):
            product = builder.fmul(number, vector, flags=("contract",))
            after.append(builder.fadd(sums[r * n_vectors + c], product, flags=("contract",)))
    return after


def _add_floats(builder: Any, totals: list[Any], sums: list[Any]) -> None:
    for index, addends in enumerate(sums):
        r, c = divmod(index, len(sums) // len(totals))
        _add_to(builder, totals[r], c * LANES, builder.fpext(addends, _DOUBLES))


def _prefetch(builder: Any, place: Any) -> None:
    address = builder.bitcast(place, _I8.as_pointer())
    function = builder.module.declare_intrinsic(
        "llvm.prefetch", [address.type], ir.FunctionType(ir.VoidType(), [address.type, _I32, _I32, _I32])
    )
    read, into_second_level, data = (ir.Constant(_I32, value) for value in (0, 2, 1))
    builder.call(function, [address, read, into_second_level, data])


def _load(builder: Any, start: Any, offset: int, vector: Any) -> Any:
    """A vector from numbers in a row, aligned as each of them."""
    address = builder.gep(start, [ir.Constant(_I64, offset)])
    return builder.load(builder.bitcast(address, vector.as_pointer()), align=1)


def _add_to(builder: Any, start: Any, offset: int, addends: Any) -> None:
    address = builder.bitcast(builder.gep(start, [ir.Constant(_I64, offset)]), _DOUBLES.as_pointer())
    builder.store(builder.fadd(builder.load(address, align=8), addends), address, align=8)


def _broadcast(builder: Any, number: Any, vector: Any) -> Any:
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), ir.Constant(_INTS, [0] * LANES))


def multiply_pairs(builder: Any, a: Any, b: Any) -> Any:
    """Sums of the products of neighbours: what x86's ``pmaddwd`` computes, which LLVM makes of it."""
    products = builder.mul(builder.sext(a, _WIDE_PAIRS), builder.sext(b, _WIDE_PAIRS))
    nothing = ir.Constant(_WIDE_PAIRS, ir.Undefined)
    first, second = (
        builder.shuffle_vector(products, nothing, ir.Constant(_INTS, list(range(h, 2 * LANES, 2)))) for h in (0, 1)
    )
    return builder.add(first, second)
