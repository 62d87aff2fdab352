"""Ops that move entries without computing on them: new shapes, new orders, parts, joins. Most results are views.

Dimensions may be negative: -1 is the last one. Raises IndexError for a dimension out of range.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.function import op
from ..autograd.graph import Value
from ..autograd.version_counter import base_array
from ..backends.registry import BACKENDS, Array, Namespace
from ..errors import ShapeError
from ..scalars import as_integer, int_in, ints_in
from .arguments import dim_in, dims_in, numpy_names, shape_of
from .elementwise import clone

__all__ = [
    "broadcast_tensors", "broadcast_to", "cat", "chunk", "concat", "concatenate", "flatten", "flip", "moveaxis",
    "movedim", "narrow", "permute", "reshape", "roll", "split", "squeeze", "stack", "swapaxes", "tile", "transpose",
    "unbind", "unflatten", "unsqueeze",
]  # fmt: skip


# ---- the same elements in another shape -----------------------------------------------------


@op(lambda g, in_shape: reshape(g, in_shape), view=True)
def reshape(xp: Namespace, x: Array, shape: Sequence[int]) -> Array:
    """Return the same entries, in the same order, in another shape. One size may be -1: it is computed from the others.

    The result is a view where the memory layout allows it, otherwise a copy.
    Raises ShapeError if the number of entries differs.
    """
    return _reshaped(x, shape)


def _reshaped(x: Array, shape: Sequence[int]) -> Array:
    """Return ``x.reshape(shape)``. Raises ShapeError for a negative size other than -1, which NumPy treats as -1."""
    try:
        out = x.reshape(shape)
    except (ValueError, TypeError):
        out = None
    if out is not None and type(shape) is tuple and out.shape == shape:
        for n in shape:
            if type(n) is not int:  # True is equal to 1
                break
        else:
            return out
    sizes = ints_in("", "sizes", shape)
    if min(sizes, default=0) < -1 or sizes.count(-1) > 1:
        raise ShapeError(f"shape {sizes} may have one -1, and no other negative size")
    if out is None:
        raise ShapeError(f"shape {sizes} does not fit {x.size} elements")
    return out


@op(lambda g, in_shape: reshape(g, in_shape), view=True)
def view(xp: Namespace, x: Array, shape: Sequence[int]) -> Array:
    """Return a view in another shape, as :func:`reshape`. Raises ShapeError where that needs a copy."""
    out = _reshaped(x, shape)
    if out.size and base_array(out) is not base_array(x):
        raise ShapeError(
            f"shape {out.shape} needs a copy of this non-contiguous tensor. Use reshape() or contiguous()."
        )
    return out


view.op.replay = reshape


def flatten(input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """Merge the dimensions from ``start_dim`` to ``end_dim`` into one. Raises ValueError if start comes after end."""
    shape = shape_of("flatten", input)
    start, end = dim_in("flatten", start_dim, len(shape)), dim_in("flatten", end_dim, len(shape))
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return reshape(input, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


def unflatten(input: Value, dim: int, sizes: Sequence[int]) -> Value:
    """Split one dimension into several of the given sizes. Raises ShapeError if their product is not its size."""
    shape = shape_of("unflatten", input)
    d = dim_in("unflatten", dim, len(shape))
    if not shape:
        raise IndexError("unflatten: a 0-d tensor has no dimension to split. Use reshape().")
    sizes, size = ints_in("unflatten", "sizes", sizes), shape[d]
    if sizes.count(-1) == 1 and (known := math.prod(n for n in sizes if n != -1)) > 0:
        sizes = tuple(size // known if n == -1 else n for n in sizes)  # reshape cannot find it from an empty tensor
    if not sizes or math.prod(sizes) != size or min(sizes) < 0:
        raise ShapeError(f"unflatten: sizes {sizes} do not multiply to {size}, the size of dim {dim} of {shape}")
    return reshape(input, (*shape[:d], *sizes, *shape[d + 1 :]))


@numpy_names
def unsqueeze(input: Value, dim: int) -> Value:
    """Insert a new dimension of size 1 at ``dim``."""
    shape = shape_of("unsqueeze", input)
    d = dim_in("unsqueeze", dim, len(shape) + 1)
    return reshape(input, (*shape[:d], 1, *shape[d:]))


@numpy_names
def squeeze(input: Value, dim: int | Sequence[int] | None = None) -> Value:
    """Remove dimensions of size 1: all of them, or those of ``dim`` that have size 1.

    Raises ValueError if a dimension is named twice.
    """
    shape = shape_of("squeeze", input)
    dims = range(len(shape)) if dim is None else dims_in("squeeze", dim, len(shape))
    return reshape(input, tuple(n for d, n in enumerate(shape) if n != 1 or d not in dims))


@op(lambda g: g, view=True)  # the engine sums the gradient over the broadcast dimensions
def broadcast_to(xp: Namespace, x: Array, shape: Sequence[int]) -> Array:
    """Return a view in which new dimensions, and dimensions of size 1, are repeated to the given shape.

    A size of -1 keeps the size of that dimension. Raises ShapeError if the shapes do not broadcast.
    """
    sizes = ints_in("", "sizes", shape)
    if -1 in sizes and len(sizes) >= x.ndim:
        own = (*(-1,) * (len(sizes) - x.ndim), *x.shape)
        sizes = tuple(m if n == -1 else n for m, n in zip(own, sizes, strict=True))
    if x.shape == sizes:
        return x
    try:
        return xp.broadcast_to(x, sizes)
    except ValueError:
        raise ShapeError(f"it does not broadcast to shape {sizes}") from None


def expand(x: Value, shape: Sequence[int]) -> Value:
    """Return a view expanded to a shape, as :func:`broadcast_to`. A size of -1 keeps the size of that dimension."""
    own, shape = shape_of("expand", x), ints_in("expand", "sizes", shape)
    lead = len(shape) - len(own)
    if lead < 0 or any(n == -1 for n in shape[:lead]):
        raise ShapeError(
            f"expand: cannot expand shape {own} to {shape}; a new dimension must come first and have a size"
        )
    return broadcast_to(x, tuple(own[i - lead] if n == -1 else n for i, n in enumerate(shape)))


def broadcast_tensors(*tensors: Value) -> tuple[Value, ...]:
    """Return the tensors, each expanded to their common shape. Raises ShapeError if there is none."""
    shapes = [shape_of("broadcast_tensors", t) for t in tensors]
    try:
        common = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(f"broadcast_tensors: shapes {', '.join(map(str, shapes))} do not broadcast together") from None
    return tuple(broadcast_to(t, common) for t in tensors)


# ---- the same elements in another order -----------------------------------------------------


def _inverse(dims: Sequence[int]) -> tuple[int, ...]:
    """Return the permutation that undoes ``dims``."""
    places = [0] * len(dims)
    for i, d in enumerate(dims):
        places[d] = i
    return tuple(places)


@op(lambda g, dims: permute(g, _inverse(dims)), view=True)
def permute(xp: Namespace, x: Array, dims: Sequence[int]) -> Array:
    """Reorder the dimensions: dimension i of the result is dimension ``dims[i]`` of the input. The result is a view.

    Raises ShapeError if ``dims`` does not name each dimension once.
    """
    for d in dims:
        if type(d) is not int:
            dims = ints_in("", "dims", dims)
            break
    try:
        return x.transpose(dims)
    except (ValueError, IndexError, TypeError):
        dims = ints_in("", "dims", dims)
        raise ShapeError(f"dims {dims} must name each of the {x.ndim} dimensions once") from None


@op(lambda g, dim0, dim1: transpose(g, dim0, dim1), view=True)
def transpose(xp: Namespace, x: Array, dim0: int, dim1: int) -> Array:
    """Swap two dimensions. The result is a view."""
    first, second = dim_in("", dim0, x.ndim), dim_in("", dim1, x.ndim)
    return x.swapaxes(first, second) if x.ndim else x


swapaxes = transpose


def movedim(input: Value, source: int | Sequence[int], destination: int | Sequence[int]) -> Value:
    """Move the dimensions ``source`` to the positions ``destination``; the others keep their order.

    Raises ValueError if the numbers of dimensions differ or one is named twice.
    """
    ndim = len(shape_of("movedim", input))
    src, dst = (
        [dim_in("movedim", d, ndim) for d in ints_in("movedim", what, dims)]
        for what, dims in (("source", source), ("destination", destination))
    )
    if len(src) != len(dst) or len(set(src)) < len(src) or len(set(dst)) < len(dst):
        raise ValueError(
            f"movedim: expected as many different dimensions, got source {source} and destination {destination}"
        )
    if not ndim:
        return permute(input, ())
    order = [d for d in range(ndim) if d not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return permute(input, tuple(order))


moveaxis = movedim


@op(lambda g, dims: flip(g, dims), bfloat16=True)
def flip(xp: Namespace, x: Array, dims: int | Sequence[int]) -> Array:
    """Reverse the order of the entries along each dimension in ``dims``. The result is a copy.

    Raises ValueError if a dimension is named twice.
    """
    axes = tuple(dim_in("", d, x.ndim) for d in ints_in("", "dims", dims))
    if len(set(axes)) < len(axes):
        raise ValueError(f"dims {dims} names a dimension twice")
    return xp.flip(x, axes if x.ndim else ()).copy()


@op(lambda g, shifts, dims: roll(g, tuple(-n for n in ints_in("", "shifts", shifts)), dims), bfloat16=True)
def roll(xp: Namespace, x: Array, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Array:
    """Shift the entries along ``dims``; those shifted beyond the end come back at the start.

    shifts: the steps, one for each dimension. Without ``dims`` the flattened tensor is shifted.

    Raises ValueError if the numbers of shifts and dimensions differ.
    """
    steps = ints_in("", "shifts", shifts)
    axes = () if dims is None else tuple(dim_in("", d, x.ndim) for d in ints_in("", "dims", dims))
    if len(steps) != (len(axes) or 1):
        raise ValueError(f"expected one shift for each of dims, or one without dims, got shifts {shifts}, dims {dims}")
    if axes and not x.ndim:
        raise IndexError(f"dims {dims} are out of range for a 0-d tensor")
    return xp.roll(x, steps, axes) if axes else xp.roll(x, steps[0])


# ---- parts ----------------------------------------------------------------------------------


@op(
    lambda g, starts, in_shape: pad_dims(
        g, [(a, n - a - m) for a, n, m in zip(starts, in_shape, g.shape, strict=True)]
    ),
    view=True,
)
def crop(xp: Namespace, x: Array, starts: Sequence[int], sizes: Sequence[int]) -> Array:
    """Return the view of the box of this size that starts at ``starts``."""
    return x[tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))]


@op(lambda g, widths, in_shape: crop(g, [a for a, _ in widths], in_shape), bfloat16=True)
def pad_dims(xp: Namespace, x: Array, widths: Sequence[tuple[int, int]], value: float = 0) -> Array:
    """Return x with ``widths[d] = (before, after)`` entries of ``value`` around dimension d."""
    shape = tuple(a + n + b for n, (a, b) in zip(x.shape, widths, strict=True))
    out = xp.full(shape, value, x.dtype)
    out[tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, widths, strict=True))] = x
    return out


def narrow(input: Value, dim: int, start: int, length: int) -> Value:
    """Return the view of the entries from ``start`` to ``start + length - 1`` along a dimension.

    Raises IndexError if they are out of range.
    """
    shape = shape_of("narrow", input)
    d = dim_in("narrow", dim, len(shape))
    start, length = int_in("narrow", "start", start), int_in("narrow", "length", length)
    first = start + shape[d] if start < 0 else start
    if not shape or length < 0 or not 0 <= first <= shape[d] - length:
        raise IndexError(f"narrow: start {start} and length {length} do not fit in dim {dim} of shape {shape}")
    starts, sizes = [0] * len(shape), list(shape)
    starts[d], sizes[d] = first, length
    return crop(input, starts, sizes)


def _split_gradient(g: Sequence[Value], dim: int) -> Value:
    xp = BACKENDS.get(type(g[0]))  # None for Tensors
    whole = None if xp is None else xp.whole_of(g, dim)
    return cat(g, dim) if whole is None else whole


@op(_split_gradient, multi_output=True, view=True)
def _split(xp: Namespace, x: Array, sizes: Sequence[int], dim: int) -> Sequence[Array]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    lead = (slice(None),) * dim
    return [x[(*lead, slice(end - n, end))] for n, end in zip(sizes, ends, strict=True)]


VIEW_OPS = (reshape, view, broadcast_to, permute, transpose, crop, _split)
"""The ops whose results, and most of whose gradients, are views where the layout of the memory allows it."""


def split(input: Value, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Value, ...]:
    """Cut the input along a dimension into views.

    split_size_or_sections: the size of each part (the last may be smaller), or a list of sizes.

    Raises ShapeError if the sizes do not add up to that of the input, ValueError if a size is not positive.
    """
    shape = shape_of("split", input)
    d = dim_in("split", dim, len(shape))
    if not shape:
        raise ShapeError("split: a 0-d tensor has no dimension to cut")
    n = shape[d]
    size = as_integer(split_size_or_sections)
    if size is not None:
        if size < 0 or (size == 0 and n):
            raise ValueError(f"split: the size must be positive, got {size}")
        sizes = [size] * (n // size) + [n % size] * (n % size > 0) if size and n else [n]
    else:
        sizes = list(ints_in("split", "sizes", split_size_or_sections))
        if sum(sizes) != n or any(s < 0 for s in sizes):
            raise ShapeError(f"split: sizes {sizes} do not add up to {n}, the size of dim {dim} of shape {shape}")
    return tuple(_split(input, sizes, d))


@numpy_names
def chunk(input: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    """Cut the input along a dimension into at most ``chunks`` views of equal size; the last may be smaller.

    Raises ValueError if ``chunks`` is not positive.
    """
    chunks = int_in("chunk", "the number of chunks", chunks)
    if chunks < 1:
        raise ValueError(f"chunk: the number of chunks must be positive, got {chunks}")
    shape = shape_of("chunk", input)
    d = dim_in("chunk", dim, len(shape))
    n = shape[d] if shape else 0
    if n == 0 and shape:
        return tuple(_split(input, [0] * chunks, d))
    return split(input, -(-n // chunks), dim)


@op(lambda g, dim: stack(g, dim), multi_output=True, view=True)
def _unbind(xp: Namespace, x: Array, dim: int) -> Sequence[Array]:
    lead = (slice(None),) * dim
    return [x[(*lead, i, ...)] for i in range(x.shape[dim])]  # with ..., an entry of a vector is a view


@numpy_names
def unbind(input: Value, dim: int = 0) -> tuple[Value, ...]:
    """Return the views ``input[0], input[1], ...`` along a dimension, each without that dimension.

    Raises ShapeError for a 0-d tensor.
    """
    shape = shape_of("unbind", input)
    if not shape:
        raise ShapeError("unbind: a 0-d tensor has no dimension to unbind")
    d = dim_in("unbind", dim, len(shape))
    return tuple(_unbind(input, d)) if shape[d] else ()


# ---- joins ----------------------------------------------------------------------------------


def _uncat(g: Any, dim: int, ends: Sequence[int], index: int) -> Any:
    start = ends[index - 1] if index else 0
    return narrow(g, dim, start, ends[index] - start)


@op(None, None, _uncat, dtypes="promote", bfloat16=True)
def _cat(xp: Namespace, dim: int, ends: Sequence[int], *tensors: Array) -> Array:
    return xp.concatenate(tensors, axis=dim)


SPLIT_AND_CAT = (_split, _cat)
"""The ops of :func:`split` and :func:`cat`, whose gradients are each other's results."""


