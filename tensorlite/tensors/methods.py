"""The operators and the ops as methods of a Tensor, assigned from the ops.

An op is a Python function, so it is a method once it is an attribute of the class: ``x.sum(dim=0)`` calls
``ops.sum(x, dim=0)``. An op with a method needs one line here; :mod:`tensorlite.tensors.inplace` has its variant that
ends in ``_``. Methods that are more than the op of the same name are in :class:`tensorlite.Tensor`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .. import ops
from ..autograd.graph import Variable
from ..dtypes import DType, bool_, float16, float32, float64, int8, int16, int32, int64, uint8
from ..ops import index, reduce, shape
from ..ops.arguments import numpy_names
from . import convert

__all__ = ["OpMethods"]


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the method for ``other * x`` from the op of ``x * other``."""

    def method(self: Any, other: Any) -> Any:
        return function(other, self)

    method.__doc__ = f"Return ``{function.__name__}(other, self)``."
    return method


def _with_sizes(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Make a method that takes ``f(2, 3)``, ``f((2, 3))`` and ``f(name=(2, 3))`` from an op that takes one tuple."""

    def method(self: Any, *sizes: Any, **named: Any) -> Any:
        if named:
            if set(named) != {name} or sizes:
                raise TypeError(f"{function.__name__}: expected sizes or {name}=, got {', '.join(map(repr, named))}")
            sizes = (named[name],)
        if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
            sizes = tuple(sizes[0])
        return function(self, sizes)

    first = next(iter(inspect.signature(function).parameters.values()))
    rest = inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL)
    method.__signature__ = inspect.Signature([first.replace(annotation=first.empty), rest])  # type: ignore[attr-defined]
    method.__name__, method.__doc__ = function.__name__, function.__doc__
    return method


def _to(name: str, dtype: DType) -> Callable[[Any], Any]:
    """Make the method that converts to one dtype."""

    def method(self: Any) -> Any:
        return convert.to_dtype(self, dtype)

    method.__name__, method.__doc__ = name, f"Return this tensor as {dtype}, or itself if it is {dtype}."
    return method


class OpMethods(Variable):
    """A Variable with the operators and with the ops as methods: a base class of :class:`tensorlite.Tensor`."""

    # ---- operators ---------------------------------------------------------------------------

    __add__, __radd__ = ops.add, _reflected(ops.add)
    __sub__, __rsub__ = ops.sub, _reflected(ops.sub)
    __mul__, __rmul__ = ops.mul, _reflected(ops.mul)
    __truediv__, __rtruediv__ = ops.true_divide, _reflected(ops.true_divide)
    __floordiv__, __rfloordiv__ = ops.floor_divide, _reflected(ops.floor_divide)
    __mod__, __rmod__ = ops.remainder, _reflected(ops.remainder)
    __pow__, __rpow__ = ops.pow, _reflected(ops.pow)
    __matmul__, __rmatmul__ = ops.matmul, _reflected(ops.matmul)
    __lshift__, __rlshift__ = ops.bitwise_left_shift, _reflected(ops.bitwise_left_shift)
    __rshift__, __rrshift__ = ops.bitwise_right_shift, _reflected(ops.bitwise_right_shift)
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

    def __hash__(self) -> Any:  # __eq__ compares entries, so a tensor is a key by its identity
        return id(self)

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
    sum_to_size = _with_sizes(reduce.sum_to_size, "size")

    # ---- products ----------------------------------------------------------------------------

    matmul, mm, bmm, mv, dot, outer = ops.matmul, ops.mm, ops.bmm, ops.mv, ops.dot, ops.outer
    addmm = ops.addmm
    diagonal, diag, trace, tril, triu = ops.diagonal, ops.diag, ops.trace, ops.tril, ops.triu

    # ---- shape -------------------------------------------------------------------------------

    clone = convert.clone
    reshape, view = _with_sizes(ops.reshape, "shape"), _with_sizes(shape.view, "size")
    expand, broadcast_to = _with_sizes(shape.expand, "size"), ops.broadcast_to
    permute, transpose, swapaxes = _with_sizes(ops.permute, "dims"), ops.transpose, ops.swapaxes
    movedim = moveaxis = ops.movedim
    squeeze, unsqueeze = ops.squeeze, ops.unsqueeze
    flatten, unflatten = ops.flatten, numpy_names(ops.unflatten)
    flip, roll = _with_sizes(ops.flip, "dims"), ops.roll
    narrow, chunk, unbind = numpy_names(ops.narrow), ops.chunk, ops.unbind
    repeat, tile = _with_sizes(shape.repeat, "sizes"), _with_sizes(ops.tile, "dims")
    repeat_interleave = ops.repeat_interleave

    # ---- gather, scatter, sort ---------------------------------------------------------------

    gather, take_along_dim, index_select = ops.gather, ops.take_along_dim, ops.index_select
    index_add, scatter, scatter_add = (
        numpy_names(ops.index_add), numpy_names(ops.scatter), numpy_names(ops.scatter_add),
    )  # fmt: skip
    masked_fill, masked_select, nonzero = ops.masked_fill, ops.masked_select, ops.nonzero
    sort, argsort, topk = ops.sort, ops.argsort, ops.topk

    # ---- dtypes ------------------------------------------------------------------------------

    double, float, half = _to("double", float64), _to("float", float32), _to("half", float16)
    long, int, short, char = _to("long", int64), _to("int", int32), _to("short", int16), _to("char", int8)
    byte, bool = _to("byte", uint8), _to("bool", bool_)
