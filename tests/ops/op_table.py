"""The table of ops, with samples for all tests: of the op itself, against PyTorch, and on a GPU.

    row("maximum minimum", s(real(2, 3), whole(3)), s(real(), whole(2)))

says that ``maximum`` and ``minimum`` each take these two lists of arguments, in the language of
``tensorlite.testing.opcheck.samples``. The samples, the op's reference in tests/ops/op_references.py and its errors in
tests/ops/op_errors.py make an OpSpec.

Names are those of ``tensorlite`` and of the modules of ``tensorlite.ops``. ``F.name`` is in
``tensorlite.nn.functional``, ``linalg.name`` in ``tensorlite.linalg``, ``Tensor.name`` is a method, and ``spd.name`` is applied to ``x @ x.T``. If its name ends in ``_``, it changes a clone of its
first argument. PyTorch's functions have the same names and arguments, unless tests/ops/test_against_torch.py says
otherwise.
"""
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.ops import (
    channel_norms,
    comparison,
    counting,
    distances,
    einstein_sum,
    elementwise,
    factorizations,
    gather_scatter,
    index,
    inverses,
    joining,
    linalg,
    linear_systems,
    matrices,
    matrix_functions,
    matrix_norms,
    nn,
    norms,
    order_statistics,
    reduce,
    running,
    shape,
    sorting,
)
from tensorlite.testing import (
    Input,
    OpSpec,
    Sample,
    bools,
    distinct,
    fixed,
    given,
    ints,
    positive,
    real,
    s,
    unit,
    whole,
)
from tests.ops.matrix_references import MATRIX_REFERENCES
from tests.ops.op_errors import ERRORS
from tests.ops.op_references import REFERENCES
from tests.ops.spatial_references import SPATIAL_REFERENCES