def _sequence(name: str, tensors: Any) -> None:
    """Raise TypeError if ``tensors`` is not a list or tuple, ValueError if it is empty."""
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"{name}: expected a list or tuple of Tensors, got {type(tensors).__name__}")
    if not tensors:
        raise ValueError(f"{name}: expected at least one Tensor, got none")


@numpy_names
def cat(tensors: Sequence[Value], dim: int = 0) -> Value:
    """Join tensors along an existing dimension. The dtypes are promoted.

    Raises ShapeError if the shapes differ in another dimension, or for 0-d tensors.
    """
    _sequence("cat", tensors)
    shapes = [shape_of("cat", t) for t in tensors]
    if (0,) in shapes and any(s != (0,) for s in shapes):  # an empty 1-d tensor joins anything, as in PyTorch
        tensors = [t for t, s in zip(tensors, shapes, strict=True) if s != (0,)]
        shapes = [s for s in shapes if s != (0,)]
    if not shapes[0]:
        raise ShapeError("cat: 0-d tensors cannot be joined along a dimension. Use stack().")
    d = dim_in("cat", dim, len(shapes[0]))
    first = shapes[0]
    if shapes.count(first) < len(shapes) and any(
        len(s) != len(first) or s[:d] + s[d + 1 :] != first[:d] + first[d + 1 :] for s in shapes
    ):
        raise ShapeError(f"cat: shapes {', '.join(map(str, shapes))} differ in another dimension than dim {dim}")
    ends = list(itertools.accumulate([s[d] for s in shapes]))
    return _cat(d, ends, *tensors)


