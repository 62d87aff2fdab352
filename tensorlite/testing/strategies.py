"""Strategies for hypothesis: what to call an op with, so that its mistakes show.

    from hypothesis import given
    from tensorlite.testing import indices, matching, tensors

    @given(tensors((3, 4)), indices((3, 4)))
    def test_indexing(x, index):
        np.testing.assert_array_equal(x[index].numpy(), x.numpy()[index])

Numbers are multiples of 1/8 that a difference quotient can be trusted with: each of them is exactly at a kink of
``abs``, ``relu``, ``floor`` and their like, or 1/8 and more away from it. All values are built, none is drawn and
thrown away, and every array takes one byte an entry, so that drawing is quick. Examples shrink to few dimensions of
size 1, to the entries 0, 1, -1, 2, ... in this order, and to plain memory.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, overload
from weakref import WeakKeyDictionary

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from ..dtypes import as_dtype, float64, is_floating
from ..errors import DTypeError
from ..tensors.creation import from_numpy
from ..tensors.tensor import Tensor

__all__ = [
    "Signature", "TieFree", "away_from", "axes", "broadcastable", "elements", "indices", "layouts", "matching",
    "shapes", "tensors", "tie_free",
]  # fmt: skip

Shape: TypeAlias = tuple[int, ...]
Array: TypeAlias = np.ndarray[Any, Any]
ElementsLike: TypeAlias = "str | SearchStrategy[Any] | TieFree"
"""The kind of entries, by its name, as a strategy for one entry, or as :func:`tie_free`."""

# ---- entries --------------------------------------------------------------------------------

_SLOTS = 256  # an entry is one byte, and a byte a place in a table


def _by_simplicity(values: Iterable[float]) -> list[float]:
    """0, 1, -1, 2, ... then the halves, the quarters, the eighths: what an example shrinks to, first."""
    return sorted(set(values), key=lambda x: (next(d for d in (1, 2, 4, 8) if x * d % 1 == 0), abs(x), x < 0))


_DYADIC = _by_simplicity(k / 8 for k in range(-32, 33))
_EXTREME = [800.0, -800.0, 1e4]

# The numbers of each kind, and those of them that are to come up more often than the rest.
_KINDS: dict[str, tuple[list[float], list[float]]] = {
    "real": ([*_DYADIC, *_EXTREME], [0.0] * 16 + [1.0, -1.0] * 6 + _EXTREME),
    "moderate": (_DYADIC, [0.0] * 8),
    "nonzero": ([x for x in [*_DYADIC, *_EXTREME] if x], [1.0, -1.0] * 6 + _EXTREME),
    "positive": ([x for x in [*_DYADIC, *_EXTREME] if x > 0], [1.0] * 8 + [800.0, 1e4]),
    "unit": ([x for x in _DYADIC if abs(x) < 1], []),
    "any": (
        [*_DYADIC, *_EXTREME, -0.0, 2.0**-20, -(2.0**-20), 1e-30, 1e30, -1e30, math.inf, -math.inf, math.nan],
        [0.0, -0.0, math.inf, math.nan] * 4,
    ),
    "int": ([float(x) for x in _by_simplicity(range(-8, 9))], [0.0] * 14),
    "bool": ([0.0, 1.0], [0.0] * 127),
}

# The bytes that strategies of `elements` stand for, so that arrays need not draw entry by entry.
_TABLES: WeakKeyDictionary[SearchStrategy[Any], tuple[Any, ...]] = WeakKeyDictionary()


def _table(numbers: list[float], often: list[float]) -> tuple[float, ...]:
    """256 numbers, the simplest first: each of ``numbers`` once, then ``often``, then the first kind again."""
    table = [*numbers, *often]
    common = [x for x in numbers if math.isfinite(x) and 2.0**-20 < abs(x) < 100] or numbers
    while len(table) < _SLOTS:
        table += common[: _SLOTS - len(table)]
    return tuple(table)


def _sampled(table: tuple[Any, ...]) -> SearchStrategy[Any]:
    strategy = st.sampled_from(table)
    _TABLES[strategy] = table
    return strategy


def _kind(name: str, kind: str) -> tuple[list[float], list[float]]:
    if kind not in _KINDS:
        raise ValueError(f"{name}: unknown kind {kind!r}; it is one of {', '.join(map(repr, _KINDS))}")
    return _KINDS[kind]


def elements(kind: str = "real", *, kinks: Sequence[float] = (), below: int | None = None) -> SearchStrategy[Any]:
    """One entry of a tensor.

    =============  =========================================================================================
    ``real``       multiples of 1/8 from -4 to 4, 0 and ±1 more often, and now and then ±800 and 1e4
    ``moderate``   multiples of 1/8 from -4 to 4
    ``nonzero``    ``real`` without 0
    ``positive``   ``real``, those above 0
    ``unit``       multiples of 1/8 above -1 and below 1
    ``any``        ``real``, and -0.0, tiny and huge numbers, infinities and NaN: for values, not for derivatives
    ``int``        integers from -8 to 8; with ``below``, from 0 to below - 1
    ``bool``       True or False
    =============  =========================================================================================

    kinks: points that come up in a quarter of all entries. What is not on one of them is 1/8 or more away from all.
    below: for the kind ``int`` alone: indices into so many places, 256 or fewer.
    Raises ValueError for a kind that is none of these, or for a ``below`` that is out of place.
    """
    numbers, often = _kind("elements", kind)
    if below is not None:
        if kind != "int" or not 1 <= below <= _SLOTS:
            raise ValueError(f"elements: below is for the kind 'int' and from 1 to {_SLOTS}, got {below} for {kind!r}")
        numbers = [float(x) for x in range(below)]
    points = _points("elements: kinks", kinks)
    if points:
        numbers = _distant(numbers, points)
        numbers = [*_by_value(points), *numbers]
        often = (points * _SLOTS)[: _SLOTS // 4]
    table: tuple[Any, ...] = _table(numbers, often)
    if kind in ("int", "bool"):
        table = tuple(map(int if kind == "int" else bool, table))
    return _sampled(table)


def away_from(points: Sequence[float], kind: str = "real") -> SearchStrategy[Any]:
    """Entries of this kind that are 1/8 or more away from each of these points: ``away_from([0])`` for ``abs``.

    Raises ValueError where nothing is left.
    """
    numbers, often = _kind("away_from", kind)
    numbers = _distant(numbers, _points("away_from: points", points))
    if not numbers:
        raise ValueError(f"away_from: no number of the kind {kind!r} is 1/8 or more away from all of {list(points)}")
    return _sampled(_table(numbers, [x for x in often if x in numbers]))


def _points(what: str, given: Any) -> list[float]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{what} must be a list of numbers, got {given!r:.60}")
    return [float(p) for p in given]


def _distant(numbers: list[float], points: list[float]) -> list[float]:
    return [x for x in numbers if not any(abs(x - p) < 0.125 for p in points)]


def _by_value(points: list[float]) -> list[float]:
    return sorted(dict.fromkeys(points), key=abs)


@dataclass(frozen=True)
class TieFree:
    """What :func:`tie_free` returns; goes where a kind of entries goes."""

    axis: int | None = -1


def tie_free(axis: int | None = -1) -> TieFree:
    """Entries no two of which are equal, or closer than 1/8, in any row along ``axis``; None: in the whole tensor.

    For ``amax``, ``sort``, ``median`` and their like, which have a kink wherever two entries are equal:
    ``tensors((2, 3), elements=tie_free(-1))``. Shrinks to 0, 1, 2, ...
    """
    return TieFree(axis if axis is None else _whole_number("tie_free: axis", axis))


_STARTS = _table(_by_simplicity(range(-4, 5)), [])
_GAPS = _table([1.0, 2.0, 0.125, 0.25, 0.5, 3.0, 800.0], [])


def _row_without_ties(data: bytes, size: int) -> list[float]:
    """Numbers that grow from a start by gaps, put in an order. Takes 2 * size bytes; zeros mean 0, 1, 2, ..."""
    left, x = [], _STARTS[data[0]]
    for gap in data[1:size]:
        left.append(x)
        x += _GAPS[gap]
    left.append(x)
    return [left.pop(place % len(left)) for place in data[size:]]


@lru_cache(maxsize=1024)
def _bytes(size: int) -> SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def _values(draw: DrawFn, shape: Shape, source: SearchStrategy[Any] | TieFree, dtype: np.dtype[Any]) -> Array:
    """A new C-contiguous array of entries."""
    count = math.prod(shape)
    if isinstance(source, TieFree):
        return _tie_free_values(draw, shape, source.axis).astype(dtype)
    table = _TABLES.get(source)
    if table is None:
        found = draw(st.lists(source, min_size=count, max_size=count)) if count else []
    else:
        found = [table[byte] for byte in draw(_bytes(count))] if count else []
    return np.array(found, dtype).reshape(shape)


def _tie_free_values(draw: DrawFn, shape: Shape, axis: int | None) -> Array:
    if axis is None or not shape:
        size, axis, lead = math.prod(shape), None, tuple[int, ...]()
    elif not -len(shape) <= axis < len(shape):
        raise ValueError(f"tie_free: there is no axis {axis} in the shape {shape}")
    else:
        size, lead = shape[axis], tuple(np.delete(shape, axis).tolist())
    if not math.prod(shape):
        return np.zeros(shape)
    step = 2 * size
    data = draw(_bytes(step * math.prod(lead)))
    rows = np.array([_row_without_ties(data[at : at + step], size) for at in range(0, len(data), step)])
    if axis is None:
        return rows.reshape(shape)
    return np.ascontiguousarray(np.moveaxis(rows.reshape((*lead, size)), -1, axis))


def _source(name: str, given: ElementsLike | None, dtype: Any) -> tuple[SearchStrategy[Any] | TieFree, np.dtype[Any]]:
    """How to draw entries, and their dtype: each of the two decides what the other is by default."""
    if given is None:
        target = float64 if dtype is None else as_dtype(dtype)
        given = "bool" if target.kind == "b" else "int" if target.kind in "iu" else "real"
        strategy = elements(given)
        if target.kind == "u":
            strategy = _sampled(tuple(abs(x) for x in _TABLES[strategy]))
        return strategy, target
    if isinstance(given, str):
        given = elements(given)
    if not isinstance(given, SearchStrategy | TieFree):
        raise TypeError(f"{name}: elements is a kind, a strategy or tie_free(), got {type(given).__name__}")
    if dtype is not None:
        return given, as_dtype(dtype)
    table = None if isinstance(given, TieFree) else _TABLES.get(given)
    return given, float64 if table is None else np.array(table[0]).dtype


# ---- shapes ---------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _sizes(low: int, high: int) -> SearchStrategy[int]:
    """A size; 1 is the simplest, and 0, where allowed, one of sixteen."""
    above = [n for n in range(low, high + 1) if n]
    if low > 0 or not above:
        return st.sampled_from(above or [0])
    return st.sampled_from([*(above * 15)[:15], 0])


def shapes(min_dims: int = 0, max_dims: int = 3, *, min_size: int = 0, max_size: int = 3) -> SearchStrategy[Shape]:
    """Shapes, with 0-d ones and, one in sixteen, sizes of zero; fewer dimensions and size 1 are the simplest.

    Raises ValueError where a least is above a most.
    """
    _require_range("shapes: dims", min_dims, max_dims)
    _require_range("shapes: sizes", min_size, max_size)
    return _shapes(min_dims, max_dims, min_size, max_size)


def _whole_number(what: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an int, got {value!r:.60}") from None


def _sizes_in(name: str, shape: Any) -> Shape:
    """A shape as users write one."""
    if isinstance(shape, str) or not isinstance(shape, Iterable):
        raise TypeError(f"{name}: a shape is a tuple of sizes, got {shape!r:.60}")
    sizes = tuple(_whole_number(f"{name}: a size", n) for n in shape)
    if min(sizes, default=0) < 0:
        raise ValueError(f"{name}: sizes are 0 or more, got {sizes}")
    return sizes


def _require_range(name: str, low: int, high: int) -> None:
    low, high = (_whole_number(name, n) for n in (low, high))
    if not 0 <= low <= high:
        raise ValueError(f"{name} must go from 0 or more to no less than that, got {low} to {high}")


@st.composite
def _shapes(draw: DrawFn, min_dims: int, max_dims: int, min_size: int, max_size: int) -> Shape:
    sizes = _sizes(min_size, max_size)
    return tuple(draw(sizes) for _ in range(draw(_whole(min_dims, max_dims))))


@lru_cache(maxsize=256)
def _whole(low: int, high: int) -> SearchStrategy[int]:
    return st.integers(low, high)


def broadcastable(
    count: int = 2, *, min_dims: int = 0, max_dims: int = 3, min_size: int = 0, max_size: int = 3
) -> SearchStrategy[tuple[Shape, ...]]:
    """``count`` shapes that broadcast together, in all ways: equal, with 1s, with fewer dimensions, 0-d, of size 0.

    min_dims: of each of them. Shrinks to equal shapes.
    """
    _require_range("broadcastable: dims", min_dims, max_dims)
    _require_range("broadcastable: sizes", min_size, max_size)
    if _whole_number("broadcastable: count", count) < 1:
        raise ValueError(f"broadcastable: expected one shape or more, got {count}")
    return _broadcastable(count, min_dims, max_dims, min_size, max_size)


@st.composite
def _broadcastable(
    draw: DrawFn, count: int, min_dims: int, max_dims: int, min_size: int, max_size: int
) -> tuple[Shape, ...]:
    full = draw(_shapes(min_dims, max_dims, min_size, max_size))
    return tuple(_stretched(draw, full, min_dims, min_size) for _ in range(count))


def _stretched(draw: DrawFn, full: Shape, min_dims: int = 0, min_size: int = 0) -> Shape:
    """A shape that broadcasts to ``full``: in half of all cases itself, else without some dims, some of them 1."""
    if not full or not draw(_LESS):
        return full
    shape = full[draw(_whole(0, len(full) - min_dims)) :]
    ones = draw(_whole(0, 2 ** len(shape) - 1)) if min_size <= 1 else 0
    return tuple(1 if ones >> i & 1 else n for i, n in enumerate(shape))


_LESS = st.booleans()

# ---- signatures -----------------------------------------------------------------------------


# More often than not there is a dimension of which a mistake in broadcasting can make something else.
_BATCH_DIMS = st.sampled_from([0, 1, 2, 1, 2])
_BATCH_SIZES = st.sampled_from([1, 2, *[2, 1, 2] * 4, 0])


@dataclass(frozen=True)
class _Dim:
    """A dimension of a signature: a name, or a size."""

    name: str
    size: int | None = None


Core: TypeAlias = "tuple[bool, tuple[_Dim, ...]]"  # whether "..." leads, and the dims


@dataclass(frozen=True)
class Signature:
    """The shapes that belong together, as ``"(m,k),(k,n)->(m,n)"`` says it; ``Signature.parse`` reads that.

    - Equal names are equal sizes, numbers are sizes, ``()`` is a 0-d tensor.
    - ``n>=1``, said once, keeps n from being 0.
    - ``...``, first in its brackets, stands for 0 to 2 dimensions, which broadcast against the ``...`` of the others.
    - The right side may be left out. With several results it has several brackets.
    """

    text: str
    inputs: tuple[Core, ...]
    outputs: tuple[Core, ...] | None
    least: tuple[tuple[str, int], ...]

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Raises ValueError, which shows what is wrong, for what is no signature."""
        if not isinstance(text, str):
            raise TypeError(f"a signature is a string such as '(m,n),(n)->(m)', got {text!r:.60}")
        left, arrow, right = "".join(text.split()).partition("->")
        least: dict[str, int] = {}
        inputs = tuple(_cores(text, left, least))
        if not arrow:
            return cls(text, inputs, None, tuple(least.items()))
        outputs = tuple(_cores(text, right, least))
        known = {dim.name for _, dims in inputs for dim in dims}
        for leads, dims in outputs:
            if leads and not any(lead for lead, _ in inputs):
                raise _bad(text, "the result has '...', which no input has")
            for dim in dims:
                if dim.size is None and dim.name not in known:
                    raise _bad(text, f"the result's {dim.name} is a dimension of no input")
        return cls(text, inputs, outputs, tuple(least.items()))

    def draw(self, draw: DrawFn) -> tuple[tuple[Shape, ...], tuple[Shape, ...] | None]:
        """The shapes of the inputs and, if the signature has a right side, of the results."""
        least, sizes = dict(self.least), dict[str, int]()
        for _, dims in self.inputs:
            for dim in dims:
                if dim.name not in sizes:
                    low = least.get(dim.name, 0)
                    sizes[dim.name] = draw(_sizes(low, max(3, low + 2))) if dim.size is None else dim.size
        batch: Shape = ()
        if any(leads for leads, _ in self.inputs):
            batch = tuple(draw(_BATCH_SIZES) for _ in range(draw(_BATCH_DIMS)))
        leads = [_stretched(draw, batch) if lead else () for lead, _ in self.inputs]
        cores = [tuple(sizes[dim.name] for dim in dims) for _, dims in self.inputs]
        given = tuple(lead + core for lead, core in zip(leads, cores))
        if self.outputs is None:
            return given, None
        whole = np.broadcast_shapes(*leads)
        return given, tuple(
            (whole if lead else ()) + tuple(sizes[d.name] if d.size is None else d.size for d in dims)
            for lead, dims in self.outputs
        )


