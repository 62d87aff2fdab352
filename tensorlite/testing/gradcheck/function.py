"""The function under test, as a function of the arrays in its leaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Any

import numpy as np

from ...autograd.grad_mode import enable_grad, no_grad
from ...autograd.gradients import grad as _grad
from ...errors import DTypeError
from ...pytree import tree_leaves, tree_map
from ...tensors.creation import tensor
from ...tensors.tensor import Tensor
from ..report import GradientError

__all__ = ["Subject", "bent", "host", "keeps_float64", "numbers"]

Arrays = list[np.ndarray]

_EPS = float(np.finfo(np.float64).eps)


# ---- arrays ------------------------------------------------------------------------------


def host(x: Tensor) -> np.ndarray:
    """The entries of a tensor as a NumPy array, wherever it is."""
    return x.detach().cpu().numpy()


def is_float(x: Any) -> bool:
    return isinstance(x, (Tensor, np.ndarray)) and np.dtype(x.dtype).kind == "f"


def numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 1/8 from 1/4 to 2, of either sign: short to print, and no two alike for long."""
    return np.asarray(rng.integers(2, 17, shape) / 8 * rng.choice([-1.0, 1.0], shape))


def bent(a: np.ndarray) -> np.ndarray:
    """The same entries in another memory layout: reversed axes, every second place."""
    big = np.empty(tuple(2 * n for n in a.shape[::-1]), a.dtype)
    index: tuple[Any, ...] = (slice(None, None, 2),) * a.ndim
    view: np.ndarray = big[(*index, ...)].T
    view[...] = a
    return view


# ---- a function of the entries of its leaves -------------------------------------------------


