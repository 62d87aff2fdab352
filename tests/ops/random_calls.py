"""Random calls of the ops on shapes, indices and reductions, valid and invalid: empty, 0-d, negative, out of range.

Each function of ``CALLS`` draws one call: its text, the function of a library and of tensors, and their entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Call = tuple[str, Callable[..., Any], list[np.ndarray]]
CALLS: dict[str, Callable[[Draw], Call]] = {}


class Draw:
    """A source of random shapes, dimensions, indices and entries."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def int(self, low: int, high: int) -> int:
        """Return an integer from low to high."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, *choices: Any) -> Any:
        return choices[self.int(0, len(choices) - 1)]

    def shape(self, most: int = 3, empty: float = 0.12) -> tuple[int, ...]:
        return tuple(0 if self.chance(empty) else self.int(1, 3) for _ in range(self.int(0, most)))

    def x(self, shape: Any = None, most: int = 3) -> np.ndarray:
        """Return entries of this shape, or of a random one; sometimes small integers with many ties."""
        shape = self.shape(most) if shape is None else shape
        if self.chance(0.2):
            return np.asarray(self.rng.integers(-2, 3, shape).astype(float))
        return np.asarray(np.round(self.rng.standard_normal(shape), 2))

    def dim(self, ndim: int) -> int:
        """Return a dimension, now and then one out of range."""
        return self.int(-ndim - 2, ndim + 1) if self.chance(0.12) else self.int(-max(ndim, 1), max(ndim, 1) - 1)

    def dims(self, ndim: int) -> list[int]:
        if self.chance(0.08):
            return [self.dim(ndim) for _ in range(self.int(0, 3))]
        chosen = self.rng.permutation(max(ndim, 1))[: self.int(0, ndim)]
        return [int(d) - ndim * self.chance(0.3) for d in chosen]

    def sequence(self, values: list[Any]) -> Any:
        return tuple(values) if self.chance(0.6) else values

    def stars(self, values: list[Any]) -> tuple[Any, ...]:
        """Return values as arguments: one by one, or as one sequence."""
        return tuple(values) if values and self.chance(0.5) else (self.sequence(values),)

    def index(self, shape: Any, size: int, negative: bool = False, wrong: float = 0.06) -> np.ndarray:
        """Return indices into a dimension of this size, now and then one out of range."""
        if size <= 0 and not self.chance(0.3):
            shape = (0,) * len(shape)
        far = self.chance(wrong)
        return np.asarray(self.rng.integers(-size * negative - far, max(size + far, 1), shape))

    def near(self, shape: tuple[int, ...], dim: int | None = None) -> tuple[int, ...]:
        """Return a shape that is not larger than this one, apart from ``dim``; now and then any shape."""
        if self.chance(0.15):
            return self.shape()
        sizes = [max(0, n - self.int(0, 1)) if self.chance(0.4) else n for n in shape]
        if dim is not None and -len(shape) <= dim < len(shape):
            sizes[dim] = self.int(0, 4)
        return tuple(sizes)

    def broadcastable(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(1 if self.chance(0.3) else n for n in shape[self.int(0, 1) :])

    def sizes(self, n: int) -> list[int]:
        """Return sizes of a new shape of n entries, often with a -1, now and then others."""
        if self.chance(0.4) or not n:
            return [self.pick(0, 1, 2, 3, n, -1) for _ in range(self.int(0, 3))]
        sizes, rest = [], n
        for size in (2, 3, 2, 3):
            if rest % size == 0 and self.chance(0.6):
                sizes, rest = [*sizes, size], rest // size
        sizes.append(rest)
        if self.chance(0.4):
            sizes[self.int(0, len(sizes) - 1)] = -1
        return sizes


def size_of(shape: Any, dim: int) -> int:
    """Return the size of a dimension, 1 if there is none."""
    return shape[dim] if -len(shape) <= dim < len(shape) else 1


def method(names: str, draw: Callable[[Draw, np.ndarray], Any]) -> None:
    """Add the calls ``x.name(*args, **kwargs)`` with what ``draw`` returns: args, or a pair (args, kwargs)."""

    def make(name: str) -> Callable[[Draw], Call]:
        def call(r: Draw) -> Call:
            x = r.x()
            drawn = draw(r, x)
            args, kwargs = drawn if _is_pair(drawn) else (drawn, {})
            return f"x.{name}(*{args}, **{kwargs})", lambda lib, t: getattr(t, name)(*args, **kwargs), [x]

        return call

    CALLS.update((name, make(name)) for name in names.split())


def _is_pair(drawn: Any) -> bool:
    return len(drawn) == 2 and isinstance(drawn[0], tuple) and isinstance(drawn[1], dict)


def drawn_call(f: Callable[[Draw], Call]) -> Callable[[Draw], Call]:
    """Add a function that draws calls."""
    CALLS[f.__name__.strip("_")] = f
    return f


# ---- shapes ---------------------------------------------------------------------------------


def _expanded(r: Draw, x: np.ndarray) -> list[int]:
    sizes = [(r.int(0, 3) if n == 1 else n) if r.chance(0.9) else r.int(0, 3) for n in x.shape]
    sizes = [-1 if r.chance(0.15) else n for n in sizes]
    return [r.pick(0, -1) if r.chance(0.1) else r.int(1, 2) for _ in range(r.int(0, 2))] + sizes


def _permuted(r: Draw, ndim: int) -> list[int]:
    if r.chance(0.12):
        return [r.dim(ndim) for _ in range(r.int(0, 3))]
    return [int(d) - ndim * r.chance(0.3) for d in r.rng.permutation(ndim)]


def _moved(r: Draw, x: np.ndarray) -> tuple[Any, Any]:
    if r.chance(0.5):
        return r.dim(x.ndim), r.dim(x.ndim)
    source, destination = r.dims(x.ndim), r.dims(x.ndim)
    n = min(len(source), len(destination)) if r.chance(0.9) else None
    return tuple(source[:n]), tuple(destination[:n])


def _optional(r: Draw, *values: Any) -> tuple[Any, ...]:
    """Return the values, now and then without the last ones."""
    return values[: r.int(0, len(values))] if r.chance(0.3) else values


method("reshape view", lambda r, x: r.stars(r.sizes(x.size)))
method("flatten", lambda r, x: _optional(r, r.dim(x.ndim), r.dim(x.ndim)))
method("unflatten", lambda r, x: (d := r.dim(x.ndim), r.sequence(r.sizes(size_of(x.shape, d)))))
method("unsqueeze", lambda r, x: (r.dim(x.ndim + 1),))
method("squeeze", lambda r, x: r.pick((), (r.dim(x.ndim),), (tuple(r.dims(x.ndim)),)))
method("expand", lambda r, x: r.stars(_expanded(r, x)))
method("broadcast_to", lambda r, x: (r.sequence(_expanded(r, x)),))
method("permute", lambda r, x: r.stars(_permuted(r, x.ndim)))
method("transpose swapaxes", lambda r, x: (r.dim(x.ndim), r.dim(x.ndim)))
method("movedim moveaxis", _moved)
method("flip", lambda r, x: r.stars(r.dims(x.ndim)))
method("roll", lambda r, x: (r.int(-4, 4),) if r.chance(0.3) else (
    [r.int(-4, 4) for _ in range(r.int(0, 2))], r.dims(x.ndim)[:2]))  # fmt: skip
method("narrow", lambda r, x: (r.dim(x.ndim), r.int(-3, 3), r.int(-1, 3)))
method("split", lambda r, x: _optional(r, r.int(-1, 4), r.dim(x.ndim)) or (1,))
method("chunk", lambda r, x: _optional(r, r.int(-1, 5), r.dim(x.ndim)) or (1,))
method("unbind cumsum softmax log_softmax select", lambda r, x: (r.dim(x.ndim),))
method("select", lambda r, x: (r.dim(x.ndim), r.int(-3, 3)))
method("repeat tile", lambda r, x: r.stars([r.int(-r.chance(0.1), 2) for _ in range(r.int(0, 4))]))
method("diagonal", lambda r, x: _optional(r, r.int(-4, 4), r.dim(x.ndim), r.dim(x.ndim)))
method("diag tril triu", lambda r, x: _optional(r, r.int(-4, 4)))
method("trace t nonzero", lambda r, x: ())
method("size", lambda r, x: _optional(r, r.dim(x.ndim)))


@drawn_call
def mT(r: Draw) -> Call:
    return "x.mT", lambda lib, x: x.mT, [r.x()]


@drawn_call
def cat(r: Draw) -> Call:
    shape = r.shape()
    d, xs = r.dim(len(shape)), []
    for _ in range(r.int(0, 3)):
        sizes = [*shape]
        if -len(shape) <= d < len(shape):
            sizes[d] = r.int(0, 2)
        xs.append(r.x(r.shape() if r.chance(0.1) else sizes))
    return f"cat(xs, {d})", lambda lib, *xs: lib.cat(xs, d), xs


@drawn_call
def stack(r: Draw) -> Call:
    shape = r.shape()
    d, xs = r.dim(len(shape) + 1), [r.x(shape if r.chance(0.95) else None) for _ in range(r.int(0, 3))]
    return f"stack(xs, {d})", lambda lib, *xs: lib.stack(xs, d), xs


# ---- reductions -----------------------------------------------------------------------------


def _reduced(r: Draw, x: np.ndarray, several: bool = True) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if r.chance(0.25):
        return (), {}
    dims = (r.dim(x.ndim),) if r.chance(0.5) or not several else (r.sequence(r.dims(x.ndim)),)
    return dims, {"keepdim": True} if r.chance(0.4) else {}


def _spread(r: Draw, x: np.ndarray) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = _reduced(r, x)
    args = () if args in (((),), ([],)) else args  # PyTorch's gradient over an empty list of dims is wrong
    return args, kwargs | r.pick({}, {"correction": r.pick(0, 0.5, -1)}, {"unbiased": r.chance(0.5)})


method("sum mean amax amin all any", _reduced)
method("prod argmax argmin max min", lambda r, x: _reduced(r, x, several=False))
method("var std", _spread)
method("logsumexp", lambda r, x: (r.pick(r.dim(x.ndim), r.dims(x.ndim) or 0),))
method("sort argsort", lambda r, x: _optional(r, r.dim(x.ndim), r.chance(0.5)))
method("repeat_interleave", lambda r, x: _optional(r, r.int(-1, 3), r.dim(max(x.ndim, 1))) or (2,))
method("clamp", lambda r, x: (r.pick(None, -0.5, 1), r.pick(None, -1, 0.5)))


@drawn_call
def topk(r: Draw) -> Call:
    shape = r.shape()
    k, d, largest = r.int(-1, 4), r.dim(len(shape)), r.chance(0.5)
    x = r.rng.permutation(float(np.prod(shape)) + np.arange(np.prod(shape))).reshape(shape)  # no ties
    return f"topk(x, {k}, {d}, {largest})", lambda lib, x: lib.topk(x, k, d, largest), [x]