def _bad(text: str, why: str) -> ValueError:
    return ValueError(f"signature {text!r}: {why}. One that is right: '(...,m,k),(k,n>=1)->(...,m,n)'")


def _cores(text: str, side: str, least: dict[str, int]) -> Iterable[Core]:
    if not re.fullmatch(r"\([^()]*\)(,\([^()]*\))*", side):
        raise _bad(text, f"expected brackets with commas between them, got {side!r}")
    for group in re.findall(r"\(([^()]*)\)", side):
        items = group.split(",") if group else []
        leads = items[:1] == ["..."]
        dims = []
        for item in items[leads:]:
            match = re.fullmatch(r"(?P<size>\d+)|(?P<name>[A-Za-z_]\w*)(>=(?P<low>\d+))?", item)
            if match is None:
                why = "'...' has to be the first in its brackets" if item == "..." else f"{item!r} is no dimension"
                raise _bad(text, why)
            if match["size"]:
                dims.append(_Dim(item, int(item)))
            else:
                dims.append(_Dim(match["name"]))
                if match["low"]:
                    low = int(match["low"])
                    if least.setdefault(match["name"], low) != low:
                        raise _bad(text, f"{match['name']} is asked to be at least {least[match['name']]}, and {low}")
        yield leads, tuple(dims)


