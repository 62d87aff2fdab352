"""Strategies for tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias, overload

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from ...dtypes import is_floating
from ...errors import DTypeError
from ...tensors.creation import from_numpy
from ...tensors.tensor import Tensor
from .arguments import Shape, as_shape
from .entries import ElementsLike, TieFree, draw_entries, entry_source
from .memory_layouts import C_ORDER, lay_out, layout_choices
from .signatures import Signature
from .sizes import shapes

__all__ = ["Sources", "draw_tensor", "matching", "sources", "tensors"]


def draw_tensor(
    draw: DrawFn, shape: Shape, source: SearchStrategy[Any] | TieFree, dtype: np.dtype[Any], with_layouts: bool
) -> Tensor:
    """A tensor of this shape, whose memory may be laid out in any way."""
    way = draw(layout_choices(shape, _may_be_constant(shape, source))) if with_layouts else C_ORDER
    array = draw_entries(draw, shape, source, dtype)  # as many entries for each layout: fewer would count as simpler
    return from_numpy(array if way is C_ORDER else lay_out(array, way))


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
    source, target = entry_source("tensors", elements, dtype)
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
        sizes = st.just(as_shape("tensors", shape))
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
    return [entry_source(name, kind, None) for kind in kinds]


@st.composite
def _matching_tensors(draw: DrawFn, signature: Signature, kinds: Sources, layouts: bool) -> tuple[Tensor, ...]:
    found, _ = signature.draw(draw)
    return tuple(draw_tensor(draw, shape, *kind, layouts) for shape, kind in zip(found, kinds))
