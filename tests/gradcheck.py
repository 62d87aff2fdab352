"""Analytic derivatives against numerical ones, at first and second order, in float64.

A function's gradient is checked through a random cotangent c: the number <c, f(x)> is differentiated by backward and
by differences. A cotangent of ones would not do; it hides, for one, every mistake in softmax. At second order the same
is done with the number <d, J(x)^T c>, which the backward pass computed; it is a function of x and of c.
"""
from collections.abc import Callable
from typing import Any

import numpy as np

import tensorlite as tl

Arrays = list[np.ndarray]

STEP = 5e-4
"""Differences of order 4 err by STEP**4 times the fifth derivative, and by the rounding of f over STEP: 1e-12 both."""
TOLERANCE = 2e-8


def numpy(x: tl.Tensor) -> np.ndarray:
    """The entries of a tensor, wherever it is."""
    return x.detach().cpu().numpy()


def outputs(result: Any) -> list[tl.Tensor]:
    """The tensors of a result, which may be a tensor or a tuple of them, that gradients can flow to."""
    found = [result] if isinstance(result, tl.Tensor) else list(result)
    return [x for x in found if x.is_floating_point()]


def vjp(f: Callable[..., Any], arrays: Arrays, cotangents: Arrays) -> Arrays:
    """The gradients of sum_k <cotangents[k], f(*arrays)[k]>, zeros where f does not depend on an array."""
    xs = [tl.tensor(a, requires_grad=True) for a in arrays]
    ys = outputs(f(*xs))
    found = tl.autograd.grad(ys, xs, [tl.tensor(c) for c in cotangents], allow_unused=True)
    return [np.zeros_like(a) if g is None else numpy(g) for a, g in zip(arrays, found)]


def vjp_of_vjp(f: Callable[..., Any], arrays: Arrays, cotangents: Arrays, directions: Arrays) -> tuple[Arrays, Arrays]:
    """The gradients as in vjp, with a graph; and those of <directions, them> with respect to arrays and cotangents."""
    xs = [tl.tensor(a, requires_grad=True) for a in arrays]
    cs = [tl.tensor(c, requires_grad=True) for c in cotangents]
    first = tl.autograd.grad(outputs(f(*xs)), xs, cs, create_graph=True, allow_unused=True)
    known = [(g, tl.tensor(d)) for g, d in zip(first, directions) if g is not None and g.requires_grad]
    second = (
        tl.autograd.grad([g for g, _ in known], xs + cs, [d for _, d in known], allow_unused=True)
        if known else [None] * len(xs + cs)
    )  # fmt: skip
    return (
        [np.zeros_like(a) if g is None else numpy(g) for a, g in zip(arrays, first)],
        [np.zeros_like(a) if g is None else numpy(g) for a, g in zip(arrays + cotangents, second)],
    )


def slope(f: Callable[[], float], entries: np.ndarray) -> np.ndarray:
    """The derivative of f() with respect to each of these entries, which are changed in place and put back."""
    result = np.empty_like(entries)
    for i in np.ndindex(entries.shape):
        x = entries[i]
        at = {}
        for k in (-2, -1, 1, 2):
            entries[i] = x + k * STEP
            at[k] = f()
        entries[i] = x
        result[i] = (8.0 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12.0 * STEP)
    return result


def assert_close(analytic: Arrays, numerical: Arrays, what: str) -> None:
    """Each pair of arrays agrees, up to a part of the largest entry of all of them."""
    scale = max([1.0, *(float(np.abs(a).max()) for a in numerical if a.size)])
    for k, (a, n) in enumerate(zip(analytic, numerical, strict=True)):
        np.testing.assert_allclose(a, n, rtol=0, atol=TOLERANCE * scale, err_msg=f"{what}, array {k}")


def inner(a: Arrays, b: Arrays) -> float:
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))


def check_gradients(f: Callable[..., Any], *arrays: np.ndarray, order: int = 2, seed: int = 0) -> None:
    """Check the gradients of f, which takes Tensors and returns one or a tuple, at these float64 arrays.

    f must be smooth within 2 * STEP of them. Raises AssertionError with the largest differences.
    """
    rng = np.random.default_rng(seed)
    xs = [np.array(a) for a in arrays]
    like = [numpy(y) for y in outputs(f(*map(tl.tensor, xs)))]
    cs = [np.asarray(rng.standard_normal(y.shape)) for y in like]

    def value() -> float:
        return inner(cs, [numpy(y) for y in outputs(f(*map(tl.tensor, xs)))])

    first = vjp(f, xs, cs)
    assert_close(first, [slope(value, x) for x in xs], "first derivative")
    if order < 2:
        return
    ds = [np.asarray(rng.standard_normal(x.shape)) for x in xs]
    with_graph, second = vjp_of_vjp(f, xs, cs, ds)
    assert_close(with_graph, first, "gradient under create_graph")
    assert_close(second, [slope(lambda: inner(ds, vjp(f, xs, cs)), x) for x in xs + cs], "second derivative")