def of_products(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return f of ``x @ x^T``: for x (n, m) and m > n, a symmetric positive definite matrix."""
    return lambda x, *args, **kwargs: f(x @ x.swapaxes(-2, -1), *args, **kwargs)


def resolve(name: str, root: Any, functional: Any, tensor: Any, *more: Any) -> Callable[..., Any]:
    """Return the function that a row's name means in a library with PyTorch's layout."""
    if name.startswith("F."):
        return getattr(functional, name[2:])
    if name.startswith("spd."):
        return of_products(resolve(name[4:], root, functional, tensor, *more))
    if name.startswith("linalg."):
        return getattr(root.linalg, name[7:])
    if name.startswith("Tensor."):
        method = getattr(tensor, name[7:])
        return (lambda x, *args, **kwargs: method(x.clone(), *args, **kwargs)) if name.endswith("_") else method
    return next(getattr(place, name) for place in (root, *more) if hasattr(place, name))


MODULES = [
    elementwise, comparison, shape, joining, reduce, linalg, matrices, inverses, factorizations, norms,
    matrix_functions, matrix_norms, linear_systems, counting, einstein_sum, index, gather_scatter, sorting, running,
    distances, order_statistics, nn, channel_norms,
]  # fmt: skip
"""The modules of ops, each of which may define ops that ``tensorlite`` does not export."""

EVERY_REFERENCE = REFERENCES | MATRIX_REFERENCES | SPATIAL_REFERENCES
SPECS: dict[str, OpSpec] = {}
"""Every op by its name."""


def row(names: str, *samples: Sample, order: int = 2, half: bool = True) -> None:
    """Add these names to the table, or further samples to those in it."""
    for name in names.split():
        if name in SPECS:
            SPECS[name] = dataclasses.replace(SPECS[name], samples=(*SPECS[name].samples, *samples))
        else:
            f = resolve(name, tl, F, tl.Tensor, *MODULES)
            reference, errors = EVERY_REFERENCE.get(name.removeprefix("spd.")), ERRORS.get(name, ())
            if name.startswith("spd.") and reference is not None:
                reference = of_products(reference)
            SPECS[name] = OpSpec(name, f, samples, order, half, "strict", reference, errors)


# ---- families of samples --------------------------------------------------------------------


def unary(domain: Callable[..., Input], *args: Any, **kwargs: Any) -> tuple[Sample, ...]:
    """Return samples of one argument."""
    return tuple(s(domain(*shape), *args, **kwargs) for shape in [(2, 3), (), (0, 3), (2, 1, 2)])


def binary(left: Callable[..., Input], right: Callable[..., Input], scalar: float = 1.7) -> tuple[Sample, ...]:
    """Return samples of two arguments that broadcast, with zero sizes, and with a Python number on either side."""
    shapes = [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (4, 1, 3)), ((), (2,)), ((3,), ()), ((), ()), ((0, 3), (3,)), ((2, 0), (1, 1))]
    return (*(s(left(*a), right(*b)) for a, b in shapes), s(left(2, 3), scalar), s(scalar, right(2, 3)))


def over_dims(domain: Callable[..., Input], **kwargs: Any) -> tuple[Sample, ...]:
    """Return samples that reduce all entries, one dimension, or several."""
    x = domain(2, 3, 2)
    return (
        s(x, **kwargs), s(x, 1, **kwargs), s(x, dim=-1, keepdim=True, **kwargs), s(x, dim=(0, 2), **kwargs),
        s(x, dim=(-1, 0), keepdim=True, **kwargs), s(x, dim=[1], **kwargs), s(domain(), **kwargs), s(domain(), dim=0, **kwargs),
        s(domain(3), **kwargs), s(domain(2, 0), dim=0, **kwargs),
    )  # fmt: skip


def over_dim(domain: Callable[..., Input], *args: Any, **kwargs: Any) -> tuple[Sample, ...]:
    """Return samples along one dimension that must be given."""
    return (
        *(s(domain(2, 3, 2), *args, dim=d, **kwargs) for d in (0, 1, -1)), s(domain(4), *args, dim=0, **kwargs),
        s(domain(), *args, dim=-1, **kwargs), s(domain(2, 0), *args, dim=0, **kwargs),
    )  # fmt: skip


# ---- elementwise ----------------------------------------------------------------------------

row("add sub", *binary(real, real), s(real(2, 3), real(3), alpha=0.5), s(real(2), 3, alpha=2))
row("mul", *binary(real, real))
row("div true_divide", *binary(real, real))
row("div", *(s(real(2, 3), whole(3), rounding_mode=m) for m in ("floor", "trunc")), s(real(2), 2.0, rounding_mode="trunc"))
row("floor_divide", *binary(real, whole))
row("remainder fmod", *binary(real, whole, 2.0))
row("pow", *binary(positive, real), *(s(real(2, 3), p) for p in (2, 3, 1, 0, -1, 2.0, -2)), s(2, real(3)), s(real(3), given([2.0, 3.0, 0.0])))
row(
    "lerp", s(real(2, 3), real(2, 3), 0.3), s(real(2, 3), real(3), 0.8), s(real(2, 1), real(3), unit(2, 3)), s(real(3), real(3), real(2, 1)),
    s(real(2), real(2), weight=1.0), s(real(0, 2), real(2), 0.5),
)  # fmt: skip
row("neg abs sign square reciprocal clone", *unary(real))
row("exp expm1 tanh sigmoid erf sin cos atan sinh cosh", *unary(real))
row("tan asin acos", *unary(unit))
row("log log2 log10 sqrt rsqrt", *unary(positive))
row("log1p", *unary(positive), *unary(unit))
row("logaddexp", *binary(real, real), s(given([800.0, -800.0]), given([799.0, 1.0])), half=False)
row("atan2", *binary(real, real))
row("floor ceil round trunc", *unary(real))
row("round", s(real(2, 3), decimals=1))
row("maximum minimum", *binary(real, whole))
row(
    "clamp", s(real(2, 3), -1.0, 1.5), s(real(2, 3), min=0.5), s(real(2, 3), max=0.5), s(real(), -1, 1), s(real(0, 2), 0.0, 1.0),
    s(real(2, 3), whole(3), whole(2, 1)), s(real(4), min=whole(4)), s(real(4), max=whole()),
)  # fmt: skip
row(
    "where", s(bools(2, 3), real(2, 3), real(2, 3)), s(bools(3), real(2, 1), real()), s(bools(2, 1), real(3), 0.5),
    s(bools(2), 2, real(3, 1)), s(bools(), real(2), real(2)), s(bools(0, 3), real(3), real(1)),
)  # fmt: skip
row("eq ne lt le gt ge", *binary(real, real), s(given([1.0, 2.0]), 2), order=0)
row("eq ne lt le gt ge", s(ints(3, 4), ints(3, 4)), s(ints(3, 2, 2), 1.0), order=0)
row("logical_and logical_or logical_xor", s(bools(2, 3), bools(3)), s(ints(2, 4), real(4)), s(bools(), bools(2)), order=0)
row("bitwise_and bitwise_or bitwise_xor", s(bools(2, 3), bools(3)), s(ints(8, 4), ints(8, 4)), s(ints(8, 4), 5), order=0)
row("bitwise_left_shift bitwise_right_shift", s(ints(8, 4), ints(3, 4)), s(ints(8, 4), 2), order=0)
row("logical_not", s(bools(2, 3)), s(real(3)), s(ints(2, 3)), order=0)
row("bitwise_not", s(bools(2, 3)), s(ints(3, 3)), order=0)
row("isnan isinf isfinite", s(given([1.0, math.nan, math.inf, -math.inf])), s(real(2, 2)), s(ints(2, 3)), order=0)
row("convert", *(s(real(*n), np.dtype(t), np.dtype("float64")) for n in ((2, 3), ()) for t in ("float64",)))
row("convert_to_discrete", s(real(2, 3), np.dtype("int64")), s(real(), np.dtype("bool")), order=0)

# ---- reductions -----------------------------------------------------------------------------

row("sum mean", *over_dims(real))
row("prod", *(s(real(2, 3, 2), **k) for k in ({}, {"dim": 1}, {"dim": -1, "keepdim": True})), s(real()), s(real(), dim=0), s(real(2, 0), dim=1))
row("prod", s(given([[2.0, 0.0, 3.0], [1.0, 4.0, 5.0]]), dim=1), s(given([2.0, 0.0, 3.0])), s(given([[2.0, 0.0, 0.0]])), s(given([[0.0, 2.0]]), 0))
row("var std", *over_dims(real)[:6], *over_dims(real, correction=0), s(real(4), correction=0.5), s(real(0, 3), dim=1))
row("amax amin", *over_dims(distinct))
row("max min", s(distinct(2, 3, 2)), s(distinct()), *over_dim(distinct), s(distinct(2, 3), -1, keepdim=True), s(distinct(2, 3), whole(2, 3)))
row("argmax argmin", s(distinct(2, 3, 2)), s(distinct()), *over_dim(distinct), s(distinct(2, 3), 1, keepdim=True), order=0)
row("all any", s(bools(2, 3)), s(real(2, 3), 1), s(ints(2, 3, 4), dim=-1, keepdim=True), s(bools(2, 2, 2), dim=(0, -1)), s(bools(0)), order=0)
row("logsumexp", *over_dims(real)[1:6], s(real(), 0), s(given([800.0, 801.0]), 0), s(real(2, 0), 1), half=False)
row("cumsum logcumsumexp", *over_dim(real))
row("logcumsumexp", s(given([800.0, -800.0, 801.0]), 0))
row("cumprod", *over_dim(real), s(given([[2.0, 0.0, 3.0, 0.5], [1.0, 4.0, 5.0, 2.0]]), 1), s(given([2.0, 0.0, 3.0, 0.0, 4.0]), dim=0))
row("recurrence_", s(real(2, 4), real(2, 4), 1), s(real(5, 2), real(5, 2), 0), s(real(1), real(1), 0), s(real(0, 2), real(0, 2), 0))
row(
    "norm", *over_dims(real)[:9], s(real(2, 3), 2, 1), s(real(2, 3), p=1), s(real(2, 3), p=3, dim=0), s(real(2, 3), 2.5, dim=(0, 1)),
    s(real(2, 3), "fro"), s(distinct(2, 3), math.inf, 1), s(distinct(2, 3), p=-math.inf), s(real(2, 3), 0), s(real(2, 3), p=0.5, dim=-1),
)  # fmt: skip
row(
    "linalg.vector_norm", *over_dims(real), s(real(2, 3), 1, 1), s(real(2, 3), ord=3, dim=0), s(real(2, 3), 2.5, dim=(0, 1), keepdim=True),
    s(distinct(2, 3), math.inf, 1), s(distinct(2, 3), ord=-math.inf), s(real(2, 3), 0), s(real(2, 3), 0.5, -1), s(real(2, 3), -1.5, 0), s(real(0), 3.5),
    s(real(0, 3), math.inf, 1), s(real(2, 0), 1, 1),
)  # fmt: skip
row("sum_to_size", s(real(2, 3), (1, 3)), s(real(2, 3), (3,)), s(real(4, 2, 3), (2, 1)), s(real(2, 3), ()), s(real(), ()), s(real(0, 2), (2,)))

# ---- shapes ---------------------------------------------------------------------------------

row("reshape", s(real(2, 3), (3, 2)), s(real(2, 3), (-1,)), s(real(2, 3, 2), (2, -1)), s(real(), (1, 1)), s(real(0, 3), (3, 0)), s(real(1), ()))
row("Tensor.view Tensor.reshape", s(real(2, 3), 3, 2), s(real(2, 3), -1), s(real(2, 3), (1, 6)), s(real(0, 2), 0))
row("view", s(real(2, 3), (6,)), s(real(), (1,)))
row("flatten", s(real(2, 3, 2)), s(real(2, 3, 2), 1), s(real(2, 3, 2), start_dim=-3, end_dim=-2), s(real()), s(real(2, 0)))
row("unflatten", s(real(2, 6), 1, (2, 3)), s(real(6), -1, (-1, 2)), s(real(4, 2), dim=0, sizes=(2, 2)))
row("unsqueeze", *(s(real(2, 3), d) for d in (0, 1, 2, -1, -3)), s(real(), 0), s(real(0), dim=-1))
row("squeeze", s(real(1, 2, 1)), s(real(1, 2, 1), 0), s(real(1, 2, 1), -1), s(real(1, 2, 1), 1), s(real(1, 2, 1), dim=(0, 2)), s(real()), s(real(), 0))
row("broadcast_to", s(real(3), (2, 3)), s(real(2, 1), (4, 2, 3)), s(real(), (2, 2)), s(real(1), (0,)), s(real(2, 3), (2, 3)))
row("Tensor.expand", s(real(2, 1), 2, 3), s(real(2, 1), (4, -1, 3)), s(real(), 2), s(real(3), -1), s(real(1), 0))
row("expand", s(real(2, 1), (2, 3)), s(real(3), (2, -1)))
row("broadcast_tensors", s(real(2, 1), real(3)), s(real(), real(2, 2), real(1, 2)))
row("permute", s(real(2, 3, 4), (2, 0, 1)), s(real(2, 3, 4), (-1, 0, -2)), s(real(2, 3), (0, 1)), s(real(), ()), s(real(0, 3), dims=(1, 0)))
row("transpose swapaxes", s(real(2, 3), 0, 1), s(real(2, 3, 4), -1, 0), s(real(2, 3), 1, 1), s(real(), 0, -1), s(real(0, 3), 0, 1))
row("movedim", s(real(2, 3, 4), 0, -1), s(real(2, 3, 4), (0, 1), (2, 0)), s(real(2, 3, 4), -1, 0), s(real(2), 0, 0))
row("flip", s(real(2, 3), (0,)), s(real(2, 3), dims=(0, -1)), s(real(2, 3), (1,)), s(real(0, 3), (0,)))
row("roll", s(real(2, 3), 1), s(real(2, 3), shifts=-1, dims=1), s(real(2, 3), (1, 2), (0, -1)), s(real(4), 5, 0), s(real(0), 1, 0))
row("crop", s(real(3, 4), (1, 0), (2, 3)), s(real(3), (3,), (0,)))
row("pad_dims", s(real(2, 3), ((1, 0), (0, 2))), s(real(2), ((1, 1),), 2.5), s(real(0), ((1, 0),)))
row("narrow", s(real(3, 4), 0, 1, 2), s(real(3, 4), dim=-1, start=0, length=0), s(real(3, 4), 1, -2, 2))
row("split", s(real(5, 2), 2), s(real(2, 5), (1, 4), dim=-1), s(real(2, 3), 5, 1), s(real(3), [1, 0, 2]), s(real(0, 2), 1))
row("chunk", s(real(5, 2), 2), s(real(2, 6), chunks=4, dim=1), s(real(3), 5, -1), s(real(0, 2), 2))
row("unbind", s(real(2, 3)), s(real(2, 3), dim=-1), s(real(1)), s(real(2, 0, 1), 0))
row("hstack", s([real(2), real(3)]), s([real(2, 1), real(2, 2)]), s([real(), real(2)]), s([real(2, 1, 2), real(2, 2, 2)]))
row("vstack", s([real(2), real(3, 2)]), s([real(), real(1)]), s([real(2, 3, 1), real(1, 3, 1)]))
row("meshgrid", s(real(2), real(3), indexing="ij"), s(real(2), real(3), real(2), indexing="xy"), s([real(2), real()], indexing="ij"))
row("cat concat", s([real(2, 3), real(1, 3)]), s((real(2, 1), real(2, 2), real(2, 0)), dim=-1), s([real(2)]), s([real(0), real(2, 2)], 1))
row("stack", s([real(2, 3), real(2, 3)]), s((real(2), real(2), real(2)), dim=-1), s([real(), real()]), s([real(2, 3)], 1), s([real(0), real(0)], 1))
row("Tensor.repeat", s(real(2, 3), 2, 1), s(real(3), 2, 2), s(real(2), (2,)), s(real(), 3), s(real(2), 0))
row("repeat", s(real(2, 3), (2, 1)), s(real(3), (2, 2)), s(real(), ()))
row("tile", s(real(2, 3), (2,)), s(real(2), (2, 2)), s(real(2, 3), (1, 2)), s(real(), (2,)))
row("repeat_interleave", s(real(2, 3), 2), s(real(2, 3), 2, dim=0), s(real(2, 3), 3, dim=-1), s(real(2, 3), 0, 1), s(real(3), given([1, 0, 2]), 0))

# ---- indices --------------------------------------------------------------------------------

PLACES, MASK = given([0, 2, -1, 0]), given([True, False, True])
row(
    "getitem", s(real(3, 4), 1), s(real(3, 4), -1), s(real(3, 4), (1, 2)), s(real(3, 4), slice(1, None)), s(real(5), slice(None, None, 2)),
    s(real(3, 4), (slice(None), 1)), s(real(3, 4), None), s(real(3, 4), (..., None)), s(real(2, 3, 4), (..., 1)), s(real(3, 4), ...),
    s(real(2, 3, 4), (0, ..., slice(1, 3))), s(real(3, 4), slice(2, 1)), s(real(), None), s(real(), ...), s(real(), ()), s(real(0, 3), slice(0, 0)),
    s(real(3, 4), PLACES), s(real(3, 4), given([[0, 1], [2, 2]])), s(real(3, 4), (slice(None), PLACES)), s(real(3, 4), ([0, 1, 1], [2, 3, 3])),
    s(real(3, 4), [2, 0]), s(real(3, 4), (given([[0], [1]]), given([1, 1]))), s(real(3, 4), given(2)), s(real(3, 4), (..., PLACES)),
    s(real(3, 4, 3), (PLACES, slice(None), PLACES)), s(real(3, 4, 3), (slice(1, 3), given([1, 1]))), s(real(3, 4, 3), (PLACES, 1)),
    s(real(2, 3, 4), (0, slice(None), PLACES)), s(real(3, 4, 3), (1, slice(None), given([1, 0]))), s(real(3, 4), (None, PLACES)),
    s(real(3, 4), MASK), s(real(3, 4), bools(3, 4)), s(real(2, 3), (slice(None), MASK)), s(real(3, 4), (MASK, 1)), s(real(3, 4), (MASK, given([1, 3]))),
    s(real(3), given([False] * 3)), s(real(3, 4), given(np.zeros(0, np.int64))), s(real(3), True), s(real(2, 3, 2), (..., MASK, slice(None))),
)  # fmt: skip
row(
    "index_put", s(real(3, 4), 1, real(4)), s(real(3, 4), slice(1, None), 2.5), s(real(3, 4), (slice(None), given([0, 2])), real(3, 1)),
    s(real(3, 4), MASK, real(2, 4)), s(real(3, 4), bools(3, 4), 0.5), s(real(3), given([0, 2, 0]), real(3), True), s(real(3, 4), ..., real()),
    s(real(3, 4), (given([0, 1]), given([1, 1])), real(2)), s(real(4), slice(0, 0), real(0)), s(real(), (), real()),
)  # fmt: skip
row(
    "gather", s(real(3, 4), 0, given([[0, 1, 2, 0], [2, 2, 1, 0]])), s(real(3, 4), dim=1, index=given([[3, 3], [0, 1]])), s(real(3), -1, ints(3, 5)),
    s(real(2, 3, 2), 1, ints(3, 2, 2, 2)), s(real(), 0, given(0)), s(real(2, 3), 1, ints(3, 2, 0)),
)  # fmt: skip
row("take_along_dim", s(real(3, 4), ints(3, 2, 4), 0), s(real(3, 4), ints(4, 1, 3), dim=-1), s(real(1, 4), ints(4, 3, 2), 1), s(real(2, 3), ints(6, 4)))
row("index_select", s(real(3, 4), 0, given([0, 2, 0])), s(real(3, 4), dim=-1, index=given([1])), s(real(3), 0, given(np.zeros(0, np.int64))))
row("index_add", s(real(3, 4), 0, given([0, 2, 0]), real(3, 4)), s(real(3, 4), -1, given([1, 1]), real(3, 2), alpha=0.5), s(real(2), 0, ints(2, 0), real(0)))
row("scatter", s(real(3, 4), 0, given([[0, 1, 2, 0]]), real(2, 4)), s(real(3, 4), 1, given([[3, 0], [0, 1]]), real(2, 2)), s(real(3), 0, given([2]), 1.5))
row("scatter", s(real(3), 0, given([2, 2, 0, 2]), real(4), reduce="multiply"), s(real(2, 2), 1, given([[1, 1]]), real(1, 2), reduce="add"), s(real(), 0, given([0, 0]), 2.0, reduce="multiply"))
row(
    "scatter_add", s(real(3, 4), 0, given([[0, 1, 2, 0], [0, 1, 0, 0]]), real(2, 4)), s(real(3, 4), dim=-1, index=ints(4, 2, 3), src=real(3, 4)),
    s(real(3), 0, given([1, 1, 1]), real(3)), s(real(2, 3), 1, ints(3, 2, 0), real(2, 0)),
)  # fmt: skip
row("masked_fill", s(real(2, 3), bools(2, 3), 1.5), s(real(2, 3), bools(3), -9), s(real(2, 3), bools(2, 1), real()), s(real(), bools(), 0.0))
row("masked_select", s(real(2, 3), bools(2, 3)), s(real(2, 3), bools(3)), s(real(3), given([False] * 3)), s(real(), given(True)))
row("tril triu", s(real(3, 4)), s(real(3, 3), 1), s(real(2, 4, 3), diagonal=-1), s(real(0, 3)), s(real(2, 2), 5))
row("sort", *over_dim(distinct), s(distinct(2, 3)), s(distinct(2, 3), dim=0, descending=True), s(distinct(4), stable=True))
row("argsort", *over_dim(distinct), s(distinct(2, 3)), s(distinct(2, 3), 0, True), s(distinct(4), descending=True, stable=True), order=0)
row("topk", s(distinct(2, 4), 2), s(distinct(3, 2), k=2, dim=0, largest=False), s(distinct(4), 4), s(distinct(4), 0), s(distinct(), 1), s(distinct(2, 3), 1, -1))
row("median nanmedian", s(distinct(2, 3)), s(distinct(4)), s(distinct()), *over_dim(distinct), s(distinct(2, 4), 1, keepdim=True))
QS = fixed(given([0.0, 0.3, 0.5, 1.0]))
row(
    "quantile nanquantile", s(distinct(2, 3), 0.4), s(distinct(2, 3), 0.5, 1), s(distinct(2, 3), QS, dim=0), s(distinct(2, 3), QS, 1, True), s(distinct(5), QS),
    s(distinct(), 0.5), s(distinct(), QS, 0), s(distinct(2, 3, 2), 0.25, dim=1, keepdim=True), s(distinct(2, 3), 0.25, keepdim=True),
    *(s(distinct(2, 4), 0.4, 1, interpolation=how) for how in ("lower", "higher", "midpoint", "nearest")), half=False,
)  # fmt: skip
row("bincount", s(given([0, 2, 2])), s(given([0, 2, 2]), fixed(real(3))), s(given([1, 0]), minlength=4), s(ints(3, 0), minlength=2), order=0)
row("histc", s(real(3, 4), 5, -2.0, 2.0), s(real(6), bins=4), s(given([1.0, 1.0]), 3), s(given([0.0, 3.0, 1.0, math.nan]), 3, 0, 3), order=0)
row("count_nonzero", s(given([[1.0, 0.0], [2.0, 3.0]])), s(bools(2, 3), 1), s(ints(2, 2, 3), dim=(0, 1)), s(given(0.0)), order=0)
row(
    "unique", s(ints(3, 2, 4)), s(ints(3, 2, 4), return_inverse=True, return_counts=True), s(given([[3, 1], [3, 1], [1, 2]]), dim=0, return_inverse=True),
    s(given([1.0, math.nan, 1.0]), return_counts=True), s(ints(2, 0)), order=0,
)  # fmt: skip
row("nonzero", s(given([[1.0, 0.0], [2.0, 3.0]])), s(bools(5)), s(ints(2, 2, 3), as_tuple=True), s(given(0.0)), s(real(0, 2)), order=0)
row(
    "searchsorted", s(given([1.0, 2.0, 4.0]), real(2, 3)), s(given([1, 2, 4]), given([2, 5]), right=True),
    s(given([[1, 2, 4], [0, 0, 9]]), given([[2], [0]]), side="right"), s(given([4, 1, 2]), given([2]), sorter=given([1, 2, 0])), order=0,
)

# ---- products -------------------------------------------------------------------------------

row(
    "matmul", s(real(2, 3), real(3, 4)), s(real(3), real(3)), s(real(2, 3), real(3)), s(real(3), real(3, 2)), s(real(2, 2, 3), real(3, 2)),
    s(real(2, 2, 3), real(2, 3, 2)), s(real(2, 1, 2, 3), real(3, 3, 2)), s(real(3), real(2, 3, 2)), s(real(2, 2, 3), real(3)),
    s(real(2, 3), real(2, 3, 2)), s(real(0, 3), real(3, 2)), s(real(2, 0), real(0, 3)), s(real(0, 2, 3), real(3, 2)),
)  # fmt: skip
row("mm", s(real(2, 3), real(3, 4)), s(real(2, 0), real(0, 3)), s(real(1, 3), real(3, 1)))
row("bmm", s(real(2, 3, 2), real(2, 2, 4)), s(real(0, 3, 2), real(0, 2, 4)))
row("mv", s(real(2, 3), real(3)), s(real(0, 3), real(3)))
row("dot", s(real(3), real(3)), s(real(0), real(0)))
row("outer", s(real(2), real(3)), s(real(0), real(3)))
row("kron", s(real(2, 3), real(3, 2)), s(real(2), real(3)), s(real(2, 2), real(3)), s(real(), real(2)), s(real(2, 1, 2), real(2, 2)), s(real(0), real(2)))
row("addmm", s(real(2, 4), real(2, 3), real(3, 4)), s(real(4), real(2, 3), real(3, 4), beta=0.5, alpha=-2.0), s(real(), real(2, 0), real(0, 4)))
row("diagonal", s(real(3, 4)), s(real(3, 4), 1), s(real(3, 4), offset=-2), s(real(2, 3, 4), 0, 1, 2), s(real(2, 3, 4), 0, -1, 0), s(real(2, 2), 5))
row("diag", s(real(3)), s(real(2), 1), s(real(2), diagonal=-1), s(real(3, 4)), s(real(3, 4), -1))
row("trace", s(real(3, 3)), s(real(2, 4)), s(real(0, 2)))
row(
    "einsum", s("ij,jk->ik", real(2, 3), real(3, 4)), s("bij,bjk", real(2, 2, 3), real(2, 3, 2)), s("ii->i", real(3, 3)), s("ii", real(3, 3)),
    s("ij->ji", real(2, 3)), s("i,j->ij", real(2), real(3)), s("ij,ij->", real(2, 3), real(2, 3)), s("...ij,...jk->...ik", real(2, 2, 3), real(3, 2)),
    s("bhtd,bhsd->bhts", real(2, 2, 3, 2), real(2, 2, 2, 2)), s("i,ij,j->", real(2), real(2, 3), real(3)), s("ij,j", real(0, 3), real(3)),
    s("i,i,i->i", real(3), real(3), real(3)), s("ij->j", real(2, 3)), s("a...->...a", real(2, 3)), s(",i->i", real(), real(2)),
)  # fmt: skip

# ---- functions of matrices ------------------------------------------------------------------

SINGULAR = (s(given([[1.0, 2.0], [2.0, 4.0]])), s(given([[1.0, -2.0, 0.5]] * 3)), s(given(np.zeros((3, 3)))), s(given(np.diag([2.0, 0.0, 3.0]))))
SYMMETRIC = given([[4.0, 1.0, -0.5], [1.0, 3.0, 0.25], [-0.5, 0.25, 2.0]])
SQUARE = (s(real(3, 3)), s(real(2, 2, 2)), s(real(1, 1)))
row("inverse linalg.inv", *SQUARE, s(real(0, 2, 2)), half=False)
row(
    "linalg.solve", s(real(3, 3), real(3)), s(real(3, 3), real(3, 2)), s(real(2, 3, 3), real(2, 3)), s(real(2, 1, 2, 2), real(3, 2, 2)),
    s(real(2, 2), real(3, 2), left=False), s(real(2, 2), real(2, 0)), s(real(2, 2, 2), real(2)), half=False,
)  # fmt: skip
row("det linalg.det", *SQUARE, *SINGULAR, s(real(0, 0)), s(real(0, 2, 2)), half=False)
UPPER, LOWER = given([[2.0, 0.5, 1.0], [7.0, 1.5, -0.5], [7.0, 7.0, 1.25]]), given([[2.0, 7.0], [0.5, 1.5]])
row(
    "linalg.solve_triangular", s(UPPER, real(3, 2), upper=True), s(UPPER, real(2, 3), upper=True, left=False), s(LOWER, real(3, 2, 1), upper=False),
    s(real(2, 3, 3), real(3, 2), upper=False, unitriangular=True), half=False,
)  # fmt: skip
row(
    "linalg.lstsq", s(real(4, 2), real(4, 3)), s(real(2, 3), real(2)), s(real(2, 3, 2), real(2, 3)), s(real(2, 3, 2), real(3, 1)),
    s(real(3, 2), real(3, 2), rcond=1e-3), half=False,
)  # fmt: skip
row("linalg.matrix_rank", s(given([[1.0, 2.0], [2.0, 4.0]])), s(real(2, 3, 2)), s(real(3, 2), atol=1e3), s(SYMMETRIC, hermitian=True), s(real(0, 3)), order=0, half=False)
row("slogdet linalg.slogdet", *SQUARE, half=False)
row("spd.logdet", s(real(2, 3)), s(real(2, 2, 4)), half=False)
row("logdet", s(SYMMETRIC), half=False)
row("linalg.pinv", s(real(3, 2)), s(real(2, 3)), s(real(2, 2, 2)), s(real(3, 2), rtol=1e-6), s(real(2, 3), atol=1e-6), half=False)
row("pinverse", s(real(3, 2)), s(real(2, 3), 1e-9), half=False)
row("linalg.cholesky", s(SYMMETRIC), s(SYMMETRIC, upper=True), order=0)
row("spd.linalg.cholesky", s(real(2, 3)), s(real(2, 2, 4)), s(real(3, 4), upper=True), half=False)
row("linalg.eigh", s(SYMMETRIC), order=0)
row("linalg.eigvalsh", s(SYMMETRIC), s(SYMMETRIC, UPLO="U"), order=0)
row("spd.linalg.eigh spd.linalg.eigvalsh", s(real(3, 4)), s(real(2, 2, 3)), s(real(2, 3), UPLO="U"), half=False)
row("linalg.qr", s(real(3, 2)), s(real(2, 2, 2)), s(real(2, 3)), s(real(3, 3), mode="complete"), s(real(3, 2), mode="r"), s(real(0, 3, 2)), half=False)
row("linalg.svd", s(real(3, 3)), *(s(real(*n), full_matrices=False) for n in ((3, 2), (2, 3), (2, 2, 2), (1, 3))), half=False)
row("linalg.svdvals", s(real(3, 2)), s(real(2, 2, 3)), s(real(3, 3)), half=False)
row("matrix_exp linalg.matrix_exp", s(real(2, 2)), s(unit(2, 3, 3)), s(real(3, 3)), s(given(np.zeros((2, 2)))), s(real(0, 2, 2)))
row("linalg.matrix_power", *(s(real(2, 2), n) for n in (0, 1, 2, 5, -1, -3)), s(real(2, 3, 3), 3), half=False)
row(
    "linalg.multi_dot", s([real(2, 3), real(3, 1), real(1, 4)]), s([real(3), real(3, 2)]), s([real(2, 2), real(2, 3), real(3)]),
    s([real(3), real(3, 2), real(2)]), s([real(2), real(2)]),
)  # fmt: skip
row("cross", s(real(3), real(3), 0), s(real(2, 3), real(1, 3), 1), s(real(3, 2), real(3, 2), dim=0), s(real(2, 3), real(2, 3), dim=-1))
row("linalg.cross", s(real(3, 3), real(3, 3)), s(real(2, 3), real(1, 3)), s(real(3, 2), real(3, 2), dim=0))
row("linalg.vecdot", s(real(2, 3), real(2, 3)), s(real(2, 3), real(3)), s(real(2, 3), real(2, 1), dim=0), s(real(0), real(0)))
row("linalg.matmul", s(real(2, 3), real(3, 2)), s(real(2, 2, 3), real(3)))
NORM_ORDERS = (1, -1, 2, -2, math.inf, -math.inf, "nuc", "fro")
row("linalg.matrix_norm", *(s(real(2, 3), p) for p in NORM_ORDERS), s(real(2, 2, 3)), s(real(2, 3, 2), 1, (0, 1), True), s(real(2, 3, 2), "nuc", dim=(2, 0)), half=False)
row(
    "linalg.norm", s(real(2, 3)), s(real(2, 3, 2)), s(real(2, 3), 3, 1), *(s(real(2, 3), p) for p in NORM_ORDERS), s(real(3), 0.5), s(real(2, 3), dim=0),
    s(real(2, 3, 2), math.inf, dim=(0, 2), keepdim=True), s(real(2, 3, 2), dim=(-1, 0)), half=False,
)  # fmt: skip
row("linalg.cond", s(real(2, 2)), s(real(2, 3)), *(s(real(2, 2), p) for p in (1, -2, math.inf, "fro", "nuc")), half=False)

# ---- activations ----------------------------------------------------------------------------

row("relu F.relu", *unary(real))
row("leaky_relu F.leaky_relu", *unary(real), s(real(2, 3), 0.2))
row("F.leaky_relu", s(real(2, 3), negative_slope=-0.5))
row("elu F.elu", *unary(real), s(real(2, 3), alpha=0.5))
row("silu F.silu log_sigmoid", *unary(real))
row("log_sigmoid", s(given([90.0, -90.0])))
row("softplus F.softplus", *unary(real), s(real(2, 3), beta=2.0), s(real(2, 3), beta=2.0, threshold=1.5), s(given([30.0, -30.0])))
row("gelu F.gelu", *unary(real), *unary(real, approximate="tanh"))
row("F.sigmoid F.tanh", *unary(real))
row("softmax log_softmax F.softmax F.log_softmax", *over_dim(real), s(given([[800.0, 801.0, -800.0]]), dim=1))

# ---- layers ---------------------------------------------------------------------------------

row(
    "linear F.linear", s(real(2, 3), real(4, 3)), s(real(2, 3), real(4, 3), real(4)), s(real(3), real(2, 3), real(2)),
    s(real(2, 2, 3), real(4, 3), real(4)), s(real(0, 3), real(2, 3), real(2)), s(real(2, 0, 3), real(4, 3)),
)  # fmt: skip
row("layer_norm_rows", s(real(2, 3)), s(real(2, 2, 3), real(3), real(3)), s(real(4), real(4), None, 1e-3), s(real(0, 3), real(3), real(3)))
row(
    "F.layer_norm", s(real(2, 3), (3,)), s(real(2, 2, 3), (3,), real(3), real(3)), s(real(2, 2, 3), [2, 3], weight=real(2, 3), bias=real(2, 3)),
    s(real(2, 3), (3,), real(3), eps=0.1), s(real(2, 3), (3,), None, real(3)), s(real(0, 3), (3,), real(3), real(3)),
)  # fmt: skip
row("rms_norm_rows", s(real(2, 3)), s(real(2, 2, 3), real(3)), s(real(4), None, 1e-3), s(real(0, 3), real(3)))
row("F.rms_norm", s(real(2, 3), (3,)), s(real(2, 2, 3), (2, 3), real(2, 3)), s(real(2, 3), (3,), weight=real(3), eps=0.1), s(real(0, 3), (3,), real(3)))
row("apply_dropout_mask", s(real(2, 3), fixed(given([[0.0, 2.0, 2.0], [2.0, 0.0, 2.0]]))))
row("F.dropout", s(real(2, 3), 0.0), s(real(2, 3), 0.5, training=False), s(real(2, 3), p=1.0))
row(
    "F.embedding", s(ints(5, 3), real(5, 2)), s(given([[1, 1], [0, 4]]), real(5, 2)), s(ints(5), real(5, 2)),
    s(ints(5, 0), real(5, 2)), s(given([0, 2, 0]), real(3, 2), padding_idx=1),
)  # fmt: skip
row("embedding", s(real(5, 2), ints(5, 3)), s(real(5, 2), given([[1, 1], [0, 4]])), s(real(5, 2), ints(5, 0)))
row("one_hot F.one_hot", s(ints(4, 3), 4), s(ints(4, 2, 2), 5), s(given([0, 2]), num_classes=3), s(given(1), 3), s(given([0, 2])), order=0)
row("F.pad", s(real(2, 3), (1, 2)), s(real(2, 3), (0, 1, 2, 0)), s(real(2, 3), (1, 1), value=2.5), s(real(2, 3), (-1, 1)), s(real(0, 2), (1, 0, 0, 1)))
row("F.pad", *(s(real(2, 3, 4), w, mode=m) for m in ("reflect", "replicate", "circular") for w in ((2, 1), (-1, 2), (1, -2))))
row("F.normalize", s(real(2, 3)), s(real(2, 3), dim=0), s(real(3), p=3.0, dim=0), s(real(2, 3, 2), 1.0, -1))
row("F.pad", s(real(2, 5), (-1, 2), mode="replicate"), s(real(2, 5), (-4, 1), mode="replicate"), s(real(2, 5), (3, -4), mode="reflect"), s(real(2, 5), (-1, 3), mode="circular"))
row("F.pad", s(real(2, 3, 4), (1, -1, 2, 1), mode="reflect"), s(real(2, 3, 4), (-1, -1, -1, 2), mode="circular"), s(real(2, 4), (-2, -2)))
ORDERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)
row("cdist", *(s(real(2, 3), whole(4, 3), p) for p in ORDERS), s(real(2, 1, 3, 2), whole(3, 4, 2)), s(real(0, 2), real(3, 2)), s(real(2, 0), real(3, 0)), half=False)
row("cdist_", *(s(real(2, 3), whole(4, 3), p) for p in ORDERS), half=False)
row("F.pairwise_distance", s(real(2, 3), real(2, 3)), s(real(2, 3), real(3), 3.0, keepdim=True), s(real(3), real(3), p=1.0))
row("cosine_similarity F.cosine_similarity", s(real(2, 3), real(2, 3)), s(real(2, 3), real(3), dim=-1), s(real(3), real(3), dim=0))

# ---- losses and attention -------------------------------------------------------------------

REDUCTIONS = ("mean", "sum", "none")
IGNORING = given([0, -100, 2])
row("F.mse_loss", *(s(real(2, 3), real(2, 3), reduction=r) for r in REDUCTIONS), s(real(), real()), s(real(0, 3), real(0, 3), reduction="sum"))
row("F.l1_loss", *(s(real(2, 3), whole(2, 3), reduction=r) for r in REDUCTIONS), s(real(), whole()), s(real(0, 3), whole(0, 3), reduction="sum"))
row(
    "F.binary_cross_entropy_with_logits", *(s(real(2, 3), positive(2, 3), reduction=r) for r in REDUCTIONS), s(given([800.0, -800.0]), fixed(given([1.0, 1.0]))),
    s(real(2, 3), positive(2, 3), fixed(positive(3))), s(real(2, 3), positive(2, 3), pos_weight=fixed(positive(3))),
)  # fmt: skip
SIGNS = fixed(given([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]))
row("huber", s(real(2, 3), whole(2, 3), 1.0), s(real(2, 3), real(2, 3), 2.5), s(real(), whole(), 0.5))
row("F.huber_loss F.smooth_l1_loss", *(s(real(2, 3), real(2, 3), reduction=r) for r in REDUCTIONS), s(real(), real()))
row("F.huber_loss", s(real(2, 3), real(2, 3), delta=0.5), s(real(2, 3), real(2, 3), weight=fixed(positive(2, 3))))
row("F.smooth_l1_loss", s(real(2, 3), real(2, 3), beta=2.5), s(real(2, 3), whole(2, 3), reduction="sum", beta=0.0))
PROBABILITIES = given([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
row("F.binary_cross_entropy", *(s(PROBABILITIES, fixed(given([[0.0, 1.0, 0.5], [1.0, 0.0, 0.3]])), reduction=r) for r in REDUCTIONS))
row("squared_error", *(s(real(2, 3), real(2, 3), r) for r in REDUCTIONS), s(real(), real()))
row("logistic_cross_entropy", s(real(2, 3), positive(2, 3)), s(given([800.0, -800.0, 0.0]), given([1.0, 0.0, 0.5])), s(real(0, 2), real(0, 2)))
row("bernoulli_cross_entropy", s(PROBABILITIES, given([[0.1, 0.4, 0.6], [0.3, 0.7, 0.2]])))
row("F.binary_cross_entropy", s(PROBABILITIES, fixed(given([[0.1, 0.4, 0.6], [0.3, 0.7, 0.2]])), fixed(positive(3))))
row("F.kl_div", *(s(real(2, 3), PROBABILITIES, reduction=r) for r in (*REDUCTIONS, "batchmean")), s(real(2, 3), real(2, 3), log_target=True))
row("F.kl_div", s(real(3), fixed(given([0.0, 1.0, 0.0])), reduction="sum"), s(real(2, 3), real(3), reduction="none", log_target=True))
row("F.hinge_embedding_loss", *(s(real(2, 3), SIGNS, reduction=r) for r in REDUCTIONS), s(real(2, 3), SIGNS, margin=2.0))
row("F.soft_margin_loss", *(s(real(2, 3), SIGNS, reduction=r) for r in REDUCTIONS), s(given([[800.0, 800.0, 1.0]]), fixed(given([[1.0, -1.0, 1.0]]))))
row("F.margin_ranking_loss", *(s(real(2, 3), whole(2, 3), SIGNS, reduction=r) for r in REDUCTIONS), s(real(2, 3), whole(2, 3), SIGNS, margin=0.75))
row("F.multi_margin_loss", *(s(real(3, 4), ints(4, 3), reduction=r) for r in REDUCTIONS), s(real(4), ints(4)), s(real(3, 4), ints(4, 3), p=2, margin=0.75))
row("F.multi_margin_loss", s(real(3, 4), ints(4, 3), weight=fixed(positive(4))))
row("F.cosine_embedding_loss", *(s(real(2, 3), real(2, 3), fixed(given([1.0, -1.0])), reduction=r) for r in REDUCTIONS), s(real(3), real(3), fixed(given(1.0))))
row(
    "F.triplet_margin_loss", *(s(real(2, 3), real(2, 3), real(2, 3), margin=5.0, reduction=r) for r in REDUCTIONS), s(real(3), real(3), real(3), 9.0, swap=True),
)  # fmt: skip
row("nll_rows", s(real(3, 4), ints(4, 3)), s(real(3, 4), IGNORING), s(real(0, 4), ints(4, 0)), *(s(real(3, 4), IGNORING, -100, r) for r in ("sum", "mean")))
row("cross_entropy_rows", s(real(3, 4), ints(4, 3)), s(real(3, 4), IGNORING), s(real(3, 4), given([0, 3, 2]), 3, 0.2), s(real(0, 4), ints(4, 0)), s(real(3, 4), IGNORING, -100, 0.1, "sum"), s(real(3, 4), IGNORING, -100, 0.1, "mean"), s(real(3, 4), ints(4, 3), -100, 0.0, "mean"))
row(
    "F.cross_entropy F.nll_loss", *(s(real(3, 4), ints(4, 3), reduction=r) for r in REDUCTIONS), s(real(4), ints(4)), s(real(2, 4, 3), ints(4, 2, 3)),
    s(real(2, 4, 3, 2), ints(4, 2, 3, 2), reduction="none"), s(real(3, 4), IGNORING), s(real(3, 4), given([0, 3, 2]), ignore_index=3),
    s(real(3, 4), ints(4, 3), weight=fixed(positive(4))), s(real(3, 4), IGNORING, fixed(positive(4)), reduction="sum"),
    s(real(0, 4), ints(4, 0), reduction="sum"),
)  # fmt: skip
row(
    "F.cross_entropy", *(s(real(3, 4), IGNORING, label_smoothing=0.2, reduction=r) for r in REDUCTIONS),
    s(real(3, 4), IGNORING, fixed(positive(4)), label_smoothing=0.2), *(s(real(3, 4), positive(3, 4), reduction=r) for r in REDUCTIONS),
    s(real(2, 4, 3), positive(2, 4, 3), fixed(positive(4)), label_smoothing=0.1), s(real(4), positive(4)),
    s(given([[800.0, 0.0], [-800.0, 0.0]]), given([0, 0])),
)  # fmt: skip
QKV = (real(2, 3, 2), real(2, 4, 2), real(2, 4, 3))
SEEN = given([[True, False, True, True], [True, True, False, False], [False, True, False, True]])
row(
    "F.scaled_dot_product_attention", s(*QKV), s(*QKV, is_causal=True), s(*QKV, attn_mask=SEEN), s(*QKV, real(3, 4)), s(*QKV, real(2, 1, 4)),
    s(*QKV, scale=0.5), s(real(3, 2), real(3, 2), real(3, 2), is_causal=True), s(real(2, 2, 3, 2), real(2, 2, 3, 2), real(2, 2, 3, 2), is_causal=True),
    s(real(2, 0, 2), real(2, 3, 2), real(2, 3, 2)), s(real(0, 3, 2), real(0, 3, 2), real(0, 3, 2), is_causal=True),
)  # fmt: skip
row(
    "attention", s(*QKV, None, None, False, 0.7), s(*QKV, None, None, True, 0.7), s(*QKV, SEEN, None, False, 1.0), s(*QKV, real(3, 4), None, True, 1.0),
    s(*QKV, None, fixed(given(np.tile([2.0, 0.0, 2.0, 2.0], (2, 3, 1)))), False, 0.7),
)  # fmt: skip

# ---- convolution, pooling and the normalization of channels ---------------------------------

row("F.conv1d", s(real(2, 2, 4), real(3, 2, 2), real(3)), s(real(1, 4, 5), real(2, 2, 2), stride=2, padding=1, dilation=2, groups=2))
row("F.conv2d", s(real(1, 2, 3, 4), real(2, 2, 2, 3), real(2)), s(real(1, 2, 3, 3), real(2, 1, 2, 2), stride=(1, 2), padding=1, groups=2))
row("F.conv_transpose1d", s(real(2, 2, 3), real(2, 3, 2), real(3)), s(real(1, 4, 3), real(4, 1, 2), stride=2, padding=1, output_padding=1, groups=2))
row("F.conv_transpose2d", s(real(1, 2, 2, 3), real(2, 2, 2, 2), real(2), stride=(1, 2)), s(real(1, 1, 2, 2), real(1, 1, 2, 2), dilation=2))
row("F.max_pool1d", s(real(2, 2, 5), 2), s(real(1, 2, 6), 3, 1, 1, 2))
row("F.max_pool2d", s(real(1, 2, 4, 5), 2), s(real(1, 1, 3, 4), (2, 3), 1, 1))
row("F.avg_pool1d", s(real(2, 2, 5), 2), s(real(1, 2, 6), 3, 2, 1, count_include_pad=False))
row("F.avg_pool2d", s(real(1, 2, 4, 5), 2), s(real(1, 1, 3, 4), (2, 3), 1, 1))
row("F.adaptive_avg_pool1d F.adaptive_max_pool1d", s(real(2, 2, 5), 3), s(real(1, 2, 3), 1))
row("F.adaptive_avg_pool2d F.adaptive_max_pool2d", s(real(1, 2, 3, 5), (2, 3)), s(real(1, 1, 2, 2), 2))
row("F.batch_norm", s(real(4, 2), None, None, training=True), s(real(2, 2, 3), None, None, real(2), real(2), True, eps=0.1), s(real(2, 3), real(3), positive(3), real(3)))
row("F.group_norm", s(real(2, 4), 2), s(real(2, 4, 3), 2, real(4), real(4)), s(real(1, 2, 2, 2), 1, eps=0.1))
row(
    "normalize_channels", s(real(4, 2)), s(real(2, 2, 3), real(2), real(2), None, 0.1), s(real(2, 4, 3), real(4), None, 2),
    s(real(1, 2, 2, 2), None, real(2), 1), s(real(2, 2, 0), real(2), real(2), 2),
)  # fmt: skip
row("scale_channels", s(real(2, 3), real(3), real(3), real(3)), s(real(2, 2, 1, 3), real(2), real(2), real(2)), s(real(0, 2), real(2), real(2), real(2)))
