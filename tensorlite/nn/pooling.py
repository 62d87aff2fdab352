"""Layers that pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..tensors.tensor import Tensor
from . import functional as F
from .module import Module
from .spatial import Size

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AvgPool1d", "AvgPool2d",
    "MaxPool1d", "MaxPool2d",
]  # fmt: skip


class _Pool(Module):
    """A layer that calls a function with its options."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._option_names = tuple(options)
        for name, value in options.items():
            setattr(self, name, value)

    def forward(self, input: Tensor) -> Any:
        """Map (N, C, *S) to (N, C, *P), or (C, *S) to (C, *P)."""
        return type(self).function(input, **{name: getattr(self, name) for name in self._option_names})

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in self._option_names)


class MaxPool1d(_Pool):
    """A layer, :func:`tensorlite.nn.functional.max_pool1d`, whose options and errors it has."""

    function = staticmethod(F.max_pool1d)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size, stride=kernel_size if stride is None else stride, padding=padding,
            dilation=dilation, return_indices=return_indices, ceil_mode=ceil_mode,
        )  # fmt: skip


class MaxPool2d(MaxPool1d):
    """A layer, :func:`tensorlite.nn.functional.max_pool2d`, whose options and errors it has."""

    function = staticmethod(F.max_pool2d)


class AvgPool1d(_Pool):
    """A layer, :func:`tensorlite.nn.functional.avg_pool1d`, whose options and errors it has."""

    function = staticmethod(F.avg_pool1d)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size, stride=kernel_size if stride is None else stride, padding=padding,
            ceil_mode=ceil_mode, count_include_pad=count_include_pad,
        )  # fmt: skip


class AvgPool2d(AvgPool1d):
    """A layer, :func:`tensorlite.nn.functional.avg_pool2d`, whose options and errors it has."""

    function = staticmethod(F.avg_pool2d)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self._option_names = (*self._option_names, "divisor_override")
        self.divisor_override = divisor_override


class AdaptiveAvgPool1d(_Pool):
    """A layer, :func:`tensorlite.nn.functional.adaptive_avg_pool1d`."""

    function = staticmethod(F.adaptive_avg_pool1d)

    def __init__(self, output_size: Any) -> None:
        super().__init__(output_size=output_size)


class AdaptiveAvgPool2d(AdaptiveAvgPool1d):
    """A layer, :func:`tensorlite.nn.functional.adaptive_avg_pool2d`."""

    function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveMaxPool1d(_Pool):
    """A layer, :func:`tensorlite.nn.functional.adaptive_max_pool1d`."""

    function = staticmethod(F.adaptive_max_pool1d)

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size=output_size, return_indices=return_indices)


class AdaptiveMaxPool2d(AdaptiveMaxPool1d):
    """A layer, :func:`tensorlite.nn.functional.adaptive_max_pool2d`."""

    function = staticmethod(F.adaptive_max_pool2d)
