"""What writes instructions of AVX-512 into compiled functions: loads and stores by masks, loops, choices by a number.

Addresses and numbers are integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .simd import I32, F32x16, I32x16, cpu_features, fused_multiply_add
from .support import I64, to_pointer

__all__ = [
    "AMX", "BFLOAT16", "FLOAT32", "LANES", "MULTIPLY_ADD", "ROUNDED", "I16x16", "I16x32", "after", "by_case", "call",
    "first_lanes", "has_kernel", "loop", "masked_load", "masked_store", "packed_kinds", "prefetch", "round_two",
    "shuffle",
]  # fmt: skip

LANES = 16  # numbers of a vector

# What is packed: float32 numbers; bfloat16 numbers, in pairs; float32 numbers that are rounded to bfloat16, in pairs.
# AMX is the kind of a product whose numbers are packed as bfloat16, for tile registers.
FLOAT32, BFLOAT16, ROUNDED, AMX = range(4)

_AVX512 = {"+avx512f", "+avx512bw", "+avx512dq", "+avx512vl"}
_FEATURES = {FLOAT32: _AVX512, BFLOAT16: {*_AVX512, "+avx512bf16"}}

I16 = ir.IntType(16)
I16x16, I16x32 = ir.VectorType(I16, 16), ir.VectorType(I16, 32)


def has_kernel(kind: int) -> bool:
    """Return whether the processor that numba compiles for has the instructions for products of a kind."""
    return _FEATURES[kind] <= cpu_features()


def packed_kinds() -> list[int]:
    """Return the kinds that the processor has instructions for."""
    return [FLOAT32, BFLOAT16, ROUNDED] if has_kernel(BFLOAT16) else [FLOAT32]


def call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    """Return the result of an intrinsic of LLVM."""
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def after(builder: Any, address: Any, offset: int) -> Any:
    """Return an address that is some bytes behind another one."""
    return builder.add(address, I64(offset)) if offset else address


def shuffle(builder: Any, x: Any, y: Any, places: list[int]) -> Any:
    """Return a vector of lanes of two vectors: x has the first places, y those after."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(places)), places))


def first_lanes(builder: Any, count: Any, lanes: int, start: int = 0) -> Any:
    """Return a mask of the lanes whose number, counted from ``start``, is below ``count``."""
    numbers = ir.VectorType(I32, lanes)
    one = builder.insert_element(ir.Constant(numbers, ir.Undefined), builder.trunc(count, I32), I32(0))
    limit = shuffle(builder, one, ir.Constant(numbers, ir.Undefined), [0] * lanes)
    return builder.icmp_signed("<", ir.Constant(numbers, list(range(start, start + lanes))), limit)


def masked_load(builder: Any, address: Any, of: Any, mask: Any) -> Any:
    """Return the vector at an address, which may be any number, with zeros where the mask is off."""
    name = f"llvm.masked.load.v{of.count}{of.element.intrinsic_name}.p0"
    pointer, zeros = to_pointer(builder, address, of), ir.Constant(of, None)
    return call(builder, name, of, pointer, I32(1), mask, zeros)


def masked_store(builder: Any, value: Any, address: Any, mask: Any) -> None:
    """Write the lanes of a vector whose mask is on."""
    of = value.type
    name = f"llvm.masked.store.v{of.count}{of.element.intrinsic_name}.p0"
    call(builder, name, ir.VoidType(), value, to_pointer(builder, address, of), I32(1), mask)


def prefetch(builder: Any, address: Any, write: bool = False) -> None:
    """Ask for the line of the cache at an address, which may be any number, to read it or to write to it."""
    name, pointer = "llvm.prefetch.p0", to_pointer(builder, address, I32x16)
    call(builder, name, ir.VoidType(), pointer, I32(int(write)), I32(3), I32(1))


def round_two(builder: Any, low: Any, high: Any) -> Any:
    """Return two vectors of float32 as one of bfloat16 numbers, in int16, rounded to nearest even."""
    return builder.bitcast(call(builder, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", I16x32, high, low), I16x32)


def dot_pairs(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """Return ``total`` plus, in each lane, the sum of the products of two bfloat16 numbers."""
    x, y = (builder.bitcast(v, I32x16) for v in (x, y))
    return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", F32x16, total, x, y)


MULTIPLY_ADD: dict[int, Callable[..., Any]] = {
    FLOAT32: lambda builder, total, x, y: fused_multiply_add(builder, x, y, total), BFLOAT16: dot_pairs,
}  # fmt: skip


@contextmanager
def loop(builder: Any, count: Any, values: list[Any]) -> Iterator[tuple[list[Any], list[Any]]]:
    """Write a loop that runs ``count`` times, at least once.

    It gives the values at the start of an iteration, and a list to which the body appends those of the next one.
    """
    before, body = builder.block, builder.append_basic_block("loop")
    builder.branch(body)
    builder.position_at_end(body)
    variables = [builder.phi(value.type) for value in (count, *values)]
    for variable, value in zip(variables, (count, *values), strict=True):
        variable.add_incoming(value, before)
    following: list[Any] = []
    yield variables[1:], following
    left = builder.sub(variables[0], I64(1))
    for variable, value in zip(variables, (left, *following), strict=True):
        variable.add_incoming(value, builder.block)
    end = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", left, I64(0)), body, end)
    builder.position_at_end(end)


def by_case(builder: Any, number: Any, values: Iterable[int], write: Callable[[int], None]) -> None:
    """Write instructions for each of some values of a number; other values do nothing."""
    end = builder.append_basic_block("end")
    switch = builder.switch(number, end)
    for value in values:
        block = builder.append_basic_block(f"case{value}")
        switch.add_case(I64(value), block)
        builder.position_at_end(block)
        write(value)
        builder.branch(end)
    builder.position_at_end(end)
