"""Vectors of sixteen 32-bit numbers, for kernels that numba compiles.

numba vectorises loops on its own, but it does not find the instructions for dot products of bytes. Here a vector is a
value of a compiled function, and an operation on it is one instruction or a few. LLVM splits a vector where registers
are shorter than 64 bytes. Addresses are integers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, models, register_model

from .support import to_pointer

__all__ = [
    "DOT_METHODS", "F32", "F32x16", "I8", "I32", "I32x16", "call_of_vectors", "cpu_features", "dot_bytes", "dot_method",
    "f32x16", "fma_16", "fused_multiply_add", "largest_lane", "load", "load_16", "load_halves", "max_16", "splat",
    "splat_16", "store", "store_16", "zeros_16",
]  # fmt: skip

LANES = 16
I8, I16, I32, I64, F16, F32 = (*map(ir.IntType, (8, 16, 32, 64)), ir.HalfType(), ir.FloatType())
I32x16, F32x16 = ir.VectorType(I32, LANES), ir.VectorType(F32, LANES)


class _Vector(types.Type):  # type: ignore[misc]  # numba has no types
    """numba's type of a vector."""


f32x16 = _Vector("f32x16")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]  # numba has no types
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, F32x16)


# ---- operations, which write instructions -------------------------------------------------------


def splat(builder: Any, value: Any) -> Any:
    """Return a vector with a number in each lane."""
    vector = ir.VectorType(value.type, LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), ir.Constant(I32x16, [0] * LANES))


def load(builder: Any, address: Any, of: Any, offset: int = 0) -> Any:
    """Return the value of a type at an address, which is a multiple of 4 bytes."""
    value = builder.load(to_pointer(builder, builder.add(address, I64(offset)), of))
    value.align = 4
    return value


def load_halves(builder: Any, address: Any, offset: int = 0) -> Any:
    """Return sixteen float16 numbers as a vector of float32."""
    if has_halves():
        return builder.fpext(load(builder, address, ir.VectorType(F16, LANES), offset), F32x16)
    return widen_halves(builder, builder.zext(load(builder, address, ir.VectorType(I16, LANES), offset), I32x16))


def widen_halves(builder: Any, bits: Any) -> Any:
    """Return the bits of float16 numbers, a vector of int32, as float32, with instructions for integers.

    LLVM calls a function of C for it where the processor has no instruction, and numba does not find that function.
    """
    constant = lambda number: ir.Constant(I32x16, [number] * LANES)
    magnitude = builder.shl(builder.and_(bits, constant(0x7FFF)), constant(13))
    # The exponents are stored with a bias of 15 and of 127. The product is exact for subnormal numbers, too.
    factor = ir.Constant(F32x16, [2.0**112] * LANES)
    value = builder.bitcast(builder.fmul(builder.bitcast(magnitude, F32x16), factor), I32x16)
    is_finite = builder.icmp_unsigned("<", magnitude, constant(0x7C00 << 13))
    value = builder.select(is_finite, value, builder.or_(magnitude, constant(0x7F800000)))
    sign = builder.shl(builder.and_(bits, constant(0x8000)), constant(16))
    return builder.bitcast(builder.or_(value, sign), F32x16)


def store(builder: Any, value: Any, address: Any) -> None:
    """Write a vector to an address."""
    builder.store(value, to_pointer(builder, address, value.type)).align = 4


def fused_multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """Return ``x y + z``."""
    return _call(builder, "llvm.fma.v16f32", F32x16, x, y, z)


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


# ---- sums of products of bytes ------------------------------------------------------------------


