"""The function under test, as a function of arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np

from ...autograd.grad_mode import enable_grad, no_grad
from ...autograd.gradients import grad as _grad
from ...autograd.graph import Node, topological_order
from ...dtypes import is_floating
from ...errors import DTypeError
from ...pytree import tree_leaves, tree_map
from ...tensors.creation import tensor
from ...tensors.tensor import Tensor
from ..report import GradientError

__all__ = ["FunctionUnderTest", "strided_copy", "to_numpy", "require_float64", "random_eighths"]

Arrays = list[np.ndarray]

_EPS = float(np.finfo(np.float64).eps)


# ---- arrays ---------------------------------------------------------------------------------


def to_numpy(x: Tensor) -> np.ndarray:
    """Return the entries of a tensor on any device as a NumPy array."""
    return x.detach().cpu().numpy()


def is_float(x: Any) -> bool:
    """Return whether x is a Tensor or NumPy array of a floating dtype."""
    return isinstance(x, (Tensor, np.ndarray)) and is_floating(x.dtype)


def random_eighths(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return random multiples of 1/8 with absolute values from 1/4 to 2, which are short when printed."""
    return np.asarray(rng.integers(2, 17, shape) / 8 * rng.choice([-1.0, 1.0], shape))


def strided_copy(a: np.ndarray) -> np.ndarray:
    """Return a copy with another memory layout: axes in reversed order, and every second element of its memory."""
    big = np.empty(tuple(2 * n for n in a.shape[::-1]), a.dtype)
    index: tuple[Any, ...] = (slice(None, None, 2),) * a.ndim
    view: np.ndarray = big[(*index, ...)].T
    view[...] = a
    return view


# ---- a function of the entries of its leaves ------------------------------------------------


