"""Products and running products of rows of float32 factors, and their gradients, as loops that numba compiles.

A product waits for the one before it, so a loop works on four rows, or on four parts of a row, at the same time. The
form of the kernels is that of ``kernels.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, INNER, LOOP, njit

__all__ = ["other_products", "row_products", "running_products", "running_products_backward"]

Array = Any
f32 = np.float32


@njit(**LOOP)
def _product(x: Array) -> Any:
    total = f32(1)
    for j in range(x.size):
        total *= x[j]
    return total


@njit(**LOOP)
def row_products_range(x: Array, out: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        out[i] = _product(x[i])


@njit(**ENTRY)
def row_products(pool: int, x: Array, out: Array) -> None:
    """Write the product of each row."""
    parallel_for(pool, bind_kernel(row_products_range, (x, out)), len(x), 1, 1)


@njit(**INNER)
def _others(x: Array, out: Array) -> None:
    """Write for each factor the product of those before it, and then that times the product of those behind it."""
    n, q = x.size, x.size // 4
    x0, x1, x2, x3 = x[:q], x[q : 2 * q], x[2 * q : 3 * q], x[3 * q :]
    y0, y1, y2, y3 = out[:q], out[q : 2 * q], out[2 * q : 3 * q], out[3 * q :]
    a, b, c = _product(x0), _product(x1), _product(x2)
    p0, p1, p2, p3 = f32(1), a, a * b, a * b * c
    for j in range(q):
        y0[j], y1[j], y2[j], y3[j] = p0, p1, p2, p3
        p0, p1, p2, p3 = p0 * x0[j], p1 * x1[j], p2 * x2[j], p3 * x3[j]
    p0 = f32(1)
    for j in range(q, n - 3 * q):
        y3[j] = p3
        p3 *= x3[j]
    for j in range(n - 3 * q - 1, q - 1, -1):
        y3[j] *= p0
        p0 *= x3[j]
    p3 = p0
    p2 = _product(x3)
    p1, p0 = c * p2, b * (c * p2)
    for j in range(q - 1, -1, -1):
        y0[j], y1[j], y2[j], y3[j] = y0[j] * p0, y1[j] * p1, y2[j] * p2, y3[j] * p3
        p0, p1, p2, p3 = p0 * x0[j], p1 * x1[j], p2 * x2[j], p3 * x3[j]


@njit(**INNER)
def other_products_range(x: Array, out: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        _others(x[i], out[i])


@njit(**ENTRY)
def other_products(pool: int, x: Array, out: Array) -> None:
    """Write for each entry of a row the product of all others."""
    parallel_for(pool, bind_kernel(other_products_range, (x, out)), len(x), 1, 1)


# ---- running products -----------------------------------------------------------------------


@njit(**INNER)
def _run_4(x: Array, out: Array, i: int) -> None:
    """Write the running products of the rows i to i + 3."""
    a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
    p = q = r = s = f32(1)
    for j in range(a.size):
        p, q, r, s = p * a[j], q * b[j], r * c[j], s * d[j]
        out[i, j], out[i + 1, j], out[i + 2, j], out[i + 3, j] = p, q, r, s


@njit(**INNER)
def running_products_range(x: Array, out: Array, start: int, stop: int) -> None:
    _, n, inner = x.shape
    if inner == 1:
        x, out = x.reshape(-1, n), out.reshape(-1, n)
        last = start + (stop - start) // 4 * 4
        for i in range(start, last, 4):
            _run_4(x, out, i)
        for i in range(last, stop):
            p = f32(1)
            for j in range(n):
                p *= x[i, j]
                out[i, j] = p
        return
    for o in range(start, stop):
        out[o, 0] = x[o, 0]
        for j in range(1, n):
            before, factors, row = out[o, j - 1], x[o, j], out[o, j]
            for k in range(inner):
                row[k] = before[k] * factors[k]


@njit(**ENTRY)
def running_products(pool: int, x: Array, out: Array) -> None:
    """Write the running products of x (outer, n, inner) along n."""
    parallel_for(pool, bind_kernel(running_products_range, (x, out)), len(x), 1, 1)


@njit(**INNER)
def _next(g: Any, x: Any, s: Any) -> Any:
    """Return ``g + x s``, where an infinite x times 0 is 0."""
    return g + (f32(0) if s == f32(0) else x * s)


@njit(**INNER)
def _back_4(g: Array, x: Array, out: Array, i: int) -> None:
    """Write the gradients of the rows i to i + 3."""
    n = x.shape[1]
    a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
    p = q = r = s = f32(1)
    for j in range(n):
        out[i, j], out[i + 1, j], out[i + 2, j], out[i + 3, j] = p, q, r, s
        p, q, r, s = p * a[j], q * b[j], r * c[j], s * d[j]
    p, q, r, s = g[i, n - 1], g[i + 1, n - 1], g[i + 2, n - 1], g[i + 3, n - 1]
    for j in range(n - 1, -1, -1):
        out[i, j] *= p
        out[i + 1, j] *= q
        out[i + 2, j] *= r
        out[i + 3, j] *= s
        k = max(j - 1, 0)
        p, q = _next(g[i, k], a[j], p), _next(g[i + 1, k], b[j], q)
        r, s = _next(g[i + 2, k], c[j], r), _next(g[i + 3, k], d[j], s)


@njit(**INNER)
def running_products_backward_range(g: Array, x: Array, out: Array, start: int, stop: int) -> None:
    _, n, inner = x.shape
    if inner == 1:
        g, x, out = g.reshape(-1, n), x.reshape(-1, n), out.reshape(-1, n)
        last = start + (stop - start) // 4 * 4
        for i in range(start, last, 4):
            _back_4(g, x, out, i)
        for i in range(last, stop):
            p = f32(1)
            for j in range(n):
                out[i, j] = p
                p *= x[i, j]
            p = g[i, n - 1]
            for j in range(n - 1, -1, -1):
                out[i, j] *= p
                p = _next(g[i, max(j - 1, 0)], x[i, j], p)
        return
    sums = np.empty(inner, f32)
    for o in range(start, stop):
        out[o, 0] = f32(1)
        for j in range(1, n):
            before, factors, row = out[o, j - 1], x[o, j - 1], out[o, j]
            for k in range(inner):
                row[k] = before[k] * factors[k]
        sums[:] = g[o, n - 1]
        for j in range(n - 1, -1, -1):
            row, factors, more = out[o, j], x[o, j], g[o, max(j - 1, 0)]
            for k in range(inner):
                row[k] *= sums[k]
                sums[k] = _next(more[k], factors[k], sums[k])


@njit(**ENTRY)
def running_products_backward(pool: int, g: Array, x: Array, out: Array) -> None:
    """Write ``(x[0] ... x[i-1]) s[i]`` with ``s[i] = g[i] + x[i+1] s[i+1]``, along n of (outer, n, inner)."""
    parallel_for(pool, bind_kernel(running_products_backward_range, (g, x, out)), len(x), 1, 1)
