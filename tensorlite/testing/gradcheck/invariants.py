"""Checks of what holds for every gradient, whatever its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ...autograd.grad_mode import enable_grad, no_grad
from ...autograd.gradients import grad as _grad
from ...tensors.tensor import Tensor
from ..report import GradientError
from .function import Subject, bent, host, keeps_float64
from .messages import shown

__all__ = ["checked_gradients", "numbered", "repeatable_values"]

Arrays = list[np.ndarray]

_LARGE = -1024.0  # a power of two, so that no rounding is another


def numbered(word: str, arrays: Sequence[np.ndarray]) -> list[str]:
    return [word] if len(arrays) == 1 else [f"{word}[{i}]" for i in range(len(arrays))]


def repeatable_values(subject: Subject) -> Arrays:
    """The results of f, which a second call has to repeat, with the arguments as they were."""
    with no_grad():
        before = [host(leaf).copy() for leaf in subject.leaves]
        first = [host(y).copy() for y in subject.outputs()]
        for k, y in enumerate(first):
            keeps_float64(subject, k, y.dtype)
        second = [host(y) for y in subject.outputs()]
    _unchanged(subject, before, [host(leaf) for leaf in subject.leaves], subject.labels, "the forward pass")
    if len(first) != len(second) or not all(_same_bits(a, b) for a, b in zip(first, second)):
        raise GradientError(
            f"{subject.name}: two calls with the same arguments give different results. If it draws random numbers, "
            f"seed them inside it (tl.manual_seed), or pass the mask as an argument"
        )
    return first


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)


def _unchanged(subject: Subject, before: Arrays, after: Arrays, labels: list[str], by: str) -> None:
    for old, new, label in zip(before, after, labels):
        if not _same_bits(old, new):
            raise GradientError(
                f"{subject.name}: {by} changes {label} in place\n    before  {shown(old)}\n    after   {shown(new)}\n"
                f"It belongs to the caller: work on a copy"
            )


def checked_gradients(subject: Subject, at: Arrays, cotangents: Arrays) -> Arrays:
    """The gradients, after checking all about them but their numbers."""
    name = subject.name
    with enable_grad():
        ys = subject.outputs()
        weights = [subject.on_device(c.copy()) for c in cotangents]
        pairs = [(y, c) for y, c in zip(ys, weights, strict=True) if y.requires_grad]
        if not pairs:
            return [np.zeros_like(a) for a in at]  # the numbers will tell whether it depends on anything
        results, cs = zip(*pairs)
        inputs = subject.leaves
        tensors = _grad(results, inputs, cs, retain_graph=True, allow_unused=True)
        kept = [None if g is None else host(g).copy() for g in tensors]
        cotangent_labels = numbered("the cotangent", cotangents)
        _unchanged(subject, cotangents, [host(c) for c in weights], cotangent_labels, "the backward pass")
        _check_form(subject, tensors, cs, results)
        # Other gradients over the same graph must not disturb the first, and one more must repeat it.
        _linear(subject, results, cs, kept, at, cotangents)
        for label, _, _ in _changed(tensors, kept, subject.labels):
            raise GradientError(
                f"{name}: the gradient of {label} changes when another one is computed: it lives in memory that "
                f"the op uses again"
            )
        repeated = _grad(results, inputs, cs, retain_graph=True, allow_unused=True)
        for label, old, new in _changed(repeated, kept, subject.labels):
            raise GradientError(
                f"{name}: two backward passes with the same cotangent give different gradients of {label}\n"
                f"    first   {shown(old)}\n    then    {shown(new)}\n"
                f"Either the rule is not deterministic, or it changes what the graph has saved"
            )
        with suppress(Exception):  # f need not be defined there
            subject.outputs_at([a + np.where(np.isfinite(a), 2.0**-10 * np.maximum(1.0, abs(a)), 0.0) for a in at])
        later = _grad(results, inputs, cs, allow_unused=True)
        for label, old, new in _changed(later, kept, subject.labels):
            raise GradientError(
                f"{name}: the gradient of {label} changes when {name} is called once more, elsewhere, before the "
                f"backward pass\n    before  {shown(old)}\n    after   {shown(new)}\n"
                f"The rule reads what the last call has left behind, and not what its own call saved"
            )
    _unchanged(subject, at, [host(leaf) for leaf in subject.leaves], subject.labels, "the backward pass")
    gradients = [np.zeros_like(a) if g is None else g for g, a in zip(kept, at)]
    as_given = subject.given if subject.on_host else at
    bent_ones = subject.vjp(as_given, [bent(c) for c in cotangents])
    wrong = subject.agree(bent_ones, gradients, at, cotangents)
    if wrong is not None:
        raise GradientError(
            f"{name}: the gradient of {subject.labels[wrong]} depends on how the cotangent lies in memory\n"
            f"    contiguous  {shown(gradients[wrong])}\n    strided     {shown(bent_ones[wrong])}\n"
            f"    cotangent   {shown(cotangents[0])}"
        )
    return gradients


def _changed(
    gradients: Sequence[Tensor | None], kept: Sequence[np.ndarray | None], labels: Sequence[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The gradients that are not, to the bit, what they were: label, before, now."""
    for g, old, label in zip(gradients, kept, labels):
        if g is not None and old is not None and not _same_bits(host(g), old):
            yield label, old, host(g)


