"""Checks of everything about a gradient except its numbers: purity, form, memory, linearity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ...autograd.grad_mode import enable_grad, no_grad
from ...autograd.gradients import grad as _grad
from ...tensors.tensor import Tensor
from ..report import GradientError
from .function import FunctionUnderTest, require_float64, strided_copy, to_numpy
from .messages import format_array

__all__ = ["checked_gradients", "number_labels", "checked_values"]

Arrays = list[np.ndarray]

_LARGE_FACTOR = -1024.0  # a power of two, so that multiplying by it rounds nothing


def number_labels(word: str, arrays: Sequence[np.ndarray]) -> list[str]:
    """Return labels for the arrays: "word" for a single one, else "word[0]" and so on."""
    return [word] if len(arrays) == 1 else [f"{word}[{i}]" for i in range(len(arrays))]


def checked_values(function: FunctionUnderTest) -> Arrays:
    """Return the results of f, after checking that a second call repeats them and that no argument changes."""
    with no_grad():
        before = [to_numpy(leaf).copy() for leaf in function.leaves]
        first = [to_numpy(y).copy() for y in function.outputs()]
        for k, y in enumerate(first):
            require_float64(function, k, y.dtype)
        second = [to_numpy(y) for y in function.outputs()]
    after = [to_numpy(leaf) for leaf in function.leaves]
    _check_unchanged(function, before, after, function.labels, "the forward pass")
    if len(first) != len(second) or not all(_same_bits(a, b) for a, b in zip(first, second)):
        raise GradientError(
            f"{function.name}: two calls with the same arguments give different results. If it draws random numbers, "
            f"seed them inside the function (tl.manual_seed), or pass the mask as an argument"
        )
    return first


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)


def _check_unchanged(function: FunctionUnderTest, before: Arrays, after: Arrays, labels: list[str], by: str) -> None:
    for old, new, label in zip(before, after, labels):
        if not _same_bits(old, new):
            raise GradientError(
                f"{function.name}: {by} changes {label} in place\n    before  {format_array(old)}\n"
                f"    after   {format_array(new)}\nIt belongs to the caller. Work on a copy"
            )


def checked_gradients(function: FunctionUnderTest, at: Arrays, cotangents: Arrays) -> Arrays:
    """Return the gradients, after all checks of them except of their numbers. Raise GradientError if one fails."""
    name = function.name
    with enable_grad():
        ys = function.outputs()
        weights = [function.to_device(c.copy()) for c in cotangents]
        pairs = [(y, c) for y, c in zip(ys, weights, strict=True) if y.requires_grad]
        if not pairs:
            return [np.zeros_like(a) for a in at]  # the comparison with numerical derivatives shows whether it is right
        results, cs = zip(*pairs)
        inputs = function.leaves
        tensors = _grad(results, inputs, cs, retain_graph=True, allow_unused=True)
        kept = [None if g is None else to_numpy(g).copy() for g in tensors]
        cotangent_labels = number_labels("the cotangent", cotangents)
        _check_unchanged(function, cotangents, [to_numpy(c) for c in weights], cotangent_labels, "the backward pass")
        _check_form(function, tensors, cs, results)
        # Other gradients over the same graph must not change the first, and the same one must repeat it.
        _check_linearity(function, results, cs, kept, at, cotangents)
        for label, _, _ in _changed_gradients(tensors, kept, function.labels):
            raise GradientError(
                f"{name}: the gradient of {label} changes when another one is computed, because the op uses its "
                f"memory again. Return a new array"
            )
        repeated = _grad(results, inputs, cs, retain_graph=True, allow_unused=True)
        for label, old, new in _changed_gradients(repeated, kept, function.labels):
            raise GradientError(
                f"{name}: two backward passes with the same cotangent give different gradients of {label}\n"
                f"    first   {format_array(old)}\n    then    {format_array(new)}\n"
                f"Either the rule is not deterministic, or it changes values that the graph has saved"
            )
        with suppress(Exception):  # f may be undefined at that point
            function.outputs_at([a + np.where(np.isfinite(a), 2.0**-10 * np.maximum(1.0, abs(a)), 0.0) for a in at])
        later = _grad(results, inputs, cs, allow_unused=True)
        for label, old, new in _changed_gradients(later, kept, function.labels):
            raise GradientError(
                f"{name}: the gradient of {label} changes when {name} is called once more, at another point, before "
                f"the backward pass\n    before  {format_array(old)}\n    after   {format_array(new)}\n"
                f"The rule reads values of the last call, not those that its own call saved"
            )
    _check_unchanged(function, at, [to_numpy(leaf) for leaf in function.leaves], function.labels, "the backward pass")
    gradients = [np.zeros_like(a) if g is None else g for g, a in zip(kept, at)]
    as_given = function.original_arrays if function.on_cpu else at
    with_strides = function.vjp(as_given, [strided_copy(c) for c in cotangents])
    wrong = function.first_difference(with_strides, gradients, at, cotangents)
    if wrong is not None:
        raise GradientError(
            f"{name}: the gradient of {function.labels[wrong]} depends on the memory layout of the cotangent\n"
            f"    contiguous  {format_array(gradients[wrong])}\n    strided     {format_array(with_strides[wrong])}\n"
            f"    cotangent   {format_array(cotangents[0])}"
        )
    return gradients


def _changed_gradients(
    gradients: Sequence[Tensor | None], kept: Sequence[np.ndarray | None], labels: Sequence[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the label, the old and the new value of each gradient that is not the same to the bit."""
    for g, old, label in zip(gradients, kept, labels):
        if g is not None and old is not None and not _same_bits(to_numpy(g), old):
            yield label, old, to_numpy(g)