class FunctionUnderTest:
    """A function f with its arguments, seen as a function of the arrays in some of its tensors, the leaves.

    The leaves are the floating point arguments, converted to float64, or those that ``wrt`` selects: positions of such
    arguments, or tensors that f reads, such as the parameters of a model. To evaluate f at another point, the leaves
    hold other arrays for the time of the call.

    check: the name of the check, for messages. name: the name of f in messages; None for its own.
    Raises TypeError if there is nothing to differentiate, and ValueError or DTypeError for a wrong ``wrt``.
    """

    def __init__(
        self, check: str, f: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], wrt: Any, name: str | None
    ) -> None:
        self.check, self.f, self.original_call = check, f, (args, kwargs)
        self.name = name or getattr(f, "__name__", type(f).__name__)
        made: list[Tensor] = []
        labels: list[str] = []
        given: dict[int, Tensor] = {}

        def convert_leaf(label: str) -> Callable[[Any], Any]:
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
        self.args = tuple(tree_map(convert_leaf(label), arg) for label, arg in zip(names, args))
        self.kwargs = {key: tree_map(convert_leaf(key), value) for key, value in kwargs.items()}
        for label in {label for label in labels if labels.count(label) > 1}:  # tensors of one list get an index
            for number, place in enumerate([i for i, other in enumerate(labels) if other == label]):
                labels[place] = f"{label}[{number}]"
        self.leaves, self.labels = made, labels
        if wrt is not None:
            self._select_leaves(wrt, given)
        if not self.leaves:
            raise TypeError(
                f"{check}: expected a floating point argument to differentiate, got none for {self.name}. Pass a float "
                f"array, or leaf tensors as wrt"
            )
        for leaf in self.leaves:
            leaf.requires_grad_(True)
        self.original_arrays = [leaf.array for leaf in self.leaves]
        self.device = self.leaves[0].device
        self.on_cpu = isinstance(self.original_arrays[0], np.ndarray)

    def _select_leaves(self, wrt: Any, given: dict[int, Tensor]) -> None:
        """Keep only the leaves that ``wrt`` selects."""
        leaves, labels = [], []
        for number, choice in enumerate([wrt] if isinstance(wrt, (int, Tensor)) else wrt):
            if isinstance(choice, int):
                if not -len(self.leaves) <= choice < len(self.leaves):
                    raise ValueError(
                        f"{self.check}: wrt={choice} is out of range: {self.name} has {len(self.leaves)} floating "
                        f"point argument{'s' * (len(self.leaves) != 1)}"
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
                        f"{self.check}: expected wrt[{number}] to be a leaf tensor of float64, got {what}. Convert a "
                        f"model with model.to(tl.float64)"
                    )
            leaves.append(leaf)
            labels.append(label)
        self.leaves, self.labels = leaves, labels

    # ---- calls

    def outputs(self) -> list[Tensor]:
        """Return the floating point results of f for the current arrays in the leaves."""
        result = self.f(*self.args, **self.kwargs)
        found = tree_leaves(result)
        for y in found:
            if not isinstance(y, Tensor):
                raise TypeError(f"{self.check}: expected {self.name} to return Tensors, got {type(y).__name__}")
        return [y for y in found if np.dtype(y.dtype).kind in "fc"]

    def set(self, arrays: Iterable[np.ndarray]) -> None:
        """Put other arrays into the leaves."""
        for leaf, array in zip(self.leaves, arrays):
            leaf.array = np.asarray(array) if self.on_cpu else tensor(array, device=self.device).array

    def reset(self) -> None:
        """Put the leaves' own arrays back."""
        for leaf, array in zip(self.leaves, self.original_arrays):
            leaf.array = array

    @contextmanager
    def moved_to(self, arrays: Arrays) -> Iterator[FunctionUnderTest]:
        """Return the same function at another point, whose leaves have these arrays until the end of the block."""
        other = copy(self)
        other.original_arrays = [
            np.asarray(a) if self.on_cpu else tensor(a, device=self.device).array for a in arrays
        ]  # fmt: skip
        by_leaf = {id(leaf): array for leaf, array in zip(self.leaves, arrays)}
        args, kwargs = tree_map(lambda x: by_leaf.get(id(x), x), [self.args, self.kwargs])
        other.original_call = (args, kwargs)
        other.reset()
        try:
            yield other
        finally:
            self.reset()

    def overflows_at(self, arrays: Arrays) -> bool:
        """Return whether f overflows on the way to its results, there and at a point near by.

        1 / (1 + exp(-x)) does for x = -800. exp gives infinity, and the result is 0. The chain rule gives 0 times
        infinity, NaN. A pole, as that of 1 / x, is infinite at one point only.
        """
        if not all(np.isfinite(a).all() for a in arrays):
            return False
        with np.errstate(all="ignore"):
            near = [a + 2.0**-9 * np.maximum(1.0, abs(a)) for a in arrays]
            return all(_has_infinite_values(self.outputs_at(xs)) for xs in (arrays, near))

    def values(self, arrays: Arrays) -> Arrays:
        """Return the results at these arrays, computed under no_grad."""
        self.set(arrays)
        try:
            with no_grad():
                return [to_numpy(y) for y in self.outputs()]
        finally:
            self.reset()

    def outputs_at(self, arrays: Arrays) -> list[Tensor]:
        """Return the results at these arrays, with a graph."""
        self.set(arrays)
        try:
            with enable_grad():
                return self.outputs()
        finally:
            self.reset()

    def vjp(self, arrays: Arrays, cotangents: Arrays, leaves: Sequence[Tensor] | None = None) -> Arrays:
        """Return the gradients of <cotangents, f> at these arrays, zeros where f does not depend on a leaf.

        leaves: the leaves to differentiate with respect to; None for all.
        """
        wanted = self.leaves if leaves is None else leaves
        self.set(arrays)
        try:
            with enable_grad():
                ys, cs = self._outputs_with_graph([self.to_device(c) for c in cotangents])
                found = _grad(ys, wanted, cs, allow_unused=True) if ys else [None] * len(wanted)
            return [np.zeros(x.shape) if g is None else to_numpy(g) for g, x in zip(found, wanted)]
        finally:
            self.reset()

    def with_shared_leaf(self, replaced: int, kept: int) -> FunctionUnderTest:
        """Return the same function with leaf ``kept`` passed as the argument of leaf ``replaced``, too."""
        return self.with_arguments({id(self.leaves[replaced]): self.leaves[kept]})

    def with_arguments(self, replaced: dict[int, Tensor]) -> FunctionUnderTest:
        """Return the same function with other Tensors as some arguments. ``replaced``: by ids of the present ones."""
        one = copy(self)
        one.args, one.kwargs = (
            tree_map(lambda x: replaced.get(id(x), x), tree) for tree in (self.args, self.kwargs)
        )  # fmt: skip
        return one

    def nested_gradients(self, arrays: Arrays, cotangents: Arrays, directions: Sequence[Arrays]) -> list[Arrays]:
        """Return the gradients of order 1, 2, ... at these arrays, one order more than there are ``directions``.

        The first are those of <cotangents, f>, with a graph. Those of order n + 1 are the gradients of <directions[n],
        gradients of order n> with respect to the arrays, then to the cotangents.
        """
        self.set(arrays)
        try:
            with enable_grad():
                weights = [self.to_device(c).requires_grad_() for c in cotangents]
                results, cs = self._outputs_with_graph(weights)
                inputs = self.leaves
                orders: list[Arrays] = []
                for number in range(len(directions) + 1):
                    found = (
                        _grad(results, inputs, cs, create_graph=number < len(directions), allow_unused=True)
                        if results else [None] * len(inputs)
                    )  # fmt: skip
                    orders.append(_filled(found, [*arrays, *cotangents][: len(inputs)]))
                    if number < len(directions):
                        pairs = zip(found, directions[number], strict=True)
                        known = [(g, self.to_device(d)) for g, d in pairs if g is not None and g.requires_grad]
                        results, cs = [g for g, _ in known], [d for _, d in known]
                        inputs = [*self.leaves, *weights]
            return orders
        finally:
            self.reset()

    def first_difference(
        self, found: Arrays, expected: Arrays, at: Arrays, cotangents: Arrays | None, start: int = 0
    ) -> int | None:
        """Return the index of the first gradient in ``found`` that differs from the expected one, or None.

        Without cotangents, results of f are compared. Both may differ by rounding errors of their own size or of
        the size of the cotangents. They may also differ by the change that a rounding of the arguments causes.
        start: the index of ``found[0]`` among all gradients (or results).
        """
        atol = 100 * _EPS * max([0.0, *(float(abs(c).max(initial=0.0)) for c in cotangents or [])])
        inside = 1e5 * _EPS * max([0.0, *(float(abs(a[np.isfinite(a)]).max(initial=0.0)) for a in cotangents or at)])
        for k, (a, b) in enumerate(zip(found, expected, strict=True), start):
            scale = float(abs(b[np.isfinite(b)]).max(initial=0.0))
            if a.shape != b.shape:
                return k
            if np.allclose(a, b, rtol=1e-9, atol=1e-11 * scale + atol, equal_nan=True):
                continue
            with np.errstate(all="ignore"):
                off = abs(a - b)
                equal = (a == b) | (np.isnan(a) & np.isnan(b))
                small = (off <= 1e-6 * scale) | np.isnan(off) | (off <= inside) | (a == b)
                for noise in (self._rounding_noise, self._resolution):
                    close = (off <= 30 * noise(at, cotangents, k)) | equal
                    if (close & small).all():
                        break
                else:
                    return k
        return None

    def _component(self, cotangents: Arrays | None, k: int) -> Callable[[Arrays], np.ndarray]:
        """Return gradient k as a function of the arrays, or result k if there are no cotangents."""
        return lambda xs: (self.values(xs) if cotangents is None else self.vjp(xs, cotangents))[k]

    def _rounding_noise(self, at: Arrays, cotangents: Arrays | None, k: int) -> np.ndarray:
        """Return the change of gradient (or result) k when the last bits of the arguments change."""
        rng, f = np.random.default_rng(0), self._component(cotangents, k)
        some = [f([a * (1 + 2.0**-50 * rng.choice([-1.0, 1.0], a.shape)) for a in at]) for _ in range(4)]
        return np.asarray(np.max([abs(x - some[0]) for x in some[1:]], axis=0))

    def _resolution(self, at: Arrays, cotangents: Arrays | None, k: int) -> np.ndarray:
        """Return the roughness of gradient (or result) k along a short line.

        (x + 1000) - 1000 changes in steps, not with the last bits of x. ``_rounding_noise`` does not show that.
        """
        rng, f = np.random.default_rng(0), self._component(cotangents, k)
        v = [np.maximum(1.0, abs(a)) * rng.choice([-1.0, 1.0], a.shape) for a in at]
        places = np.linspace(-1.0, 1.0, 16)
        smooth, _ = np.linalg.qr(np.vander(places, 3))
        seen = np.array([f([a + 2.0**-40 * t * d for a, d in zip(at, v)]).reshape(-1) for t in places])
        rough = np.asarray(abs(seen - smooth @ (smooth.T @ seen)).max(axis=0))
        return rough.reshape(f(at).shape)

    def _outputs_with_graph(self, cotangents: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the results that require grad, and their cotangents."""
        pairs = [(y, c) for y, c in zip(self.outputs(), cotangents, strict=True) if y.requires_grad]
        return [y for y, _ in pairs], [c for _, c in pairs]

    def to_device(self, array: np.ndarray) -> Tensor:
        """Return a tensor on the device of the leaves. On the CPU it shares the array's memory."""
        if not self.on_cpu:
            return tensor(array, device=self.device)
        x = tensor(0.0, dtype=np.float64)
        x.array = np.asarray(array)  # not a copy, so that the memory layout is kept and in-place changes are seen
        return x


def require_float64(function: FunctionUnderTest, k: int, dtype: Any) -> None:
    """Raise GradientError if result k for arguments of float64 has another dtype."""
    if dtype != np.float64:
        raise GradientError(
            f"{function.name}: result {k} is {np.dtype(dtype)} for arguments of float64. Differences cannot measure a "
            f"gradient with so few digits; keep float64 inside the function"
        )


def _has_infinite_values(ys: Sequence[Tensor]) -> bool:
    """Return whether an op in the graph of ys has saved a computed value that is infinity."""
    for node in topological_order([y.node for y in ys if isinstance(y.node, Node)]):
        if not isinstance(node.saved, tuple):
            continue
        for value, place in zip(node.saved, node.plan.saved_edges):
            computed = place is not None and (place < 0 or isinstance(node.edges[place], Node))
            if computed and isinstance(value, np.ndarray | np.floating) and bool((value == np.inf).any()):
                return True
    return False


def _leaf(x: Tensor | np.ndarray) -> Tensor:
    """Return a new leaf with the entries of x in float64. If x is float64, the leaf has its memory layout."""
    if isinstance(x, Tensor):
        data = x.array if x.array.dtype == np.float64 else x.detach().to(np.float64).array
        leaf = x.detach().clone().to(np.float64)
    else:
        data = np.asarray(x, np.float64)
        leaf = tensor(data)
    leaf.array = data
    return leaf


def _filled(found: Sequence[Tensor | None], arrays: Sequence[np.ndarray]) -> Arrays:
    """Return the gradients as arrays, with zeros for None."""
    return [np.zeros(a.shape) if g is None else to_numpy(g) for g, a in zip(found, arrays)]


def _parameter_names(f: Callable[..., Any], count: int) -> list[str]:
    """Return the names of the first ``count`` positional parameters of f, or "argument 0" and so on."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [plain[i] if i < len(plain) else f"argument {i}" for i in range(count)]
