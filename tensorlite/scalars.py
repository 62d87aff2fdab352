"""Readers of the numbers and flags that users pass as arguments: sizes, dimensions, rates.

An integer is what has ``__index__``, a number what has ``__float__``, and neither has dimensions. So Python's numbers,
NumPy's scalars, 0-d arrays and 0-d Tensors are numbers. Booleans are neither. A Tensor that requires gradients is
not one, because its gradient would be lost. A flag is a boolean of Python or NumPy, and no number, as in PyTorch.

name: the function to name in messages. Inside an op it is "", because the op adds its own name.
what: the argument to name in messages.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

__all__ = ["as_integer", "as_number", "flag_in", "fraction_in", "int_in", "int_or_none_in", "ints_in", "number_in"]

_EXACT = {int, float}


def as_integer(value: Any) -> int | None:
    """Return an integer as an int, and None for anything else."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_)) or _dimensions(value) or _kind(value) == "b":
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_number(value: Any) -> int | float | None:
    """Return a number as an int or a float, and None for anything else."""
    if type(value) in _EXACT:
        return value
    if (n := as_integer(value)) is not None:
        return n
    if isinstance(value, (bool, np.bool_)) or _dimensions(value) or _kind(value) not in "iuf":
        return None
    if not hasattr(type(value), "__float__") or getattr(value, "requires_grad", False):
        return None
    return float(value)


def _dimensions(value: Any) -> int:
    """Return the number of dimensions of an array or a Tensor, 0 for anything else."""
    return int(getattr(value, "ndim", 0))


def _kind(value: Any) -> str:
    """Return the kind of a value's dtype, "f" if it has none."""
    return str(getattr(getattr(value, "dtype", None), "kind", "f"))


def _error(name: str, what: str, expected: str, value: Any) -> TypeError:
    return TypeError(f"{name}{': ' * bool(name)}{what} must be {expected}, got {value!r:.80}")


def int_in(name: str, what: str, value: Any) -> int:
    """Return an integer as an int. Raises TypeError for anything else."""
    n = as_integer(value)
    if n is None:
        raise _error(name, what, "an int", value)
    return n


def int_or_none_in(name: str, what: str, value: Any) -> int | None:
    """Return an integer as an int, and None for None. Raises TypeError for anything else."""
    return None if value is None else int_in(name, what, value)


def number_in(name: str, what: str, value: Any) -> int | float:
    """Return a number as an int or a float. Raises TypeError for anything else."""
    number = as_number(value)
    if number is None:
        raise _error(name, what, "a number", value)
    return number


def fraction_in(name: str, what: str, value: Any) -> int | float:
    """Return a number as an int or a float. Raises ValueError unless it is a number from 0 to 1."""
    number = as_number(value)
    if number is None or not 0.0 <= number <= 1.0:
        raise ValueError(f"{name}: {what} must be a number from 0 to 1, got {value!r}")
    return number


def flag_in(name: str, what: str, value: Any) -> bool:
    """Return a boolean as a bool. Raises TypeError for anything else: ``x.sum(0, 1)`` has one dimension."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise _error(name, what, "True or False", value)


def ints_in(name: str, what: str, values: Any) -> tuple[int, ...]:
    """Return an integer, or a sequence or vector of integers, as a tuple. Raises TypeError for anything else."""
    if type(values) is int:
        return (values,)
    if _dimensions(values) == 1:
        values = values.tolist() if _kind(values) in "iu" else [values]
    given = values if isinstance(values, (tuple, list, range)) else (values,)
    ints = tuple(map(as_integer, given))
    if None in ints:
        raise _error(name, what, "an int or several", values)
    return ints  # type: ignore[return-value]
