"""Loops over the entries of several arrays in one call, for steps that change all parameters of a model.

A call from Python takes a microsecond, and each array among its arguments another fifth of one. A small parameter is
updated in less. So these kernels get the arrays as a list of objects' addresses. The first field of NumPy's arrays,
after the header of every object, is the address of their data: extensions compiled against NumPy rely on it.

All arrays are contiguous float32. The form of the kernels is that of ``kernels.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray

from .kernels import adam_step_range
from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, INLINE, INNER, LOOP, atomic_load, float32_pointer, njit

__all__ = ["adam_steps", "addresses_of", "scale", "sum_squares"]

Array = Any
f32 = np.float32

_HEADER = object.__basicsize__  # bytes before the first field of an array
_GRAIN_SIZE = 1024  # entries, 4 KB
_RUN = 4096  # entries that are added up in float32; the sums of such runs are added in float64


def addresses_of(arrays: Sequence[Array]) -> Array:
    """Return the addresses of the array objects, (n,) int64. They are valid as long as the caller has the arrays."""
    return np.fromiter(map(id, arrays), np.int64, len(arrays))


@njit(**INLINE)
def _entries(address: int, first: int, last: int) -> Array:
    """Return entries ``first`` to ``last`` of the array object at an address."""
    return carray(float32_pointer(atomic_load(address + _HEADER) + 4 * first), last - first)


# ---- optimizers -----------------------------------------------------------------------------


@njit(**INNER)
def adam_steps_range(
    arrays: Array, sizes: Array, sign: float, decay_factor: float, decay: float, beta1: float, one_minus_beta1: float,
    beta2: float, one_minus_beta2: float, correction2: float, eps: float, rate: float, start: int, stop: int,
) -> None:  # fmt: skip
    for i in range(sizes.size):
        first, last = max(start, 0), min(stop, sizes[i])
        if first < last:
            p, g = _entries(arrays[0, i], first, last), _entries(arrays[1, i], first, last)
            m, v = _entries(arrays[2, i], first, last), _entries(arrays[3, i], first, last)
            adam_step_range(p, g, m, v, sign, decay_factor, decay, beta1, one_minus_beta1, beta2, one_minus_beta2,
                            correction2, eps, rate, 0, last - first)  # fmt: skip
        start, stop = start - sizes[i], stop - sizes[i]


@njit(**ENTRY)
def adam_steps(
    pool: int, arrays: Array, sizes: Array, sign: float, decay_factor: float, decay: float, beta1: float,
    one_minus_beta1: float, beta2: float, one_minus_beta2: float, correction2: float, eps: float, rate: float,
) -> None:  # fmt: skip
    """Make one step of Adam on n parameters with the coefficients of :func:`reference.adam_coefficients`.

    arrays: the addresses of the objects p, g, m and v, (4, n). sizes: the numbers of their entries, (n,).
    """
    numbers = (sign, decay_factor, decay, beta1, one_minus_beta1, beta2, one_minus_beta2, correction2, eps, rate)
    parallel_for(pool, bind_kernel(adam_steps_range, (arrays, sizes, *numbers)), sizes.sum(), _GRAIN_SIZE, 1)


# ---- norms ----------------------------------------------------------------------------------


@njit(**LOOP)
def _squares(x: Array) -> Any:
    """Return the sum of the squares of a short array."""
    total = f32(0)
    for j in range(x.size):
        total += x[j] * x[j]
    return total


@njit(**INNER)
def sum_squares_range(arrays: Array, sizes: Array, sums: Array, start: int, stop: int) -> None:
    run = 0  # the number of the run at which array i starts
    for i in range(sizes.size):
        runs = -(-sizes[i] // _RUN)
        for k in range(max(start - run, 0), min(stop - run, runs)):
            sums[run + k] = _squares(_entries(arrays[i], k * _RUN, min((k + 1) * _RUN, sizes[i])))
        run += runs


@njit(**ENTRY)
def sum_squares(pool: int, arrays: Array, sizes: Array) -> float:
    """Return the sum of the squares of all entries. It does not depend on the number of threads.

    arrays: the addresses of the objects, (n,). sizes: the numbers of their entries, (n,).
    """
    runs = 0
    for size in sizes:
        runs += -(-size // _RUN)
    sums = np.empty(runs)
    parallel_for(pool, bind_kernel(sum_squares_range, (arrays, sizes, sums)), runs, 1, 1)
    return sums.sum()


@njit(**LOOP)
def _multiply(x: Array, factor: Any) -> None:
    for j in range(x.size):
        x[j] *= factor


@njit(**INNER)
def scale_range(arrays: Array, sizes: Array, factor: Any, start: int, stop: int) -> None:
    for i in range(sizes.size):
        first, last = max(start, 0), min(stop, sizes[i])
        if first < last:
            _multiply(_entries(arrays[i], first, last), factor)
        start, stop = start - sizes[i], stop - sizes[i]


@njit(**ENTRY)
def scale(pool: int, arrays: Array, sizes: Array, factor: float) -> None:
    """Multiply all entries of the arrays by a factor. arrays, sizes: as in :func:`sum_squares`."""
    parallel_for(pool, bind_kernel(scale_range, (arrays, sizes, f32(factor))), sizes.sum(), _GRAIN_SIZE, 1)
