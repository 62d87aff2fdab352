"""Convolution and pooling, as functions.

An input is (N, C, *S) or (C, *S): N examples, C channels, and one or two dimensions S. Sizes such as ``stride`` are an
int, or a sequence with one for each dimension.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

from ..autograd.autocast_mode import autocasts, casting, lowered
from ..autograd.graph import wrap
from ..backends.registry import BACKENDS
from ..errors import ShapeError
from ..ops.correlation import correlate, correlate_input
from ..ops.gather_scatter import gather
from ..ops.shape import pad_dims, stack
from ..scalars import as_integer, flag_in, int_in, ints_in
from ..tensors.tensor import Tensor
from .checks import check_floating, check_tensors, check_tensors_or_none, format_tensors

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "avg_pool1d",
    "avg_pool2d", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "max_pool1d", "max_pool2d",
]  # fmt: skip

Size: TypeAlias = int | Sequence[int]
R = TypeVar("R")

# ---- arguments ------------------------------------------------------------------------------


def sizes_in(name: str, what: str, value: Any, dims: int, least: int) -> tuple[int, ...]:
    """Return one int for each of ``dims`` dimensions.

    Raises ValueError for another number of them, or for one below ``least``.
    """
    if as_integer(value) is not None:
        sizes = (int_in(name, what, value),) * dims
    else:
        sizes = ints_in(name, what, value)
        sizes = sizes * dims if len(sizes) == 1 else sizes
    if len(sizes) != dims or min(sizes) < least:
        raise ValueError(f"{name}: expected {what} to be {dims} integers of at least {least}, or one, got {value!r}")
    return sizes


def _for_batch(name: str, input: Tensor, dims: int, function: Callable[[Tensor], R]) -> R:
    """Return the result of a function of a batch (N, C, *S). An input (C, *S) is a batch of one."""
    check_tensors(name, input=input)
    if input.ndim not in (dims + 1, dims + 2):
        raise ShapeError(
            f"{name}({format_tensors(input)}): expected an input with {dims + 2} dimensions (N, C, ...), or {dims + 1} "
            f"without a batch"
        )
    if input.ndim == dims + 2:
        return function(input)
    result: Any = function(input.unsqueeze(0))
    single: Any = tuple(r.squeeze(0) for r in result) if isinstance(result, tuple) else result.squeeze(0)
    return cast("R", single)


def _pad(x: Tensor, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad the last dimensions."""
    if not any(itertools.chain(*widths)):
        return x
    padded: Tensor = pad_dims(x, ((0, 0),) * (x.ndim - len(widths)) + tuple(widths), value)
    return padded


# ---- convolution ----------------------------------------------------------------------------


def _check_convolution(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, dims: int) -> int:
    """Return the number of groups; raise an error for tensors that do not fit."""
    check_tensors_or_none(name, input=x, weight=weight, bias=bias)
    check_floating(name, x, weight, bias)
    groups = int_in(name, "groups", groups)
    if weight.ndim != dims + 2:
        raise ShapeError(f"{name}({format_tensors(x, weight)}): expected a weight with {dims + 2} dimensions")
    if groups < 1:
        raise ValueError(f"{name}: expected groups of 1 or more, got {groups}")
    return groups


