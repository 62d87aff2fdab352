"""Checks of what an op must keep to beside its numbers, and an adapter for gradients written by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ...autograd.function import op
from ...autograd.grad_mode import enable_grad, no_grad
from ...autograd.gradients import grad as _grad
from ...autograd.graph import Variable
from ...errors import GraphError
from ...tensors.creation import tensor
from ...tensors.tensor import Tensor
from ..gradcheck.function import Subject, bent, host, keeps_float64, leaves_of, numbers
from ..gradcheck.messages import repeatable, replay, shown
from ..report import GradientError

__all__ = ["check_against", "check_op", "numpy_op"]

Arrays = list[np.ndarray]

_FLOAT32 = float(np.finfo(np.float32).eps)
_HUGE = 1e37  # near the end of float32
_MOST = 8  # arguments that are looked at one by one


# ---- hygiene --------------------------------------------------------------------------------


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


# ---- against another implementation ---------------------------------------------------------


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
            result = f(*_converted(args, _as_tensor), **_converted(kwargs, _as_tensor))
        found = [host(y) if isinstance(y, Tensor) else np.asarray(y) for y in leaves_of(result)]
        with np.errstate(all="ignore"):  # log(0) is -inf, as it is in an op
            arrays = reference(*_converted(args, _as_array), **_converted(kwargs, _as_array))
        expected = [np.asarray(y) for y in leaves_of(arrays)]
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


def _converted(tree: Any, convert: Callable[[Any], Any]) -> Any:
    if isinstance(tree, dict):
        return {key: _converted(value, convert) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)) and not hasattr(tree, "_fields"):
        return type(tree)(_converted(value, convert) for value in tree)
    return convert(tree)


def _as_tensor(x: Any) -> Any:
    return tensor(x) if isinstance(x, np.ndarray) else x


def _as_array(x: Any) -> Any:
    return host(x) if isinstance(x, Tensor) else x


def _arguments(args: Any, kwargs: Any) -> str:
    arrays = [_as_array(x) for x in leaves_of([list(args), kwargs]) if isinstance(x, (Tensor, np.ndarray))]
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


# ---- gradients written by hand ----------------------------------------------------------------


def numpy_op(
    forward: Callable[..., Any], vjp: Callable[..., Any], name: str | None = None, *, plain: bool = False
) -> Callable[..., Any]:
    """A function of Tensors from a function of NumPy arrays and its gradient, so that every check can be used on it.

        square = numpy_op(lambda x: x * x, lambda g, x: 2 * g * x)
        check_grad(square, np.array([1.0, 2.0]), order=1)

    It need not be tensorlite's: with ``torch.from_numpy(x)`` and ``.numpy()`` around it, an op of PyTorch will do, with
    ``plain=True``, as it takes no negative strides.

    forward: ``forward(*arrays, **kwargs)`` returns an array. vjp: ``vjp(g, *arrays, **kwargs)`` gets the cotangent, an
    array of the shape of the result, and returns the gradient, or a tuple of them, one for each array, None for none.
    plain: hand over new C-contiguous arrays, floating ones in float64, whatever the caller's are like; what comes back
        gets the caller's dtype. For code that is not meant to know about layouts and dtypes, as another library's may.

    Its gradients can not be differentiated again: check them with ``order=1``.
    """
    for role, function in (("forward", forward), ("vjp", vjp)):
        if not callable(function):
            raise TypeError(f"numpy_op: {role} must be a function, got {type(function).__name__}")
    label = name or str(getattr(forward, "__name__", "numpy_op"))

    def given(*xs: Any) -> tuple[Any, ...]:
        if not plain:
            return xs
        return tuple(
            np.array(x, np.float64 if x.dtype.kind == "f" else None, order="C") if isinstance(x, np.ndarray) else x
            for x in xs
        )

    def call(*args: Any, **kwargs: Any) -> Any:
        def pull(g: Any, xs: Any, index: int) -> Any:
            if isinstance(g, Variable) or any(isinstance(x, Variable) for x in xs):
                raise GraphError(
                    f"{label}: a gradient written on NumPy arrays cannot be differentiated again; check it with order=1"
                )
            result = vjp(*given(g, *xs), **kwargs)
            every = result if isinstance(result, (tuple, list)) else (result,)
            if len(every) != len(xs):
                raise TypeError(
                    f"{label}: vjp must return a gradient for each of its {len(xs)} arrays, got {len(every)}"
                )
            x = xs[index]
            if every[index] is None:
                return np.zeros(x.shape, x.dtype)
            found = np.asarray(every[index], x.dtype if plain else None)
            if found.shape != x.shape or found.dtype != x.dtype:  # the engine would sum it down or say what it is
                raise GradientError(
                    f"{label}: vjp returned {found.dtype} {found.shape} as the gradient of array {index}, which is "
                    f"{x.dtype} {x.shape}; what was broadcast must be summed, and the dtype kept"
                )
            return found

        def run(xp: Any, *xs: Any) -> Any:
            y = np.asarray(forward(*given(*xs), **kwargs))
            if plain:
                floats = [x.dtype for x in xs if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
                return y.astype(np.result_type(*floats)) if floats and y.dtype.kind == "f" else y.copy()
            return y.copy() if any(np.may_share_memory(y, x) for x in xs if isinstance(x, np.ndarray)) else y

        run.__name__ = label if label.isidentifier() else "numpy_op"
        return op(pull)(run)(*args)

    call.__name__ = call.__qualname__ = label
    with suppress(TypeError, ValueError):  # so that reports call its arguments by their names
        call.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return call


