"""Matrix products of our own, for processors with the instructions: float32 with AVX-512, bfloat16 with AVX512_BF16.

bfloat16 matrices are multiplied with AMX where the processor has it, the system allows it, and the environment variable
``TENSORLITE_AMX`` is not 0. ``compiled/products.py`` computes the products. Elsewhere NumPy's BLAS does, which has no
bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from .casts import bits_of, cast_array, is_bfloat16
from .environment import is_on
from .find_compiled import find_compiled
from .thread_pool import run_parallel

__all__ = [
    "has_amx_products", "has_bfloat16_products", "has_float32_products", "is_faster", "multiply", "prepare_product",
]  # fmt: skip

Array = Any

_FLOAT32 = np.dtype(np.float32)
_NO_BIAS = np.empty(0, np.float32)
_MIN_SHARED = 1 << 18  # multiplications, from which a product takes long enough for threads to share it
_MIN_WORK = 1 << 20  # multiplications, from which our product is faster than BLAS
_MIN_ROWS, _MIN_ROWS_COPIED = 8, 64  # the same, where the columns of y are contiguous in memory, and where they are not
_MIN_COLUMNS, _MAX_COVERED = 16, 1.15
_MAX_NUMBERS = 1 << 14  # of a sum; longer ones are added in float64
_ALIGNMENT = 64  # bytes, a line of the cache
_MIN_WORKSPACE = 1 << 20  # bytes


@cache
def _load() -> Any:
    """Return the module of compiled products, or None if there is none for this processor."""
    if find_compiled() is None:
        return None
    from .compiled import instructions

    if not instructions.has_kernel(instructions.FLOAT32):
        return None
    from .compiled import products

    return products


@cache
def has_float32_products() -> bool:
    """Return whether :func:`multiply` takes float32 matrices."""
    return _load() is not None


@cache
def has_bfloat16_products() -> bool:
    """Return whether :func:`multiply` takes bfloat16 matrices: if the processor has instructions for them."""
    products = _load()
    return products is not None and products.has_kernel(products.BFLOAT16)


@cache
def has_amx_products() -> bool:
    """Return whether bfloat16 matrices are multiplied with AMX."""
    return has_bfloat16_products() and is_on("TENSORLITE_AMX", default=True) and _load().is_amx_allowed()


def is_faster(x: Array, y: Array) -> bool:
    """Return whether :func:`multiply` takes x (m, k) and y (k, n), float32, and less time than BLAS for them.

    It depends on the shapes, and on whether y has to be transposed, alone. Measured with OpenBLAS 0.3 on Zen 4.
    """
    (m, k), n = x.shape, y.shape[1]
    if m * k * n < _MIN_WORK or k > _MAX_NUMBERS or n < _MIN_COLUMNS:
        return False
    if m < (_MIN_ROWS if y.strides[0] == y.itemsize else _MIN_ROWS_COPIED):
        return False
    # Tiles of 8 rows and 16 columns cover the product, and BLAS has smaller ones.
    return (-m % 8 + m) * (-n % 16 + n) <= _MAX_COVERED * m * n and has_float32_products()


# ---- memory for packed matrices -----------------------------------------------------------------

_free: list[tuple[Array, int, int]] = []  # workspaces that no product uses: memory, address, size in bytes


def _allocate(size: int) -> tuple[Array, int, int]:
    """Return a workspace of at least this size. New memory costs more time than packing, so it is used again."""
    size = max(size, _MIN_WORKSPACE)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    return memory, memory.ctypes.data + -memory.ctypes.data % _ALIGNMENT, size


def _take() -> tuple[Array, int, int]:
    """Return a workspace that no product uses."""
    try:
        return _free.pop()
    except IndexError:  # also where another thread has taken the last one
        return _allocate(0)


# ---- products -----------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """How matrices of three dtypes are multiplied: the compiled function, and its arguments that never change."""

    function: Any
    kind: int
    addresses: tuple[int, int]
    narrow: bool  # whether a dtype is bfloat16
    longest: int  # largest k for which a result in bfloat16 is rounded once, because its partial sums are kept


@cache
def _plan(x: Any, y: Any, out: Any) -> _Plan | None:
    """Return the plan for the dtypes of two matrices and their product, None if there is none."""
    narrow = [is_bfloat16(dtype) for dtype in (x, y, out)]
    products = _load()
    if products is None or not (has_bfloat16_products() or not any(narrow)):
        return None
    function = products.multiply_for(*(np.dtype(np.uint16) if n else _FLOAT32 for n in narrow))
    kind = (products.AMX if has_amx_products() else products.BFLOAT16) if any(narrow) else products.FLOAT32
    longest = 2 * products.MAX_LINES if narrow[2] else 1 << 62
    return _Plan(function, kind, products.code_addresses(), any(narrow), longest)


def multiply(x: Array, y: Array, out_dtype: Any, bias: Array | None = None) -> Array | None:
    """Return ``x @ y + bias``, or None where the processor has no instructions for it.

    x (m, k), y (k, n): float32 or bfloat16, with any strides. bias: (n,), float32 or bfloat16. If one of the matrices
    or ``out_dtype`` is bfloat16, the numbers of both are rounded to bfloat16 and multiplied. Sums are in float32, and
    the result is rounded once. Subnormal numbers count as 0 then, as the processor's instructions define it.

    An entry has the same bits for any number of threads, rows and columns.
    """
    plan = _plan(x.dtype, y.dtype, out_dtype)
    if plan is None:
        return None
    (m, k), n = x.shape, y.shape[1]
    work = m * k * n
    if not work:
        out = np.zeros((m, n), out_dtype)
        return out if bias is None else np.add(out, bias, dtype=_FLOAT32).astype(out_dtype)
    if k > plan.longest:
        return cast_array(multiply(cast_array(x, out_dtype), y, _FLOAT32, bias), out_dtype)
    if x.itemsize not in x.strides:  # neither the numbers of a row nor those of a column are adjacent in memory
        x = np.ascontiguousarray(x)
    if y.itemsize not in y.strides:
        y = np.ascontiguousarray(y)
    out = np.empty((m, n), out_dtype)
    addend = _NO_BIAS if bias is None else np.ascontiguousarray(bias, _FLOAT32)
    args = (*map(bits_of, (x, y, out)), addend) if plan.narrow else (x, y, out, addend)
    workspace = _take()
    while needed := _run(plan.function, work, *args, plan.kind, *plan.addresses, workspace[1], workspace[2]):
        workspace = _allocate(needed)
    _free.append(workspace)
    return out


def prepare_product(x: Array, y: Array, out: Array, bias: Array | None = None) -> Callable[[], None] | None:
    """Return a function that writes ``x @ y + bias`` into ``out`` without checks; None where it needs a copy first.

    The arguments are float32 matrices that :func:`multiply` takes, and out is contiguous. The function keeps them, and
    reads what they hold when it is called.
    """
    plan = _plan(x.dtype, y.dtype, out.dtype)
    adjacent = x.itemsize in x.strides and y.itemsize in y.strides and (bias is None or bias.flags.c_contiguous)
    if plan is None or plan.narrow or not adjacent or not out.size or not x.size:
        return None
    fixed = (x, y, out, _NO_BIAS if bias is None else bias, plan.kind, *plan.addresses)
    shared = x.size * y.shape[1] >= _MIN_SHARED
    run = partial(run_parallel, plan.function, *fixed) if shared else partial(plan.function, 0, *fixed)

    def launch() -> None:
        workspace = _take()
        while needed := run(workspace[1], workspace[2]):
            workspace = _allocate(needed)
        _free.append(workspace)

    return launch


def _run(function: Any, work: int, *args: Any) -> int:
    """Call a compiled product; threads share it if it is large enough for that to pay."""
    found: int = run_parallel(function, *args) if work >= _MIN_SHARED else function(0, *args)
    return found