def _linear(
    subject: Subject, ys: Sequence[Tensor], cs: Sequence[Tensor], first: Sequence[np.ndarray | None], at: Arrays,
    cotangents: Arrays,
) -> None:  # fmt: skip
    """Whether the gradient is linear in the cotangent: large ones are not clipped, and parts add up to the whole.

    The parts are some of the results, or some entries of a single one: what is left has cotangents of 0, as results
    have that a loss makes no use of.
    """
    given = [host(c) for c in cs]
    if len(given) > 1:
        masks = [np.full(c.shape, k % 2 == 0) for k, c in enumerate(given)]
    else:
        masks = [(np.arange(c.size) % 2 == 0).reshape(c.shape) for c in given]
    parts = [[np.where(m == side, c, 0.0) for m, c in zip(masks, given)] for side in (True, False)]
    large = [_LARGE * c for c in given]
    found = []
    for some in (large, *parts):
        gs = _grad(ys, subject.leaves, [subject.on_device(c) for c in some], retain_graph=True, allow_unused=True)
        found.append([None if g is None else host(g).copy() for g in gs])  # it may live in memory that is used again
    for k, (whole, label) in enumerate(zip(first, subject.labels)):
        if whole is None:
            continue
        many, one, two = (np.zeros(whole.shape) if g is None else g for g in (gs[k] for gs in found))
        with np.errstate(all="ignore"):
            ways = [
                ("taken in two parts, with zeros in some places", one + two, abs(one) + abs(two), np.isfinite(whole)),
                (f"{_LARGE:g} times as large, and the gradient divided by that", many / _LARGE, abs(whole),
                 np.isfinite(whole) & np.isfinite(many)),
            ]  # fmt: skip
            for how, other, size, known in ways:
                if ((abs(other - whole) <= 1e-9 * size) | ~known).all():
                    continue
                a, b = (np.where(known, x, 0.0) for x in (other, whole))
                if subject.agree([a], [b], at, cotangents, k) is None:
                    continue
                raise GradientError(
                    f"{subject.name}: the gradient of {label} is not linear in the cotangent: it is another one if "
                    f"that is {how}\n    expected   {shown(whole)}\n    found      {shown(np.asarray(other))}\n"
                    f"    cotangent  {'; '.join(map(shown, given))}"
                )


def _check_form(
    subject: Subject, found: Sequence[Tensor | None], cotangents: Sequence[Tensor], ys: Sequence[Tensor],
) -> None:  # fmt: skip
    """Shapes, dtypes, and that nothing shares memory."""
    arrays: list[tuple[str, Any]] = [
        *((label, leaf.array) for label, leaf in zip(subject.labels, subject.leaves)),
        *((f"cotangent {i}", c.array) for i, c in enumerate(cotangents)),
        *((f"result {i}", y.array) for i, y in enumerate(ys)),
    ]
    for g, leaf, label in zip(found, subject.leaves, subject.labels):
        if g is None:
            continue
        if g.shape != leaf.shape or g.dtype != leaf.dtype:
            raise GradientError(
                f"{subject.name}: the gradient of {label} is {g.dtype} {tuple(g.shape)}, but {label} is {leaf.dtype} "
                f"{tuple(leaf.shape)}"
            )
        if isinstance(g.array, np.ndarray):
            for what, a in arrays:
                if isinstance(a, np.ndarray) and np.may_share_memory(g.array, a) and np.shares_memory(g.array, a):
                    raise GradientError(
                        f"{subject.name}: the gradient of {label} shares memory with {what}, so that changing one in "
                        f"place changes the other: return a copy"
                    )
        arrays.append((f"the gradient of {label}", g.array))