def _check_linearity(
    function: FunctionUnderTest, ys: Sequence[Tensor], cs: Sequence[Tensor], first: Sequence[np.ndarray | None],
    at: Arrays, cotangents: Arrays,
) -> None:  # fmt: skip
    """Raise GradientError if the gradient is not linear in the cotangent.

    The gradient for a large cotangent must not be clipped. The gradients for two parts of the cotangent must add up.
    A part has some of the results, or some entries of a single result. The others have a cotangent of 0, as have the
    results that a loss does not use.
    """
    given = [to_numpy(c) for c in cs]
    if len(given) > 1:
        masks = [np.full(c.shape, k % 2 == 0) for k, c in enumerate(given)]
    else:
        masks = [(np.arange(c.size) % 2 == 0).reshape(c.shape) for c in given]
    parts = [[np.where(m == side, c, 0.0) for m, c in zip(masks, given)] for side in (True, False)]
    large = [_LARGE_FACTOR * c for c in given]
    found = []
    for some in (large, *parts):
        gs = _grad(ys, function.leaves, [function.to_device(c) for c in some], retain_graph=True, allow_unused=True)
        found.append([None if g is None else to_numpy(g).copy() for g in gs])  # copy: the op may use the memory again
    for k, (expected, label) in enumerate(zip(first, function.labels)):
        if expected is None:
            continue
        many, one, two = (np.zeros(expected.shape) if g is None else g for g in (gs[k] for gs in found))
        with np.errstate(all="ignore"):
            variants = [
                ("split into two parts, with zeros elsewhere, and their gradients are added", one + two,
                 abs(one) + abs(two), np.isfinite(expected)),
                (f"multiplied by {_LARGE_FACTOR:g} and the gradient divided by it", many / _LARGE_FACTOR,
                 abs(expected), np.isfinite(expected) & np.isfinite(many)),
            ]  # fmt: skip
            for how, other, size, known in variants:
                if ((abs(other - expected) <= 1e-9 * size) | ~known).all():
                    continue
                a, b = (np.where(known, x, 0.0) for x in (other, expected))
                if function.first_difference([a], [b], at, cotangents, k) is None:
                    continue
                raise GradientError(
                    f"{function.name}: the gradient of {label} is not linear in the cotangent: it changes if the "
                    f"cotangent is {how}\n    expected   {format_array(expected)}\n"
                    f"    found      {format_array(np.asarray(other))}\n"
                    f"    cotangent  {'; '.join(map(format_array, given))}"
                )


def _check_form(
    function: FunctionUnderTest, found: Sequence[Tensor | None], cotangents: Sequence[Tensor], ys: Sequence[Tensor],
) -> None:  # fmt: skip
    """Raise GradientError if a gradient has another shape or dtype than its argument, or shares memory."""
    arrays: list[tuple[str, Any]] = [
        *((label, leaf.array) for label, leaf in zip(function.labels, function.leaves)),
        *((f"cotangent {i}", c.array) for i, c in enumerate(cotangents)),
        *((f"result {i}", y.array) for i, y in enumerate(ys)),
    ]
    for g, leaf, label in zip(found, function.leaves, function.labels):
        if g is None:
            continue
        if g.shape != leaf.shape or g.dtype != leaf.dtype:
            raise GradientError(
                f"{function.name}: the gradient of {label} is {g.dtype} {tuple(g.shape)}, but {label} is {leaf.dtype} "
                f"{tuple(leaf.shape)}"
            )
        if isinstance(g.array, np.ndarray):
            for what, a in arrays:
                if isinstance(a, np.ndarray) and np.may_share_memory(g.array, a) and np.shares_memory(g.array, a):
                    raise GradientError(
                        f"{function.name}: the gradient of {label} shares memory with {what}, so changing one in place "
                        f"changes the other. Return a copy"
                    )
        arrays.append((f"the gradient of {label}", g.array))
