"""The check of a function against another implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...autograd.grad_mode import no_grad
from ...pytree import tree_leaves, tree_map
from ...tensors.creation import tensor
from ...tensors.tensor import Tensor
from ..gradcheck.function import Subject, host, numbers
from ..gradcheck.messages import shown
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
    """Check that f and a reference give the same for the same arguments: shapes and values, infinities and NaNs too.

    The reference gets NumPy arrays in place of Tensors, and returns arrays. With ``gradients=True`` it is a function of
    Tensors, such as the same maths in plain ops, and gradients through random cotangents are compared as well.

    rtol, atol: as in numpy.allclose, but atol is a part of the largest finite number expected, or of 1 if that is less.
    Raises GradientError with the entry that is farthest off.
    """
    label = name or getattr(f, "__name__", type(f).__name__)
    subject: Subject | None = None
    if gradients:
        subject = Subject("check_against", f, args, kwargs, None, name)
        twin = Subject("check_against", reference, args, kwargs, None, "the reference")
        with no_grad():
            found = [host(y) for y in subject.outputs()]
            expected = [host(y) for y in twin.outputs()]
    else:
        with no_grad():
            result = f(*tree_map(_as_tensor, args), **tree_map(_as_tensor, kwargs))
        found = [host(y) if isinstance(y, Tensor) else np.asarray(y) for y in tree_leaves(result)]
        with np.errstate(all="ignore"):  # log(0) is -inf, as it is in an op
            arrays = reference(*tree_map(_as_array, args), **tree_map(_as_array, kwargs))
        expected = [np.asarray(y) for y in tree_leaves(arrays)]
    again = _arguments(args, kwargs)
    if len(found) != len(expected):
        raise GradientError(f"{label}: {len(found)} results, but the reference has {len(expected)}\n{again}")
    for k, (a, b) in enumerate(zip(found, expected)):
        _agree(f"{label}: result {k}" if len(found) > 1 else f"{label}: the result", a, b, rtol, atol, again)
    if subject is not None:
        rng = np.random.default_rng(seed)
        at = [np.array(host(leaf), order="C") for leaf in subject.leaves]
        floats = [y for y in found if y.dtype.kind == "f"]
        cotangents = [numbers(rng, y.shape) for y in floats]
        pairs = zip(subject.vjp(at, cotangents), twin.vjp(at, cotangents), subject.labels)
        for g, other, which in pairs:
            _agree(f"{label}: the gradient of {which}", g, other, rtol, atol, again)


def _as_tensor(x: Any) -> Any:
    return tensor(x) if isinstance(x, np.ndarray) else x


def _as_array(x: Any) -> Any:
    return host(x) if isinstance(x, Tensor) else x


def _arguments(args: Any, kwargs: Any) -> str:
    arrays = [_as_array(x) for x in tree_leaves([list(args), kwargs]) if isinstance(x, (Tensor, np.ndarray))]
    return "\n".join(["with", *(f"    {shown(a)}" for a in arrays)])


def _agree(what: str, a: np.ndarray, b: np.ndarray, rtol: float, atol: float, again: str) -> None:
    if a.shape != b.shape:
        raise GradientError(f"{what} has shape {a.shape}, but the reference {b.shape}\n{again}")
    if a.dtype.kind != b.dtype.kind:
        raise GradientError(f"{what} is {a.dtype}, but the reference {b.dtype}\n{again}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    scale = max(1.0, float(abs(b[np.isfinite(b)]).max(initial=0.0)))
    if np.allclose(a, b, rtol=rtol, atol=atol * scale, equal_nan=True):
        return
    with np.errstate(all="ignore"):
        off = np.where(a == b, 0.0, abs(a - b) - rtol * abs(b))
        off = np.where(np.isnan(off), np.where(np.isnan(a) & np.isnan(b), 0.0, np.inf), off)
    worst = np.unravel_index(int(off.argmax()), a.shape)
    place = f"at [{', '.join(map(str, worst))}]" if worst else "there"
    raise GradientError(
        f"{what} is not the reference's: {place} {a[worst]:.12g} instead of {b[worst]:.12g}\n"
        f"    found      {shown(a)}\n    expected   {shown(b)}\n{again}"
    )
