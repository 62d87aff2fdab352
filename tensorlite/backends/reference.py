"""The kernels in their plainest form, which is correct on every backend.

A kernel is a function on raw arrays that takes the namespace ``xp`` first. It may write only to arrays that it has made
itself, or to its arguments if its name ends in ``_into`` or ``_step``. "Rows" lie along the last axis. The gradient of
a kernel follows it. No kernel reads a value of an array on the host, so no kernel waits for a GPU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy import broadcast_shapes

from ..dtypes import DType, accumulate_dtype, cast_array, convert_arrays, float32, float64, is_floating

__all__ = [
    "adam_all_step", "adam_step", "add_arrays", "add_scaled", "assign_into", "attention", "attention_backward",
    "channel_moments", "channel_norm", "channel_norm_backward", "clamp", "copies_of", "cross_entropy",
    "cross_entropy_backward", "deviation", "direct_correlate", "direct_correlate_input", "direct_correlate_weight",
    "distances_of_pairs", "distances_of_pairs_backward", "embedding_backward", "erf", "exp_below", "gelu",
    "gelu_backward", "huber", "huber_slope", "largest", "last_places", "layer_norm", "layer_norm_backward", "leaky",
    "lerp", "linear", "linear_backward", "log_sigmoid", "log_softmax", "log_softmax_backward", "matmul",
    "median_of_all", "median_places", "multiply_arrays", "muon_step", "orthogonal", "other_products", "philox",
    "places_in_order", "pool_places", "product", "recurrence", "relu_slope", "rms_norm", "rms_norm_backward",
    "root_sum_squares", "running_product", "running_product_backward", "running_sum", "scale_all_step",
    "scale_channels", "scale_channels_backward", "scatter_add_into", "scatter_into", "search_rows", "sgd_step",
    "sigmoid", "sigmoid_slope", "sign_of", "silu", "silu_backward", "smallest", "softmax", "softmax_backward",
    "sum_over", "sum_squares_of_all", "sum_to", "take_at", "take_entries", "take_last_entries", "take_slices",
    "top_places", "variance", "whole_of", "wide_matmul",
]  # fmt: skip

Array = Any
XP = Any

# ---- arithmetic -----------------------------------------------------------------------------


def add_arrays(xp: XP, x: Array, y: Array) -> Array:
    """Return ``x + y``."""
    return x + y


def multiply_arrays(xp: XP, x: Array, y: Array) -> Array:
    """Return ``x * y``."""
    return x * y


def largest(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Return the largest entry along axes, NaN where there is one."""
    return x.max(axis=axes, keepdims=keepdims)


def smallest(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Return the smallest entry along axes, NaN where there is one."""
    return x.min(axis=axes, keepdims=keepdims)


def product(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Return the product of the entries along axes."""
    return x.prod(axis=axes, keepdims=keepdims)


def sigmoid(xp: XP, x: Array) -> Array:
    """Return ``1 / (1 + exp(-x))``."""
    return 1.0 / (1.0 + xp.exp(-x))


def sign_of(xp: XP, x: Array) -> Array:
    """Return -1, 0 or 1, and 0 for NaN."""
    out = xp.sign(x)
    return xp.where(x == x, out, xp.zeros_like(out)) if x.dtype.kind == "f" else out


def sigmoid_slope(xp: XP, g: Array, y: Array) -> Array:
    """Return ``g y (1 - y)``."""
    return g * (y * (1.0 - y))


def log_sigmoid(xp: XP, x: Array) -> Array:
    """Return ``-log(1 + exp(-x))``."""
    return xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x)))


# ---- formulas that differ between ranges ----------------------------------------------------


def huber(xp: XP, x: Array, y: Array, delta: float) -> Array:
    """Return ``c (d - c / 2)`` for d = x - y and c, which is d kept between -delta and delta."""
    d = x - y
    c = xp.minimum(xp.maximum(d, -delta), delta)
    return c * (d - 0.5 * c)


def huber_slope(xp: XP, x: Array, y: Array, delta: float) -> Array:
    """Return ``x - y``, kept between -delta and delta."""
    return xp.minimum(xp.maximum(x - y, -delta), delta)


def leaky(xp: XP, x: Array, sign: Array, slope: float) -> Array:
    """Return x where ``sign`` is positive, else ``slope * x``."""
    return xp.where(sign > 0, x, x * slope)


def relu_slope(xp: XP, g: Array, y: Array) -> Array:
    """Return g, and 0 where y is not above 0. It stays where y is NaN."""
    return xp.where(y <= 0, 0.0, g)


def lerp(xp: XP, x: Array, y: Array, weight: Any) -> Array:
    """Return ``x + weight * (y - x)``, computed from the nearer end."""
    difference = y - x
    if not hasattr(weight, "dtype"):
        return x + weight * difference if -0.5 < weight < 0.5 else y - (1.0 - weight) * difference
    return xp.where(xp.abs(weight) < 0.5, x + weight * difference, y - (1.0 - weight) * difference)


# ---- factors --------------------------------------------------------------------------------


