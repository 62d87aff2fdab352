"""The kernels of ``reference`` on lists of arrays, in one compiled call for all of them, under the same names.

Cases that the compiled loops do not cover go to the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import reference
from .compiled_loops import FLOAT32, load_loops
from .thread_pool import run_parallel

__all__ = ["adam_all_step", "scale_all_step", "sum_squares_of_all"]  # the kernels of the namespace

Array = Any
XP = Any

_MIN_COMPILED = 1 << 5  # entries, from which it is faster
_MIN_SHARED = 1 << 18  # entries, from which threads share a loop; the caller's core has the gradients in its cache


def _loops_for(entries: int, *lists: Sequence[Array]) -> Any:
    """Return the compiled loops if they take these lists of arrays, else None. entries: of a list, at least."""
    if entries < _MIN_COMPILED:
        return None
    for arrays in lists:
        for a in arrays:
            if not ((a.dtype is FLOAT32 or a.dtype == FLOAT32) and a.flags.carray):  # contiguous and writeable
                return None
    return load_loops("array_lists")


def prepare(name: str, *lists: Sequence[Array], entries: int = 0) -> Callable[..., Any] | None:
    """Return a compiled loop over lists of arrays, which gets the numbers that follow; None if none takes the arrays.

    The result keeps the arrays. Threads share its loop if there are enough entries, in arrays that are not the same
    twice. entries: the number of all entries, if the arrays are a part of a larger list.
    """
    sizes = [a.size for a in lists[0]]
    loops = _loops_for(max(sum(sizes), entries), *lists)
    if loops is None:
        return None
    kept = [a for arrays in lists for a in arrays]
    counts, addresses = np.array(sizes, np.int64), loops.addresses_of(kept)
    shared = sum(sizes) >= _MIN_SHARED and len(set(addresses.flat)) == addresses.size
    kernel, table = getattr(loops, name), addresses if len(lists) == 1 else addresses.reshape(len(lists), -1)

    def call(*numbers: float, kept: Any = kept) -> Any:
        if shared:
            return run_parallel(kernel, table, counts, *numbers)
        return kernel(0, table, counts, *numbers)

    return call


def adam_all_step(
    xp: XP, p: Sequence[Array], g: Sequence[Array], m: Sequence[Array], v: Sequence[Array], t: int, lr: float,
    beta1: float, beta2: float, eps: float, decay: float, decoupled: bool, maximize: bool, entries: int = 0,
) -> None:  # fmt: skip
    """Compute the same as the reference, in one pass over memory."""
    numbers = t, lr, beta1, beta2, eps, decay, decoupled, maximize
    entries = max(entries, sum(a.size for a in p))
    if update := prepare("adam_steps", p, g, m, v, entries=entries):
        update(*reference.adam_coefficients(*numbers))
        return
    for arrays in zip(p, g, m, v, strict=True):  # one of them may be strided, which changes no bit of the others
        if update := prepare("adam_steps", *([a] for a in arrays), entries=entries):
            update(*reference.adam_coefficients(*numbers))
        else:
            xp.adam_step(*arrays, *numbers)


def sum_squares_of_all(xp: XP, arrays: Sequence[Array]) -> Array:
    """Compute the same as the reference."""
    total = prepare("sum_squares", arrays)
    return reference.sum_squares_of_all(xp, arrays) if total is None else np.array(total(), np.float32)


def scale_all_step(xp: XP, arrays: Sequence[Array], factor: Array) -> None:
    """Compute the same as the reference."""
    scale = prepare("scale", arrays)
    if scale is None:
        reference.scale_all_step(xp, arrays, factor)
    else:
        scale(float(factor))
