"""Kernels that numba compiles. This is the only folder that imports numba."""

from .gemm import matmul
from .parallel_for import create_pool, worker_loop
from .support import aligned_zeros

__all__ = ["aligned_zeros", "create_pool", "matmul", "worker_loop"]
