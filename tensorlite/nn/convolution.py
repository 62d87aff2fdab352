"""Layers that convolve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from ..backends.registry import DeviceLike
from ..dtypes import DTypeLike
from ..errors import ShapeError
from ..scalars import int_in, ints_in
from ..tensors.creation import empty
from ..tensors.tensor import Tensor
from . import functional as F
from . import init
from .checks import format_tensors
from .module import Module
from .parameter import Parameter
from .spatial import Size, padding_widths, sizes_in

__all__ = ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"]

_PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


class _Convolution(Module):
    """The options and parameters of all layers here."""

    dims: ClassVar[int]
    transposed: ClassVar[bool] = False
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        dilation: Size,
        groups: int,
        bias: bool,
        device: DeviceLike,
        dtype: DTypeLike | None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.in_channels = int_in(name, "in_channels", in_channels)
        self.out_channels = int_in(name, "out_channels", out_channels)
        self.groups = int_in(name, "groups", groups)
        if self.groups < 1 or self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"{name}: expected groups that divide in_channels and out_channels, got groups={groups} for "
                f"{in_channels} and {out_channels}"
            )
        self.kernel_size = sizes_in(name, "kernel_size", kernel_size, self.dims, 1)
        self.stride = sizes_in(name, "stride", stride, self.dims, 1)
        self.dilation = sizes_in(name, "dilation", dilation, self.dims, 1)
        first, second = self.out_channels, self.in_channels
        if self.transposed:
            first, second = second, first
        shape = (first, second // self.groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        self.bias = Parameter(empty(self.out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values for weight and bias."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1.0 / math.sqrt(max(1, math.prod(self.weight.shape[1:])))
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )


class Conv1d(_Convolution):
    """A layer, the convolution :func:`tensorlite.nn.functional.conv1d`. It maps (N, C, L) to (N, O, P).

    in_channels, out_channels: C and O.
    kernel_size, stride, dilation: an int, or a sequence of one for each dimension.
    padding: entries added at both ends; "valid" is none; "same" keeps the sizes, with a stride of 1.
    groups: the channels are split into that many groups, which do not see each other.
    padding_mode: "zeros", "reflect", "replicate" or "circular": what is added.
    device, dtype: those of the parameters; None is the default.

    weight: (O, C / groups, *kernel_size). bias: (O,), or None without ``bias``. Their entries start from the uniform
    distribution between ``-b`` and ``b`` for ``b = 1 / sqrt(C / groups * prod(kernel_size))``.

    Raises ValueError for options out of range.
    """

    dims = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, device, dtype)
        name = type(self).__name__
        if padding_mode not in _PADDING_MODES:
            raise ValueError(f"{name}: expected padding_mode among {', '.join(_PADDING_MODES)}, got {padding_mode!r}")
        self.padding, self.padding_mode = padding, padding_mode
        widths = padding_widths(name, padding, self.kernel_size, self.stride, self.dilation)
        self._widths = [n for pair in reversed(widths) for n in pair]

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, ...) to (N, O, ...), and (C, ...) to (O, ...)."""
        convolve = (F.conv1d, F.conv2d)[self.dims - 1]
        padding: Size | str = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._widths, _PADDING_MODES[self.padding_mode]), 0
        return convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"{super().extra_repr()}, padding={self.padding!r}, padding_mode={self.padding_mode!r}"


class Conv2d(Conv1d):
    """A layer, the convolution :func:`tensorlite.nn.functional.conv2d`. It maps (N, C, H, W) to (N, O, P, Q).

    The options are those of :class:`Conv1d`; sizes may be pairs.
    """

    dims = 2


class ConvTranspose1d(_Convolution):
    """A layer, the transposed convolution :func:`tensorlite.nn.functional.conv_transpose1d`.

    It maps (N, C, L) to (N, O, P).

    padding: entries cut off at both ends. output_padding: entries added at the end.

    The other options are those of :class:`Conv1d`. weight: (C, O / groups, *kernel_size).
    """

    dims = 1
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, device, dtype)
        name = type(self).__name__
        self.padding = sizes_in(name, "padding", padding, self.dims, 0)
        self.output_padding = sizes_in(name, "output_padding", output_padding, self.dims, 0)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Map (N, C, ...) to (N, O, ...), and (C, ...) to (O, ...).

        output_size: the last sizes of the result, or its shape, instead of ``output_padding``. Raises ShapeError for
            sizes that no output padding below the stride gives.
        """
        convolve = (F.conv_transpose1d, F.conv_transpose2d)[self.dims - 1]
        added = self.output_padding if output_size is None else self._output_padding(input, output_size)
        return convolve(input, self.weight, self.bias, self.stride, self.padding, added, self.groups, self.dilation)

    def _output_padding(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        name = type(self).__name__
        sizes = ints_in(name, "output_size", output_size)[-self.dims :]
        options = zip(self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        inputs = input.shape[-self.dims :]
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, (s, p, d, k) in zip(inputs, options, strict=False)]
        added = tuple(size - low for size, low in zip(sizes, least, strict=False))
        if len(added) != self.dims or not all(0 <= a < s for a, s in zip(added, self.stride, strict=True)):
            most = tuple(low + s - 1 for low, s in zip(least, self.stride, strict=False))
            raise ShapeError(
                f"{name}({format_tensors(input)}): expected output_size from {tuple(least)} to {most}, got "
                f"{tuple(output_size)}"
            )
        return added

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"{super().extra_repr()}, padding={self.padding}, output_padding={self.output_padding}"


class ConvTranspose2d(ConvTranspose1d):
    """A layer, the transposed convolution :func:`tensorlite.nn.functional.conv_transpose2d`.

    It maps (N, C, H, W) to (N, O, P, Q). The options are those of :class:`ConvTranspose1d`; sizes may be pairs.
    """

    dims = 2
