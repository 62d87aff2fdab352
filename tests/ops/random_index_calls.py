"""Random calls of the ops that take indices or masks; see random_calls.py, to whose ``CALLS`` it adds."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.random_calls import CALLS, Call, Draw, drawn_call, size_of

__all__ = ["CALLS"]


# ---- along a dimension ----------------------------------------------------------------------


@drawn_call
def gather(r: Draw) -> Call:
    x = r.x()
    d = r.dim(x.ndim)
    return f"gather(x, {d}, i)", lambda lib, x, i: lib.gather(x, d, i), [
        x, r.index(r.near(x.shape, d), size_of(x.shape, d))]  # fmt: skip


@drawn_call
def take_along_dim(r: Draw) -> Call:
    x = r.x()
    d = r.pick(None, *[r.dim(x.ndim)] * 4)
    size = x.size if d is None else size_of(x.shape, d)
    ids = r.index(r.near(x.shape, d), size, negative=d is not None and r.chance(0.3), wrong=0)
    return f"take_along_dim(x, i, {d})", lambda lib, x, i: lib.take_along_dim(x, i, d), [x, ids]


@drawn_call
def scatter(r: Draw) -> Call:
    x = r.x()
    d = r.dim(x.ndim)
    # PyTorch's gradients are wrong for an entry that is named twice, and for a source larger than the index.
    shape, n = r.near(x.shape, d), size_of(x.shape, d)
    ids = r.index(shape, n)
    if len(shape) == x.ndim and -x.ndim <= d < x.ndim and shape[d] <= n:
        ids = np.argsort(r.rng.random(tuple(n if k == d % x.ndim else m for k, m in enumerate(shape))), d)
        ids = np.take(ids, range(shape[d]), d)
    elif ids.size > 1:
        return f"scatter(x, {d}, i, value=1.5)", lambda lib, x, i: lib.scatter(x, d, i, value=1.5), [x, ids]
    return f"scatter(x, {d}, i, s)", lambda lib, x, i, s: lib.scatter(x, d, i, s), [x, ids, r.x(shape)]


@drawn_call
def scatter_add(r: Draw) -> Call:
    x = r.x()
    d = r.dim(x.ndim)
    shape = r.near(x.shape, d)
    s = r.x(shape if r.chance(0.8) or 0 in shape else tuple(n + r.int(-1, 1) for n in shape))
    return f"scatter_add(x, {d}, i, s)", lambda lib, x, i, s: lib.scatter_add(x, d, i, s), [
        x, r.index(shape, size_of(x.shape, d)), s]  # fmt: skip


@drawn_call
def scatter_reduce(r: Draw) -> Call:
    x = r.x()
    d, how, shape = r.dim(x.ndim), r.pick("add", "multiply"), r.near(x.shape)
    ids = r.index(shape, size_of(x.shape, d))
    return f"scatter(x, {d}, i, s, reduce={how})", lambda lib, x, i, s: lib.scatter(
        x.detach(), d, i, s.detach(), reduce=how), [x, ids, r.x(shape)]  # fmt: skip


@drawn_call
def index_select(r: Draw) -> Call:
    x = r.x()
    d, shape = r.dim(x.ndim), r.pick((r.int(0, 4),), (r.int(0, 4),), (), r.shape())
    return f"index_select(x, {d}, i)", lambda lib, x, i: lib.index_select(x, d, i), [
        x, r.index(shape, size_of(x.shape, d))]  # fmt: skip


@drawn_call
def index_add(r: Draw) -> Call:
    x = r.x()
    d, shape, alpha = r.dim(x.ndim), r.pick((r.int(0, 4),), (r.int(0, 4),), ()), r.pick(1, 2, -0.5)
    n, sizes = size_of(x.shape, d), list(x.shape)
    if n == 0:  # PyTorch takes any index then
        shape = (0,)
    if -x.ndim <= d < x.ndim:
        sizes[d] = int(np.prod(shape))
    s = r.x(sizes if r.chance(0.9) else None)
    ids = r.index(shape, n, wrong=0.06 * (0 not in x.shape))
    return f"index_add(x, {d}, i, s, alpha={alpha})", lambda lib, x, i, s: lib.index_add(x, d, i, s, alpha=alpha), [
        x, ids, s]  # fmt: skip


@drawn_call
def repeats(r: Draw) -> Call:
    x = r.x((r.int(0, 3), r.int(0, 3)))
    d = r.pick(None, r.dim(2))
    shape = (x.size if d is None else size_of(x.shape, d),) if r.chance(0.85) else r.shape()
    counts = np.asarray(r.rng.integers(-r.chance(0.1), 3, shape))
    return f"repeat_interleave(x, i, {d})", lambda lib, x, i: lib.repeat_interleave(x, i, d), [x, counts]


@drawn_call
def embedding(r: Draw) -> Call:
    w, p = r.x((r.int(0, 4), r.int(0, 3))), r.pick(None, r.int(-5, 5))
    return f"embedding(i, w, {p})", lambda lib, w, i: lib.nn.functional.embedding(i, w, padding_idx=p), [
        w, r.index(r.shape(), len(w))]  # fmt: skip


# ---- masks ----------------------------------------------------------------------------------


def _mask(r: Draw, shape: Any) -> np.ndarray:
    return np.asarray(r.rng.random(shape) < 0.5)


@drawn_call
def masked_fill(r: Draw) -> Call:
    x = r.x()
    return "masked_fill(x, m, 7.0)", lambda lib, x, m: lib.masked_fill(x, m, 7.0), [
        x, _mask(r, r.broadcastable(x.shape) if r.chance(0.9) else r.shape())]  # fmt: skip


@drawn_call
def masked_select(r: Draw) -> Call:
    x = r.x()
    return "masked_select(x, m)", lambda lib, x, m: lib.masked_select(x, m), [
        x, _mask(r, r.broadcastable(x.shape) if r.chance(0.9) else r.shape())]  # fmt: skip


@drawn_call
def where(r: Draw) -> Call:
    x = r.x()
    m = _mask(r, x.shape if r.chance(0.7) else r.shape())
    return "where(m, x, y)", lambda lib, m, x, y: lib.where(m, x, y), [m, x, r.x(r.broadcastable(x.shape))]


# ---- x[index] -------------------------------------------------------------------------------


def _items(r: Draw, shape: tuple[int, ...]) -> list[Any]:
    """Return the entries of an index; a pair (library or not, array) stands for an index tensor or array."""
    items: list[Any] = []
    dots, d = False, 0
    while d < len(shape) + r.chance(0.05):
        n, kind = shape[d] if d < len(shape) else 1, r.int(0, 9)
        d += 1
        if kind == 0:
            items.append(None)
            d -= 1
        elif kind == 1 and not dots:
            items.append(...)
            dots, d = True, d - 1 + r.int(0, 2)
        elif kind in (2, 3):
            items.append(r.int(-n, n - 1) if n and r.chance(0.95) else r.int(-4, 3))
        elif kind in (4, 5):
            items.append(slice(*(r.pick(None, r.int(-4, 4)) for _ in "ab"), r.pick(None, 1, 2, 3)))
        elif kind in (6, 7):
            ids = r.index(r.pick((2,), (1,), (2, 2), (0,), (1, 2), ()), n, negative=True, wrong=0.03)
            items.append(ids.tolist() if ids.ndim == 1 and r.chance(0.3) else (r.chance(0.7), ids))
        elif kind == 8:
            mask = _mask(r, shape[d - 1 : d - 1 + r.int(1, 2)] if r.chance(0.95) else r.shape())
            items.append((True, mask))  # PyTorch miscounts a NumPy mask next to an ellipsis
            d += max(0, mask.ndim - 1)
        else:
            items.append(slice(None))
        if r.chance(0.25):
            break
    return items


def _index(lib: Any, items: list[Any]) -> Any:
    def made(item: Any) -> Any:
        if not isinstance(item, tuple):
            return item
        return item[1] if lib is np or not item[0] else lib.tensor(item[1])

    return tuple(map(made, items)) if len(items) != 1 else made(items[0])


@drawn_call
def getitem(r: Draw) -> Call:
    x = r.x(most=4)
    items = _items(r, x.shape)
    return f"x[{items}]", lambda lib, x: x[_index(lib, items)], [x]


@drawn_call
def setitem(r: Draw) -> Call:
    """Draw ``x[index] = v``, with a number for v where an entry is named twice: PyTorch's gradients are wrong then."""
    x = r.x()
    items = _items(r, x.shape)
    shape, number = r.shape(), r.chance(0.2)
    try:
        places = np.arange(x.size).reshape(x.shape)[_index(np, items)]
        shape, number = np.shape(places), number or len(np.unique(places)) < np.size(places)
    except (IndexError, AttributeError):
        number = True
    shape = r.broadcastable(shape) if r.chance(0.5) else shape
    shape = r.shape() if r.chance(0.1) else (1, *shape) if r.chance(0.1) else shape

    def assigned(lib: Any, x: Any, v: Any) -> Any:
        y = x.clone()
        y[_index(lib, items)] = 2.5 if number else v
        return y

    return f"x[{items}] = {2.5 if number else shape}", assigned, [x, r.x(shape)]


