"""References: each op computed from its definition, in Python's numbers and loops, without tensorlite.

A reference takes the arguments of its op, with NumPy arrays instead of tensors. It is slow and plain, so that readers
can check it. NumPy only stores the numbers, broadcasts and slices; sums, choices and index arithmetic are written out.
"""
import itertools
import math
import operator
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Reference = Callable[..., Any]

REFERENCES: dict[str, Reference] = {}
"""The reference of each op, by its name in tests/ops/op_table.py."""


def adder(table: dict[str, Reference]) -> Callable[[str], Callable[[Reference], Reference]]:
    """Return a decorator ``of(names)`` that adds a function to a table, as the reference of these ops."""

    def of(names: str) -> Callable[[Reference], Reference]:
        def enter(f: Reference) -> Reference:
            table.update(dict.fromkeys(names.split(), f))
            return f

        return enter

    return of


of = adder(REFERENCES)


def made(shape: Sequence[int], entry: Callable[..., Any], dtype: Any = np.float64) -> Array:
    """Return the array of this shape with the entries ``entry(i, j, ...)``."""
    out = np.empty(tuple(shape), dtype)
    for i in np.ndindex(out.shape):
        out[i] = entry(*i)
    return out


def each(f: Callable[..., Any], dtype: Any = np.float64) -> Reference:
    """Return a function of arrays that applies f, a function of Python's numbers, to each element."""

    def g(*args: Any, **kwargs: Any) -> Array:
        arrays = np.broadcast_arrays(*args)
        return made(arrays[0].shape, lambda *i: f(*(a[i].item() for a in arrays), **kwargs), dtype)

    return g


def axes_of(x: Array, dim: Any) -> list[int]:
    dims = list(range(x.ndim)) if dim is None or dim == () else list(dim) if isinstance(dim, (tuple, list)) else [dim]
    return [d % x.ndim for d in dims] if x.ndim else []


def fold(f: Callable[..., Any], dtype: Any = np.float64) -> Reference:
    """Return a reduction that applies f to the list of the entries along the reduced dimensions."""

    def g(x: Array, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Array:
        folded = axes_of(x, dim)
        kept = [d for d in range(x.ndim) if d not in folded]

        def entry(*i: int) -> Any:
            index = [i[kept.index(d)] if d in kept else slice(None) for d in range(x.ndim)]
            return f(x[tuple(index)].reshape(-1).tolist(), **kwargs)

        out = made([x.shape[d] for d in kept], entry, dtype)
        return out.reshape([1 if d in folded else n for d, n in enumerate(x.shape)]) if keepdim else out

    return g


def along(x: Array, dim: int, f: Callable[[list[Any]], list[Any]], dtype: Any = np.float64) -> Array:
    """Return x with each row along a dimension replaced by f of the row, as lists. A 0-d array is one row."""
    if not x.ndim:
        return np.array(f([x.item()])[0], dtype)
    d = dim % x.ndim
    rest = x.shape[:d] + x.shape[d + 1 :]
    rows = {i: f(x[(*i[:d], slice(None), *i[d:])].tolist()) for i in np.ndindex(rest)}
    size = len(next(iter(rows.values()))) if rows else x.shape[d]
    return made((*x.shape[:d], size, *x.shape[d + 1 :]), lambda *i: rows[i[:d] + i[d + 1 :]][i[d]], dtype)


# ---- elementwise ----------------------------------------------------------------------------


def rounded(x: float, decimals: int = 0) -> float:
    return float(round(x * 10**decimals)) / 10**decimals


def sign(x: float) -> float:
    return float((x > 0) - (x < 0))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else math.exp(x)


def logaddexp(x: float, y: float) -> float:
    return max(x, y) + math.log(1 + math.exp(-abs(x - y)))


REFERENCES |= {
    "add": each(lambda x, y, alpha=1: x + alpha * y),
    "sub": each(lambda x, y, alpha=1: x - alpha * y),
    "mul": each(lambda x, y: x * y),
    "true_divide": each(lambda x, y: x / y),
    "floor_divide": each(lambda x, y: math.floor(x / y)),
    "remainder": each(lambda x, y: x - y * math.floor(x / y)),
    "fmod": each(lambda x, y: x - y * math.trunc(x / y)),
    "pow": each(lambda x, y: math.exp(y * math.log(x)) if x > 0 else math.pow(x, y)),
    "lerp": each(lambda x, y, weight: (1 - weight) * x + weight * y),
    "neg": each(lambda x: -x),
    "clone": each(lambda x: x),
    "abs": each(lambda x: x if x > 0 else -x),
    "sign": each(sign),
    "square": each(lambda x: x * x),
    "reciprocal": each(lambda x: 1 / x),
    "exp": each(math.exp),
    "expm1": each(math.expm1),
    "tanh F.tanh": each(math.tanh),
    "sigmoid F.sigmoid": each(sigmoid),
    "erf": each(math.erf),
    "sin": each(math.sin),
    "cos": each(math.cos),
    "tan": each(lambda x: math.sin(x) / math.cos(x)),
    "asin": each(math.asin),
    "acos": each(math.acos),
    "atan": each(math.atan),
    "atan2": each(math.atan2),
    "sinh": each(lambda x: (math.exp(x) - math.exp(-x)) / 2),
    "cosh": each(lambda x: (math.exp(x) + math.exp(-x)) / 2),
    "log": each(math.log),
    "log2": each(lambda x: math.log(x) / math.log(2)),
    "log10": each(lambda x: math.log(x) / math.log(10)),
    "log1p": each(math.log1p),
    "sqrt": each(math.sqrt),
    "rsqrt": each(lambda x: 1 / math.sqrt(x)),
    "logaddexp": each(logaddexp),
    "floor": each(math.floor),
    "ceil": each(math.ceil),
    "trunc": each(math.trunc),
    "round": each(rounded),
    "maximum": each(lambda x, y: x if x > y else y),
    "minimum": each(lambda x, y: x if x < y else y),
    "where": each(lambda condition, x, y: x if condition else y),
    **{name: each(getattr(operator, name), bool) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "logical_and": each(lambda x, y: bool(x) and bool(y), bool),
    "logical_or": each(lambda x, y: bool(x) or bool(y), bool),
    "logical_xor": each(lambda x, y: bool(x) != bool(y), bool),
    "logical_not": each(lambda x: not x, bool),
    "bitwise_left_shift": each(lambda x, y: x * 2**y, np.int64),
    "bitwise_right_shift": each(lambda x, y: x // 2**y, np.int64),
    "isnan": each(lambda x: x != x, bool),
    "isinf": each(lambda x: x in (math.inf, -math.inf), bool),
    "isfinite": each(lambda x: -math.inf < x < math.inf, bool),
    # activations
    "relu F.relu": each(lambda x: max(x, 0.0)),
    "silu F.silu": each(lambda x: x * sigmoid(x)),
    "log_sigmoid": each(lambda x: -np.log1p(np.exp(-x)) if x > 0 else x - np.log1p(np.exp(x))),
    "elu F.elu": each(lambda x, alpha=1.0: x if x > 0 else alpha * (math.exp(x) - 1)),
    "apply_dropout_mask": each(lambda x, dropout_mask: x * dropout_mask),
}  # fmt: skip


@of("div")
def div(x: Any, y: Any, rounding_mode: str | None = None) -> Array:
    whole = {None: lambda q: q, "floor": math.floor, "trunc": math.trunc}[rounding_mode]
    return each(lambda a, b: whole(a / b))(x, y)


def bitwise(f: Callable[[Any, Any], Any]) -> Reference:
    return lambda x, y: each(f, np.asarray(x).dtype)(x, y)


REFERENCES["bitwise_and"] = bitwise(operator.and_)
REFERENCES["bitwise_or"] = bitwise(operator.or_)
REFERENCES["bitwise_xor"] = bitwise(operator.xor)


@of("bitwise_not")
def bitwise_not(x: Array) -> Array:
    return each(lambda v: not v if x.dtype == bool else -v - 1, x.dtype)(x)


@of("clamp")
def clamp(x: Array, min: Any = None, max: Any = None) -> Array:
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    return each(lambda v, a, b: b if b < a or v > b else a if v < a else v)(x, low, high)


@of("convert convert_to_discrete")
def convert(x: Array, dtype: Any, in_dtype: Any = None) -> Array:
    return each({"f": float, "i": int, "b": bool}[dtype.kind], dtype)(x)


@of("leaky_relu")
def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    return each(lambda v: v if v > 0 else slope * v)(x)


@of("F.leaky_relu")
def functional_leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    return leaky_relu(x, negative_slope)


@of("softplus F.softplus")
def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    return each(lambda v: v if v * beta > threshold else math.log1p(math.exp(beta * v)) / beta)(x)


@of("gelu F.gelu")
def gelu(x: Array, approximate: str = "none") -> Array:
    if approximate == "tanh":
        return each(lambda v: v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))))(x)
    return each(lambda v: v * math.erfc(-v / math.sqrt(2)) / 2)(x)


