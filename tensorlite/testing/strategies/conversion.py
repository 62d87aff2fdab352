"""The conversion of drawn numbers to the dtype of a tensor, within the bounds of the strategy that drew them.

NumPy rounds to the nearest number of the dtype. So 0.99999999 becomes 1 in float32, which ``st.floats(0, 1,
exclude_max=True)`` excludes, and 1e300 becomes infinity, which ``allow_infinity=False`` excludes.
``hypothesis.extra.numpy.arrays`` compares the two to find this out. Under NumPy 2 it does not, because a Python float
is rounded for the comparison (NEP 50).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis.strategies import SearchStrategy

from ...dtypes import finfo, is_floating

__all__ = ["to_array"]

# The least and the greatest value of a strategy, and the least absolute value that is not 0.
Bounds = tuple[float, float, float]

_ALL: Bounds = (-math.inf, math.inf, 0.0)
_TINY = float(np.finfo(np.float64).tiny)  # the least absolute value that allow_subnormal=False leaves


def to_array(values: list[Any], dtype: np.dtype[Any], source: SearchStrategy[Any]) -> np.ndarray[Any, Any]:
    """Return the values as an array of this dtype.

    A number that the dtype lacks becomes the nearest one that ``source`` may draw. Raises ValueError if there is none
    or if it is not known, and for a number that an integer dtype lacks.
    """
    try:
        with np.errstate(over="ignore", under="ignore"):
            found = np.array(values, dtype)
        exact = found if dtype == np.float64 else np.array(values, np.float64)
    except OverflowError:
        raise _unfit(dtype, next(v for v in values if not _fits(v, dtype)), source) from None
    if found.shape != (len(values),):
        raise ValueError(f"elements: expected a strategy for one number, got arrays from {source!r:.80}")
    rounded = (found.astype(np.float64) != exact) & ~np.isnan(exact)
    if dtype.kind == "b" or (not is_floating(dtype) and not rounded.any()):
        return found
    if not is_floating(dtype):
        raise _unfit(dtype, values[int(rounded.argmax())], source)
    rounded |= (exact != 0) & (abs(exact) < finfo(dtype).tiny)  # these may be excluded by allow_subnormal=False
    if dtype == np.float64 or not rounded.any():
        return found
    bounds = _bounds(source, exact.tolist()) or ([_ALL] if (found == exact)[rounded].all() else [])
    tiny = finfo(dtype).tiny
    bounds = [(low, high, max(least, tiny) if least >= _TINY else least) for low, high, least in bounds]
    for k in np.flatnonzero(rounded):
        fitting = [y for y in map(dtype.type, _candidates(exact[k], dtype)) if _is_allowed(y, exact[k], bounds)]
        if not fitting:
            raise _unfit(dtype, values[k], source)
        found[k] = min(fitting, key=lambda y: abs(float(y) - exact[k]))
    return found


def _fits(value: Any, dtype: np.dtype[Any]) -> bool:
    try:
        np.array(value, dtype)
    except OverflowError:
        return False
    return True


def _candidates(x: float, dtype: np.dtype[Any]) -> list[Any]:
    """Return the numbers of a floating dtype next to x, the least normal ones and 0."""
    with np.errstate(over="ignore", under="ignore"):
        nearest = dtype.type(x)
        tiny = finfo(dtype).tiny
        return [nearest, np.nextafter(nearest, dtype.type(-np.inf)), np.nextafter(nearest, dtype.type(np.inf)),
                tiny, -tiny, dtype.type(0)]  # fmt: skip


def _is_allowed(y: Any, x: float, bounds: list[Bounds]) -> bool:
    """Return whether y may stand for x: a finite number within the same bounds."""
    number = float(y)
    if not math.isfinite(number):
        return False
    for low, high, least in bounds:
        if low == x == high:
            return True  # the user wrote this number, so the nearest one is meant
        if low <= x <= high and low <= number <= high and (abs(number) >= least or number == 0.0):
            return True
    return False


def _bounds(source: SearchStrategy[Any], values: list[float]) -> list[Bounds]:
    """Return the bounds of a strategy of numbers, one for each alternative; none if they are not known.

    values: the numbers that it drew. Each whole one of them is an alternative if the strategy draws integers.
    """
    inner = getattr(source, "wrapped_strategy", source)  # st.floats() makes its strategy when it is first used
    if alternatives := getattr(inner, "original_strategies", None):
        parts = [_bounds(one, values) for one in alternatives]
        return [bounds for part in parts for bounds in part] if all(parts) else []
    if hasattr(inner, "min_value") and hasattr(inner, "max_value"):
        return [(inner.min_value, inner.max_value, getattr(inner, "smallest_nonzero_magnitude", 0.0))]
    points = getattr(inner, "elements", [inner.value] if hasattr(inner, "value") else None)
    if points is None and hasattr(inner, "start") and hasattr(inner, "end"):
        points = [x for x in values if x % 1 == 0]
    return [(float(x), float(x), 0.0) for x in points or []]


def _unfit(dtype: np.dtype[Any], value: Any, source: SearchStrategy[Any]) -> ValueError:
    if is_floating(dtype):
        bits = 8 * dtype.itemsize
        remedy = f"Draw it with st.floats(width={bits}), or round it with .map(lambda v: float(np.{dtype}(v)))"
        if bits == 16 and dtype != np.float16:
            remedy = "Round it with .map(lambda v: float(tl.bfloat16.type(v)))"
    elif dtype.kind in "iu":
        info = np.iinfo(dtype)
        remedy = f"Draw it with st.integers({info.min}, {info.max}) or narrower bounds"
    else:
        remedy = "Choose another dtype"
    return ValueError(f"elements: expected numbers of {dtype}, got {value!r:.40} from {source!r:.80}. {remedy}")
