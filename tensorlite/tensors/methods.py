"""The operators and the ops as methods of a Tensor, assigned from the ops.

An op is a Python function, so it is a method once it is an attribute of the class: ``x.sum(dim=0)`` calls
``ops.sum(x, dim=0)``. An op with a method needs one line here. Methods that are more than the op of the same name are
in :class:`tensorlite.Tensor`.

Type checkers read ``methods.pyi`` instead of this file. ``tools/make_stubs.py`` writes it from the ops' signatures.
"""

from __future__ import annotations

from typing import Any

from .. import ops
from ..autograd.graph import Variable
from ..dtypes import bool_, float16, float32, float64, int8, int16, int32, int64, uint8
from ..ops import index, reduce, shape
from ..ops.arguments import numpy_names
from .inplace import in_place
from .method_makers import reflected, to_method, with_sizes

__all__ = ["OpMethods"]


class OpMethods(Variable):
    """A Variable with the operators and with the ops as methods: a base class of :class:`tensorlite.Tensor`.

    A method whose name ends in ``_`` writes the op's result into the tensor and returns the tensor. It raises
    GraphError for a leaf that requires gradients, and DTypeError if the tensor's dtype cannot hold the result. It
    raises ShapeError if the result has another shape or the memory is read-only.
    """

    # ---- operators ---------------------------------------------------------------------------

    __add__, __radd__ = ops.add, reflected(ops.add)
    __sub__, __rsub__ = ops.sub, reflected(ops.sub)
    __mul__, __rmul__ = ops.mul, reflected(ops.mul)
    __truediv__, __rtruediv__ = ops.true_divide, reflected(ops.true_divide)
    __floordiv__, __rfloordiv__ = ops.floor_divide, reflected(ops.floor_divide)
    __mod__, __rmod__ = ops.remainder, reflected(ops.remainder)
    __pow__, __rpow__ = ops.pow, reflected(ops.pow)
    __matmul__, __rmatmul__ = ops.matmul, reflected(ops.matmul)
    __lshift__, __rlshift__ = ops.bitwise_left_shift, reflected(ops.bitwise_left_shift)
    __rshift__, __rrshift__ = ops.bitwise_right_shift, reflected(ops.bitwise_right_shift)
    __and__ = __rand__ = ops.bitwise_and
    __or__ = __ror__ = ops.bitwise_or
    __xor__ = __rxor__ = ops.bitwise_xor
    __neg__, __abs__, __invert__ = ops.neg, ops.abs, ops.bitwise_not
    __lt__, __le__, __gt__, __ge__ = ops.lt, ops.le, ops.gt, ops.ge
    __getitem__ = index.getitem

    def __eq__(self, other: Any) -> Any:
        return ops.eq(self, other) if other is not None else NotImplemented

    def __ne__(self, other: Any) -> Any:
        return ops.ne(self, other) if other is not None else NotImplemented

    __hash__ = object.__hash__  # __eq__ compares entries, so a tensor is a key by its identity

    def __pos__(self) -> Any:
        return self

    # ---- arithmetic --------------------------------------------------------------------------

    add, sub, mul, div, pow, neg = ops.add, ops.sub, ops.mul, ops.div, ops.pow, ops.neg
    floor_divide, remainder, fmod = ops.floor_divide, ops.remainder, ops.fmod
    subtract, multiply, divide, negative = sub, mul, div, neg
    true_divide = div
    reciprocal, square, abs, sign = ops.reciprocal, ops.square, ops.abs, ops.sign
    absolute = abs
    floor, ceil, round, trunc = ops.floor, ops.ceil, ops.round, ops.trunc
    clamp = clip = ops.clamp
    lerp = ops.lerp
    maximum, minimum = ops.maximum, ops.minimum

    # ---- exponentials, trigonometry, activations ---------------------------------------------

    exp, expm1, log, log1p, log2, log10 = ops.exp, ops.expm1, ops.log, ops.log1p, ops.log2, ops.log10
    logaddexp, sqrt, rsqrt, erf = ops.logaddexp, ops.sqrt, ops.rsqrt, ops.erf
    sin, cos, tan, asin, acos, atan, atan2 = ops.sin, ops.cos, ops.tan, ops.asin, ops.acos, ops.atan, ops.atan2
    sinh, cosh, tanh = ops.sinh, ops.cosh, ops.tanh
    sigmoid, relu = ops.sigmoid, ops.relu

    # ---- comparison and logic ----------------------------------------------------------------

    eq, ne, lt, le, gt, ge = ops.eq, ops.ne, ops.lt, ops.le, ops.gt, ops.ge
    isnan, isinf, isfinite = ops.isnan, ops.isinf, ops.isfinite
    logical_and, logical_or, logical_xor, logical_not = (
        ops.logical_and, ops.logical_or, ops.logical_xor, ops.logical_not,
    )  # fmt: skip

    # ---- reductions --------------------------------------------------------------------------

    sum, mean, prod, var, std, norm = ops.sum, ops.mean, ops.prod, ops.var, ops.std, ops.norm
    max, min, amax, amin, argmax, argmin = ops.max, ops.min, ops.amax, ops.amin, ops.argmax, ops.argmin
    all, any = ops.all, ops.any
    logsumexp, cumsum = ops.logsumexp, ops.cumsum
    cumprod, logcumsumexp = ops.cumprod, ops.logcumsumexp
    median, nanmedian, quantile, nanquantile = ops.median, ops.nanmedian, ops.quantile, ops.nanquantile
    sum_to_size = with_sizes(reduce.sum_to_size, "size")

    # ---- products ----------------------------------------------------------------------------

    matmul, mm, bmm, mv, dot, outer = ops.matmul, ops.mm, ops.bmm, ops.mv, ops.dot, ops.outer
    addmm = ops.addmm
    det, slogdet, logdet, inverse, pinverse = ops.det, ops.slogdet, ops.logdet, ops.inverse, ops.pinverse
    matrix_exp = ops.matrix_exp
    kron = ops.kron
    cross, bincount, histc, unique, count_nonzero = ops.cross, ops.bincount, ops.histc, ops.unique, ops.count_nonzero
    diagonal, diag, trace, tril, triu = ops.diagonal, ops.diag, ops.trace, ops.tril, ops.triu

    # ---- shape -------------------------------------------------------------------------------

    clone = ops.clone
    reshape, view = with_sizes(ops.reshape, "shape"), with_sizes(shape.view, "size")
    expand, broadcast_to = with_sizes(shape.expand, "size"), ops.broadcast_to
    permute, transpose, swapaxes = with_sizes(ops.permute, "dims"), ops.transpose, ops.swapaxes
    movedim = moveaxis = ops.movedim
    squeeze, unsqueeze = ops.squeeze, ops.unsqueeze
    flatten, unflatten = ops.flatten, numpy_names(ops.unflatten)
    flip, roll = with_sizes(ops.flip, "dims"), ops.roll
    narrow, chunk, unbind = numpy_names(ops.narrow), ops.chunk, ops.unbind
    repeat, tile = with_sizes(shape.repeat, "sizes"), with_sizes(ops.tile, "dims")
    repeat_interleave = ops.repeat_interleave

    # ---- gather, scatter, sort ---------------------------------------------------------------

    gather, take_along_dim, index_select = ops.gather, ops.take_along_dim, ops.index_select
    index_add, scatter, scatter_add = (
        numpy_names(ops.index_add), numpy_names(ops.scatter), numpy_names(ops.scatter_add),
    )  # fmt: skip
    masked_fill, masked_select, nonzero = ops.masked_fill, ops.masked_select, ops.nonzero
    sort, argsort, topk = ops.sort, ops.argsort, ops.topk

    # ---- dtypes ------------------------------------------------------------------------------

    double, float, half = to_method("double", float64), to_method("float", float32), to_method("half", float16)
    bfloat16 = to_method("bfloat16", "bfloat16")
    long, int, short = to_method("long", int64), to_method("int", int32), to_method("short", int16)
    char, byte, bool = to_method("char", int8), to_method("byte", uint8), to_method("bool", bool_)

    # ---- in place ----------------------------------------------------------------------------

    add_ = __iadd__ = in_place(ops.add)
    sub_ = subtract_ = __isub__ = in_place(ops.sub)
    mul_ = multiply_ = __imul__ = in_place(ops.mul)
    div_ = divide_ = __itruediv__ = in_place(ops.div)
    pow_ = __ipow__ = in_place(ops.pow)
    remainder_ = __imod__ = in_place(ops.remainder)
    floor_divide_ = __ifloordiv__ = in_place(ops.floor_divide)

    neg_, abs_, sign_ = in_place(ops.neg), in_place(ops.abs), in_place(ops.sign)
    square_, reciprocal_ = in_place(ops.square), in_place(ops.reciprocal)
    sqrt_, rsqrt_ = in_place(ops.sqrt), in_place(ops.rsqrt)
    exp_, expm1_, log_, log1p_ = in_place(ops.exp), in_place(ops.expm1), in_place(ops.log), in_place(ops.log1p)
    sin_, cos_, tanh_, erf_ = in_place(ops.sin), in_place(ops.cos), in_place(ops.tanh), in_place(ops.erf)
    sigmoid_, relu_ = in_place(ops.sigmoid), in_place(ops.relu)
    floor_, ceil_ = in_place(ops.floor), in_place(ops.ceil)
    round_, trunc_ = in_place(ops.round), in_place(ops.trunc)
    clamp_ = clip_ = in_place(ops.clamp)
    tril_, triu_ = in_place(ops.tril), in_place(ops.triu)
    masked_fill_, index_add_ = in_place(ops.masked_fill), in_place(numpy_names(ops.index_add))
    scatter_, scatter_add_ = in_place(numpy_names(ops.scatter)), in_place(numpy_names(ops.scatter_add))