class Subject:
    """f with its arguments: a function of the arrays in some of its tensors, the leaves.

    The leaves are the floating-point arguments, converted to float64, or those of ``wrt``: positions of such
    arguments, or tensors that f reads, such as the parameters of a model. While f is evaluated elsewhere, the leaves
    hold other arrays; afterwards they hold their own again.
    """

    def __init__(
        self, check: str, f: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], wrt: Any, name: str | None
    ) -> None:
        self.check, self.f, self.original = check, f, (args, kwargs)
        self.name = name or getattr(f, "__name__", type(f).__name__)
        made: list[Tensor] = []
        labels: list[str] = []
        given: dict[int, Tensor] = {}

        def enter(label: str) -> Callable[[Any], Any]:
            def convert(x: Any) -> Any:
                if isinstance(x, np.ndarray) and not is_float(x):
                    return tensor(x)
                if not is_float(x):
                    return x
                leaf = _leaf(x)
                made.append(leaf)
                labels.append(label)
                given[id(x)] = leaf
                return leaf

            return convert

        names = _parameter_names(f, len(args))
        self.args = tuple(tree_map(enter(label), arg) for label, arg in zip(names, args))
        self.kwargs = {key: tree_map(enter(key), value) for key, value in kwargs.items()}
        for label in {label for label in labels if labels.count(label) > 1}:  # tensors in one list
            for number, place in enumerate([i for i, other in enumerate(labels) if other == label]):
                labels[place] = f"{label}[{number}]"
        self.leaves, self.labels = made, labels
        if wrt is not None:
            self._choose(wrt, given)
        if not self.leaves:
            raise TypeError(f"{check}: {self.name} has no floating point argument to differentiate by")
        for leaf in self.leaves:
            leaf.requires_grad_(True)
        self.given = [leaf.array for leaf in self.leaves]
        self.device = self.leaves[0].device
        self.on_host = isinstance(self.given[0], np.ndarray)

    def _choose(self, wrt: Any, given: dict[int, Tensor]) -> None:
        """Keep the leaves that ``wrt`` names."""
        leaves, labels = [], []
        for number, choice in enumerate([wrt] if isinstance(wrt, (int, Tensor)) else wrt):
            if isinstance(choice, int):
                if not -len(self.leaves) <= choice < len(self.leaves):
                    raise ValueError(
                        f"{self.check}: wrt={choice}, but {self.name} has {len(self.leaves)} floating point arguments"
                    )
                leaf, label = self.leaves[choice], self.labels[choice]
            elif id(choice) in given:
                leaf = given[id(choice)]
                label = self.labels[self.leaves.index(leaf)] if leaf in self.leaves else f"wrt[{number}]"
            else:
                leaf, label = choice, f"wrt[{number}]"
                if not isinstance(leaf, Tensor) or leaf.array.dtype != np.float64 or not leaf.is_leaf:
                    what = type(leaf).__name__
                    if isinstance(leaf, Tensor):
                        what = f"{leaf.dtype}, {'a leaf' if leaf.is_leaf else 'not a leaf'}"
                    raise DTypeError(
                        f"{self.check}: wrt[{number}] must be a leaf tensor of float64, got {what}; convert a model "
                        f"with model.to(tl.float64)"
                    )
            leaves.append(leaf)
            labels.append(label)
        self.leaves, self.labels = leaves, labels

    # ---- calls

    def outputs(self) -> list[Tensor]:
        """The floating-point results of f, as the leaves are now."""
        result = self.f(*self.args, **self.kwargs)
        found = tree_leaves(result)
        for y in found:
            if not isinstance(y, Tensor):
                raise TypeError(f"{self.check}: {self.name} must return Tensors, got {type(y).__name__}")
        return [y for y in found if np.dtype(y.dtype).kind in "fc"]

    def set(self, arrays: Iterable[np.ndarray]) -> None:
        """Put other arrays into the leaves."""
        for leaf, array in zip(self.leaves, arrays):
            leaf.array = np.asarray(array) if self.on_host else tensor(array, device=self.device).array

    def reset(self) -> None:
        """Put the leaves' own arrays back."""
        for leaf, array in zip(self.leaves, self.given):
            leaf.array = array

    def values(self, arrays: Arrays) -> Arrays:
        """The results at these arrays. No graph is made."""
        self.set(arrays)
        try:
            with no_grad():
                return [host(y) for y in self.outputs()]
        finally:
            self.reset()

    def outputs_at(self, arrays: Arrays) -> list[Tensor]:
        """The results at these arrays, with a graph."""
        self.set(arrays)
        try:
            with enable_grad():
                return self.outputs()
        finally:
            self.reset()

    def vjp(self, arrays: Arrays, cotangents: Arrays, leaves: Sequence[Tensor] | None = None) -> Arrays:
        """The gradients of <cotangents, f> by these leaves, or all, at these arrays; zeros where f does not depend."""
        wanted = self.leaves if leaves is None else leaves
        self.set(arrays)
        try:
            with enable_grad():
                ys, cs = self._attached([self.on_device(c) for c in cotangents])
                found = _grad(ys, wanted, cs, allow_unused=True) if ys else [None] * len(wanted)
            return [np.zeros(x.shape) if g is None else host(g) for g, x in zip(found, wanted)]
        finally:
            self.reset()

    def swapped(self, gone: int, instead: int) -> Subject:
        """The same function with one leaf in the place of another too; nothing depends on that one any more."""
        one = copy(self)
        one.args, one.kwargs = (
            tree_map(lambda x: self.leaves[instead] if x is self.leaves[gone] else x, tree)
            for tree in (self.args, self.kwargs)
        )
        return one

    def vjp_of_vjp(self, arrays: Arrays, cotangents: Arrays, directions: Arrays) -> tuple[Arrays, Arrays]:
        """The gradients as in vjp, with a graph; those of <directions, them> by the arrays, then the cotangents."""
        self.set(arrays)
        try:
            with enable_grad():
                weights = [self.on_device(c).requires_grad_() for c in cotangents]
                ys, cs = self._attached(weights)
                first = (
                    _grad(ys, self.leaves, cs, create_graph=True, allow_unused=True)
                    if ys else [None] * len(self.leaves)
                )  # fmt: skip
                known = [
                    (g, self.on_device(d)) for g, d in zip(first, directions) if g is not None and g.requires_grad
                ]
                inputs = [*self.leaves, *weights]
                second = (
                    _grad([g for g, _ in known], inputs, [d for _, d in known], allow_unused=True)
                    if known else [None] * len(inputs)
                )  # fmt: skip
            return _filled(first, arrays), _filled(second, [*arrays, *cotangents])
        finally:
            self.reset()

    def agree(
        self, found: Arrays, expected: Arrays, at: Arrays, cotangents: Arrays | None, start: int = 0
    ) -> int | None:
        """The number of the first of these gradients (values if there are no cotangents) that differ; None if none do.

        They may differ by rounding: of their own size, of the cotangents', and where that is not enough, by as much as
        a rounding of the arguments would change them. start: the number of the first one given.
        """
        floor = 100 * _EPS * max([0.0, *(float(abs(c).max(initial=0.0)) for c in cotangents or [])])
        inside = 1e5 * _EPS * max([0.0, *(float(abs(a[np.isfinite(a)]).max(initial=0.0)) for a in cotangents or at)])
        for k, (a, b) in enumerate(zip(found, expected, strict=True), start):
            scale = float(abs(b[np.isfinite(b)]).max(initial=0.0))
            if a.shape != b.shape:
                return k
            if np.allclose(a, b, rtol=1e-9, atol=1e-11 * scale + floor, equal_nan=True):
                continue
            with np.errstate(all="ignore"):
                off = abs(a - b)
                equal = (a == b) | (np.isnan(a) & np.isnan(b))
                small = (off <= 1e-6 * scale) | np.isnan(off) | (off <= inside) | (a == b)
                for noise in (self._noise, self._grain):
                    close = (off <= 30 * noise(at, cotangents, k)) | equal
                    if (close & small).all():
                        break
                else:
                    return k
        return None

    def _function(self, cotangents: Arrays | None, k: int) -> Callable[[Arrays], np.ndarray]:
        """Gradient k, or value k if there are no cotangents."""
        return lambda xs: (self.values(xs) if cotangents is None else self.vjp(xs, cotangents))[k]

    def _noise(self, at: Arrays, cotangents: Arrays | None, k: int) -> np.ndarray:
        """How much gradient (or value) k changes when the arguments do by some of their last bits."""
        rng, f = np.random.default_rng(0), self._function(cotangents, k)
        some = [f([a * (1 + 2.0**-50 * rng.choice([-1.0, 1.0], a.shape)) for a in at]) for _ in range(4)]
        return np.asarray(np.max([abs(x - some[0]) for x in some[1:]], axis=0))

    def _grain(self, at: Arrays, cotangents: Arrays | None, k: int) -> np.ndarray:
        """How rough it is along a short line: (x + 1000) - 1000 changes in steps, and not with the last bits of x."""
        rng, f = np.random.default_rng(0), self._function(cotangents, k)
        v = [np.maximum(1.0, abs(a)) * rng.choice([-1.0, 1.0], a.shape) for a in at]
        places = np.linspace(-1.0, 1.0, 16)
        smooth, _ = np.linalg.qr(np.vander(places, 3))
        seen = np.array([f([a + 2.0**-40 * t * d for a, d in zip(at, v)]).reshape(-1) for t in places])
        rough = np.asarray(abs(seen - smooth @ (smooth.T @ seen)).max(axis=0))
        return rough.reshape(f(at).shape)

    def _attached(self, cotangents: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        pairs = [(y, c) for y, c in zip(self.outputs(), cotangents, strict=True) if y.requires_grad]
        return [y for y, _ in pairs], [c for _, c in pairs]

    def on_device(self, array: np.ndarray) -> Tensor:
        if not self.on_host:
            return tensor(array, device=self.device)
        x = tensor(0.0, dtype=np.float64)
        x.array = np.asarray(array)  # not a copy: its memory layout counts, and so does whether it is changed
        return x


def keeps_float64(subject: Subject, k: int, dtype: Any, tail: str = "") -> None:
    """Raise GradientError if result k of a function of float64 has another dtype."""
    if dtype != np.float64:
        raise GradientError(
            f"{subject.name}: result {k} is {np.dtype(dtype)} for arguments of float64: half of the digits are lost, "
            f"and no difference can tell the gradient{tail}"
        )


def _leaf(x: Tensor | np.ndarray) -> Tensor:
    """A new leaf with the entries of x in float64, and its memory layout if it has that dtype already."""
    if isinstance(x, Tensor):
        data = x.array if x.array.dtype == np.float64 else x.detach().to(np.float64).array
        leaf = x.detach().clone().to(np.float64)
    else:
        data = np.asarray(x, np.float64)
        leaf = tensor(data)
    leaf.array = data
    return leaf


def _filled(found: Sequence[Tensor | None], arrays: Sequence[np.ndarray]) -> Arrays:
    return [np.zeros(a.shape) if g is None else host(g) for g, a in zip(found, arrays)]


def _parameter_names(f: Callable[..., Any], count: int) -> list[str]:
    """The names of the first ``count`` positional parameters of f, or their numbers."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [plain[i] if i < len(plain) else f"argument {i}" for i in range(count)]
