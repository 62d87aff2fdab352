"""Compare a function of tensorlite with that of PyTorch: values, gradients, and gradients of gradients."""
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorlite as tl

Arrays = list[np.ndarray]


def _derivatives(lib: Any, f: Callable[..., Any], arrays: Arrays) -> tuple[Any, list[Any], list[Any]]:
    """Return y = f of tensors of ``lib``, the gradients of <c, y>, and the gradients of the sum of their squares.

    c is random, and the same for both libraries.
    """
    xs = [lib.tensor(a, requires_grad=True) for a in arrays]
    y = f(lib, *xs)
    c = lib.tensor(np.asarray(np.random.default_rng(7).standard_normal(tuple(y.shape))), requires_grad=True)
    first = lib.autograd.grad(y, xs, c, create_graph=True, allow_unused=True)
    squares = [(g * g).sum() for g in first if g is not None and g.requires_grad]
    second = lib.autograd.grad(squares, [*xs, c], allow_unused=True) if squares else [None] * (len(xs) + 1)
    return y, list(first), list(second)


def assert_same_as_torch(f: Callable[..., Any], *arrays: np.ndarray) -> None:
    """Assert that ``f(lib, *tensors)`` agrees for both libraries, at float64 arrays. A missing gradient is zero."""
    torch = pytest.importorskip("torch")
    ours, theirs = (_derivatives(lib, f, list(arrays)) for lib in (tl, torch))
    assert ours[0].shape == tuple(theirs[0].shape)
    for a, b in zip([ours[0], *ours[1], *ours[2]], [theirs[0], *theirs[1], *theirs[2]], strict=True):
        a, b = (0.0 if t is None else t.detach().numpy() for t in (a, b))
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