# ---- reductions -----------------------------------------------------------------------------


def mean_of(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def variance_of(values: list[float], correction: float = 1) -> float:
    if len(values) <= correction:
        return math.nan
    mean = mean_of(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - correction)


def logsumexp_of(values: list[float]) -> float:
    top = max(values, default=-math.inf)
    return top if top == -math.inf else top + math.log(math.fsum(math.exp(v - top) for v in values))


def norm_of(values: list[float], p: float = 2) -> float:
    sizes = [abs(v) for v in values]
    if p == 0:
        return float(sum(v != 0 for v in sizes))
    if p in (math.inf, -math.inf):
        return max(sizes) if p > 0 else min(sizes)
    return math.fsum(v**p for v in sizes) ** (1 / p)


REFERENCES |= {
    "sum": fold(math.fsum),
    "mean": fold(mean_of),
    "prod": fold(math.prod),
    "var": fold(variance_of),
    "std": fold(lambda values, correction=1: math.sqrt(variance_of(values, correction))),
    "amax": fold(max),
    "amin": fold(min),
    "argmax": fold(lambda values: values.index(max(values)), np.int64),
    "argmin": fold(lambda values: values.index(min(values)), np.int64),
    "all": fold(lambda values: 0 not in values, bool),
    "any": fold(lambda values: sum(v != 0 for v in values) > 0, bool),
    "logsumexp": fold(logsumexp_of),
}


def extreme(choose: Callable[..., Any]) -> Reference:
    def g(x: Array, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(dim, Array):
            return each(choose)(x, dim)
        values = fold(choose)(x, dim, keepdim)
        return values if dim is None else (values, fold(lambda v: v.index(choose(v)), np.int64)(x, dim, keepdim))

    return g


REFERENCES["max"] = extreme(max)
REFERENCES["min"] = extreme(min)


@of("linalg.vector_norm")
def vector_norm(x: Array, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Array:
    return fold(norm_of)(x, dim, keepdim, p=ord)


@of("norm")
def norm(x: Array, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Array:
    return fold(norm_of)(x, dim, keepdim, p=2 if p == "fro" else p)


@of("cumsum")
def cumsum(x: Array, dim: int) -> Array:
    return along(x, dim, lambda row: [math.fsum(row[: i + 1]) for i in range(len(row))])


@of("cumprod")
def cumprod(x: Array, dim: int) -> Array:
    return along(x, dim, lambda row: [math.prod(row[: i + 1]) for i in range(len(row))])


@of("logcumsumexp")
def logcumsumexp(x: Array, dim: int) -> Array:
    return along(x, dim, lambda row: [logsumexp_of(row[: i + 1]) for i in range(len(row))])


@of("recurrence_")
def recurrence(a: Array, b: Array, dim: int) -> Array:
    pairs = made(a.shape, lambda *i: (a[i], b[i]), object)

    def f(row: list[Any]) -> list[Any]:
        return list(itertools.accumulate(row, lambda y, ab: ab[0] * y + ab[1], initial=0.0))[1:]

    return along(pairs, dim, f)


def median_of(row: list[float], ignore_nan: bool) -> int:
    """Return the index of the median: the lower one of both in the middle."""
    numbers = [i for i, v in enumerate(row) if v == v]
    if not numbers or (len(numbers) < len(row) and not ignore_nan):
        return [v == v for v in row].index(False)
    return sorted(numbers, key=lambda i: row[i])[(len(numbers) - 1) // 2]


def medians(ignore_nan: bool) -> Reference:
    def g(x: Array, dim: int | None = None, keepdim: bool = False) -> Any:
        indices = fold(lambda row: median_of(row, ignore_nan), np.int64)(x, dim, keepdim)
        values = fold(lambda row: row[median_of(row, ignore_nan)])(x, dim, keepdim)
        return values if dim is None else (values, indices)

    return g


REFERENCES["median"], REFERENCES["nanmedian"] = medians(False), medians(True)


def quantile_of(row: list[float], q: float, how: str, ignore_nan: bool) -> float:
    numbers = sorted(v for v in row if v == v)
    if not numbers or (len(numbers) < len(row) and not ignore_nan):
        return math.nan
    rank = q * (len(numbers) - 1)
    low, high = numbers[math.floor(rank)], numbers[math.ceil(rank)]
    part = rank - math.floor(rank)
    choices = {"lower": low, "higher": high, "nearest": numbers[round(rank)], "midpoint": (low + high) / 2}
    return choices.get(how, low + part * (high - low))


def quantiles(ignore_nan: bool) -> Reference:
    def g(x: Array, q: Any, dim: Any = None, keepdim: bool = False, interpolation: str = "linear") -> Array:
        found = [
            fold(lambda row, p=p: quantile_of(row, p, interpolation, ignore_nan))(x, dim, keepdim)
            for p in np.ravel(q).tolist()
        ]
        return np.stack(found) if np.ndim(q) else found[0]

    return g


REFERENCES["quantile"], REFERENCES["nanquantile"] = quantiles(False), quantiles(True)


@of("sum_to_size")
def sum_to_size(x: Array, shape: Sequence[int]) -> Array:
    out = np.zeros(tuple(shape))
    for i in np.ndindex(x.shape):
        out[tuple(k if n > 1 else 0 for k, n in zip(i[x.ndim - len(shape) :], shape, strict=True))] += x[i]
    return out


# ---- shapes ---------------------------------------------------------------------------------


@of("reshape view")
def reshape(x: Array, shape: Any) -> Array:
    known = math.prod(n for n in shape if n != -1)
    sizes = tuple(x.size // known if n == -1 else n for n in shape)
    values = iter(x.ravel().tolist())  # row by row, because made() asks for the entries in this order
    return made(sizes, lambda *i: next(values), x.dtype)


def sizes_of(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the sizes that a method got as ``f(2, 3)`` or as ``f((2, 3))``."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes


REFERENCES["Tensor.view"] = REFERENCES["Tensor.reshape"] = lambda x, *sizes: reshape(x, sizes_of(sizes))


@of("flatten")
def flatten(x: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    shape = x.shape or (1,)
    a, b = start_dim % len(shape), end_dim % len(shape)
    return reshape(x, (*shape[:a], math.prod(shape[a : b + 1]), *shape[b + 1 :]))


@of("unflatten")
def unflatten(x: Array, dim: int, sizes: Sequence[int]) -> Array:
    d = dim % x.ndim
    known = math.prod(n for n in sizes if n != -1)
    return reshape(x, (*x.shape[:d], *(x.shape[d] // known if n == -1 else n for n in sizes), *x.shape[d + 1 :]))


@of("unsqueeze")
def unsqueeze(x: Array, dim: int) -> Array:
    d = dim % (x.ndim + 1)
    return reshape(x, (*x.shape[:d], 1, *x.shape[d:]))


@of("squeeze")
def squeeze(x: Array, dim: Any = None) -> Array:
    return reshape(x, [n for d, n in enumerate(x.shape) if n != 1 or d not in axes_of(x, dim)])


@of("broadcast_to expand")
def broadcast_to(x: Array, shape: Sequence[int]) -> Array:
    lead = len(shape) - x.ndim
    sizes = [x.shape[d - lead] if n == -1 else n for d, n in enumerate(shape)]
    return made(sizes, lambda *i: x[tuple(k if n > 1 else 0 for k, n in zip(i[lead:], x.shape, strict=True))], x.dtype)


REFERENCES["Tensor.expand"] = lambda x, *sizes: broadcast_to(x, sizes_of(sizes))


@of("broadcast_tensors")
def broadcast_tensors(*xs: Array) -> list[Array]:
    return [broadcast_to(x, np.broadcast_shapes(*(y.shape for y in xs))) for x in xs]


@of("permute")
def permute(x: Array, dims: Sequence[int]) -> Array:
    order = axes_of(x, tuple(dims)) if dims else []
    return made([x.shape[d] for d in order], lambda *i: x[tuple(i[order.index(d)] for d in range(x.ndim))], x.dtype)


@of("transpose swapaxes")
def transpose(x: Array, dim0: int, dim1: int) -> Array:
    order = list(range(x.ndim))
    if x.ndim:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return permute(x, order)


@of("movedim")
def movedim(x: Array, source: Any, destination: Any) -> Array:
    goes = dict(zip(axes_of(x, destination), axes_of(x, source), strict=True))
    others = iter(d for d in range(x.ndim) if d not in goes.values())
    return permute(x, [goes[d] if d in goes else next(others) for d in range(x.ndim)])


@of("flip")
def flip(x: Array, dims: Any) -> Array:
    turned = axes_of(x, dims)
    at = lambda *i: x[tuple(n - 1 - k if d in turned else k for d, (k, n) in enumerate(zip(i, x.shape, strict=True)))]
    return made(x.shape, at, x.dtype)


@of("roll")
def roll(x: Array, shifts: Any, dims: Any = None) -> Array:
    if dims is None:
        return reshape(roll(reshape(x, (-1,)), shifts, 0), x.shape)
    steps = dict(zip(axes_of(x, dims), [shifts] if isinstance(shifts, int) else shifts, strict=True))
    at = lambda *i: x[tuple((k - steps.get(d, 0)) % x.shape[d] for d, k in enumerate(i))]
    return made(x.shape, at, x.dtype)


@of("crop")
def crop(x: Array, starts: Sequence[int], sizes: Sequence[int]) -> Array:
    return made(sizes, lambda *i: x[tuple(a + k for a, k in zip(starts, i, strict=True))])


@of("pad_dims")
def pad_dims(x: Array, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Array:
    out = np.full([a + n + b for n, (a, b) in zip(x.shape, widths, strict=True)], value)
    for i in np.ndindex(out.shape):
        k = tuple(j - a for j, (a, _) in zip(i, widths, strict=True))
        if all(0 <= j < n for j, n in zip(k, x.shape, strict=True)):
            out[i] = x[k]
    return out


@of("narrow")
def narrow(x: Array, dim: int, start: int, length: int) -> Array:
    d = dim % x.ndim
    first = start + x.shape[d] if start < 0 else start
    shape = (*x.shape[:d], length, *x.shape[d + 1 :])
    return made(shape, lambda *i: x[(*i[:d], first + i[d], *i[d + 1 :])], x.dtype)


@of("split")
def split(x: Array, sections: Any, dim: int = 0) -> list[Array]:
    n = x.shape[dim]
    if isinstance(sections, int):
        sections = [min(sections, n - a) for a in range(0, n, sections)] or [0]
    return [narrow(x, dim, sum(sections[:k]), size) for k, size in enumerate(sections)]


@of("chunk")
def chunk(x: Array, chunks: int, dim: int = 0) -> list[Array]:
    n = x.shape[dim]
    return split(x, math.ceil(n / chunks), dim) if n else [narrow(x, dim, 0, 0)] * chunks


@of("unbind")
def unbind(x: Array, dim: int = 0) -> list[Array]:
    d = dim % x.ndim
    shape = x.shape[:d] + x.shape[d + 1 :]
    return [made(shape, lambda *i, k=k: x[(*i[:d], k, *i[d:])], x.dtype) for k in range(x.shape[d])]


@of("cat concat")
def cat(xs: Sequence[Array], dim: int = 0) -> Array:
    xs = [x for x in xs if x.shape != (0,)] or list(xs[:1])
    d = dim % xs[0].ndim
    places = [(x, k) for x in xs for k in range(x.shape[d])]

    def at(*i: int) -> Any:
        x, k = places[i[d]]
        return x[(*i[:d], k, *i[d + 1 :])]

    return made((*xs[0].shape[:d], len(places), *xs[0].shape[d + 1 :]), at)


@of("stack")
def stack(xs: Sequence[Array], dim: int = 0) -> Array:
    d = dim % (xs[0].ndim + 1)
    return made((*xs[0].shape[:d], len(xs), *xs[0].shape[d:]), lambda *i: xs[i[d]][(*i[:d], *i[d + 1 :])])


@of("repeat")
def repeat(x: Array, sizes: Sequence[int]) -> Array:
    shape = (1,) * (len(sizes) - x.ndim) + x.shape
    wide = reshape(x, shape)
    at = lambda *i: wide[tuple(k % n for k, n in zip(i, shape, strict=True))]
    return made([n * m for n, m in zip(shape, sizes, strict=True)], at)


REFERENCES["Tensor.repeat"] = lambda x, *sizes: repeat(x, sizes_of(sizes))
REFERENCES["tile"] = lambda x, dims: repeat(x, (1,) * (x.ndim - len(dims)) + dims)


@of("repeat_interleave")
def repeat_interleave(x: Array, repeats: Any, dim: int | None = None) -> Array:
    if dim is None:
        return repeat_interleave(reshape(x, (-1,)), repeats, 0)
    counts = [repeats] * x.shape[dim] if isinstance(repeats, int) else repeats.tolist()
    return index_select(x, dim, [k for k, count in enumerate(counts) for _ in range(count)])


# ---- indices --------------------------------------------------------------------------------


@of("getitem")
def getitem(x: Array, index: Any) -> Array:
    """Index by PyTorch's rule: integers and slices first, then the index arrays.

    The dimensions of the index arrays replace theirs if all are adjacent; otherwise they come first.
    """
    items: list[Any] = []
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, (list, bool, Array)):
            array = np.asarray(item)
            if array.ndim == 0 and array.dtype != bool:
                items.append(array.item())
            elif array.ndim == 0:
                items.append(("new", [0] if array else []))  # a new dimension of size 1, or 0 for False
            elif array.dtype == bool:
                places = [i for i in np.ndindex(array.shape) if array[i]]
                items += [np.array([i[d] for i in places], np.int64) for d in range(array.ndim)]
            else:
                items.append(array)
        else:
            items.append(item)
    taken = sum(isinstance(item, (int, slice, Array)) for item in items)
    hole = [k for k, item in enumerate(items) if item is ...] or [len(items)]
    items[hole[0] : hole[0] + 1] = [slice(None)] * (x.ndim - taken)

    # source: for each dimension of x, its index from the labels of the result. order: the labels of the result.
    source: list[Callable[[dict[Any, Any]], int]] = []
    order: list[Any] = []
    ranges: dict[Any, Any] = {}
    advanced = [np.asarray(i[1] if isinstance(i, tuple) else i) for i in items if isinstance(i, (tuple, Array))]
    common = np.broadcast_shapes(*(a.shape for a in advanced)) if advanced else ()
    for k, item in enumerate(items):
        if item is None:
            order.append(k)
            ranges[k] = 1
        elif isinstance(item, int):
            source.append(lambda at, i=item: i)
        elif isinstance(item, slice):
            entries = list(range(x.shape[len(source)]))[item]
            order.append(k)
            ranges[k] = len(entries)
            source.append(lambda at, k=k, entries=entries: entries[at[k]])
        else:
            order.append("advanced")
            if isinstance(item, Array):
                wide = np.broadcast_to(item, common)
                source.append(lambda at, wide=wide: int(wide[at["advanced"]]))
    places = [k for k, label in enumerate(order) if label == "advanced"]
    if places:
        together = places == list(range(places[0], places[-1] + 1))
        front = places[0] if together else 0
        rest = [label for label in order if label != "advanced"]
        order = [*rest[:front], "advanced", *rest[front:]]
    shape = [n for label in order for n in (common if label == "advanced" else (ranges[label],))]

    def at(*i: int) -> Any:
        left, found = list(i), {}
        for label in order:
            width = len(common) if label == "advanced" else 1
            part, left = left[:width], left[width:]
            found[label] = tuple(part) if label == "advanced" else part[0]
        return x[tuple(pick(found) for pick in source)]

    return made(shape, at, x.dtype)


@of("index_put")
def index_put(x: Array, index: Any, value: Any, accumulate: bool = False) -> Array:
    places = getitem(np.arange(x.size).reshape(x.shape), index)
    out = x.ravel().tolist()
    values = np.broadcast_to(np.asarray(value), places.shape) if np.ndim(value) <= places.ndim else value
    for place, v in zip(places.ravel().tolist(), values.ravel().tolist(), strict=True):
        out[place] = out[place] + v if accumulate else v
    return np.array(out).reshape(x.shape)


def in_place(i: Sequence[int], d: int, k: Any) -> tuple[int, ...]:
    """Return the index i with k along dimension d."""
    return (*i[:d], int(k), *i[d + 1 :])


@of("gather")
def gather(x: Array, dim: int, index: Array) -> Array:
    if not x.ndim:
        return x.copy()
    return made(index.shape, lambda *i: x[in_place(i, dim % x.ndim, index[i])])


@of("take_along_dim")
def take_along_dim(x: Array, indices: Array, dim: int | None = None) -> Array:
    if dim is None:
        return gather(x.reshape(-1), 0, indices.reshape(-1))
    d = dim % x.ndim
    shape = list(np.broadcast_shapes(in_place(x.shape, d, 1), in_place(indices.shape, d, 1)))
    x, indices = (broadcast_to(a, in_place(shape, d, a.shape[d])) for a in (x, indices))
    return gather(x, d, indices)


@of("index_select")
def index_select(x: Array, dim: int, index: Any) -> Array:
    d, ids = dim % x.ndim, list(index)
    return made(in_place(x.shape, d, len(ids)), lambda *i: x[in_place(i, d, ids[i[d]])])


@of("index_add")
def index_add(x: Array, dim: int, index: Array, source: Array, alpha: float = 1) -> Array:
    out, d = x.copy(), dim % x.ndim
    for i in np.ndindex(source.shape):
        out[in_place(i, d, index[i[d]])] += alpha * source[i]
    return out


@of("scatter")
def scatter(x: Array, dim: int, index: Array, src: Any, reduce: str | None = None) -> Array:
    if not x.ndim:
        return scatter(x.reshape(1), dim, index, src, reduce).reshape(())
    out = x.copy()
    for i in np.ndindex(index.shape):
        place, value = in_place(i, dim % x.ndim, index[i]), src[i] if isinstance(src, Array) else src
        out[place] = {None: value, "add": out[place] + value, "multiply": out[place] * value}[reduce]
    return out


@of("scatter_add")
def scatter_add(x: Array, dim: int, index: Array, src: Array) -> Array:
    out = x.copy()
    for i in np.ndindex(index.shape):
        out[in_place(i, dim % x.ndim, index[i])] += src[i]
    return out


@of("masked_fill")
def masked_fill(x: Array, mask: Array, value: Any) -> Array:
    return each(lambda v, m, fill: fill if m else v)(x, mask, value)


@of("masked_select")
def masked_select(x: Array, mask: Array) -> Array:
    x, mask = np.broadcast_arrays(x, mask)
    return np.array([v for v, m in zip(x.ravel().tolist(), mask.ravel().tolist(), strict=True) if m], x.dtype)


def triangle(keep: Callable[[int, int], bool]) -> Reference:
    return lambda x, diagonal=0: made(x.shape, lambda *i: x[i] if keep(i[-1] - i[-2], diagonal) else 0.0)


REFERENCES["tril"] = triangle(lambda above, diagonal: above <= diagonal)
REFERENCES["triu"] = triangle(lambda above, diagonal: above >= diagonal)


def order_of(row: list[float], descending: bool) -> list[int]:
    return sorted(range(len(row)), key=lambda i: row[i], reverse=descending)


@of("sort")
def sort(x: Array, dim: int = -1, descending: bool = False, stable: bool = False) -> tuple[Array, Array]:
    return along(x, dim, lambda row: sorted(row, reverse=descending)), argsort(x, dim, descending)


@of("argsort")
def argsort(x: Array, dim: int = -1, descending: bool = False, stable: bool = False) -> Array:
    return along(x, dim, lambda row: order_of(row, descending), np.int64)


@of("topk")
def topk(x: Array, k: int, dim: int = -1, largest: bool = True) -> tuple[Array, Array]:
    ids = along(x, dim, lambda row: order_of(row, largest)[:k], np.int64)
    return along(x, dim, lambda row: sorted(row, reverse=largest)[:k]), ids


@of("bincount")
def bincount(x: Array, weights: Array | None = None, minlength: int = 0) -> Array:
    size = max([minlength, *(v + 1 for v in x)])
    if weights is None:
        return made((size,), lambda k: sum(v == k for v in x), np.int64)
    return made((size,), lambda k: math.fsum(w for v, w in zip(x, weights) if v == k))


@of("histc")
def histc(x: Array, bins: int = 100, min: float = 0, max: float = 0) -> Array:
    if min == max:
        min, max = x.min(), x.max()
    if min == max:
        min, max = min - 1, max + 1
    places = [int((v - min) / (max - min) * bins) for v in x.reshape(-1) if min <= v <= max]
    return made((bins,), lambda k: sum(p == k or (p == bins and k == bins - 1) for p in places))


@of("count_nonzero")
def count_nonzero(x: Array, dim: Any = None) -> Array:
    return REFERENCES["sum"](np.where(x != 0, 1.0, 0.0), dim).astype(np.int64)


@of("unique")
def unique(x: Array, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None) -> Any:
    rows = x.reshape(-1, 1) if dim is None else np.moveaxis(x, dim, 0)
    items = [tuple(row.reshape(-1).tolist()) for row in rows]
    values = list(dict.fromkeys(sorted(items)))
    found = np.array(values, x.dtype).reshape(-1, 1)[:, 0] if dim is None else np.array(values, x.dtype)
    if dim is not None:
        found = np.moveaxis(found.reshape(len(values), *np.moveaxis(x, dim, 0).shape[1:]), 0, dim)
    inverse = np.array([values.index(v) for v in items], np.int64).reshape(x.shape if dim is None else -1)
    counts = np.array([sum(v == w for w in items) for v in values], np.int64)
    results = [found, *[inverse] * return_inverse, *[counts] * return_counts]
    return results[0] if len(results) == 1 else tuple(results)


@of("hstack")
def hstack(tensors: Sequence[Array]) -> Array:
    parts = [x.reshape(1) if not x.ndim else x for x in tensors]
    return REFERENCES["cat"](parts, 0 if parts[0].ndim == 1 else 1)


@of("vstack")
def vstack(tensors: Sequence[Array]) -> Array:
    return REFERENCES["cat"]([x.reshape(1, -1) if x.ndim < 2 else x for x in tensors], 0)


@of("meshgrid")
def meshgrid(*tensors: Any, indexing: str) -> tuple[Array, ...]:
    parts = [x.reshape(-1) for x in (tensors[0] if isinstance(tensors[0], list) else tensors)]
    shape = [len(p) for p in parts]
    out = [made(shape, lambda *i, k=k: parts[k][i[k]]) for k in range(len(parts))]
    return tuple(np.swapaxes(x, 0, 1) if indexing == "xy" else x for x in out)


@of("nonzero")
def nonzero(x: Array, as_tuple: bool = False) -> Any:
    places = [i for i in np.ndindex(x.shape) if x[i]]
    if as_tuple:
        return tuple(np.array([i[d] for i in places], np.int64) for d in range(x.ndim))
    return np.array(places, np.int64).reshape(len(places), x.ndim)


@of("searchsorted")
def searchsorted(
    edges: Array, values: Array, right: bool = False, side: str | None = None, sorter: Array | None = None
) -> Array:
    edges, right = edges if sorter is None else edges[sorter], right or side == "right"
    if edges.ndim > 1:
        return np.stack([searchsorted(e, v, right) for e, v in zip(edges, values, strict=True)])
    return each(lambda v: sum(e <= v if right else e < v for e in edges), np.int64)(values)


@of("embedding")
def embedding(weight: Array, ids: Array, padding_idx: int | None = None) -> Array:
    return made((*ids.shape, weight.shape[1]), lambda *i: weight[ids[i[:-1]], i[-1]])


@of("F.embedding")
def functional_embedding(ids: Array, weight: Array, padding_idx: int | None = None) -> Array:
    return embedding(weight, ids)


@of("one_hot F.one_hot")
def one_hot(x: Array, num_classes: int = -1) -> Array:
    classes = int(x.max()) + 1 if num_classes == -1 else num_classes
    return made((*x.shape, classes), lambda *i: int(x[i[:-1]] == i[-1]), np.int64)


# ---- products -------------------------------------------------------------------------------


@of("einsum")
def einsum(equation: str, *xs: Array) -> Array:
    """Add up the products of the operands' entries over all labels that the output lacks."""
    left, _, right = equation.partition("->")
    spare = string.ascii_uppercase
    widths = [x.ndim - len(term.replace("...", "")) for term, x in zip(left.split(","), xs, strict=True)]
    hidden = spare[: max(widths)]
    terms = [t.replace("...", hidden[len(hidden) - w :]) for t, w in zip(left.split(","), widths, strict=True)]
    if "->" in equation:
        output = right.replace("...", hidden)
    else:
        flat = "".join(terms)
        output = hidden + "".join(sorted(a for a in set(flat) - set(hidden) if flat.count(a) == 1))
    sizes = {a: n for term, x in zip(terms, xs, strict=True) for a, n in zip(term, x.shape, strict=True)}
    parts: dict[tuple[int, ...], list[float]] = {}
    for values in itertools.product(*(range(n) for n in sizes.values())):
        at = dict(zip(sizes, values, strict=True))
        factors = [x[tuple(at[a] for a in term)].item() for term, x in zip(terms, xs, strict=True)]
        parts.setdefault(tuple(at[a] for a in output), []).append(math.prod(factors))
    return made([sizes[a] for a in output], lambda *i: math.fsum(parts.get(i, [])))


@of("matmul mm bmm mv dot")
def matmul(x: Array, y: Array) -> Array:
    if x.ndim == 1:
        return matmul(x[None], y)[..., 0, :] if y.ndim > 1 else matmul(x[None], y[:, None])[0, 0]
    if y.ndim == 1:
        return matmul(x, y[:, None])[..., 0]
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = (broadcast_to(a, batch + a.shape[-2:]) for a in (x, y))

    def entry(*i: int) -> float:
        *b, row, column = i
        return math.fsum(x[(*b, row, k)] * y[(*b, k, column)] for k in range(x.shape[-1]))

    return made((*batch, x.shape[-2], y.shape[-1]), entry)


@of("outer")
def outer(x: Array, y: Array) -> Array:
    return made((*x.shape, *y.shape), lambda i, j: x[i] * y[j])


@of("addmm")
def addmm(x: Array, left: Array, right: Array, beta: float = 1, alpha: float = 1) -> Array:
    return each(lambda a, product: beta * a + alpha * product)(x, matmul(left, right))


@of("diagonal")
def diagonal(x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    a, b = dim1 % x.ndim, dim2 % x.ndim
    x = permute(x, [*(d for d in range(x.ndim) if d not in (a, b)), a, b])
    pairs = [(i, j) for i in range(x.shape[-2]) for j in range(x.shape[-1]) if j - i == offset]
    return made((*x.shape[:-2], len(pairs)), lambda *i: x[(*i[:-1], *pairs[i[-1]])])


@of("diag")
def diag(x: Array, diagonal: int = 0) -> Array:
    if x.ndim == 2:
        return REFERENCES["diagonal"](x, diagonal)
    n = len(x) + abs(diagonal)
    return made((n, n), lambda i, j: x[min(i, j)] if j - i == diagonal else 0.0)


@of("trace")
def trace(x: Array) -> Array:
    return np.array(math.fsum(x[i, i] for i in range(min(x.shape))))


# ---- layers ---------------------------------------------------------------------------------


def log_softmax_of(row: list[float]) -> list[float]:
    total = logsumexp_of(row)
    return [v - total for v in row]


@of("log_softmax F.log_softmax")
def log_softmax(x: Array, dim: int) -> Array:
    return along(x, dim, log_softmax_of)


@of("softmax F.softmax")
def softmax(x: Array, dim: int) -> Array:
    return along(x, dim, lambda row: [math.exp(v) for v in log_softmax_of(row)])


@of("linear F.linear")
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    y = matmul(x, transpose(weight, 0, 1))
    return y if bias is None else each(lambda a, b: a + b)(y, bias)


@of("layer_norm_rows")
def layer_norm_rows(x: Array, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Array:
    return layer_norm(x, x.shape[-1:], weight, bias, eps)


def scaled(y: Array, weight: Array | None, bias: Array | None = None) -> Array:
    return each(lambda v, w, b: v * w + b)(y, 1.0 if weight is None else weight, 0.0 if bias is None else bias)


@of("F.layer_norm")
def layer_norm(x: Array, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Array:
    dims = tuple(range(-len(shape), 0))
    mean, var = fold(mean_of)(x, dims, True), fold(variance_of)(x, dims, True, correction=0)
    return scaled(each(lambda v, m, s: (v - m) / math.sqrt(s + eps))(x, mean, var), weight, bias)


@of("rms_norm_rows")
def rms_norm_rows(x: Array, weight: Any = None, eps: float = 1e-6) -> Array:
    return rms_norm(x, x.shape[-1:], weight, eps)


@of("F.rms_norm")
def rms_norm(x: Array, shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Array:
    eps = 2.0**-52 if eps is None else eps
    squares = fold(lambda values: mean_of([v * v for v in values]))(x, tuple(range(-len(shape), 0)), True)
    return scaled(each(lambda v, s: v / math.sqrt(s + eps))(x, squares), weight)


@of("F.dropout")
def dropout(x: Array, p: float = 0.5, training: bool = True) -> Array:
    """Compute the two cases without random numbers: drop nothing, or everything."""
    return np.zeros_like(x) if training and p == 1 else x


@of("F.pad")
def pad(x: Array, widths: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
    if mode == "circular":  # what is cut off is not shown again at the other end
        for k, (a, b) in enumerate(zip(widths[::2], widths[1::2])):
            x = x[(..., slice(max(-a, 0), x.shape[-1 - k] - max(-b, 0)), *[slice(None)] * k)]
        widths = [max(w, 0) for w in widths]
    before = [0] * (x.ndim - len(widths) // 2) + list(widths[-2::-2])
    after = [0] * (x.ndim - len(widths) // 2) + list(widths[-1::-2])

    def source(k: int, n: int, a: int, b: int) -> int | None:
        """Return the source of entry k in a dimension of size n, or None if ``value`` fills it."""
        first, left = max(-a, 0), n + min(a, 0) + min(b, 0)
        if mode != "circular" and 0 <= k < n:
            return k
        return {"constant": None, "replicate": min(max(k, 0), n - 1), "circular": first + (k - first) % max(left, 1),
                "reflect": -k if k < 0 else 2 * (n - 1) - k}[mode]  # fmt: skip

    def entry(*i: int) -> Any:
        places = [source(k - a, n, a, b) for k, a, b, n in zip(i, before, after, x.shape, strict=True)]
        return value if None in places else x[tuple(places)]

    return made([a + n + b for a, n, b in zip(before, x.shape, after, strict=True)], entry)


@of("F.normalize")
def normalize(x: Array, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Array:
    return each(lambda v, size: v / max(size, eps))(x, norm(x, p, dim, True))


@of("cdist cdist_")
def cdist(x: Array, y: Array, p: float = 2.0) -> Array:
    x, y = x[..., :, None, :], y[..., None, :, :]
    return fold(norm_of)(each(lambda a, b: a - b)(x, y), -1, p=p)


@of("F.pairwise_distance")
def pairwise_distance(x: Array, y: Array, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Array:
    return fold(norm_of)(each(lambda a, b: a - b + eps)(x, y), -1, keepdim, p=p)


@of("kron")
def kron(x: Array, y: Array) -> Array:
    ndim = max(x.ndim, y.ndim)
    x, y = (a.reshape((1,) * (ndim - a.ndim) + a.shape) for a in (x, y))

    def entry(*i: int) -> float:
        block, place = zip(*(divmod(k, m) for k, m in zip(i, y.shape))) if i else ((), ())
        return x[block] * y[place]

    return made([n * m for n, m in zip(x.shape, y.shape)], entry)


@of("cosine_similarity F.cosine_similarity")
def cosine_similarity(x: Array, y: Array, dim: int = 1, eps: float = 1e-8) -> Array:
    x, y = np.broadcast_arrays(x, y)
    product = fold(math.fsum)(x * y, dim)
    return each(lambda c, a, b: c / (max(a, eps) * max(b, eps)))(product, norm(x, 2, dim), norm(y, 2, dim))


# ---- losses and attention -------------------------------------------------------------------


def reduced(losses: Array, reduction: str, count: float | None = None) -> Array:
    """Reduce the losses. count: the divisor of the sum for the mean; None for the number of losses."""
    if reduction == "none":
        return losses
    total = math.fsum(losses.ravel().tolist())
    return np.array(total if reduction == "sum" else total / (losses.size if count is None else count))


@of("F.mse_loss")
def mse_loss(x: Array, y: Array, reduction: str = "mean") -> Array:
    return reduced(each(lambda a, b: (a - b) ** 2)(x, y), reduction)


@of("F.l1_loss")
def l1_loss(x: Array, y: Array, reduction: str = "mean") -> Array:
    return reduced(each(lambda a, b: abs(a - b))(x, y), reduction)


def huber_of(d: float, delta: float) -> float:
    return d * d / 2 if abs(d) <= delta else delta * (abs(d) - delta / 2)


@of("huber")
def huber(x: Array, y: Array, delta: float) -> Array:
    return each(lambda a, b: huber_of(a - b, delta))(x, y)


@of("F.huber_loss")
def huber_loss(x: Array, y: Array, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Array:
    w = np.ones(x.shape) if weight is None else np.broadcast_to(weight, x.shape)
    return reduced(w * huber(x, y, delta), reduction)


@of("F.smooth_l1_loss")
def smooth_l1_loss(x: Array, y: Array, reduction: str = "mean", beta: float = 1.0) -> Array:
    loss = each(lambda a, b: huber_of(a - b, beta) / beta if beta else abs(a - b))
    return reduced(loss(x, y), reduction)


@of("F.binary_cross_entropy")
def binary_cross_entropy(x: Array, target: Array, weight: Any = None, reduction: str = "mean") -> Array:
    loss = each(lambda v, t, w: -w * (t * math.log(v) + (1 - t) * math.log(1 - v)))
    return reduced(loss(x, target, 1.0 if weight is None else weight), reduction)


@of("bernoulli_cross_entropy")
def bernoulli_cross_entropy(x: Array, target: Array) -> Array:
    return binary_cross_entropy(x, target, reduction="none")


@of("F.kl_div")
def kl_div(x: Array, target: Array, reduction: str = "mean", log_target: bool = False) -> Array:
    def term(v: float, t: float) -> float:
        t, log_t = (math.exp(t), t) if log_target else (t, math.log(t) if t else 0.0)
        return t * (log_t - v)

    return reduced(each(term)(x, target), reduction, x.shape[0] if reduction == "batchmean" else None)


@of("F.hinge_embedding_loss")
def hinge_embedding_loss(x: Array, target: Array, margin: float = 1.0, reduction: str = "mean") -> Array:
    return reduced(each(lambda v, t: v if t == 1 else max(0.0, margin - v))(x, target), reduction)


@of("F.soft_margin_loss")
def soft_margin_loss(x: Array, target: Array, reduction: str = "mean") -> Array:
    return reduced(each(lambda v, t: logaddexp(-t * v, 0.0))(x, target), reduction)


@of("F.margin_ranking_loss")
def margin_ranking_loss(x: Array, y: Array, target: Array, margin: float = 0.0, reduction: str = "mean") -> Array:
    return reduced(each(lambda a, b, t: max(0.0, -t * (a - b) + margin))(x, y, target), reduction)


@of("F.multi_margin_loss")
def multi_margin_loss(
    x: Array, target: Array, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean"
) -> Array:
    def loss(row: list[float], t: int) -> float:
        terms = [max(0.0, margin - row[t] + v) ** p for c, v in enumerate(row) if c != t]
        return (1.0 if weight is None else weight[t]) * sum(terms) / len(row)

    return reduced(made(target.shape, lambda *i: loss(x[i].tolist(), int(target[i]))), reduction)


@of("F.cosine_embedding_loss")
def cosine_embedding_loss(
    x: Array, y: Array, target: Array, margin: float = 0.0, reduction: str = "mean"
) -> Array:
    cosine = cosine_similarity(x, y, -1, 0.0)
    return reduced(each(lambda c, t: 1 - c if t == 1 else max(0.0, c - margin))(cosine, target), reduction)


@of("F.triplet_margin_loss")
def triplet_margin_loss(
    a: Array, p: Array, n: Array, margin: float = 1.0, power: float = 2.0, swap: bool = False, reduction: str = "mean"
) -> Array:
    near, far, other = (pairwise_distance(u, v, power) for u, v in ((a, p), (a, n), (p, n)))
    return reduced(
        each(lambda d, e, f: max(0.0, d - (min(e, f) if swap else e) + margin))(near, far, other), reduction
    )


@of("F.binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    x: Array, target: Array, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Array:
    def loss(v: float, t: float, w: float, p: float) -> float:
        log_yes, log_no = -logaddexp(-v, 0.0), -logaddexp(v, 0.0)  # log sigmoid(v), log(1 - sigmoid(v))
        return -w * (p * t * log_yes + (1 - t) * log_no)

    return reduced(each(loss)(x, target, *(1.0 if w is None else w for w in (weight, pos_weight))), reduction)


def classes_last(x: Array) -> Array:
    """Return x, of shape (C,), (N, C) or (N, C, d...), with the classes last."""
    return x if x.ndim < 3 else movedim(x, 1, -1)


@of("squared_error")
def squared_error(x: Array, y: Array, reduction: str = "none") -> Array:
    return reduced((x - y) ** 2, reduction)


@of("logistic_cross_entropy")
def logistic_cross_entropy(x: Array, target: Array) -> Array:
    return binary_cross_entropy_with_logits(x, target, reduction="none")


@of("F.nll_loss")
def nll_loss(
    logp: Array, target: Array, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    rows = classes_last(logp)
    w = [1.0] * rows.shape[-1] if weight is None else weight.tolist()
    kept = [t for t in target.ravel().tolist() if t != ignore_index]
    loss = lambda *i: 0.0 if target[i] == ignore_index else -w[target[i]] * rows[(*i, target[i])]
    return reduced(made(target.shape, loss), reduction, math.fsum(w[t] for t in kept))


@of("nll_rows")
def nll_rows(logp: Array, target: Array, ignore_index: int = -100, reduction: str = "none") -> Array:
    return nll_loss(logp, target, None, ignore_index, reduction)


@of("F.cross_entropy")
def cross_entropy(
    x: Array, target: Array, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:  # fmt: skip
    dim = min(1, x.ndim - 1)
    classes = x.shape[dim]
    rows = classes_last(log_softmax(x, dim))
    w = [1.0] * classes if weight is None else weight.tolist()
    whole = target.dtype.kind == "i"
    goal = target if whole else classes_last(target)

    def loss(*i: int) -> float:
        if whole and goal[i] == ignore_index:
            return 0.0
        q = [float(goal[i] == c) if whole else goal[(*i, c)] for c in range(classes)]
        q = [(1 - label_smoothing) * v + label_smoothing / classes for v in q]
        return -math.fsum(q[c] * w[c] * rows[(*i, c)] for c in range(classes))

    count = math.fsum(w[t] for t in target.ravel().tolist() if t != ignore_index) if whole else None
    return reduced(made(rows.shape[:-1], loss), reduction, count)


@of("cross_entropy_rows")
def cross_entropy_rows(
    x: Array, target: Array, ignore_index: int = -100, smoothing: float = 0.0, reduction: str = "none"
) -> Array:
    return cross_entropy(x, target, None, ignore_index, reduction, smoothing)


@of("attention")
def attention(q: Array, k: Array, v: Array, mask: Any, keep: Any, causal: bool, scale: float) -> Array:
    """Compute, for each query, its scores, their softmax over the keys that it sees, and the mean of the values."""
    batch = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    q, k, v = (broadcast_to(a, batch + a.shape[-2:]) for a in (q, k, v))
    wide = (*batch, q.shape[-2], k.shape[-2])
    masks = [None if m is None else broadcast_to(m, wide) for m in (mask, keep)]

    def weights(*i: int) -> list[float]:
        scores = []
        for s in range(k.shape[-2]):
            score = scale * math.fsum(q[(*i, d)] * k[(*i[:-1], s, d)] for d in range(q.shape[-1]))
            if masks[0] is not None and masks[0].dtype == bool:
                score = score if masks[0][(*i, s)] else -math.inf
            elif masks[0] is not None:
                score += masks[0][(*i, s)]
            scores.append(-math.inf if causal and s > i[-1] else score)
        if max(scores, default=-math.inf) == -math.inf:
            return [0.0] * len(scores)
        p = [math.exp(score) for score in log_softmax_of(scores)]
        return p if masks[1] is None else [a * masks[1][(*i, s)] for s, a in enumerate(p)]

    rows = {i: weights(*i) for i in np.ndindex(wide[:-1])}
    at = lambda *i: math.fsum(w * v[(*i[:-2], s, i[-1])] for s, w in enumerate(rows[i[:-1]]))
    return made((*wide[:-1], v.shape[-1]), at)


@of("F.scaled_dot_product_attention")
def scaled_dot_product_attention(
    q: Array, k: Array, v: Array, attn_mask: Any = None, is_causal: bool = False, scale: float | None = None
) -> Array:
    return attention(q, k, v, attn_mask, None, is_causal, 1 / math.sqrt(q.shape[-1]) if scale is None else scale)


REFERENCES = {name: f for names, f in REFERENCES.items() for name in names.split()}
