"""Parts for functions that numba compiles: kernels, shared loops.

A model that generates one token at a time spends most of its time between small ops, in Python. If that matters, a
function that numba compiles can do a whole layer, as in ``gpt/model/compiled_reader.py``. Importing this module needs
numba (the extra ``fast``).

    >>> import numpy as np
    >>> from tensorlite import compiled
    >>> @compiled.njit(nogil=True)
    ... def layer(pool, x, gain, weight, y):
    ...     normed = np.empty_like(x)
    ...     compiled.layer_norm(x, gain, None, 1e-5, normed)
    ...     compiled.linear(pool, normed, weight, None, y)
    >>> x, gain, y = np.arange(4, dtype=np.float32), np.ones(4, np.float32), np.empty(2, np.float32)
    >>> compiled.run(layer, x, gain, np.ones((2, 4), np.float32), y)
    >>> y
    array([0., 0.], dtype=float32)

A pool is the address through which threads share loops. ``run(f, *args)`` calls ``f(pool, *args)`` with one, and f
passes it on to the functions that it calls. With 0 for a pool everything runs on the calling thread.

The kernels for a single row check the shapes of their arrays. Those for the rows of a transformer, such as
``linear_rows``, take addresses and check nothing; ``gpt/model/compiled_reader.py`` shows their use. A compiled function
that makes an array and passes on its address ends with ``keep_alive(array)``. Otherwise numba frees it before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .backends.cpu.find_compiled import find_compiled

if find_compiled() is None:
    raise ImportError(
        "tensorlite.compiled needs numba: pip install 'tensorlite[fast]' (and TENSORLITE_JIT must not be 0)"
    )

from .backends.cpu.blas import gemm_pointer, one_blas_thread
from .backends.cpu.compiled.parallel_for import bind_kernel, parallel_for
from .backends.cpu.compiled.support import keep_alive, njit
from .backends.cpu.compiled.token_kernels import (
    BIAS,
    COLUMNS,
    FORMAT,
    FORMATS,
    MATRIX_LENGTH,
    ROWS,
    SCALES,
    WEIGHTS,
    add_rows,
    apply_gelu,
    apply_relu_squared,
    apply_swiglu,
    cached_attention,
    last_rows,
    linear_rows,
    norm_rows,
    turn_and_cache,
)
from .backends.cpu.thread_pool import run_parallel as run

if TYPE_CHECKING:
    from .backends.cpu.compiled.quantized_kernels import packed_bytes, quantized_linear_pointer
    from .backends.cpu.compiled.row_kernels import decode_attention, gelu, layer_norm, linear

__all__ = [
    "BIAS", "COLUMNS", "FORMAT", "FORMATS", "MATRIX_LENGTH", "ROWS", "SCALES", "WEIGHTS", "add_rows", "apply_gelu",
    "apply_relu_squared", "apply_swiglu", "bind_kernel", "cached_attention", "decode_attention", "gelu", "keep_alive",
    "last_rows", "layer_norm", "linear", "linear_rows", "njit", "norm_rows", "packed_bytes", "parallel_for",
    "quantized_linear_pointer", "run", "run_with_blas", "turn_and_cache",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Return a name of a module whose functions are compiled when they are first used, which takes seconds."""
    if name in ("decode_attention", "gelu", "layer_norm", "linear"):
        from .backends.cpu.compiled import row_kernels

        return getattr(row_kernels, name)
    if name in ("packed_bytes", "quantized_linear_pointer"):
        from .backends.cpu.compiled import quantized_kernels

        return getattr(quantized_kernels, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run_with_blas(function: Any, *args: Any, threads: bool = True) -> Any:
    """Return ``function(pool, gemm, *args)``, where gemm is the address of BLAS's sgemm with 64-bit sizes, or 0.

    BLAS uses one thread meanwhile. threads: whether the pool may have several threads; without, pool is 0.
    """
    gemm = gemm_pointer(np.dtype(np.float32))
    with one_blas_thread:
        return run(function, gemm, *args) if threads else function(0, gemm, *args)
