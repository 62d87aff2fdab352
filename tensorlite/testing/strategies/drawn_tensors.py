"""Strategies for tensors of all values, shapes and memory layouts."""

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
    """Draw a tensor of this shape, in any memory layout if ``with_layouts``."""
    layout = draw(layout_choices(shape, _may_be_constant(shape, source))) if with_layouts else C_ORDER
    # Draw the same number of bytes for each layout, because hypothesis shrinks to the fewest bytes.
    array = draw_entries(draw, shape, source, dtype)
    return from_numpy(array if layout is C_ORDER else lay_out(array, layout))


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
    """Draw tensors on the CPU.

    shape: a shape or a strategy for shapes; None for :func:`shapes`.
    dtype: the dtype; None for that of ``elements``: int64 for ``"int"``, bool for ``"bool"``, otherwise float64.
    elements: a kind that :func:`elements` knows, a strategy for one entry, or :func:`tie_free`; None for the kind
        that fits the dtype: ``"real"``, ``"int"`` or ``"bool"``.
    layouts: whether to draw all memory layouts that :func:`layouts` lists, or C-contiguous ones only.
    requires_grad: whether the tensors require grad.
    Raises ValueError for an unknown kind, and DTypeError if a dtype without gradients is to require grad.
    """
    source, target = entry_source("tensors", elements, dtype)
    if not isinstance(layouts, bool):
        raise TypeError(f"tensors: expected layouts to be True or False, got {layouts!r:.60}")
    if requires_grad and not is_floating(target):
        raise DTypeError(f"tensors: only floating point tensors can require grad, got {target}")
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
    """Draw shapes that belong together, or tensors of such shapes: ``matching("(...,m,k),(k,n>=1)->(...,m,n)")``.

    Equal names are equal sizes, from 0 to 3. Numbers are sizes. ``n>=1`` excludes 0 for n. ``()`` is a 0-d tensor.
    ``...`` stands for 0 to 2 dimensions that broadcast with those of the other inputs. The part after the arrow is not
    drawn.

    elements: None to draw shapes; else the kind of entries, or a list with one for each input, to draw tensors. They
        have float64, or int64 and bool for the kinds ``int`` and ``bool``.
    layouts: whether to draw all memory layouts.
    Raises ValueError for an invalid signature, or if the list does not have one kind for each input.
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
    """Return the entry strategy and dtype of each input. Raise ValueError for a list of another length."""
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
