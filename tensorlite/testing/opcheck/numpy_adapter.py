"""An adapter from NumPy functions with hand-written gradients to functions of Tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from ...autograd.function import op
from ...autograd.graph import Variable
from ...dtypes import is_floating
from ...errors import GraphError
from ..report import GradientError

__all__ = ["numpy_op"]


def numpy_op(
    forward: Callable[..., Any], vjp: Callable[..., Any], name: str | None = None, *, plain: bool = False
) -> Callable[..., Any]:
    """Return a function of Tensors made of a NumPy function and its gradient, so that every check works for it.

        square = numpy_op(lambda x: x * x, lambda g, x: 2 * g * x)
        check_grad(square, np.array([1.0, 2.0]), order=1)

    The code behind the two functions does not matter. With ``torch.from_numpy(x)`` and ``.numpy()`` around it, it can
    be an op of PyTorch; use ``plain=True`` then, because PyTorch takes no negative strides.

    forward: ``forward(*arrays, **kwargs)`` returns an array.
    vjp: ``vjp(g, *arrays, **kwargs)`` gets the cotangent g, with the shape of the result. It returns the gradient, or a
        tuple with one gradient for each array; None for no gradient.
    name: the name in messages; None for that of ``forward``.
    plain: pass new C-contiguous arrays, with floating dtypes converted to float64, whatever the caller's are. Results
        and gradients are converted to the caller's dtype. For code that does not handle layouts and dtypes. It still
        must not change these arrays: that raises GradientError.

    The gradient cannot be differentiated again, so check it with ``order=1``.
    """
    for role, function in (("forward", forward), ("vjp", vjp)):
        if not callable(function):
            raise TypeError(f"numpy_op: expected {role} to be a function, got {type(function).__name__}")
    label = name or str(getattr(forward, "__name__", "numpy_op"))

    def given(*xs: Any) -> tuple[Any, ...]:
        if not plain:
            return xs
        return tuple(
            np.array(x, np.float64 if is_floating(x.dtype) else None, order="C") if isinstance(x, np.ndarray) else x
            for x in xs
        )

    def names(xs: Any) -> list[str]:
        return [f"array {k}" for k in range(len(xs))]

    def require_unchanged(role: str, labels: list[str], xs: Any, copies: Any) -> None:
        for text, x, copy in zip(labels, xs, copies):
            if plain and isinstance(x, np.ndarray) and not np.array_equal(x, copy, equal_nan=is_floating(x.dtype)):
                raise GradientError(
                    f"{label}: {role} changes {text} in place\n    before  {x!r:.200}\n    after   {copy!r:.200}\n"
                    f"It belongs to the caller. Work on a copy"
                )

    def call(*args: Any, **kwargs: Any) -> Any:
        def rule(g: Any, xs: Any, index: int) -> Any:
            if isinstance(g, Variable) or any(isinstance(x, Variable) for x in xs):
                raise GraphError(
                    f"{label}: a gradient in NumPy cannot be differentiated again. Check it with order=1"
                )
            copies = given(g, *xs)
            try:
                result = vjp(*copies, **kwargs)
            except Exception as error:  # the error of an op that vjp calls names that op alone
                error.add_note(f"in the vjp of {label}")
                raise
            require_unchanged("vjp", ["the cotangent", *names(xs)], (g, *xs), copies)
            every = result if isinstance(result, (tuple, list)) else (result,)
            if len(every) != len(xs):
                raise TypeError(
                    f"{label}: expected vjp to return {len(xs)} gradients, one for each array, got {len(every)}"
                )
            x = xs[index]
            if every[index] is None:
                return np.zeros(x.shape, x.dtype)
            found = np.asarray(every[index], x.dtype if plain else None)
            if found.shape != x.shape or found.dtype != x.dtype:  # the engine would sum or convert it
                raise GradientError(
                    f"{label}: vjp returned {found.dtype} {found.shape} as the gradient of array {index}, which is "
                    f"{x.dtype} {x.shape}. Sum over broadcast dimensions and keep the dtype"
                )
            return found

        def run(xp: Any, *xs: Any) -> Any:
            copies = given(*xs)
            y = np.asarray(forward(*copies, **kwargs))
            require_unchanged("forward", names(xs), xs, copies)
            if plain:
                floats = [x.dtype for x in xs if isinstance(x, np.ndarray) and is_floating(x.dtype)]
                return y.astype(np.result_type(*floats)) if floats and is_floating(y.dtype) else y.copy()
            return y.copy() if any(np.may_share_memory(y, x) for x in xs if isinstance(x, np.ndarray)) else y

        run.__name__ = label if label.isidentifier() else "numpy_op"
        return op(rule)(run)(*args)

    call.__name__ = call.__qualname__ = label
    call.made_of = lambda text: f"numpy_op({text(forward)}, {text(vjp)}{', plain=True' * plain})"  # type: ignore[attr-defined]
    with suppress(TypeError, ValueError):  # the signature gives the arguments their names in reports
        call.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return call
