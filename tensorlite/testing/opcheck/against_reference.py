"""The check of a function against another implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...autograd.grad_mode import no_grad
from ...dtypes import is_floating
from ...pytree import tree_leaves, tree_map
from ...tensors.creation import tensor
from ...tensors.tensor import Tensor
from ..gradcheck.function import FunctionUnderTest, random_eighths, to_numpy
from ..gradcheck.messages import format_array
from ..report import GradientError

__all__ = ["check_against"]


def check_against(
    f: Callable[..., Any],
    reference: Callable[..., Any],
    *args: Any,
    rtol: float = 1e-10,
    atol: float = 1e-12,
    gradients: bool = False,
    seed: int = 0,
    name: str | None = None,
    **kwargs: Any,
) -> None:
    """Check that f and a reference give the same for the same arguments, infinities and NaNs included.

    Shapes, kinds of dtypes and values are compared. The reference gets NumPy arrays instead of Tensors, and returns
    arrays. With ``gradients=True`` it is a function of Tensors, such as the same maths in plain ops. Then the gradients
    for random cotangents are compared, too.

    rtol, atol: as in numpy.allclose, but atol is relative to the largest finite number expected, or to 1 if that is
    less. seed: the seed of the cotangents.
    Raises GradientError, which names the entry with the largest difference.
    """
    label = name or getattr(f, "__name__", type(f).__name__)
    function: FunctionUnderTest | None = None
    if gradients:
        function = FunctionUnderTest("check_against", f, args, kwargs, None, name)
        twin = FunctionUnderTest("check_against", reference, args, kwargs, None, "the reference")
        with no_grad():
            found = [to_numpy(y) for y in function.outputs()]
            expected = [to_numpy(y) for y in twin.outputs()]
    else:
        with no_grad():
            result = f(*tree_map(_as_tensor, args), **tree_map(_as_tensor, kwargs))
        found = [to_numpy(y) if isinstance(y, Tensor) else np.asarray(y) for y in tree_leaves(result)]
        with np.errstate(all="ignore"):  # log(0) is -inf without a warning, as in an op
            arrays = reference(*tree_map(_as_array, args), **tree_map(_as_array, kwargs))
        expected = [np.asarray(y) for y in tree_leaves(arrays)]
    arguments = _format_arguments(args, kwargs)
    if len(found) != len(expected):
        raise GradientError(f"{label}: {len(found)} results, but the reference has {len(expected)}\n{arguments}")
    for k, (a, b) in enumerate(zip(found, expected)):
        what = f"{label}: result {k}" if len(found) > 1 else f"{label}: the result"
        _require_close(what, a, b, rtol, atol, arguments)
    if function is not None:
        rng = np.random.default_rng(seed)
        at = [np.array(to_numpy(leaf), order="C") for leaf in function.leaves]
        floats = [y for y in found if is_floating(y.dtype)]
        cotangents = [random_eighths(rng, y.shape) for y in floats]
        pairs = zip(function.vjp(at, cotangents), twin.vjp(at, cotangents), function.labels)
        for g, other, which in pairs:
            _require_close(f"{label}: the gradient of {which}", g, other, rtol, atol, arguments)


def _as_tensor(x: Any) -> Any:
    return tensor(x) if isinstance(x, np.ndarray) else x


def _as_array(x: Any) -> Any:
    return to_numpy(x) if isinstance(x, Tensor) else x


def _format_arguments(args: Any, kwargs: Any) -> str:
    arrays = [_as_array(x) for x in tree_leaves([list(args), kwargs]) if isinstance(x, (Tensor, np.ndarray))]
    return "\n".join(["arguments", *(f"    {format_array(a)}" for a in arrays)])


def _require_close(what: str, a: np.ndarray, b: np.ndarray, rtol: float, atol: float, arguments: str) -> None:
    """Raise GradientError, with the worst entry, unless the two arrays are close."""
    if a.shape != b.shape:
        raise GradientError(f"{what} has shape {a.shape}, but the reference has {b.shape}\n{arguments}")
    if a.dtype.kind != b.dtype.kind:
        raise GradientError(f"{what} is {a.dtype}, but the reference is {b.dtype}\n{arguments}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    scale = max(1.0, float(abs(b[np.isfinite(b)]).max(initial=0.0)))
    if np.allclose(a, b, rtol=rtol, atol=atol * scale, equal_nan=True):
        return
    with np.errstate(all="ignore"):
        off = np.where(a == b, 0.0, abs(a - b) - rtol * abs(b))
        off = np.where(np.isnan(off), np.where(np.isnan(a) & np.isnan(b), 0.0, np.inf), off)
    worst = np.unravel_index(int(off.argmax()), a.shape)
    place = f" at [{', '.join(map(str, worst))}]" if worst else ""
    raise GradientError(
        f"{what} differs from the reference: expected {b[worst]:.12g}{place}, got {a[worst]:.12g}\n"
        f"    found      {format_array(a)}\n    expected   {format_array(b)}\n{arguments}"
    )