def other_products(xp: XP, x: Array) -> Array:
    """Return for each entry the product of all others in its row.

    Neighbours are multiplied, then those products, and so on, as in a binary tree. So time and memory are
    proportional to the number of entries.
    """
    n = x.shape[-1]
    if n < 3:
        return xp.flip(x, -1) if n == 2 else xp.ones_like(x)
    even = n - n % 2
    left, right, last = x[..., 0:even:2], x[..., 1:even:2], x[..., even:]
    outside = other_products(xp, xp.concatenate([left * right, last], -1))
    around = outside[..., : n // 2]
    pairs = xp.stack([around * right, around * left], -1).reshape(*x.shape[:-1], even)
    return xp.concatenate([pairs, outside[..., n // 2 :]], -1)


def running_product(xp: XP, x: Array, axis: int) -> Array:
    """Return the running product along an axis."""
    return xp.cumprod(x, axis=axis)


def recurrence(xp: XP, a: Array, b: Array, axis: int) -> Array:
    """Return y with ``y[i] = a[i] * y[i - 1] + b[i]`` along an axis, in ``log2(n)`` steps on whole arrays.

    After steps of 1, 2, 4, ... each entry has met all entries before it.
    Source: Hillis and Steele, "Data parallel algorithms", 1986.
    """
    a, b = a.copy(), b.copy()
    for step in (2**k for k in range(max(b.shape[axis] - 1, 0).bit_length())):
        tail, head = ((*(slice(None),) * axis, part) for part in (slice(step, None), slice(None, -step)))
        reached = xp.where(b[head] == 0, xp.zeros_like(b[head]), a[tail] * b[head])  # an overflow of a times 0 is 0
        b[tail] = b[tail] + reached
        a[tail] = a[tail] * a[head]
    return b


def running_product_backward(xp: XP, g: Array, x: Array, axis: int) -> Array:
    """Return ``(x[0] ... x[i-1]) * s[i]`` with ``s[i] = g[i] + x[i+1] s[i+1]``, which divides by no factor."""
    first = (*(slice(None),) * axis, slice(0, 1))
    rest, most = ((*(slice(None),) * axis, part) for part in (slice(1, None), slice(None, -1)))
    ones = xp.ones_like(x[first])
    factors = xp.flip(xp.concatenate([x[rest], ones], axis), axis)
    sums = xp.flip(recurrence(xp, factors, xp.flip(g, axis), axis), axis)
    return xp.concatenate([ones, xp.cumprod(x[most], axis=axis)], axis) * sums


# ---- distances ------------------------------------------------------------------------------

_PAIRS = 2**18  # differences to hold at once, if one for each pair of vectors is fewer


def _blocks_of_features(pairs: int, features: int) -> Iterator[slice]:
    """Yield slices of the features, so that the differences of all pairs in one slice take little memory."""
    step = max(1, _PAIRS // max(pairs, 1))
    return (slice(k, k + step) for k in range(0, features, step))


def distances_of_pairs(xp: XP, x1: Array, x2: Array, p: float) -> Array:
    """Return the p-norm of the differences of vectors (..., n, k) and (..., m, k), as (..., n, m)."""
    batch = broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    out = xp.zeros((*batch, x1.shape[-2], x2.shape[-2]), x1.dtype)
    for part in _blocks_of_features(out.size, x1.shape[-1]):
        d = xp.abs(x1[..., :, None, part] - x2[..., None, :, part])
        if p == math.inf:
            out = xp.maximum(out, d.max(axis=-1))
        else:
            powers = (d != 0).astype(d.dtype) if p == 0 else d if p == 1 else d * d if p == 2 else d**p
            out = out + xp.sum_over(powers, (d.ndim - 1,))
    return out if p in (0, 1, math.inf) else xp.sqrt(out) if p == 2 else out ** (1.0 / p)


def _slope(xp: XP, d: Array, length: Array, p: float) -> Array:
    """Return the derivative of the p-norm of vectors d whose norm is ``length``."""
    if p == 2:
        return d / length
    if p == 1:
        return xp.sign(d)
    if p == math.inf:
        return xp.where(xp.abs(d) == length, xp.sign(d), xp.zeros_like(d))
    zero = d == 0
    ratio = xp.abs(xp.where(zero, xp.ones_like(d), d)) / length
    return xp.zeros_like(d) if p == 0 else xp.where(zero, xp.zeros_like(d), xp.sign(d) * ratio ** (p - 1))


def distances_of_pairs_backward(xp: XP, g: Array, x1: Array, x2: Array, out: Array, p: float) -> tuple[Array, Array]:
    """Return the gradients, in blocks of features. Where two vectors are equal, the gradient is 0."""
    first = xp.zeros((*g.shape[:-1], x1.shape[-1]), g.dtype)
    second = xp.zeros((*g.shape[:-2], g.shape[-1], x2.shape[-1]), g.dtype)
    zero = out == 0
    length, factor = xp.where(zero, xp.ones_like(out), out)[..., None], xp.where(zero, xp.zeros_like(g), g)[..., None]
    for part in _blocks_of_features(g.size, x1.shape[-1]):
        d = x1[..., :, None, part] - x2[..., None, :, part]
        slope = factor * _slope(xp, d, length, p)
        first[..., part] = xp.sum_over(slope, (slope.ndim - 2,))
        second[..., part] = -xp.sum_over(slope, (slope.ndim - 3,))
    return first, second


# ---- orders ---------------------------------------------------------------------------------


def places_in_order(xp: XP, x: Array, axis: int, stable: bool) -> Array:
    """Return the places that sort x along an axis, int64. NaN counts as the largest."""
    return xp.argsort(x, axis=axis, kind="stable" if stable else None)


def search_rows(xp: XP, edges: Array, values: Array, side: str) -> Array:
    """Return the places at which values (..., m) would be inserted into sorted rows (..., n), int64."""
    found = xp.zeros(values.shape, xp.int64)
    for row in itertools.product(*map(range, edges.shape[:-1])):
        found[row] = xp.searchsorted(edges[row], values[row], side=side)
    return found


def top_places(xp: XP, x: Array, k: int, axis: int, largest: bool, ordered: bool) -> Array:
    """Return the places of the k largest or smallest entries along an axis, in order if ``ordered``. k may be 0."""
    n = x.shape[axis]
    part = (*(slice(None),) * axis, slice(n - k, n) if largest else slice(k))
    if k in (0, n):
        found = xp.broadcast_to(xp.arange(n).reshape(-1, *(1,) * (x.ndim - axis - 1)), x.shape)[part]
    else:
        found = xp.argpartition(x, n - k if largest else k - 1, axis=axis)[part]
    if ordered:
        order = xp.argsort(xp.take_along_axis(x, found, axis=axis), axis=axis)
        found = xp.take_along_axis(found, xp.flip(order, axis) if largest else order, axis=axis)
    return found


def _middle(xp: XP, numbers: Array, size: int, ignore_nan: bool) -> Array:
    """Return the rank of the median among ``size`` sorted entries, of which ``numbers`` are not NaN."""
    middle = xp.maximum(numbers - 1, 0) // 2
    return middle if ignore_nan else xp.where(numbers < size, numbers, middle)  # the first NaN


def median_places(xp: XP, x: Array, axis: int, ignore_nan: bool) -> Array:
    """Return the places of the medians along an axis, which keeps size 1, in the stable order of equal entries."""
    order = xp.argsort(x, axis=axis, kind="stable")
    numbers = (x == x).sum(axis=axis, keepdims=True)
    return xp.take_along_axis(order, _middle(xp, numbers, x.shape[axis], ignore_nan), axis=axis)


def median_of_all(xp: XP, x: Array, ignore_nan: bool) -> Array:
    """Return the median of a vector, of size 1 or more."""
    return xp.take(xp.sort(x), _middle(xp, (x == x).sum(), x.size, ignore_nan))


def add_scaled(xp: XP, x: Any, y: Any, factor: float) -> Array:
    """Return ``x + factor y``, of arrays or of an array and a number."""
    return x + factor * y


def copies_of(xp: XP, x: Array, count: int) -> list[Array]:
    """Return several copies of x, contiguous."""
    return [xp.array(x, copy=True, order="C") for _ in range(count)]


# ---- sums and scatters ----------------------------------------------------------------------


_MANY = 1 << 12  # entries from which a sum in the arrays' own precision may lose digits


def sum_over(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """Return the sum over axes, rounded once. float16 is added in float32, and many rows of float32 in float64."""
    dtype, wide = x.dtype, accumulate_dtype(x.dtype)
    if dtype == float32 and x.size > _MANY and sorted(axes) != list(range(x.ndim - len(axes), x.ndim)):
        wide = float64  # because rows are added one after the other
    if wide == dtype:
        return x.sum(axis=axes, keepdims=keepdims)
    return x.sum(axis=axes, dtype=wide, keepdims=keepdims).astype(dtype)


def sum_to(xp: XP, x: Array, shape: tuple[int, ...]) -> Array:
    """Return x summed down to a shape that broadcasts to its own. This is the transpose of broadcasting."""
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1)
    return sum_over(xp, x, axes, True).reshape(shape)


def running_sum(xp: XP, x: Array, axis: int) -> Array:
    """Return the sums of the entries up to each one along an axis, added in float64 for float32 and in wider."""
    if not is_floating(x.dtype) or x.dtype == float64:
        return xp.cumsum(x, axis=axis)
    return xp.cumsum(x, axis=axis, dtype=float64).astype(x.dtype)


def sum_squares_of_all(xp: XP, arrays: Sequence[Array]) -> Array:
    """Return the sum of the squares of all entries of several arrays, 0-d, of at least float32."""
    flat = [a.astype(accumulate_dtype(a.dtype), copy=False).reshape(-1) for a in arrays]  # 256**2 overflows float16
    return xp.asarray(xp.stack([xp.asarray(xp.matmul(a, a)) for a in flat]).sum())


def scale_all_step(xp: XP, arrays: Sequence[Array], factor: Array) -> None:
    """Multiply several arrays in place by a factor, 0-d."""
    factors = {dtype: factor.astype(dtype) for dtype in {a.dtype for a in arrays}}
    for a in arrays:
        a *= factors[a.dtype]


def whole_of(xp: XP, parts: Sequence[Array], axis: int) -> Array | None:
    """Return the array that was cut into these parts along an axis, None if it is not found. It shares their memory."""
    return None


def root_sum_squares(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Return ``sqrt(sum(x**2))`` over axes. On the CPU it is right where squares overflow or vanish, too."""
    return xp.sqrt(xp.sum_over(x * x, axes, keepdims))


def _centre(xp: XP, x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return x minus its mean over axes, and the mean in two parts: rounded, and the rest.

    So an offset next to which the deviations are small costs no digits.
    """
    n = math.prod(x.shape[a] for a in axes)
    middle = xp.sum_over(x, axes, True) / n
    if x.size:  # the sum of large numbers overflows
        first = x[tuple(slice(1) if d in axes else slice(None) for d in range(x.ndim))]
        middle = xp.where(xp.isfinite(middle), middle, first)
    d = xp.asarray(x - middle)
    rest = xp.sum_over(d, axes, True) / n
    d -= rest
    return d, middle, rest


def variance(xp: XP, x: Array, axes: tuple[int, ...], factor: float) -> tuple[Array, Array, Array]:
    """Return ``factor sum((x - mean)**2)`` over axes, and the mean in two parts. All three keep the axes, of size 1."""
    d, middle, rest = _centre(xp, x, axes)
    d *= d
    return xp.sum_over(d, axes, True) * factor, middle, rest


def deviation(xp: XP, x: Array, axes: tuple[int, ...], factor: float) -> tuple[Array, Array, Array]:
    """Return the same as :func:`variance`, with the root of the first."""
    d, middle, rest = _centre(xp, x, axes)
    return xp.root_sum_squares(d, axes, True) * math.sqrt(factor), middle, rest


def scatter_add_into(xp: XP, out: Array, index: Any, source: Array) -> Array:
    """Compute ``out[index] += source`` in place; an entry that ``index`` names twice gets both. Return out."""
    wide = accumulate_dtype(out.dtype)
    if wide == out.dtype:
        xp.add.at(out, index, source)
    else:
        total = out.astype(wide)
        xp.add.at(total, index, source.astype(wide))
        out[...] = total
    return out


def last_places(xp: XP, keys: Array, count: int) -> Array:
    """Return for each entry of a vector of keys, which are below ``count``, the place of the last entry equal to it."""
    order = xp.argsort(keys, kind="stable")
    return order[xp.searchsorted(keys[order], keys, side="right") - 1]


def assign_into(xp: XP, out: Array, index: tuple[Any, ...], source: Array) -> Array:
    """Compute ``out[index] = source`` in place; of an entry that ``index`` names twice the last value stays.

    index: slices without bounds, index arrays and masks. Return out. A GPU writes in any order, so each place gets the
    value that has to stay.
    """
    found = last_writes(xp, out.shape, index)
    if found is not None and source.ndim:
        last, shape, start = found
        selected = out[index].shape
        wide = xp.broadcast_to(source, selected)
        rows = wide.reshape(*selected[:start], last.size, *selected[start + len(shape) :])
        source = xp.take(rows, last, axis=start).reshape(selected)
    out[index] = source
    return out


def last_writes(xp: XP, shape: tuple[int, ...], index: tuple[Any, ...]) -> tuple[Array, tuple[int, ...], int] | None:
    """Return which value stays in each entry that an assignment to ``x[index]`` names.

    shape: the shape of x. index: slices without bounds, index arrays and masks. The arrays together select dimensions
    of a shape that starts at dimension ``start`` of ``x[index]``. The result is ``(last, that shape, start)``, where
    ``last`` holds for each of these places, flattened, the place of the last write to the same entry. It is None if no
    entry can be named twice.
    """
    is_array = [hasattr(item, "dtype") for item in index]
    if not any(is_array) or all(item.dtype.kind == "b" for item in index if hasattr(item, "dtype")):
        return None  # a mask names no entry twice
    arrays: list[Any] = []
    sizes: list[int] = []
    dim = 0
    for item in index:
        if not hasattr(item, "dtype"):
            dim += 1
        elif item.dtype.kind == "b":
            arrays += xp.nonzero(item)
            sizes += shape[dim : dim + item.ndim]
            dim += item.ndim
        else:
            arrays.append(item)
            sizes.append(shape[dim])
            dim += 1
    key: Any = 0
    for array, size in zip(arrays, sizes, strict=True):
        key = key * size + array.astype(xp.int64) % max(size, 1)
    first = is_array.index(True)
    adjacent = all(is_array[first : first + sum(is_array)])
    return xp.last_places(key.reshape(-1), math.prod(sizes)), key.shape, first if adjacent else 0


def embedding_backward(xp: XP, g: Array, ids: Array, rows: int, negative: bool = False) -> Array:
    """Return the gradient of ``table[ids]`` for a table of ``rows`` rows: each row gets the sum over its uses.

    g: the gradient of the result, (*ids.shape, width). negative: whether -1 is the last row.
    """
    width = g.shape[-1]
    out = xp.zeros((rows, width), g.dtype)
    return xp.scatter_add_into(out, ids.reshape(-1), g.reshape(ids.size, width))


def take_at(xp: XP, x: Array, index: tuple[Any, ...]) -> Array:
    """Return ``x[index]`` for an index with index arrays."""
    return x[index]


def take_slices(xp: XP, x: Array, axis: int, index: Array, negative: bool = False) -> Array:
    """Return the slices of x along an axis at integers (...), which are instead of the axis in the result.

    negative: whether -1 is the last slice. The CPU raises IndexError for an index out of range.
    """
    return xp.take(x, index, axis=axis)


def _entries(xp: XP, axis: int, index: Array) -> tuple[Array, ...]:
    """Return the index arrays that select an entry at ``index`` along an axis for each place of ``index``."""
    return tuple(
        index if d == axis else xp.arange(n).reshape(-1, *(1,) * (index.ndim - d - 1))
        for d, n in enumerate(index.shape)
    )


def take_entries(xp: XP, x: Array, axis: int, index: Array, negative: bool = False) -> Array:
    """Return ``out[i, j, k] = x[i, index[i, j, k], k]`` for axis 1, and correspondingly for others.

    index: integers with as many dimensions as x, nowhere larger outside of the axis. ``negative`` as in
    :func:`take_slices`.
    """
    return x[_entries(xp, axis, index)]


def take_last_entries(xp: XP, x: Array, axis: int, index: Array) -> Array:
    """Return the same as :func:`take_entries`, and 0 where a later place has the same entry."""
    places = _entries(xp, axis, index)
    found = last_writes(xp, x.shape, places)
    assert found is not None
    last, shape, _ = found
    return xp.where((last == xp.arange(last.size)).reshape(shape), x[places], xp.zeros((), x.dtype))


def scatter_into(
    xp: XP, out: Array, axis: int, index: Array, source: Any, add: bool, negative: bool = False
) -> Array:  # fmt: skip
    """Store values in ``out`` in place, or add them, where :func:`take_entries` takes them from. Return out.

    index: as there, or a vector, as in :func:`take_slices`. source: an array of the shape of what that takes, or a
    number. The last of several values stays, or all are added.
    """
    places = (*(slice(None),) * axis, index) if index.ndim < out.ndim else _entries(xp, axis, index)
    if add:
        return xp.scatter_add_into(out, places, xp.asarray(source, out.dtype))
    if hasattr(source, "ndim"):
        return xp.assign_into(out, places, source)
    out[places] = source
    return out


def pool_places(
    xp: XP, x: Array, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    sizes: Sequence[int],
) -> Array:  # fmt: skip
    """Return where the largest entry of each window is in the flattened image, the first one of equal entries.

    x: images (N, C, *S). sizes: the number of windows in each dimension of S. The result is int64, (N, C, *sizes). A
    NaN is the largest.
    """
    best, where = xp.zeros((*x.shape[:2], *sizes), x.dtype), xp.full((*x.shape[:2], *sizes), -1, dtype=xp.int64)
    for offset in itertools.product(*map(range, kernel)):
        here, there, places = [], [], xp.zeros((1,) * len(sizes), xp.int64)
        for dim, (k, s, p, d, n, size) in enumerate(
            zip(offset, stride, padding, dilation, x.shape[2:], sizes, strict=True)
        ):
            shift = k * d - p  # window i reads entry i * s + shift
            first, last = max(0, -(shift // s)), min(size, -((shift - n) // s))
            here.append(slice(first, max(first, last)))
            begin = first * s + shift
            there.append(slice(begin, begin + max(0, last - first - 1) * s + (1 if last > first else 0), s))
            entries = xp.arange(begin, begin + max(0, last - first) * s, s, dtype=xp.int64)
            places = places * n + entries.reshape(-1, *(1,) * (len(sizes) - 1 - dim))
        if any(part.stop <= part.start for part in here):
            continue
        at = (slice(None), slice(None), *here)
        candidate, value, old = x[(slice(None), slice(None), *there)], best[at], where[at]
        better = (candidate > value) | (old < 0) | ((candidate != candidate) & (value == value))
        best[at] = xp.where(better, candidate, value)
        where[at] = xp.where(better, places, old)
    return where


# ---- convolutions ---------------------------------------------------------------------------

# Without loops of its own, a device computes convolutions as products of matrices (see ``ops/correlation.py``).


def direct_correlate(
    xp: XP, x: Array, weight: Array, bias: Array | None, stride: Sequence[int], dilation: Sequence[int],
    padding: Sequence[int], positions: Sequence[int],
) -> Array | None:  # fmt: skip
    """Return ``correlate`` of ``ops/correlation.py``, with n positions, or None if there is no loop for it."""
    return None


def direct_correlate_input(
    xp: XP, y: Array, weight: Array, shape: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
    padding: Sequence[int],
) -> Array | None:  # fmt: skip
    """Return ``correlate_input`` of ``ops/correlation.py``, or None if there is no loop for it."""
    return None


def direct_correlate_weight(
    xp: XP, y: Array, x: Array, shape: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
    padding: Sequence[int],
) -> Array | None:  # fmt: skip
    """Return ``correlate_weight`` of ``ops/correlation.py``, or None if there is no loop for it."""
    return None


# ---- affine maps ----------------------------------------------------------------------------


def matmul(xp: XP, x: Array, y: Array) -> Array:
    """Return ``x @ y``, of bfloat16 arrays in float32 and rounded once."""
    if x.dtype.kind != "V":
        return x @ y
    return cast_array(cast_array(x, float32) @ cast_array(y, float32), x.dtype)


def wide_matmul(xp: XP, x: Array, y: Array) -> Array:
    """Return ``x @ y`` in the dtype in which its numbers are added: float32 for float16 and bfloat16.

    A device that multiplies in float16 rounds the sums, because its product in float32 takes many times as long.
    """
    if x.dtype.kind == "V":
        return xp.matmul(cast_array(x, float32), cast_array(y, float32))
    product, wide = xp.matmul(x, y), accumulate_dtype(x.dtype)
    return product if product.dtype == wide else cast_array(product, wide)


def linear(xp: XP, x: Array, weight: Array, bias: Array | None) -> Array:
    """Return ``x @ weight.T + bias``, by one product for any number of dimensions of x."""
    if x.dtype.kind == "V":  # bfloat16 is rounded once
        return cast_array(linear(xp, *convert_arrays([x, weight, bias], x.dtype, float32)), x.dtype)
    y = xp.matmul(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), weight.T)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


def linear_backward(
    xp: XP, g: Array, x: Array, weight: Array, needs: tuple[int, ...], given_dtypes: Mapping[int, DType] | None = None
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the gradients of x, weight and bias; None for an argument whose position is not in ``needs``.

    They are ``g @ weight``, ``g.T @ x`` over all rows, and the sum of all rows of g. The sums of an argument that was
    float32 before the op converted it are not rounded to its present dtype; ``given_dtypes`` says so by its position.
    """
    rows = g.reshape(math.prod(g.shape[:-1]), g.shape[-1])
    wide = () if given_dtypes is None else [i for i in needs if given_dtypes[i].itemsize > g.dtype.itemsize]
    added = cast_array(rows, accumulate_dtype(g.dtype)) if 2 in wide else rows
    return (
        (xp.wide_matmul if 0 in wide else xp.matmul)(rows, weight).reshape(x.shape) if 0 in needs else None,
        (xp.wide_matmul if 1 in wide else xp.matmul)(rows.T, x.reshape(len(rows), x.shape[-1])) if 1 in needs else None,
        xp.sum_to(added, rows.shape[1:]) if 2 in needs else None,
    )


# ---- the error function ---------------------------------------------------------------------

# Chebyshev interpolants, highest power first. For |x| <= 1 that of erf(x) / x in u = 2 x^2 - 1. For 1 <= x <= 6 that of
# exp(x^2) erfc(x) in u = (t - 13/24) / (5/24), t = 3 / (x + 3). The largest error is 1.2e-16.
ERF_NEAR = (
    1.4543887079465116e-14, -3.8078824063194953e-13, 9.167619596865806e-12, -2.035228405815769e-10,
    4.115800583208149e-09, -7.511569286591727e-08, 1.223382738359897e-06, -1.7537169441124866e-05,
    0.00021751715604159932, -0.0022854855611441132, 0.019852496688983708, -0.1405360890227171,
    0.9654687386698673,
)  # fmt: skip
ERFC_FAR = (
    -6.697645564790815e-15, 6.043792147788813e-12, -6.02173256030324e-12, -2.5700407551346905e-10,
    2.637756022974126e-10, 1.133933573114706e-08, 4.5267318133461335e-09, -5.54127309801664e-07,
    -2.425557485042923e-06, 1.956358319778174e-05, 0.0003316029605792838, 0.002479314697086253,
    0.012713147695691918, 0.04969844540339414, 0.15436117429436919, 0.20798329133342885,
)  # fmt: skip


def _polynomial(u: Array, coefficients: tuple[float, ...]) -> Array:
    p = coefficients[0] * u + coefficients[1]
    for c in coefficients[2:]:
        p *= u
        p += c
    return p


def erf(xp: XP, x: Array) -> Array:
    """Return the error function of x, to 2e-16 in float64."""
    size = xp.abs(x)
    near = xp.minimum(size, 1.0)
    near = x * _polynomial(2.0 * near * near - 1.0, ERF_NEAR)
    far = xp.clip(size, 1.0, 6.0)  # 1 - erf(6) is 2e-17
    u = (3.0 / (far + 3.0)) * 4.8 - 2.6
    far = xp.copysign(1.0 - _polynomial(u, ERFC_FAR) * xp.exp(-far * far), x)
    return xp.where(size < 1.0, near, far)


# Fast float32 kernels use erf(z) = tanh(z * p(z^2)), which is exact to 6e-8. p is a weighted minimax fit of
# atanh(erf(z)) / z on 0 < z < 4.2, lowest power first.
ERF_TANH = (
    1.128379705, 0.1027654814, -1.843836656e-4, -6.257195994e-4, 8.971259577e-5, -5.985692019e-6, 1.589602992e-7,
)  # fmt: skip

# ---- softmax --------------------------------------------------------------------------------


def softmax(xp: XP, x: Array, axis: int) -> Array:
    """Return ``exp(x_i) / sum_j exp(x_j)`` along an axis, shifted by the maximum so that nothing overflows."""
    y = x - x.max(axis=axis, keepdims=True)
    xp.exp(y, out=y)
    y /= xp.sum_over(y, (axis % x.ndim,), True)
    return y


def exp_below(xp: XP, x: Array, top: Array) -> Array:
    """Return ``exp(x - top)`` for a maximum ``top`` of x: 1 where both are the same infinity, NaN if ``top`` is NaN."""
    y = xp.exp(xp.fmin(x - top, 0.0))  # fmin ignores NaN
    return xp.where(top == top, y, top)


def log_softmax(xp: XP, x: Array, axis: int) -> Array:
    """Return ``x_i - log(sum_j exp(x_j))`` along an axis."""
    y = x - x.max(axis=axis, keepdims=True)
    y -= xp.log(xp.sum_over(xp.exp(y), (axis % x.ndim,), True))
    return y


def softmax_backward(xp: XP, g: Array, y: Array, axis: int) -> Array:
    """Return ``y (g - sum(g y))`` along an axis: the gradient of the softmax y, given that of its result."""
    dx = g - xp.sum_over(g * y, (axis % y.ndim,), True)
    dx *= y
    return dx


def log_softmax_backward(xp: XP, g: Array, y: Array, axis: int) -> Array:
    """Return ``g - exp(y) sum(g)`` along an axis: the gradient of the logarithm y of a softmax."""
    dx = xp.exp(y)
    dx *= xp.sum_over(g, (axis % y.ndim,), True)
    return xp.subtract(g, dx, out=dx)


# ---- normalisation --------------------------------------------------------------------------


def _row_mean(x: Array) -> Array:
    """Return the mean of each row, (..., 1)."""
    # NumPy's `mean` takes three times as long on a small array. float16 needs it, because it adds in float32.
    return x.mean(axis=-1, keepdims=True) if x.dtype.itemsize < 4 else x.sum(axis=-1, keepdims=True) / x.shape[-1]


def layer_norm(xp: XP, x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """Return rows ``(x - mean) / sqrt(variance + eps) * weight + bias``, and the rows' means and inverse deviations.

    weight, bias: the length of a row, or None. Means and inverse deviations are (..., 1).
    Source: Ba et al., "Layer Normalization", 2016.
    """
    mean = _row_mean(x)
    y = x - mean
    rstd = 1.0 / xp.sqrt(_row_mean(y * y) + eps)
    y *= rstd
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return y, mean, rstd


def layer_norm_backward(
    xp: XP, g: Array, x: Array, weight: Array | None, mean: Array, rstd: Array
) -> tuple[Array, Array | None, Array]:
    """Return the gradients of x, weight (None without one) and bias.

    With ``n = (x - mean) * rstd`` and ``h = g * weight``: ``dx = rstd * (h - mean(h) - n * mean(h * n))``.
    """
    n = (x - mean) * rstd
    gn = g * n
    shape = x.shape[-1:]
    dweight = None if weight is None else xp.sum_to(gn, shape)
    dbias = xp.sum_to(g, shape)
    if weight is None:
        h = g - _row_mean(g)
    else:
        gn *= weight
        h = g * weight
        h -= _row_mean(h)
    n *= _row_mean(gn)
    h -= n
    h *= rstd
    return h, dweight, dbias


# Channels are arrays (N, G, K, S): examples, groups, channels of a group, entries. What belongs to a group or a channel
# has size 1 along the other axes.


def channel_moments(xp: XP, x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return the standard deviation over axes, and the mean in two parts; see :func:`deviation`."""
    return xp.deviation(x, axes, 1.0 / max(1, math.prod(x.shape[a] for a in axes)))


def _inverse_deviation(xp: XP, deviation: Array, eps: float) -> Array:
    """Return ``1 / sqrt(deviation**2 + eps)``, right for deviations whose squares overflow, too."""
    if eps >= 0:
        return 1.0 / xp.hypot(deviation, math.sqrt(eps))
    return 1.0 / xp.sqrt(deviation * deviation + eps)


def _normalised(x: Array, middle: Array, rest: Array, rstd: Array) -> Array:
    """Return ``(x - mean) * rstd`` for a mean in two parts."""
    y = x - middle
    y -= rest
    y *= rstd
    return y


def channel_norm(
    xp: XP, x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float, moments: Any
) -> tuple[Array, Array, Array, Array]:
    """Return ``(x - mean) / sqrt(variance + eps) * weight + bias`` with the moments over axes of x (N, G, K, S).

    moments: the results of :func:`channel_moments`, or None. The further results are the mean in two parts, and
        ``1 / sqrt(variance + eps)``.
    """
    deviation, middle, rest = channel_moments(xp, x, axes) if moments is None else moments
    rstd = xp.asarray(_inverse_deviation(xp, deviation, eps), x.dtype)
    y = _normalised(x, middle, rest, rstd)
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return y, middle, rest, rstd


def channel_norm_backward(
    xp: XP, g: Array, x: Array, weight: Array | None, middle: Array, rest: Array, rstd: Array, axes: tuple[int, ...]
) -> tuple[Array, Array, Array]:
    """Return the gradients of x, weight and bias: that of :func:`layer_norm_backward`, with means over other axes."""
    count = math.prod(x.shape[a] for a in axes)
    n = _normalised(x, middle, rest, rstd)
    gn = g * n
    dweight, dbias = xp.sum_over(gn, (0, 3), True), xp.sum_over(g, (0, 3), True)
    if weight is not None:
        g = g * weight
        gn *= weight
    h = g - xp.sum_over(g, axes, True) / count
    n *= xp.sum_over(gn, axes, True) / count
    h -= n
    h *= rstd
    return h, dweight, dbias


def scale_channels(xp: XP, x: Array, shift: Array, factor: Array, offset: Array) -> Array:
    """Return ``(x - shift) * factor + offset`` for x (N, G, K, S) and numbers of each channel."""
    y = x - shift
    y *= factor
    y += offset
    return y


def scale_channels_backward(
    xp: XP, g: Array, x: Array, shift: Array, factor: Array
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Return the gradients of x, shift, factor and offset."""
    total, product = xp.sum_over(g, (0, 3), True), xp.sum_over(g * (x - shift), (0, 3), True)
    return g * factor, -factor * total, product, total


def rms_norm(xp: XP, x: Array, weight: Array | None, eps: float) -> tuple[Array, Array]:
    """Return rows ``x / sqrt(mean(x^2) + eps) * weight``, and the inverse root mean squares, (..., 1).

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """
    rrms = 1.0 / xp.sqrt(_row_mean(x * x) + eps)
    y = x * rrms
    if weight is not None:
        y *= weight
    return y, rrms


def rms_norm_backward(xp: XP, g: Array, x: Array, weight: Array | None, rrms: Array) -> tuple[Array, Array | None]:
    """Return the gradients of x and weight (None without one).

    With ``n = x * rrms`` and ``h = g * weight``: ``dx = rrms * (h - n * mean(h * n))``.
    """
    n = x * rrms
    gn = g * n
    dweight = None if weight is None else xp.sum_to(gn, x.shape[-1:])
    h = g.copy() if weight is None else g * weight
    if weight is not None:
        gn *= weight
    n *= _row_mean(gn)
    h -= n
    h *= rrms
    return h, dweight


# ---- activations ----------------------------------------------------------------------------


def clamp(xp: XP, x: Array, low: Any, high: Any) -> Array:
    """Return ``minimum(maximum(x, low), high)``; a bound that is None is left out."""
    if low is not None:
        x = xp.maximum(x, low)
    return x if high is None else xp.minimum(x, high)


SMALLEST_BLOCK = 1e-36
"""The largest activation of a block below which 8 bits hold 0, because 127 divided by it is still a float32."""
GELU_FAR = 1e3
"""A number beyond which the cdf in GELU is 0 or 1. x is clamped to it, because infinity times 0 would be NaN."""
_TANH_GELU = 2.0 * math.sqrt(2.0 / math.pi)


SILU_FAR = 1e4  # where the sigmoid is 0 or 1: infinity times 0 would be NaN


def silu(xp: XP, x: Array) -> Array:
    """Return ``x sigmoid(x)``."""
    return xp.maximum(x, -SILU_FAR) / (1.0 + xp.exp(-x))


def silu_backward(xp: XP, g: Array, x: Array, y: Array) -> Array:
    """Return ``g (s + y (1 - s))`` with s the sigmoid of x, and y the result of :func:`silu`."""
    s = 1.0 / (1.0 + xp.exp(-x))
    return g * (s + xp.minimum(y, SILU_FAR) * (1.0 - s))


def gelu(xp: XP, x: Array, tanh: bool) -> Array:
    """Return ``x * cdf(x)`` for the cdf of the normal distribution, exact or by its tanh approximation; 0 at -inf.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
    """
    return xp.maximum(x, -GELU_FAR) * _gelu_cdf(xp, xp.clip(x, -GELU_FAR, GELU_FAR), tanh)


def _gelu_cdf(xp: XP, x: Array, tanh: bool) -> Array:
    """Return the factor by which GELU multiplies x."""
    if tanh:  # ``(1 + tanh(z / 2)) / 2`` as a sigmoid of z, which keeps its digits where it is near 0
        return 1.0 / (1.0 + xp.exp(-_TANH_GELU * (x + 0.044715 * (x * x * x))))
    return 0.5 * (1.0 + xp.erf(x * math.sqrt(0.5)))


def gelu_backward(xp: XP, g: Array, x: Array, tanh: bool) -> Array:
    """Return ``g * (cdf + x * pdf)``, or the gradient of the tanh approximation.

    The cdf is computed again, because that costs less than the memory to keep it for the backward pass.
    """
    x = xp.clip(x, -GELU_FAR, GELU_FAR)
    cdf = _gelu_cdf(xp, x, tanh)
    if tanh:
        return g * (cdf + x * cdf * (1.0 - cdf) * _TANH_GELU * (1.0 + (3.0 * 0.044715) * (x * x)))
    return g * (cdf + x * (xp.exp(-0.5 * (x * x)) * (1.0 / math.sqrt(2.0 * math.pi))))


# ---- losses ---------------------------------------------------------------------------------


def cross_entropy(
    xp: XP, logits: Array, target: Array, ignore_index: int, smoothing: float
) -> tuple[Array, Array, Array]:
    """Return the loss of each row of ``(N, C)`` logits, the rows' maxima, and their sums of ``exp(x - max)``, (N, 1).

    target: class indices, (N,); the loss is 0 where ``target == ignore_index``. smoothing: from 0 to 1.

    With ``z = x - max(x)`` it is ``log(sum(exp(z))) - (1 - smoothing) * z[target] - smoothing * mean(z)``. The maximum
    and the logarithm are never added, because the rounding of a large maximum would lose the logarithm.
    """
    top = logits.max(axis=-1, keepdims=True)
    shifted = logits - top
    total = xp.exp(shifted).sum(axis=-1, keepdims=True)
    counted = target != ignore_index
    safe = xp.where(counted, target, 0)
    loss = xp.log(total[:, 0]) - (1.0 - smoothing) * shifted[xp.arange(len(target)), safe]
    if smoothing:
        loss -= smoothing * shifted.mean(axis=-1)
    return xp.where(counted, loss, 0.0), top, total


def cross_entropy_backward(
    xp: XP, g: Array, logits: Array, target: Array, top: Array, total: Array, ignore_index: int, smoothing: float
) -> Array:
    """Return the gradient of the logits, (N, C), given that of the losses, g (N,).

    Row i is ``g_i * (softmax(x_i) - (1 - smoothing) * onehot(target_i) - smoothing / C)``, or 0 if it is ignored.
    """
    counted = target != ignore_index
    safe = xp.where(counted, target, 0)
    dx = logits - top
    xp.exp(dx, out=dx)
    dx /= total
    if smoothing:
        dx -= smoothing / logits.shape[-1]
    dx[xp.arange(len(target)), safe] -= 1.0 - smoothing
    dx *= g[:, None]
    return xp.where(counted[:, None], dx, 0.0)  # 0 times NaN would be NaN


# ---- attention ------------------------------------------------------------------------------


def attention(
    xp: XP, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, causal: bool, scale: float
) -> tuple[Array, Array, Array]:
    """Return ``softmax(scale * q k^T + mask) v``, the maxima of the scores' rows, and their sums of ``exp(s - max)``.

    q (..., T, D), k (..., S, D), v (..., S, E). mask: booleans (True takes part) or numbers to add, broadcastable to
    (..., T, S). A query without any key gives zeros. causal: query t sees keys 0 to t. dropout_mask: factors for the
    softmax, or None. Maxima and sums are (..., T, 1).
    Source: Vaswani et al., "Attention Is All You Need", 2017.
    """
    parts = [_attend(xp, q, k, v, mask, dropout_mask, causal, scale, rows) for rows in _blocks_of_queries(q, k, v)]
    return parts[0] if len(parts) == 1 else tuple(xp.concatenate(part, axis=-2) for part in zip(*parts))


def _blocks_of_queries(q: Array, k: Array, v: Array) -> list[tuple[int, int]]:
    """Return ranges of queries whose scores take no more memory than a multiple of the keys and values."""
    n, size = q.shape[-2], max(_MIN_QUERIES, 4 * (k.shape[-1] + v.shape[-1]))
    return [(start, min(start + size, n)) for start in range(0, max(n, 1), size)]


_MIN_QUERIES = 64


def _some_rows(x: Array | None, rows: tuple[int, int]) -> Array | None:
    """Return some rows of a matrix that broadcasts to the scores."""
    return x if x is None or x.ndim < 2 or x.shape[-2] == 1 else x[..., slice(*rows), :]


def _attend(
    xp: XP, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, causal: bool, scale: float,
    rows: tuple[int, int],
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Compute :func:`attention` of some queries."""
    mask, dropout_mask = _some_rows(mask, rows), _some_rows(dropout_mask, rows)
    scores = _scores(xp, q[..., slice(*rows), :], k, mask, causal, scale, rows[0])
    top = scores.max(axis=-1, keepdims=True) if k.shape[-2] else xp.zeros((*scores.shape[:-1], 1), scores.dtype)
    if mask is not None:
        top = xp.where(top == -math.inf, 0.0, top)  # if a whole row is masked, exp(-inf - 0) is 0
    scores -= top
    p = xp.exp(scores, out=scores)
    total = p.sum(axis=-1, keepdims=True)
    if mask is not None:
        total = xp.where(total == 0, 1.0, total)
    p /= total
    return (p if dropout_mask is None else p * dropout_mask) @ v, top, total


def _scores(xp: XP, q: Array, k: Array, mask: Array | None, causal: bool, scale: float, first: int) -> Array:
    """Return ``scale * q k^T + mask``, with -inf for keys that a query does not see. ``first`` is the first query."""
    scores = q @ k.swapaxes(-1, -2)
    scores *= scale
    if causal:
        scores = xp.where(xp.tri(q.shape[-2], k.shape[-2], first, dtype=bool), scores, -math.inf)
    if mask is not None:
        scores = xp.where(mask, scores, -math.inf) if mask.dtype.kind == "b" else scores + mask
    return scores


def attention_backward(
    xp: XP, g: Array, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, top: Array,
    total: Array, causal: bool, scale: float,
) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
    """Return the gradients of q, k, v and of a mask that is added; None for the mask if there is no such mask.

    The softmax is computed again from the maxima and sums of its rows, so that it need not be kept for the backward
    pass. The rounding of a large maximum would lose the logarithm of a sum.
    """
    blocks = _blocks_of_queries(q, k, v)
    parts = [_attend_backward(xp, g, q, k, v, mask, dropout_mask, top, total, causal, scale, rows) for rows in blocks]
    dq, dk, dv, dmask = parts[0]
    if len(parts) > 1:
        dq = xp.concatenate([part[0] for part in parts], axis=-2)
        whole = mask is None or mask.ndim < 2 or mask.shape[-2] == 1
        if dmask is not None and not whole:
            dmask = xp.concatenate([part[3] for part in parts], axis=-2)
        for part in parts[1:]:
            dk += part[1]
            dv += part[2]
            if dmask is not None and whole:
                dmask += part[3]
    return dq, dk, dv, dmask


def _attend_backward(
    xp: XP, g: Array, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, top: Array,
    total: Array, causal: bool, scale: float, rows: tuple[int, int],
) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
    """Compute :func:`attention_backward` for the gradient of some queries' results."""
    mask, dropout_mask = _some_rows(mask, rows), _some_rows(dropout_mask, rows)
    g, q, top, total = (x[..., slice(*rows), :] for x in (g, q, top, total))
    p = _scores(xp, q, k, mask, causal, scale, rows[0])
    p -= top
    p = xp.exp(p, out=p)
    p /= total
    dv = (p if dropout_mask is None else p * dropout_mask).swapaxes(-1, -2) @ g
    ds = g @ v.swapaxes(-1, -2)
    if dropout_mask is not None:
        ds *= dropout_mask
    ds *= p
    ds -= p * ds.sum(axis=-1, keepdims=True)
    dq = ds @ k
    dq *= scale
    dk = ds.swapaxes(-1, -2) @ q
    dk *= scale
    return dq, dk, dv, None if mask is None or mask.dtype.kind == "b" else xp.sum_to(ds, mask.shape)


# ---- optimizers -----------------------------------------------------------------------------


def sgd_step(
    xp: XP, p: Array, g: Array, velocity: Array | None, lr: float, momentum: float, dampening: float, decay: float,
    nesterov: bool, maximize: bool,
) -> None:  # fmt: skip
    """Make one step of SGD, in place: into ``p``, and into ``velocity`` if it is not None.

    ``d = g + decay p;  v = momentum v + (1 - dampening) d;  p -= lr v``, or ``lr (d + momentum v)`` if ``nesterov``.
    """
    d = -g if maximize else g
    if decay:
        d = d + decay * p
    if velocity is not None:
        velocity *= momentum
        velocity += d if dampening == 0 else (1.0 - dampening) * d
        d = d + momentum * velocity if nesterov else velocity
    p -= lr * d


def adam_step(
    xp: XP, p: Array, g: Array, m: Array, v: Array, t: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    """Make step number t (from 1) of Adam, or of AdamW if ``decoupled``, in place: into ``p``, ``m`` and ``v``.

    ``m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)``.
    Sources: Kingma and Ba, "Adam", 2014; Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017.
    """
    if maximize:
        g = -g
    if decay and decoupled:
        p *= 1.0 - lr * decay
    elif decay:
        g = g + decay * p
    scratch = xp.empty_like(g)  # because g * (1 - beta1) is a scalar if g is 0-d
    xp.multiply(g, 1.0 - beta1, out=scratch)
    m *= beta1
    m += scratch
    xp.multiply(g, g, out=scratch)
    scratch *= 1.0 - beta2
    v *= beta2
    v += scratch
    xp.sqrt(v, out=scratch)
    scratch /= math.sqrt(1.0 - beta2**t)
    scratch += eps
    xp.divide(m, scratch, out=scratch)
    scratch *= lr / (1.0 - beta1**t)
    p -= scratch


def adam_all_step(
    xp: XP, p: Sequence[Array], g: Sequence[Array], m: Sequence[Array], v: Sequence[Array], t: int, lr: float,
    beta1: float, beta2: float, eps: float, decay: float, decoupled: bool, maximize: bool, entries: int = 0,
) -> None:  # fmt: skip
    """Make :func:`adam_step` for each of several parameters p, with its gradient in g, its means in m and v.

    entries: the number of all entries, if the parameters are a part of a list. A kernel may choose by it how it
        computes, so that the bits of a parameter do not depend on the part.
    """
    for arrays in zip(p, g, m, v, strict=True):
        xp.adam_step(*arrays, t, lr, beta1, beta2, eps, decay, decoupled, maximize)


def adam_coefficients(
    t: int, lr: float, beta1: float, beta2: float, eps: float, decay: float, decoupled: bool, maximize: bool
) -> tuple[float, ...]:  # fmt: skip
    """Return the ten numbers that a fused kernel of :func:`adam_step` takes, in this order.

    - sign: -1 to maximize, else 1; the gradient is multiplied by it.
    - decay_factor: the factor of p, ``1 - lr decay`` for decoupled decay, else 1.
    - decay: the multiple of p that is added to the gradient; 0 for decoupled decay.
    - beta1, one_minus_beta1, beta2, one_minus_beta2.
    - correction2: ``sqrt(1 - beta2^t)``, by which ``sqrt(v)`` is divided.
    - eps.
    - rate: ``lr / (1 - beta1^t)``.
    """
    return (
        -1.0 if maximize else 1.0, float(1.0 - lr * decay) if decoupled else 1.0, 0.0 if decoupled else float(decay),
        float(beta1), float(1.0 - beta1), float(beta2), float(1.0 - beta2), math.sqrt(1.0 - beta2**t), float(eps),
        float(lr / (1.0 - beta1**t)),
    )  # fmt: skip


def orthogonal(xp: XP, x: Array, coefficients: tuple[float, float, float], steps: int, eps: float) -> Array:
    """Return about ``U V^T`` for a matrix ``U S V^T``, by Newton-Schulz iterations.

    Each step maps every singular value s to ``a s + b s^3 + c s^5``, where a, b and c are the coefficients.
    """
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    flat = x.reshape(-1)
    y = x / xp.maximum(xp.sqrt(flat @ flat), eps)
    y = y.T if tall else y
    for _ in range(steps):
        gram = xp.matmul(y, y.T)
        inner = xp.matmul(gram, gram)
        inner *= c
        inner += b * gram
        step = xp.matmul(inner, y)
        step += a * y
        y = step
    return y.T if tall else y


def muon_step(
    xp: XP, p: Array, g: Array, m: Array, lr: float, factor: float, momentum: float, decay: float, nesterov: bool,
    coefficients: tuple[float, float, float], steps: int, eps: float,
) -> None:  # fmt: skip
    """Make one step of Muon, in place: into the matrices ``p`` and ``m``.

    ``m += (1 - mu) (g - m);  u = g + mu (m - g)``, or m without ``nesterov``; ``p *= 1 - lr decay;
    p -= lr factor orthogonal(u)``. Source: Jordan et al., "Muon", 2024.
    """
    m += (1.0 - momentum) * (g - m)
    update = g + momentum * (m - g) if nesterov else m
    if decay:
        p *= 1.0 - lr * decay
    p -= (lr * factor) * xp.orthogonal(update, coefficients, steps, eps)


# ---- random bits ----------------------------------------------------------------------------


def philox(xp: XP, seed: int, offset: int, n: int) -> Array:
    """Return ``n`` random 32-bit words, as uint64, from block ``offset`` on of Philox-4x32-10.

    seed: the 64-bit key. The words come from a counter, so a seed and an offset give the same words on every device.
    Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
    """
    low = 0xFFFFFFFF
    counter = xp.arange(-(-n // 4), dtype=xp.uint64) + offset
    c0, c1 = counter & low, counter >> 32
    c2, c3 = xp.zeros_like(counter), xp.zeros_like(counter)
    k0, k1 = seed & low, seed >> 32 & low
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & low, (p0 >> 32) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return xp.stack([c0, c1, c2, c3], axis=-1).reshape(-1)[:n]