def _convolve(
    name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size | str,
    dilation: Size, groups: int,
) -> Tensor:  # fmt: skip
    def batch(x: Tensor) -> Tensor:
        count = _check_convolution(name, x, weight, bias, groups, dims)
        strides, dilations = sizes_in(name, "stride", stride, dims, 1), sizes_in(name, "dilation", dilation, dims, 1)
        outs, channels, *kernel = weight.shape
        if x.shape[1] != channels * count or outs % count or (bias is not None and bias.shape != (outs,)):
            raise ShapeError(
                f"{name}({format_tensors(x, weight, bias)}): expected an input (N, C, ...), a weight (O, C / groups, "
                f"...) and a bias (O,) for groups={count}, which divides O"
            )
        widths = padding_widths(name, padding, kernel, strides, dilations)
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        padded = tuple(n + before + after for n, (before, after) in zip(x.shape[2:], widths, strict=True))
        if any(k < 1 for k in kernel) or any(n < r for n, r in zip(padded, reach, strict=True)):
            raise ShapeError(
                f"{name}({format_tensors(x, weight)}): expected a kernel of at least 1 that is not larger than the "
                f"padded input, got {tuple(reach)} for {padded}"
            )
        sizes = [(n - r) // s + 1 for n, r, s in zip(padded, reach, strides, strict=True)]
        if any(before != after for before, after in widths):
            x, widths = _pad(x, widths), [(0, 0)] * dims
        apart = bias is None or casting.active  # inside autocast the bias, and so its gradient, stays in float32
        y = correlate(
            x.reshape(len(x), count, channels, *x.shape[2:]),
            weight.reshape(count, outs // count, channels, *kernel),
            None if apart or bias is None else bias.reshape(count, outs // count),
            strides, dilations, tuple(p for p, _ in widths),
        ).reshape(len(x), outs, *sizes)  # fmt: skip
        return _add_bias(y, bias) if apart else y

    return _for_batch(name, input, dims, batch)


def padding_widths(
    name: str, padding: Size | str, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """Return how many entries are added before and after, for each dimension.

    Raises ValueError for another text than "same" and "valid", and for "same" with a stride.
    """
    text = padding if isinstance(padding, str) else None  # an array compares entry by entry
    if text == "valid":
        return [(0, 0)] * len(kernel)
    if text == "same":
        if any(s != 1 for s in stride):
            raise ValueError(f"{name}: expected a stride of 1 with padding='same', got {tuple(stride)}")
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(n // 2, n - n // 2) for n in total]
    if text is not None:
        raise ValueError(f"{name}: expected padding to be 'valid', 'same' or integers, got {padding!r}")
    return [(p, p) for p in sizes_in(name, "padding", padding, len(kernel), 0)]


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """Return y plus a number for each channel, in y's dtype."""
    return y if bias is None else lowered(y + bias.reshape(-1, *(1,) * (y.ndim - 2)))


def _transposed(
    name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size,
    output_padding: Size, groups: int, dilation: Size,
) -> Tensor:  # fmt: skip
    def batch(x: Tensor) -> Tensor:
        count = _check_convolution(name, x, weight, bias, groups, dims)
        strides, dilations = sizes_in(name, "stride", stride, dims, 1), sizes_in(name, "dilation", dilation, dims, 1)
        pads = sizes_in(name, "padding", padding, dims, 0)
        extra = sizes_in(name, "output_padding", output_padding, dims, 0)
        ins, outs, *kernel = weight.shape
        if x.shape[1] != ins or ins % count or min(kernel) < 1 or (bias is not None and bias.shape != (outs * count,)):
            raise ShapeError(
                f"{name}({format_tensors(x, weight, bias)}): expected an input (N, C, ...), a weight (C, O / groups, "
                f"...) and a bias (O,) for groups={count}, which divides C"
            )
        if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
            raise ValueError(
                f"{name}: expected an output_padding below the stride or the dilation, got {extra} for stride {strides}"
            )
        whole = [
            (n - 1) * s + d * (k - 1) + 1
            for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
        ]
        sizes = [n - 2 * p + e for n, p, e in zip(whole, pads, extra, strict=True)]
        if min(sizes) < 1:
            raise ShapeError(f"{name}({format_tensors(x, weight)}): the padding {pads} leaves a result of size {sizes}")
        # Where a window more would fit, the result is computed without the padding, which then cuts it.
        fits = all(e < s for e, s in zip(extra, strides, strict=True))
        computed, cut = (sizes, pads) if fits else (whole, (0,) * dims)
        y = correlate_input(
            x.reshape(len(x), count, ins // count, *x.shape[2:]),
            weight.reshape(count, ins // count, outs, *kernel), (len(x), count, outs, *computed), strides, dilations,
            cut,
        ).reshape(len(x), count * outs, *computed)  # fmt: skip
        if not fits:
            kept = tuple(slice(p, p + size) for p, size in zip(pads, sizes, strict=True))
            y = _pad(y, [(0, e) for e in extra])[(slice(None), slice(None), *kept)]
        return _add_bias(y, bias)

    return _for_batch(name, input, dims, batch)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolution ``y[n, o, p] = bias[o] + sum_ck input[n, c, stride p + dilation k] weight[o, c, k]``.

    input: (N, C, L) or (C, L). weight: (O, C / groups, K). bias: (O,) or None.
    padding: the number of zeros at both ends; "valid" is none; "same" keeps the length, with a stride of 1.
    groups: the channels are split into that many groups, which do not see each other.

    Returns (N, O, P) with ``P = (L + 2 padding - dilation (K - 1) - 1) // stride + 1``. Raises ShapeError for shapes
    that do not fit, ValueError for sizes out of range, DTypeError for other than floating point tensors of one dtype.
    """
    return _convolve("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolution of images, as :func:`conv1d` does in one dimension.

    input: (N, C, H, W) or (C, H, W). weight: (O, C / groups, K, L). bias: (O,) or None. Returns (N, O, P, Q). The
    other arguments and errors are those of :func:`conv1d`; sizes may be pairs.
    """
    return _convolve("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Return the transposed convolution, the gradient of :func:`conv1d` for its input.

    input: (N, C, L) or (C, L). weight: (C, O / groups, K). bias: (O,) or None.
    padding: the number of entries that are cut off at both ends.
    output_padding: the number of entries that are added at the end; below the stride or the dilation.

    Returns (N, O, P) with ``P = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1``. The errors are
    those of :func:`conv1d`.
    """
    return _transposed("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Return the transposed convolution of images, as :func:`conv_transpose1d` does in one dimension.

    input: (N, C, H, W) or (C, H, W). weight: (C, O / groups, K, L). Returns (N, O, P, Q).
    """
    return _transposed("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


# ---- pooling --------------------------------------------------------------------------------


def _pooled_sizes(
    name: str, x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[int, ...]:  # fmt: skip
    """Return the sizes of the result, by PyTorch's formula."""
    if 0 in x.shape[1:]:
        raise ShapeError(f"{name}({format_tensors(x)}): expected no dimension of size 0 except the batch")
    if any(2 * p > d * (k - 1) + 1 for p, k, d in zip(padding, kernel, dilation, strict=True)):
        raise ValueError(f"{name}: expected a padding of at most half the kernel, got {padding} for {kernel}")
    sizes = []
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        free = n + 2 * p - d * (k - 1) - 1
        size = (-(-free // s) if ceil_mode else free // s) + 1
        if ceil_mode and (size - 1) * s >= n + p:  # the last window would start beyond the entries
            size -= 1
        sizes.append(size)
    if min(sizes) < 1:
        raise ShapeError(f"{name}({format_tensors(x)}): the kernel {tuple(kernel)} is larger than the padded input")
    return tuple(sizes)


def _strides(name: str, stride: Size | None, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Return the step from one window to the next for each dimension. None and an empty sequence are the kernel."""
    if stride is None or (isinstance(stride, (tuple, list)) and not stride):
        return kernel
    return sizes_in(name, "stride", stride, len(kernel), 1)


def _largest_of_windows(
    x: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...], dilations: tuple[int, ...],
    sizes: tuple[int, ...], return_indices: bool,
) -> Any:  # fmt: skip
    """Return the largest entry of each window of (N, C, *S), with its place if ``return_indices``."""
    index: Tensor = wrap(BACKENDS[type(x.array)].pool_places(x.array, kernel, strides, pads, dilations, sizes))
    y = gather(x.flatten(2), 2, index.flatten(2)).reshape(index.shape)
    return (y, index) if return_indices else y


def _max_pool(
    name: str, dims: int, input: Tensor, kernel_size: Size, stride: Size | None, padding: Size, dilation: Size,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    kernel = sizes_in(name, "kernel_size", kernel_size, dims, 1)
    strides = _strides(name, stride, kernel)
    pads, dilations = sizes_in(name, "padding", padding, dims, 0), sizes_in(name, "dilation", dilation, dims, 1)
    ceil_mode = flag_in(name, "ceil_mode", ceil_mode)
    return_indices = flag_in(name, "return_indices", return_indices)

    def batch(x: Tensor) -> Any:
        sizes = _pooled_sizes(name, x, kernel, strides, pads, dilations, ceil_mode)
        return _largest_of_windows(x, kernel, strides, pads, dilations, sizes, return_indices)

    return _for_batch(name, input, dims, batch)


def _avg_pool(
    name: str, dims: int, input: Tensor, kernel_size: Size, stride: Size | None, padding: Size, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None,
) -> Tensor:  # fmt: skip
    kernel = sizes_in(name, "kernel_size", kernel_size, dims, 1)
    strides = _strides(name, stride, kernel)
    pads, ones = sizes_in(name, "padding", padding, dims, 0), (1,) * dims
    ceil_mode = flag_in(name, "ceil_mode", ceil_mode)
    count_include_pad = flag_in(name, "count_include_pad", count_include_pad)
    if divisor_override is not None and int_in(name, "divisor_override", divisor_override) == 0:
        raise ValueError(f"{name}: expected a divisor_override other than 0")

    def batch(x: Tensor) -> Tensor:
        check_floating(name, x)
        sizes = _pooled_sizes(name, x, kernel, strides, pads, ones, ceil_mode)
        widths, count = [], np.ones(ones)
        for dim, (n, k, s, p, size) in enumerate(zip(x.shape[2:], kernel, strides, pads, sizes, strict=True)):
            start = np.arange(size) * s - p
            stop = np.minimum(start + k, n + p)
            if not count_include_pad:
                start, stop = np.maximum(start, 0), np.minimum(stop, n)
            count = count * (stop - start).reshape(-1, *(1,) * (dims - 1 - dim))
            widths.append((p, max(0, (size - 1) * s + k - n - p)))
        xp = BACKENDS[type(x.array)]
        count = count if divisor_override is None else np.full_like(count, divisor_override)
        images = _pad(x, widths).flatten(0, 1).unsqueeze(1).unsqueeze(1)
        sums = correlate(images, wrap(xp.ones((1, 1, 1, *kernel), x.dtype)), None, strides, ones)
        sums = sums[(slice(None), 0, 0, *(slice(size) for size in sizes))].reshape(*x.shape[:2], *sizes)
        return sums / wrap(xp.asarray(count.astype(x.dtype)))

    return _for_batch(name, input, dims, batch)


def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest entry of each window; the gradient goes to the first of equal ones.

    input: (N, C, L) or (C, L). kernel_size: the length of a window. stride: the step from one window to the next; None
        is ``kernel_size``. dilation: the step within a window.
    padding: how far windows reach over both ends, at most half of a window.
    ceil_mode: whether a last window may reach over the end.
    return_indices: whether to return a pair of the result and the positions of its entries, int64.

    Returns (N, C, P). A NaN counts as the largest. Raises ShapeError for a window larger than the input, ValueError for
    sizes out of range.
    """
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest entry of each window of (N, C, H, W) or (C, H, W), as :func:`max_pool1d` does.

    With ``return_indices`` the positions are those in an image that is flattened to H W entries.
    """
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Return the mean of each window of (N, C, L) or (C, L), as (N, C, P).

    padding: the number of zeros at both ends; ``count_include_pad`` says whether they count in the mean.

    The other arguments and errors are those of :func:`max_pool1d`.
    """
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Return the mean of each window of (N, C, H, W) or (C, H, W), as :func:`avg_pool1d` does.

    divisor_override: the number by which the sum of a window is divided; None is the number of its entries.
    """
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _adaptive(name: str, dims: int, input: Tensor, output_size: Any) -> tuple[int, ...]:
    """Return the sizes of the result; None keeps the size of the input."""
    several = isinstance(output_size, (tuple, list)) or getattr(output_size, "ndim", 0) == 1
    given = tuple(output_size) if several else (output_size,) * dims
    sizes = tuple(n if size is None else size for size, n in zip(given, input.shape[-dims:], strict=False))
    if len(given) != dims:
        raise ValueError(f"{name}: expected output_size to be {dims} integers, or one, got {output_size!r}")
    return sizes_in(name, "output_size", sizes, dims, 0)


def _parts(n: int, size: int) -> list[tuple[int, int]]:
    return [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]


@autocasts
def _adaptive_avg_pool(name: str, dims: int, input: Tensor, output_size: Any) -> Tensor:
    def batch(x: Tensor) -> Tensor:
        check_floating(name, x)
        xp, sizes = BACKENDS[type(x.array)], _adaptive(name, dims, x, output_size)
        if set(sizes) == {1} and 0 not in x.shape[2:]:
            return x.mean(tuple(range(2, x.ndim)), keepdim=True)
        for dim, size in enumerate(sizes, 2):
            mean = np.zeros((x.shape[dim], size))
            for i, (start, stop) in enumerate(_parts(x.shape[dim], size)):
                mean[start:stop, i] = 1.0 / (stop - start)
            x = (x.transpose(dim, -1) @ wrap(xp.asarray(mean.astype(x.dtype)))).transpose(dim, -1)
        return x

    return _for_batch(name, input, dims, batch)


def _adaptive_max_pool(name: str, dims: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    return_indices = flag_in(name, "return_indices", return_indices)

    def batch(x: Tensor) -> Any:
        sizes = _adaptive(name, dims, x, output_size)
        if 0 not in (*x.shape, *sizes) and not any(n % size for n, size in zip(x.shape[2:], sizes, strict=True)):
            kernel = tuple(n // size for n, size in zip(x.shape[2:], sizes, strict=True))
            return _largest_of_windows(x, kernel, kernel, (0,) * dims, (1,) * dims, sizes, return_indices)
        width = x.shape[-1]
        parts = itertools.product(*(_parts(n, size) for n, size in zip(x.shape[2:], sizes, strict=True)))
        indices = []
        for part in parts:
            window = x.detach()[(slice(None), slice(None), *(slice(*p) for p in part))]
            flat = window.flatten(2).argmax(2)
            if dims == 2:
                flat = (flat // window.shape[-1] + part[0][0]) * width + flat % window.shape[-1] + part[1][0]
            else:
                flat = flat + part[0][0]
            indices.append(flat)
        index = stack(indices, 2) if indices else x.new_zeros(*x.shape[:2], 0, dtype=np.int64)
        y = gather(x.flatten(2), 2, index).reshape(*x.shape[:2], *sizes)
        return (y, index.reshape(*x.shape[:2], *sizes)) if return_indices else y

    return _for_batch(name, input, dims, batch)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Return means of (N, C, L) or (C, L) as (N, C, P) for P = output_size.

    Window i is entries ``i L // P`` to ``(i + 1) L / P``, rounded up. So windows may overlap. Raises ValueError for
    a negative size.
    """
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Return means of (N, C, H, W) or (C, H, W) as (N, C, *output_size), as :func:`adaptive_avg_pool1d` does.

    output_size: a pair, in which None keeps the size; or an int for both.
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Return the largest entries of the windows of :func:`adaptive_avg_pool1d`."""
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Return the largest entries of the windows of :func:`adaptive_avg_pool2d`."""
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size, return_indices)