@overload
def matching(signature: str) -> SearchStrategy[tuple[Shape, ...]]: ...
@overload
def matching(
    signature: str, *, elements: ElementsLike | Sequence[ElementsLike], layouts: bool = True
) -> SearchStrategy[tuple[Tensor, ...]]: ...
def matching(
    signature: str, *, elements: ElementsLike | Sequence[ElementsLike] | None = None, layouts: bool = True
) -> SearchStrategy[Any]:
    """Shapes that belong together, or tensors of such shapes: ``matching("(...,m,k),(k,n>=1)->(...,m,n)")``.

    Equal names are equal sizes, from 0 to 3; numbers are sizes; ``n>=1`` keeps n from 0; ``()`` is a 0-d tensor;
    ``...`` stands for 0 to 2 dimensions that broadcast against those of the other inputs. What is right of the arrow
    is not drawn.

    elements: None for shapes; else the kind of entries, or a list with one for each input, for float64 tensors (int64
    and bool ones for the kinds ``int`` and ``bool``).
    Raises ValueError for a bad signature, or where the list has not one kind for each input.
    """
    parsed = Signature.parse(signature)
    if elements is None:
        return _input_shapes(parsed)
    return _matching_tensors(parsed, sources("matching", parsed, elements), layouts)


@st.composite
def _input_shapes(draw: DrawFn, signature: Signature) -> tuple[Shape, ...]:
    return signature.draw(draw)[0]


