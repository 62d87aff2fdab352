"""Kernels that numba compiles. This is the only folder that imports numba."""

from .gemm import product
from .parallel_for import board, serve
from .support import numbers

__all__ = ["board", "numbers", "product", "serve"]