# ---- padding, losses, attention ---------------------------------------------------------------


@drawn_call
def pad(r: Draw) -> Call:
    mode = r.pick("constant", "reflect", "replicate")  # PyTorch's "circular" reads other memory for negative widths
    x = r.x((2, *(r.int(1, 3) for _ in range(r.int(1, 2))))) if mode != "constant" else r.x()
    widths = [r.int(-2, 3) for _ in range(2 * r.int(mode != "constant", max(x.ndim - (mode != "constant"), 0)))]
    return f"pad(x, {widths}, {mode})", lambda lib, x: lib.nn.functional.pad(x, widths, mode=mode), [x]


@drawn_call
def attention(r: Draw) -> Call:
    lead, (t, s, d, e) = r.shape(2, 0.05), (r.int(0, 3) for _ in range(4))
    e = d if r.chance(0.7) else e
    return "attention(q, k, v)", lambda lib, q, k, v: lib.nn.functional.scaled_dot_product_attention(q, k, v), [
        r.x((*lead, t, d)), r.x((*lead, s, d)), r.x((*lead, s, e))]  # fmt: skip


@drawn_call
def losses(r: Draw) -> Call:
    c = r.int(1, 3)
    shape = (r.int(0, 3), c, *r.shape(2)) if r.chance(0.8) else (c,)
    ids = r.index(shape[:1] * (len(shape) > 1) + shape[2:], c, wrong=0.1)
    name, how, ignored = r.pick("cross_entropy", "nll_loss"), r.pick("mean", "sum", "none"), r.pick(-100, 0, 1)
    return f"{name}(x, i, {how}, {ignored})", lambda lib, x, i: getattr(lib.nn.functional, name)(
        x, i, reduction=how, ignore_index=ignored), [r.x(shape), ids]  # fmt: skip
