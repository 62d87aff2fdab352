"""References of convolution, pooling and the normalization of channels: loops over the entries of the result."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.ops.op_references import Array, Reference, adder

SPATIAL_REFERENCES: dict[str, Reference] = {}
"""As REFERENCES in tests/ops/op_references.py."""


of = adder(SPATIAL_REFERENCES)


def every(value: Any, like: Sequence[int]) -> tuple[int, ...]:
    """Return a size for each dimension."""
    return (value,) * len(like) if isinstance(value, int) else tuple(value)


@of("F.conv1d F.conv2d")
def convolve(
    x: Array, weight: Array, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Array:
    kernel = weight.shape[2:]
    stride, padding, dilation = (every(value, kernel) for value in (stride, padding, dilation))
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation)]
    y = np.zeros((len(x), len(weight), *sizes))
    for n, o, *at in itertools.product(*map(range, y.shape)):
        first = o // (len(weight) // groups) * weight.shape[1]
        for c, *k in itertools.product(*map(range, weight.shape[1:])):
            entry = tuple(i * s + j * d for i, s, j, d in zip(at, stride, k, dilation))
            y[(n, o, *at)] += x[(n, first + c, *entry)] * weight[(o, c, *k)]
        y[(n, o, *at)] += 0.0 if bias is None else bias[o]
    return y


@of("F.conv_transpose1d F.conv_transpose2d")
def convolve_transposed(
    x: Array, weight: Array, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Array:  # fmt: skip
    kernel = weight.shape[2:]
    stride, padding, output_padding, dilation = (every(v, kernel) for v in (stride, padding, output_padding, dilation))
    sizes = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(x.shape[2:], stride, dilation, kernel, output_padding)
    ]
    y = np.zeros((len(x), weight.shape[1] * groups, *sizes))
    for n, c, *at in itertools.product(*map(range, x.shape)):
        first = c // (len(weight) // groups) * weight.shape[1]
        for o, *k in itertools.product(*map(range, weight.shape[1:])):
            entry = tuple(i * s + j * d for i, s, j, d in zip(at, stride, k, dilation))
            y[(n, first + o, *entry)] += x[(n, c, *at)] * weight[(c, o, *k)]
    y = y[(slice(None), slice(None), *(slice(p, n - p) for p, n in zip(padding, sizes)))]
    return y if bias is None else y + np.asarray(bias).reshape(-1, *(1,) * len(kernel))


def windows(
    x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any = 1
) -> tuple[tuple[int, ...], Callable[..., list[tuple[int, ...]]]]:
    """Return the sizes of the result, and a function that lists the entries of a window, those outside included."""
    shape = x.shape[2:]
    kernel, padding, dilation = (every(value, shape) for value in (kernel, padding, dilation))
    stride = kernel if stride is None else every(stride, shape)
    sizes = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(shape, kernel, stride, padding, dilation)
    )

    def entries(*at: int) -> list[tuple[int, ...]]:
        ranges = [[i * s - p + j * d for j in range(k)] for i, k, s, p, d in zip(at, kernel, stride, padding, dilation)]
        return list(itertools.product(*ranges))

    return sizes, entries


def inside(x: Array, entry: tuple[int, ...]) -> bool:
    return all(0 <= i < n for i, n in zip(entry, x.shape[2:]))


@of("F.max_pool1d F.max_pool2d")
def max_pool(x: Array, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> Array:
    sizes, entries = windows(x, kernel, stride, padding, dilation)
    y = np.zeros((*x.shape[:2], *sizes))
    for n, c, *at in itertools.product(*map(range, y.shape)):
        y[(n, c, *at)] = max(x[(n, c, *entry)] for entry in entries(*at) if inside(x, entry))
    return y


@of("F.avg_pool1d F.avg_pool2d")
def avg_pool(
    x: Array, kernel: Any, stride: Any = None, padding: Any = 0, count_include_pad: bool = True
) -> Array:  # fmt: skip
    sizes, entries = windows(x, kernel, stride, padding)
    y = np.zeros((*x.shape[:2], *sizes))
    for n, c, *at in itertools.product(*map(range, y.shape)):
        every_entry = entries(*at)
        seen = [x[(n, c, *entry)] for entry in every_entry if inside(x, entry)]
        y[(n, c, *at)] = math.fsum(seen) / (len(every_entry) if count_include_pad else len(seen))
    return y


def adaptive(reduce: Callable[[Array], Any]) -> Reference:
    def pool(x: Array, output_size: Any) -> Array:
        sizes = every(output_size, x.shape[2:])
        y = np.zeros((*x.shape[:2], *sizes))
        for n, c, *at in itertools.product(*map(range, y.shape)):
            parts = [slice(i * m // s, -(-(i + 1) * m // s)) for i, m, s in zip(at, x.shape[2:], sizes)]
            y[(n, c, *at)] = reduce(x[(n, c, *parts)])
        return y

    return pool


of("F.adaptive_avg_pool1d F.adaptive_avg_pool2d")(adaptive(lambda part: math.fsum(part.ravel()) / part.size))
of("F.adaptive_max_pool1d F.adaptive_max_pool2d")(adaptive(lambda part: part.max()))


def normalised(x: Array, eps: float) -> Array:
    mean = math.fsum(x.ravel()) / x.size
    return (x - mean) / math.sqrt(math.fsum(((x - mean) ** 2).ravel()) / x.size + eps)


def scaled(x: Array, weight: Any, bias: Any) -> Array:
    shape = (-1, *(1,) * (x.ndim - 2))
    x = x if weight is None else x * np.reshape(weight, shape)
    return x if bias is None else x + np.reshape(bias, shape)


@of("F.batch_norm")
def batch_norm(
    x: Array, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False, eps: float = 1e-5
) -> Array:
    shape = (-1, *(1,) * (x.ndim - 2))
    if training:
        y = np.stack([normalised(x[:, c], eps) for c in range(x.shape[1])], 1)
    else:
        y = (x - np.reshape(mean, shape)) / np.sqrt(np.reshape(var, shape) + eps)
    return scaled(y, weight, bias)


@of("F.group_norm")
def group_norm(x: Array, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Array:
    size = x.shape[1] // num_groups
    y = np.zeros(x.shape)
    for n, group in itertools.product(range(len(x)), range(num_groups)):
        part = slice(group * size, (group + 1) * size)
        y[n, part] = normalised(x[n, part], eps)
    return scaled(y, weight, bias)


@of("normalize_channels")
def normalize_channels(
    x: Array, weight: Any = None, bias: Any = None, groups: int | None = None, eps: float = 1e-5
) -> Array:  # fmt: skip
    if groups is None:
        return batch_norm(x, None, None, weight, bias, True, eps)
    return group_norm(x, groups, weight, bias, eps) if x.size else x


@of("scale_channels")
def scale_channels(x: Array, shift: Array, factor: Array, offset: Array) -> Array:
    return scaled(x - np.reshape(shift, (-1, *(1,) * (x.ndim - 2))), factor, offset)

