"""The innermost loops of attention, in instructions of AVX-512.

The scores of a block of queries are kept transposed: a line for each key, with the numbers of ``QUERIES`` queries. So
a vector has the scores of sixteen queries for a key, and a softmax adds vectors. The lines are a packed matrix as they
are, which is multiplied without a copy, by keys or by queries (see ``microkernels.py``). In bfloat16 a line by keys has
pairs of keys, and a line by queries has the numbers of one key, in pairs of queries.

Softmax: ``exp(x) = 2^n 2^r`` with n the whole number nearest to ``x log2(e)``. 2^r is a minimax polynomial.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .instructions import (
    BFLOAT16,
    FLOAT32,
    LANES,
    after,
    by_case,
    call,
    has_kernel,
    loop,
    round_two,
    shuffle,
)
from .microkernels import LINE
from .simd import I32, F32x16, I32x16, fused_multiply_add, load, splat, store
from .support import I64, to_pointer

__all__ = ["column_maxima", "exponentials", "int32_pointer", "probabilities", "score_gradients"]

_KINDS = [FLOAT32, BFLOAT16] if has_kernel(BFLOAT16) else [FLOAT32]


@intrinsic
def int32_pointer(context: Any, address: Any) -> Any:
    """Return a pointer to int32 numbers at an address, for ``numba.carray``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return to_pointer(builder, args[0], I32)

    return types.CPointer(types.int32)(types.int64), generate


# ---- softmax ------------------------------------------------------------------------------------

_LOG2_E = 1.4426950408889634
_MIN = -126.0  # exp of less is 0
_POWERS = [  # 2^r = 1 + sum_k _POWERS[k] r^(k+1) for |r| <= 1/2, to a relative error of 2e-9
    0.6931472028551292, 0.24022647913619616, 0.05550332471026726, 0.009618437358308087, 0.0013398874445452375,
    0.00015353361811929435,
]  # fmt: skip


def _constant(number: float) -> Any:
    return ir.Constant(F32x16, [float(np.float32(number))] * LANES)


def _exp(builder: Any, x: Any) -> Any:
    """Return exp of a vector of numbers up to 0; NaN for NaN."""
    least = _constant(_MIN)
    x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
    whole = call(builder, "llvm.roundeven.v16f32", F32x16, builder.fmul(x, _constant(_LOG2_E)))
    r = fused_multiply_add(builder, x, _constant(_LOG2_E), builder.fneg(whole))
    power = _constant(_POWERS[-1])
    for number in (*_POWERS[-2::-1], 1.0):
        power = fused_multiply_add(builder, power, r, _constant(number))
    undefined, every = ir.Constant(F32x16, ir.Undefined), ir.IntType(16)(-1)
    return call(builder, "llvm.x86.avx512.mask.scalef.ps.512", F32x16, power, whole, undefined, every, I32(4))


def _numbers_of(builder: Any, key: Any) -> Any:
    return splat(builder, builder.trunc(key, I32))


def _only_seen(builder: Any, masked: int, value: Any, number: Any, limits: Any, other: float = 0.0) -> Any:
    """Return a vector of a key, with another number for queries that do not see it."""
    return builder.select(builder.icmp_signed("<=", number, limits), value, _constant(other)) if masked else value


def _next_key(builder: Any, number: Any) -> Any:
    return builder.add(number, ir.Constant(I32x16, [1] * LANES))


