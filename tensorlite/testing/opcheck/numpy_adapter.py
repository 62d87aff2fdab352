"""An adapter that makes an op of a NumPy function with a gradient that is written by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from ...autograd.function import op
from ...autograd.graph import Variable
from ...errors import GraphError
from ..report import GradientError

__all__ = ["numpy_op"]


def numpy_op(
    forward: Callable[..., Any], vjp: Callable[..., Any], name: str | None = None, *, plain: bool = False
) -> Callable[..., Any]:
    """A function of Tensors from a function of NumPy arrays and its gradient, so that every check can be used on it.

        square = numpy_op(lambda x: x * x, lambda g, x: 2 * g * x)
        check_grad(square, np.array([1.0, 2.0]), order=1)

    It need not be tensorlite's: with ``torch.from_numpy(x)`` and ``.numpy()`` around it, an op of PyTorch will do, with
    ``plain=True``, as it takes no negative strides.

    forward: ``forward(*arrays, **kwargs)`` returns an array. vjp: ``vjp(g, *arrays, **kwargs)`` gets the cotangent, an
    array of the shape of the result, and returns the gradient, or a tuple of them, one for each array, None for none.
    plain: hand over new C-contiguous arrays, floating ones in float64, whatever the caller's are like; what comes back
        gets the caller's dtype. For code that is not meant to know about layouts and dtypes, as another library's may.

    Its gradients can not be differentiated again: check them with ``order=1``.
    """
    for role, function in (("forward", forward), ("vjp", vjp)):
        if not callable(function):
            raise TypeError(f"numpy_op: {role} must be a function, got {type(function).__name__}")
    label = name or str(getattr(forward, "__name__", "numpy_op"))

    def given(*xs: Any) -> tuple[Any, ...]:
        if not plain:
            return xs
        return tuple(
            np.array(x, np.float64 if x.dtype.kind == "f" else None, order="C") if isinstance(x, np.ndarray) else x
            for x in xs
        )

    def call(*args: Any, **kwargs: Any) -> Any:
        def pull(g: Any, xs: Any, index: int) -> Any:
            if isinstance(g, Variable) or any(isinstance(x, Variable) for x in xs):
                raise GraphError(
                    f"{label}: a gradient written on NumPy arrays cannot be differentiated again; check it with order=1"
                )
            result = vjp(*given(g, *xs), **kwargs)
            every = result if isinstance(result, (tuple, list)) else (result,)
            if len(every) != len(xs):
                raise TypeError(
                    f"{label}: vjp must return a gradient for each of its {len(xs)} arrays, got {len(every)}"
                )
            x = xs[index]
            if every[index] is None:
                return np.zeros(x.shape, x.dtype)
            found = np.asarray(every[index], x.dtype if plain else None)
            if found.shape != x.shape or found.dtype != x.dtype:  # the engine would sum it down or say what it is
                raise GradientError(
                    f"{label}: vjp returned {found.dtype} {found.shape} as the gradient of array {index}, which is "
                    f"{x.dtype} {x.shape}; what was broadcast must be summed, and the dtype kept"
                )
            return found

        def run(xp: Any, *xs: Any) -> Any:
            y = np.asarray(forward(*given(*xs), **kwargs))
            if plain:
                floats = [x.dtype for x in xs if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
                return y.astype(np.result_type(*floats)) if floats and y.dtype.kind == "f" else y.copy()
            return y.copy() if any(np.may_share_memory(y, x) for x in xs if isinstance(x, np.ndarray)) else y

        run.__name__ = label if label.isidentifier() else "numpy_op"
        return op(pull)(run)(*args)

    call.__name__ = call.__qualname__ = label
    with suppress(TypeError, ValueError):  # so that reports call its arguments by their names
        call.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return call