concat = concatenate = cat


@numpy_names
def stack(tensors: Sequence[Value], dim: int = 0) -> Value:
    """Join tensors of one shape along a new dimension. Raises ShapeError if their shapes differ."""
    _sequence("stack", tensors)
    shapes = [shape_of("stack", t) for t in tensors]
    if any(s != shapes[0] for s in shapes):
        raise ShapeError(f"stack: the shapes must be equal, got {', '.join(map(str, shapes))}")
    d = dim_in("stack", dim, len(shapes[0]) + 1)
    return cat([unsqueeze(t, d) for t in tensors], d)


# ---- repetition -----------------------------------------------------------------------------


def repeat(x: Value, sizes: Sequence[int]) -> Value:
    """Repeat the input ``sizes[d]`` times along dimension d. Further dimensions are added in front.

    Raises ShapeError for fewer sizes than dimensions, or a negative one.
    """
    shape, sizes = shape_of("repeat", x), ints_in("repeat", "sizes", sizes)
    if min(sizes, default=0) < 0:
        raise ShapeError(f"repeat: the numbers of repetitions must not be negative, got {sizes}")
    if len(sizes) < len(shape):
        raise ShapeError(
            f"repeat: expected a number of repetitions for each dimension of shape {shape}, got {len(sizes)}"
        )
    full = (1,) * (len(sizes) - len(shape)) + shape
    pairs = [n for size, n in zip(sizes, full, strict=True) for n in (size, n)]
    ones = [m for n in full for m in (1, n)]
    out = reshape(broadcast_to(reshape(x, ones), pairs), tuple(s * n for s, n in zip(sizes, full, strict=True)))
    return out if any(s > 1 and n > 1 for s, n in zip(sizes, full, strict=True)) else clone(out)  # else it is a view


def tile(input: Value, dims: Sequence[int]) -> Value:
    """Repeat the input as :func:`repeat` does; missing leading sizes count as 1."""
    dims = ints_in("tile", "dims", dims)
    return repeat(input, (1,) * (len(shape_of("tile", input)) - len(dims)) + dims)