def _store_pair(builder: Any, low: Any, high: Any, lines: Any, rows: Any) -> None:
    """Write the numbers of two keys as bfloat16: to a line of pairs of keys, and to the rows of both; None for none."""
    both = round_two(builder, low, high)
    if lines is not None:
        places = [number for pair in zip(range(16), range(16, 32), strict=True) for number in pair]
        store(builder, shuffle(builder, both, both, places), lines)
    if rows is not None:
        store(builder, shuffle(builder, both, both, [*range(16)]), rows)
        store(builder, shuffle(builder, both, both, [*range(16, 32)]), after(builder, rows, LINE // 2))


def _by_kind(builder: Any, kind: Any, masked: Any, write: Any) -> None:
    number = builder.add(builder.mul(kind, I64(2)), masked)
    by_case(builder, number, [2 * k + m for k in _KINDS for m in range(2)], lambda n: write(n // 2, n % 2))


@intrinsic
def column_maxima(
    context: Any, masked: Any, scores: Any, first_key: Any, pairs: Any, scale: Any, limits: Any, tops: Any
) -> Any:  # fmt: skip
    """Replace sixteen maxima at an address by those of ``scale scores`` of further keys, if these are larger.

    masked: 1 if a query sees only the keys up to its number in ``limits``, int32, else 0. scores: address of the first
    key's. first_key: its number. pairs: half the number of keys, at least one.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        masked, scores, first_key, pairs, scale, limits, tops = args

        def write(masked: int) -> None:
            factor, last = splat(builder, scale), load(builder, limits, I32x16)
            start = [scores, _numbers_of(builder, first_key), load(builder, tops, F32x16)]
            with loop(builder, pairs, start) as ((at, number, top), following):
                for offset in (0, LINE):
                    value = builder.fmul(load(builder, at, F32x16, offset), factor)
                    value = _only_seen(builder, masked, value, number, last, -np.inf)
                    top = builder.select(builder.fcmp_ordered(">", value, top), value, top)
                    number = _next_key(builder, number)
                following += [after(builder, at, 2 * LINE), number, top]
            store(builder, following[2], tops)

        by_case(builder, masked, [0, 1], write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, types.float32, *[types.int64] * 2), generate


@intrinsic
def exponentials(
    context: Any, kind: Any, masked: Any, scores: Any, first_key: Any, pairs: Any, scale: Any, limits: Any, tops: Any,
    totals: Any, lines: Any,
) -> Any:  # fmt: skip
    """Add ``exp(scale scores - top)`` of some keys to sixteen totals.

    It writes them over the scores, or in bfloat16 to ``lines``, by keys. The other arguments are those of
    :func:`column_maxima`.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, masked, scores, first_key, pairs, scale, limits, tops, totals, lines = args

        def write(kind: int, masked: int) -> None:
            factor, last = splat(builder, scale), load(builder, limits, I32x16)
            top = load(builder, tops, F32x16)
            start = [scores, lines, _numbers_of(builder, first_key), _constant(0.0)]
            with loop(builder, pairs, start) as ((at, line, number, total), following):
                values = []
                for offset in (0, LINE):
                    score = builder.fmul(load(builder, at, F32x16, offset), factor)
                    value = _exp(builder, builder.fsub(score, top))
                    values.append(_only_seen(builder, masked, value, number, last))
                    total = builder.fadd(total, values[-1])
                    number = _next_key(builder, number)
                    if kind == FLOAT32:
                        store(builder, values[-1], after(builder, at, offset))
                if kind == BFLOAT16:
                    _store_pair(builder, *values, line, None)
                following += [after(builder, at, 2 * LINE), after(builder, line, LINE), number, total]
            store(builder, builder.fadd(load(builder, totals, F32x16), following[3]), totals)

        _by_kind(builder, kind, masked, write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, types.float32, *[types.int64] * 4), generate


@intrinsic
def probabilities(
    context: Any, kind: Any, masked: Any, scores: Any, first_key: Any, pairs: Any, scale: Any, limits: Any, tops: Any,
    parts: Any, gradients: Any, sums: Any, rows: Any,
) -> Any:  # fmt: skip
    """Replace scores by ``p = exp(scale scores - top) part``, and add ``p gradient`` of some keys to sixteen sums.

    gradients: those of p, which lie as the scores. rows: where p goes in bfloat16, by queries. The other arguments are
    those of :func:`column_maxima`.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, masked, scores, first_key, pairs, scale, limits, tops, parts, gradients, sums, rows = args

        def write(kind: int, masked: int) -> None:
            factor, last = splat(builder, scale), load(builder, limits, I32x16)
            top, part = load(builder, tops, F32x16), load(builder, parts, F32x16)
            start = [scores, gradients, rows, _numbers_of(builder, first_key), _constant(0.0)]
            with loop(builder, pairs, start) as ((at, gradient, row, number, total), following):
                values = []
                for offset in (0, LINE):
                    score = builder.fmul(load(builder, at, F32x16, offset), factor)
                    value = builder.fmul(_exp(builder, builder.fsub(score, top)), part)
                    values.append(_only_seen(builder, masked, value, number, last))
                    g = _only_seen(builder, masked, load(builder, gradient, F32x16, offset), number, last)
                    total = fused_multiply_add(builder, values[-1], g, total)
                    number = _next_key(builder, number)
                    store(builder, values[-1], after(builder, at, offset))
                if kind == BFLOAT16:
                    _store_pair(builder, *values, None, row)
                following += [
                    after(builder, at, 2 * LINE), after(builder, gradient, 2 * LINE), after(builder, row, LINE),
                    number, total,
                ]  # fmt: skip
            store(builder, builder.fadd(load(builder, sums, F32x16), following[4]), sums)

        _by_kind(builder, kind, masked, write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, types.float32, *[types.int64] * 6), generate


@intrinsic
def score_gradients(
    context: Any, kind: Any, masked: Any, values: Any, first_key: Any, pairs: Any, scale: Any, limits: Any,
    gradients: Any, sums: Any, lines: Any, rows: Any,
) -> Any:  # fmt: skip
    """Compute ``scale p (gradient - sum)``, the gradients of some keys' scores.

    values: address of p. They replace the gradients of p, or go to ``lines`` in bfloat16 by keys and to ``rows`` by
    queries. The other arguments are those of :func:`column_maxima`.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, masked, values, first_key, pairs, scale, limits, gradients, sums, lines, rows = args

        def write(kind: int, masked: int) -> None:
            factor, last, total = splat(builder, scale), load(builder, limits, I32x16), load(builder, sums, F32x16)
            start = [values, gradients, lines, rows, _numbers_of(builder, first_key)]
            with loop(builder, pairs, start) as ((at, gradient, line, row, number), following):
                found = []
                for offset in (0, LINE):
                    p = builder.fmul(load(builder, at, F32x16, offset), factor)
                    value = builder.fmul(p, builder.fsub(load(builder, gradient, F32x16, offset), total))
                    found.append(_only_seen(builder, masked, value, number, last))
                    number = _next_key(builder, number)
                    if kind == FLOAT32:
                        store(builder, found[-1], after(builder, gradient, offset))
                if kind == BFLOAT16:
                    _store_pair(builder, *found, line, row)
                following += [
                    after(builder, at, 2 * LINE), after(builder, gradient, 2 * LINE), after(builder, line, LINE),
                    after(builder, row, LINE), number,
                ]  # fmt: skip

        _by_kind(builder, kind, masked, write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, types.float32, *[types.int64] * 5), generate
