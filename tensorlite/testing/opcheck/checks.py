"""Checks of what an op must keep to beside its numbers, and an adapter for gradients written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ...autograd.grad_mode import enable_grad, no_grad
from ...autograd.gradients import grad as _grad
from ...tensors.creation import tensor
from ...tensors.tensor import Tensor
from ..gradcheck.function import Subject, bent, host, keeps_float64, numbers
from ..gradcheck.messages import repeatable, replay, shown
from ..report import GradientError

__all__ = ["check_op"]

Arrays = list[np.ndarray]

_FLOAT32 = float(np.finfo(np.float32).eps)
_HUGE = 1e37  # near the end of float32
_MOST = 8  # arguments that are looked at one by one


def check_op(f: Callable[..., Any], *args: Any, seed: int = 0, name: str | None = None, **kwargs: Any) -> None:
    """Check how ``f(*args, **kwargs)`` treats memory, dtypes and layouts; ``check_grad`` looks at its numbers.

    - No argument changes, and two calls give the same bits.
    - No result shares memory with an argument, unless f is a view (``op(view=True)``, as reshape is).
    - Results of floating dtype have that of the arguments, float64 and float32, and so do the gradients; gradients have
      the shapes of their arguments. Both are in float32 what they are in float64, as far as f is well conditioned.
    - Values and gradients do not depend on strides: of transposed, strided and reversed arguments, and of broadcast
      ones, whose cotangents are broadcast as well.
    - Under ``no_grad`` the result is the same, and attached to nothing.
    - The gradient of an argument is the same where the others need none, and where one Tensor is given as two
      arguments it has the sum of their gradients.

    Arguments are as in check_grad. Raises GradientError.
    """
    subject = Subject("check_op", f, args, kwargs, None, name)
    rng = np.random.default_rng(seed)
    at = [np.array(host(leaf), order="C") for leaf in subject.leaves]
    with repeatable(replay("check_op", subject, seed=seed)):
        values = _memory(subject)
        cotangents = [numbers(rng, y.shape) for y in values]
        gradients = subject.vjp(at, cotangents)
        _dtypes(subject, at, cotangents)
        _alone(subject, at, gradients, cotangents)
        _twice(subject)
        _layouts(subject, at, values, gradients, cotangents)


def _memory(subject: Subject) -> Arrays:
    before = [host(leaf).copy() for leaf in subject.leaves]
    with enable_grad():
        attached = subject.outputs()
    with no_grad():
        free = subject.outputs()
    for leaf, old, label in zip(subject.leaves, before, subject.labels):
        if not np.array_equal(host(leaf), old, equal_nan=True):
            raise GradientError(
                f"{subject.name}: the forward pass changes {label} in place\n    before  {shown(old)}\n"
                f"    after   {shown(host(leaf))}\nIt belongs to the caller: work on a copy"
            )
    for k, (a, b) in enumerate(zip(attached, free, strict=True)):
        if not np.array_equal(host(a), host(b), equal_nan=True) or a.dtype != b.dtype:
            raise GradientError(
                f"{subject.name}: two calls with the same arguments differ in result {k}, the second under no_grad\n"
                f"    first   {shown(host(a))}\n    second  {shown(host(b))}"
            )
        if b.requires_grad:
            raise GradientError(f"{subject.name}: result {k} requires grad under no_grad")
        keeps_float64(subject, k, b.dtype)
        if _is_view(a):
            continue
        for leaf, label in zip(subject.leaves, subject.labels):
            if isinstance(a.array, np.ndarray) and np.shares_memory(a.array, leaf.array):
                raise GradientError(
                    f"{subject.name}: result {k} shares memory with {label}, so that changing one in place changes the "
                    f"other; return a copy, or declare the op with op(view=True)"
                )
    return [host(y).copy() for y in free]


def _is_view(y: Tensor) -> bool:
    """Whether the op that made y, or the tensor itself, may share memory by what it says of itself."""
    return y.node is None or y.node.plan.is_view


def _float32(
    subject: Subject, at: Arrays, cotangents: Arrays
) -> tuple[Arrays, list[np.ndarray | None]]:  # fmt: skip
    """The results for these arguments in float32, and the gradients."""
    narrow = [tensor(a.astype(np.float32), device=subject.device) for a in at]
    for leaf, x in zip(subject.leaves, narrow):
        leaf.array = x.array
    try:
        with enable_grad():
            ys = subject.outputs()
            for k, y in enumerate(ys):
                if y.dtype != np.float32:
                    raise GradientError(
                        f"{subject.name}: result {k} is {y.dtype} for arguments of float32. A NumPy scalar or array of "
                        f"float64 may have come in; Python numbers do not widen"
                    )
            kept = [y for y in ys if y.requires_grad]
            weights = [tensor(c, np.float32, device=subject.device) for y, c in zip(ys, cotangents) if y.requires_grad]
            found: Sequence[Tensor | None] = _grad(kept, subject.leaves, weights, allow_unused=True) if kept else []
        return [host(y) for y in ys], [None if g is None else host(g) for g in found]
    finally:
        subject.reset()


def _dtypes(subject: Subject, at: Arrays, cotangents: Arrays) -> None:
    single, gs = _float32(subject, at, cotangents)
    for g, a, label in zip(gs, at, subject.labels):
        if g is not None and (g.dtype != np.float32 or g.shape != a.shape):
            raise GradientError(
                f"{subject.name}: the gradient of {label} is {g.dtype} {g.shape}, but {label} is float32 "
                f"{a.shape}"
            )
    rounded = [a.astype(np.float32).astype(np.float64) for a in at]
    exact = subject.values(rounded)
    rng = np.random.default_rng(0)
    noise = [np.zeros(y.shape) for y in exact]

    def wrong(k: int) -> bool:
        short, wide = single[k], exact[k]
        scale = abs(wide[np.isfinite(wide)]).max(initial=0.0)
        tolerance = 100 * noise[k] + 1e-4 * abs(wide) + 1e-5 * scale + float(np.finfo(np.float32).tiny)
        known = np.isfinite(wide) & (abs(wide) < _HUGE) & np.isfinite(tolerance)
        return not (abs(short[known].astype(np.float64) - wide[known]) <= tolerance[known]).all()

    with np.errstate(all="ignore"):
        for count in (3, 16):  # how much a rounding of the arguments alone would do
            for _ in range(count):
                moved = subject.values([a * (1 + _FLOAT32 * rng.choice([-1.0, 1.0], a.shape)) for a in rounded])
                noise = [np.fmax(n, np.nan_to_num(abs(m - y), nan=np.inf)) for n, m, y in zip(noise, moved, exact)]
            bad = [k for k in range(len(exact)) if wrong(k)]
            if not bad:
                break
    for k in bad[:1]:
        raise GradientError(
            f"{subject.name}: result {k} in float32 is not that of float64\n    float32  {shown(single[k])}\n"
            f"    float64  {shown(exact[k])}\nSomething overflows or cancels on the way"
        )
    if all((abs(y) < _HUGE).all() for y in exact):
        _narrow_gradients(subject, gs, rounded, cotangents)


def _narrow_gradients(
    subject: Subject, gs: Sequence[np.ndarray | None], at: Arrays, cotangents: Arrays
) -> None:  # fmt: skip
    """Gradients in float32 against those in float64: wrong where none of points as near as roundings have the two meet.

    At such points they show what kinks, and sums that cancel, make of roundings.
    """
    rng = np.random.default_rng(0)
    near: list[tuple[Arrays, Any]] = []

    def around() -> tuple[Arrays, Any]:
        size = _FLOAT32 * float(rng.choice([0.5, 1.0, 4.0, 16.0]))
        point = [a * (1 + size * rng.choice([-1.0, 1.0], a.shape)) for a in at]
        return subject.vjp(point, cotangents), _float32(subject, point, cotangents)[1]

    with np.errstate(all="ignore"):
        # The terms of a sum that cancels may be as large as these.
        unit = float(sum(abs(c).max(initial=0.0) + abs(c * y).sum() for c, y in zip(cotangents, subject.values(at))))
        for k, (short, wide) in enumerate(zip(gs, subject.vjp(at, cotangents))):
            if short is None:
                continue
            known = abs(wide) < _HUGE
            room = 1e-3 * (abs(wide) + abs(wide[known]).max(initial=0.0)) + 1e-4 * unit
            if (~known | (abs(short - wide) <= room)).all():
                continue
            near = near or [around() for _ in range(24)]
            wides = np.array([wide, *(one[k] for one, _ in near)])
            shorts = np.array([short, *(two[k] for _, two in near)])
            known &= np.isfinite(wides).all(axis=0)
            seen = np.isfinite(shorts)
            low, high = np.where(seen, shorts, np.inf).min(axis=0), np.where(seen, shorts, -np.inf).max(axis=0)
            room = room + np.ptp(wides, axis=0) + np.where(low <= high, high - low, 0.0)
            if (known & ((low > wides.max(axis=0) + room) | (high < wides.min(axis=0) - room))).any():
                raise GradientError(
                    f"{subject.name}: the gradient of {subject.labels[k]} in float32 is not that of float64\n"
                    f"    float32  {shown(short)}\n    float64  {shown(wide)}\n"
                    f"with\n    {'; '.join(map(shown, at))}"
                )


def _alone(subject: Subject, at: Arrays, gradients: Arrays, cotangents: Arrays) -> None:
    """The gradient of one argument at a time."""
    if len(subject.leaves) < 2:
        return
    for k, (leaf, label) in enumerate(zip(subject.leaves[:_MOST], subject.labels)):
        for other in subject.leaves:
            other.requires_grad_(other is leaf)
        try:
            found = subject.vjp(at, cotangents, [leaf])
        finally:
            for other in subject.leaves:
                other.requires_grad_(True)
        if subject.agree(found, gradients[k : k + 1], at, cotangents, k) is not None:
            raise GradientError(
                f"{subject.name}: the gradient of {label} is another one where no other argument requires a gradient\n"
                f"    with the others  {shown(gradients[k])}\n    alone            {shown(found[0])}"
            )


def _twice(subject: Subject) -> None:
    """The same Tensor in the places of two arguments."""
    leaves = subject.leaves[:_MOST]
    pairs = [(i, k) for k in range(len(leaves)) for i in range(k) if leaves[i].shape == leaves[k].shape]
    for i, k in pairs[:_MOST]:
        at = [np.array(host(leaf), order="C") for leaf in subject.leaves]
        for given in (at[k], at[i]):  # one of the two may be no argument for the other's place
            at[i] = at[k] = given
            with suppress(Exception), np.errstate(all="ignore"):
                values = subject.values(at)
                if all(np.isfinite(y).all() for y in values):
                    break
        else:
            continue
        one = subject.swapped(k, i)
        rng = np.random.default_rng(1)
        both = f"{subject.labels[i]} and {subject.labels[k]}"
        found, expected, what = one.values(at), values, "a result"
        wrong = subject.agree(found, expected, at, None)
        if wrong is None:
            cotangents = [numbers(rng, y.shape) for y in values]
            found, expected = one.vjp(at, cotangents), subject.vjp(at, cotangents)
            expected[i], expected[k] = expected[i] + expected[k], np.zeros_like(expected[k])
            what = "the gradient"
            wrong = subject.agree(found, expected, at, cotangents)
        if wrong is not None:
            raise GradientError(
                f"{subject.name}: {what} is another one where {both} are one and the same Tensor\n"
                f"    two of the same entries  {shown(expected[wrong])}\n"
                f"    one Tensor               {shown(found[wrong])}\nwith\n    {both}  {shown(at[k])}"
            )


def _layouts(
    subject: Subject, at: Arrays, values: Arrays, gradients: Arrays, cotangents: Arrays
) -> None:  # fmt: skip
    if not subject.on_host:
        return
    ways = {"transposed": lambda a: np.asfortranarray(a) if a.ndim else a, "strided": bent, "reversed": _reversed}
    for way, lay in ways.items():
        laid = [lay(a) for a in at]
        _same(subject, way, subject.values(laid), values, at, None)
        _same(subject, way, subject.vjp(laid, [lay(c) for c in cotangents]), gradients, at, cotangents)
    # Broadcast arguments: every entry along an axis is one and the same number in memory.
    flat = [np.broadcast_to(a.reshape(-1)[:1].reshape((1,) * a.ndim), a.shape) if a.size else a for a in at]
    full = [np.array(a, order="C") for a in flat]
    ones = [np.broadcast_to(np.float64(1.5), c.shape) for c in cotangents]
    expected = subject.values(full)
    _same(subject, "broadcast", subject.values(flat), expected, full, None)
    if len(expected) == len(ones) and all(y.shape == c.shape for y, c in zip(expected, ones)):
        claimed = subject.vjp(full, [np.array(c) for c in ones])
        _same(subject, "broadcast", subject.vjp(flat, ones), claimed, full, ones)


def _reversed(a: np.ndarray) -> np.ndarray:
    """The same entries, last first in memory."""
    return np.flip(np.flip(a).copy()) if a.ndim else a


def _same(
    subject: Subject, way: str, found: Arrays, expected: Arrays, at: Arrays, cotangents: Arrays | None
) -> None:
    wrong = subject.agree(found, expected, at, cotangents)
    if wrong is None:
        return
    what = f"result {wrong}" if cotangents is None else f"the gradient of {subject.labels[wrong]}"
    raise GradientError(
        f"{subject.name}: {what} depends on how arguments lie in memory\n    contiguous  {shown(expected[wrong])}\n"
        f"    {way:<11} {shown(found[wrong])}"
    )