def _dot_512(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """Use the instruction vpdpbusd of AVX512-VNNI."""
    as_bytes = lambda value: builder.bitcast(value, ir.VectorType(I8, 64))
    return _call(builder, "llvm.x86.avx512.vpdpbusd.512", I32x16, total, as_bytes(x), as_bytes(y))


def _in_halves(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of vectors out of one of their halves."""

    def whole(builder: Any, *vectors: Any) -> Any:
        places = [ir.Constant(ir.VectorType(I32, 8), list(range(start, start + 8))) for start in (0, 8)]
        halves = [
            method(builder, *(builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), p) for v in vectors))
            for p in places
        ]
        return builder.shuffle_vector(*halves, ir.Constant(I32x16, list(range(LANES))))

    return whole


def _dot_256(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """Use the instruction vpdpbusd of AVX-VNNI."""
    as_bytes = lambda value: builder.bitcast(value, ir.VectorType(I8, 32))
    return _call(builder, "llvm.x86.avx512.vpdpbusd.256", total.type, total, as_bytes(x), as_bytes(y))


def _dot_avx2(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """Use vpmaddwd, which adds two products of 16-bit numbers: once for the even bytes, once for the odd ones."""
    shorts = ir.VectorType(I16, 16)
    x, y = builder.bitcast(x, shorts), builder.bitcast(y, shorts)
    eight, low = ir.Constant(shorts, [8] * 16), ir.Constant(shorts, [255] * 16)
    even = builder.and_(x, low), builder.ashr(builder.shl(y, eight), eight)
    odd = builder.lshr(x, eight), builder.ashr(y, eight)
    for pair in (even, odd):
        total = builder.add(total, _call(builder, "llvm.x86.avx2.pmadd.wd", total.type, *pair))
    return total


def _dot_any(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """Multiply byte by byte, with instructions that every processor has."""
    constant = lambda number: ir.Constant(total.type, [number] * total.type.count)
    for byte in range(4):
        unsigned = builder.and_(builder.lshr(x, constant(8 * byte)), constant(255))
        signed = builder.ashr(builder.shl(y, constant(24 - 8 * byte)), constant(24))
        total = builder.add(total, builder.mul(unsigned, signed))
    return total


DOT_METHODS: dict[str, Callable[..., Any]] = {
    "avx512-vnni": _dot_512, "avx-vnni": _in_halves(_dot_256), "avx2": _in_halves(_dot_avx2), "any": _dot_any,
}  # fmt: skip


def cpu_features() -> set[str]:
    """Return the features of the processor that numba compiles for: the user can choose fewer than there are."""
    chosen = config.CPU_FEATURES
    return set((get_host_cpu_features() if chosen is None else chosen).split(","))


@cache
def has_halves() -> bool:
    """Return whether there are instructions for float16. Among processors, old ones of the family x86 have none."""
    return "+f16c" in cpu_features() or not binding.get_process_triple().startswith(("x86", "i"))


@cache
def dot_method() -> str:
    """Return the name of the fastest method for the processor that numba compiles for."""
    features = cpu_features()
    if {"+avx512vnni", "+avx512bw"} <= features:
        return "avx512-vnni"
    if "+avxvnni" in features:
        return "avx-vnni"
    return "avx2" if "+avx2" in features else "any"


def dot_bytes(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """Return ``total`` plus, in each lane, the sum of the products of the four bytes of x, unsigned, and y, signed."""
    return DOT_METHODS[dot_method()](builder, total, x, y)


# ---- functions that compiled code calls, with vectors of float32 --------------------------------


@intrinsic
def zeros_16(context: Any) -> Any:
    """Return sixteen zeros."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(F32x16, [0.0] * LANES)

    return f32x16(), generate


@intrinsic
def splat_16(context: Any, number: Any) -> Any:
    """Return a float32 number sixteen times."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return splat(builder, args[0])

    return f32x16(types.float32), generate


@intrinsic
def load_16(context: Any, address: Any) -> Any:
    """Return sixteen numbers at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load(builder, args[0], F32x16)

    return f32x16(types.int64), generate


@intrinsic
def store_16(context: Any, address: Any, vector: Any) -> Any:
    """Write sixteen numbers to an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        store(builder, args[1], args[0])
        return context.get_dummy_value()

    return types.void(types.int64, f32x16), generate


@intrinsic
def fma_16(context: Any, x: Any, y: Any, z: Any) -> Any:
    """Return ``x y + z``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return fused_multiply_add(builder, *args)

    return f32x16(f32x16, f32x16, f32x16), generate


def _larger(builder: Any, x: Any, y: Any) -> Any:
    """Return the larger number of each lane; y where x is NaN."""
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


@intrinsic
def max_16(context: Any, x: Any, y: Any) -> Any:
    """Return the larger number of each lane; y where x is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _larger(builder, *args)

    return f32x16(f32x16, f32x16), generate


@intrinsic
def largest_lane(context: Any, x: Any) -> Any:
    """Return the largest number of a vector without NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        [vector] = args
        for step in (8, 4, 2, 1):
            places = ir.Constant(I32x16, [(i + step) % LANES for i in range(LANES)])
            vector = _larger(builder, vector, builder.shuffle_vector(vector, vector, places))
        return builder.extract_element(vector, I32(0))

    return types.float32(f32x16), generate


def call_of_vectors(operation: Callable[..., Any]) -> Any:
    """Make a compiled function that writes an operation on three vectors of int32 at addresses to a fourth one."""

    @intrinsic
    def apply(context: Any, x: Any, y: Any, z: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vectors = [load(builder, address, I32x16) for address in args[:3]]
            store(builder, operation(builder, *vectors), args[3])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), generate

    return apply