Sources: TypeAlias = "list[tuple[SearchStrategy[Any] | TieFree, np.dtype[Any]]]"


def sources(name: str, signature: Signature, given: ElementsLike | Sequence[ElementsLike]) -> Sources:
    """How to draw the entries of each input. Raises ValueError for a list of another length."""
    count = len(signature.inputs)
    one = isinstance(given, str | SearchStrategy | TieFree)
    kinds: list[Any] = [given] * count if one else list(given)  # type: ignore[arg-type]
    if len(kinds) != count:
        raise ValueError(f"{name}: elements has {len(kinds)} kinds for the {count} inputs of {signature.text!r}")
    return [_source(name, kind, None) for kind in kinds]


@st.composite
def _matching_tensors(draw: DrawFn, signature: Signature, kinds: Sources, layouts: bool) -> tuple[Tensor, ...]:
    found, _ = signature.draw(draw)
    return tuple(draw_tensor(draw, shape, *kind, layouts) for shape, kind in zip(found, kinds))


# ---- memory ---------------------------------------------------------------------------------

# Ways to lay out an array: how, and along which axis.
Layout: TypeAlias = tuple[str, int]
_PLAIN: Layout = ("C", 0)


@lru_cache(maxsize=512)
def _ways(shape: Shape, constant: tuple[int, ...]) -> SearchStrategy[Layout]:
    """All layouts for a shape whose entries are, or may be, constant along these axes; plain ones in a third."""
    dims = range(len(shape))
    ways = [("F", 0)] if len(shape) > 1 else []
    ways += [("offset", 0)] if not shape else []
    ways += [("strided", d) for d in dims] + [("reversed", d) for d in dims]
    ways += [("broadcast", d) for d in constant]
    return st.sampled_from([_PLAIN, *ways, *[_PLAIN] * (len(ways) // 2)])


def _laid_out(array: Array, way: Layout) -> Array:
    """The same entries, in new memory."""
    how, axis = way
    if how == "F":
        return array.copy(order="F")
    if how == "offset":
        return np.array([np.zeros_like(array), array])[1:].reshape(())
    if how == "strided":
        room = list(array.shape)
        room[axis] = 2 * room[axis] + 1
        view = np.ones(room, array.dtype)[_along(axis, slice(1, None, 2))]
        view[...] = array
        return view
    if how == "reversed":
        return np.flip(np.flip(array, axis).copy(), axis)
    if how == "broadcast":
        return np.broadcast_to(array[_along(axis, slice(0, 1))].copy(), array.shape)
    return array.copy(order="C")


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, part)


def layouts(array: Any) -> SearchStrategy[Array]:
    """The same entries in new memory, laid out in every way: C, Fortran (transposed), with steps, with negative
    strides and, along dimensions in which all entries are equal, with a stride of 0 (these are read-only).

    Shrinks to C. Takes an array or what ``np.asarray`` makes one of.
    """
    known = np.asarray(array.array if isinstance(array, Tensor) else array)
    constant = tuple(
        d for d, n in enumerate(known.shape) if n > 1 and bool((known == known[_along(d, slice(0, 1))]).all())
    )
    return _ways(known.shape, constant).map(lambda way: _laid_out(known, way))


def draw_tensor(
    draw: DrawFn, shape: Shape, source: SearchStrategy[Any] | TieFree, dtype: np.dtype[Any], with_layouts: bool
) -> Tensor:
    """A tensor of this shape, whose memory may be laid out in any way."""
    way = draw(_ways(shape, _may_be_constant(shape, source))) if with_layouts else _PLAIN
    array = _values(draw, shape, source, dtype)  # as many entries for each layout: fewer would count as simpler
    return from_numpy(array if way is _PLAIN else _laid_out(array, way))


def _may_be_constant(shape: Shape, source: SearchStrategy[Any] | TieFree) -> tuple[int, ...]:
    wide = {d for d, n in enumerate(shape) if n > 1}
    if isinstance(source, TieFree):
        wide = set() if source.axis is None else wide - {source.axis % len(shape)}
    return tuple(sorted(wide)) if math.prod(shape) else ()


def tensors(
    shape: Shape | SearchStrategy[Shape] | None = None,
    dtype: Any = None,
    elements: ElementsLike | None = None,
    layouts: bool = True,
    requires_grad: bool = False,
) -> SearchStrategy[Tensor]:
    """Tensors on the CPU.

    shape: sizes, or a strategy for them; None for :func:`shapes`.
    dtype: None for the one that ``elements`` asks for: int64 for ``"int"``, bool for ``"bool"``, otherwise float64.
    elements: a kind that :func:`elements` knows, a strategy for one entry, or :func:`tie_free`; None for the kind
        that fits the dtype: ``"real"``, ``"int"`` or ``"bool"``.
    layouts: whether to lay out the memory in every way that :func:`layouts` lists, or always as C does.
    Raises ValueError for an unknown kind, DTypeError where gradients of a dtype do not exist.
    """
    source, target = _source("tensors", elements, dtype)
    if not isinstance(layouts, bool):
        raise TypeError(f"tensors: layouts is True or False, got {layouts!r:.60}")
    if requires_grad and not is_floating(target):
        raise DTypeError(f"tensors: only floating tensors require gradients, not those of {target}")
    sizes: SearchStrategy[Shape]
    if shape is None:
        sizes = shapes()
    elif isinstance(shape, SearchStrategy):
        sizes = shape
    else:
        sizes = st.just(_sizes_in("tensors", shape))
    return _tensors(sizes, source, target, layouts, requires_grad)


@st.composite
def _tensors(
    draw: DrawFn,
    shape: SearchStrategy[Shape],
    source: SearchStrategy[Any] | TieFree,
    dtype: np.dtype[Any],
    with_layouts: bool,
    requires_grad: bool,
) -> Tensor:
    x = draw_tensor(draw, draw(shape), source, dtype, with_layouts)
    x.requires_grad = requires_grad
    return x


# ---- dimensions and indices -----------------------------------------------------------------

_AXIS_KINDS = ("int", "negative", "tuple", "none")


def axes(ndim: int, kinds: Sequence[str] = _AXIS_KINDS) -> SearchStrategy[int | tuple[int, ...] | None]:
    """What a ``dim`` argument may be for a tensor of ``ndim`` dimensions.

    kinds: of ``"int"`` (from 0 up), ``"negative"``, ``"tuple"`` (one dimension or several, no two the same, in any
    order and with either sign) and ``"none"``. A 0-d tensor counts as having one dimension, as in PyTorch.
    Raises ValueError for another kind.
    """
    if isinstance(kinds, str) or not kinds or set(kinds) - set(_AXIS_KINDS):
        raise ValueError(f"axes: kinds is made of {', '.join(map(repr, _AXIS_KINDS))}, got {kinds!r}")
    if _whole_number("axes: ndim", ndim) < 0:
        raise ValueError(f"axes: ndim is 0 or more, got {ndim}")
    count = max(ndim, 1)
    ways: list[SearchStrategy[Any]] = []
    if "int" in kinds:
        ways.append(_whole(0, count - 1))
    if "negative" in kinds:
        ways.append(_whole(-count, -1).map(lambda d: -count - 1 - d))  # -1 is the simplest
    if "tuple" in kinds:
        ways.append(_axis_tuples(count))
    if "none" in kinds:
        ways.append(st.none())
    return st.one_of(ways)


@st.composite
def _axis_tuples(draw: DrawFn, count: int) -> tuple[int, ...]:
    left = list(range(count))
    picked = [left.pop(draw(_whole(0, len(left) - 1))) for _ in range(draw(_whole(1, count)))]
    signs = draw(_whole(0, 2 ** len(picked) - 1))
    return tuple(d - count if signs >> i & 1 else d for i, d in enumerate(picked))


_INDEX_KINDS = ("int", "slice", "none", "ellipsis", "array", "mask")


def indices(shape: Shape, kinds: Sequence[str] = _INDEX_KINDS) -> SearchStrategy[Any]:
    """Indices of every kind that ``x[index]`` takes for an x of this shape; all are valid.

    kinds: of ``"int"`` (of either sign), ``"slice"`` (with any step, past the end, empty), ``"none"``, ``"ellipsis"``,
    ``"array"`` (NumPy arrays, lists and Tensors of int64, of any sign, which may name a place twice and broadcast
    against each other) and ``"mask"`` (booleans over one dimension or several). An index is one of them or a tuple
    of several. Shrinks to ``()``. Raises ValueError for another kind.
    """
    if isinstance(kinds, str) or not kinds or set(kinds) - set(_INDEX_KINDS):
        raise ValueError(f"indices: kinds is made of {', '.join(map(repr, _INDEX_KINDS))}, got {kinds!r}")
    return _indices(_sizes_in("indices", shape), frozenset(kinds))


@lru_cache(maxsize=256)
def _one_of(ways: tuple[str, ...]) -> SearchStrategy[str]:
    return st.sampled_from(ways)


@st.composite
def _indices(draw: DrawFn, shape: Shape, kinds: frozenset[str]) -> Any:
    """First a way for every dimension; then what picks from several, which has to broadcast; then None and ``...``."""
    items: list[Any] = []
    picks: list[tuple[int, str, Shape]] = []  # the place among items, the way, the sizes it picks from
    dim = 0
    while dim < len(shape):
        sizes = shape[dim:]
        ways = ["whole"]
        ways += ["slice"] if "slice" in kinds else []
        ways += ["int"] if "int" in kinds and sizes[0] else []
        ways += ["array"] if "array" in kinds else []
        ways += ["mask"] if "mask" in kinds else []
        way = draw(_one_of(tuple(ways)))
        width = draw(_whole(1, len(sizes))) if way == "mask" else 1
        if way in ("array", "mask"):
            picks.append((len(items), way, sizes[:width]))
        item: Any = _ALL
        if way == "slice":
            item = _draw_slice(draw, sizes[0])
        elif way == "int":
            item = draw(_whole(-sizes[0], sizes[0] - 1))
        items.append(item)
        dim += width
    if not shape and "mask" in kinds and draw(_LESS):
        picks.append((0, "mask", ()))
        items.append(_ALL)
    for place, item in _draw_picks(draw, picks):
        items[place] = item
    if "ellipsis" in kinds and draw(_LESS):  # in the place of some that are whole, or of none
        first = last = draw(_whole(0, len(items)))
        while last < len(items) and items[last] is _ALL:
            last += 1
        items[first:last] = [...]
    elif "slice" not in kinds or draw(_LESS):
        while items and items[-1] is _ALL:
            items.pop()
    if "none" in kinds and draw(_LESS):
        for _ in range(draw(_whole(1, 2))):
            items.insert(draw(_whole(0, len(items))), None)
    return items[0] if len(items) == 1 and draw(_LESS) else tuple(items)


_ALL = slice(None)


def _draw_slice(draw: DrawFn, size: int) -> slice:
    """From anywhere to anywhere, past both ends too, with any step."""
    ends = _ends(size)
    return slice(draw(ends), draw(ends), draw(_STEPS))


@lru_cache(maxsize=64)
def _ends(size: int) -> SearchStrategy[int | None]:
    return st.sampled_from([None, *range(size + 2), *range(-1, -size - 2, -1)])


_STEPS = st.sampled_from([None, 2, -1, 1, 3, -2])


def _draw_picks(draw: DrawFn, picks: list[tuple[int, str, Shape]]) -> Iterable[tuple[int, Any]]:
    """The index arrays and masks of one index, with their places. What they pick has to broadcast together."""
    empty = any(0 in sizes for _, _, sizes in picks)  # whoever picks from nothing picks nothing, and so do the others
    masks = [(place, sizes) for place, way, sizes in picks if way == "mask"]
    common: Shape = ()
    if masks:
        place, sizes = masks[0]
        bits = 0 if empty else draw(_whole(0, 2 ** math.prod(sizes) - 1))
        common = (bits.bit_count(),)
        yield place, np.array([bits >> i & 1 for i in range(math.prod(sizes))], bool).reshape(sizes)
        for place, sizes in masks[1:]:
            count = common[0] if common[0] <= math.prod(sizes) else 1
            yield place, _mask_of(draw, sizes, count)
    elif picks:
        common = (0,) if empty else draw(_shapes(0, 2, 0, 3))
    for place, way, sizes in picks:
        if way == "array":
            (size,) = sizes
            shape = _stretched(draw, common) if size else common
            yield place, _as_index(draw, size, shape)


def _mask_of(draw: DrawFn, sizes: Shape, count: int) -> Array:
    """A mask that picks so many places."""
    mask, left = np.zeros(math.prod(sizes), bool), list(range(math.prod(sizes)))
    for _ in range(count):
        mask[left.pop(draw(_whole(0, len(left) - 1)))] = True
    return mask.reshape(sizes)


def _as_index(draw: DrawFn, size: int, shape: Shape) -> Any:
    """Places, duplicates among them, as an array of int64 or int32, a Tensor or, where there are some, a list."""
    count = math.prod(shape)
    picked = [byte % (2 * size) for byte in draw(_bytes(count))] if count else []
    array = np.array([p if p < size else size - 1 - p for p in picked], np.int64).reshape(shape)
    form = draw(_FORMS)
    if form == "list" and array.ndim and count:
        return array.tolist()
    if form == "int32":
        return array.astype(np.int32)
    return from_numpy(array) if form == "tensor" else array


_FORMS = st.sampled_from(["array", "list", "tensor", "int32"])
