"""Signatures, which describe the shapes of several tensors that belong together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from .arguments import Shape
from .primitives import integers
from .sizes import draw_broadcastable_to, size_choices

__all__ = ["Signature"]

# Most examples have a batch dimension above 1, so that mistakes in broadcasting show.
_BATCH_DIMS = st.sampled_from([0, 1, 2, 1, 2])
_BATCH_SIZES = st.sampled_from([1, 2, *[2, 1, 2] * 4, 0])

# Lengths of rows that a loop over blocks of 4, 8, 16 or 32 entries leaves a rest of. One example in
# six has such a row. Most are longer than 32, because these have the rests of smaller blocks, too.
# They ascend, because hypothesis shrinks to the first one that fails.
_IS_LONG = st.sampled_from([False] * 5 + [True])
_LENGTHS = st.sampled_from([5, 9, 17, 23, 33, 34, 35, 35, 37, 37, 39, 41])
_MAX_ENTRIES = 128  # of the largest input with a long row


@dataclass(frozen=True)
class _Dim:
    """A dimension of a signature: a name or a size."""

    name: str
    size: int | None = None


Core: TypeAlias = "tuple[bool, tuple[_Dim, ...]]"  # whether "..." leads, and the dims


@dataclass(frozen=True)
class Signature:
    """The shapes of inputs and results, such as ``"(m,k),(k,n)->(m,n)"``, which ``Signature.parse`` reads.

    - Equal names are equal sizes, numbers are sizes, ``()`` is a 0-d tensor.
    - ``n>=1``, written once, excludes 0 for n.
    - ``...``, first in its brackets, stands for 0 to 2 dimensions, which broadcast with the ``...`` of the others.
    - The right side may be omitted. For several results it has several brackets.
    """

    text: str
    inputs: tuple[Core, ...]
    outputs: tuple[Core, ...] | None
    least: tuple[tuple[str, int], ...]

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Return the Signature of a text. Raise ValueError, which shows the mistake, if it is invalid."""
        if not isinstance(text, str):
            raise TypeError(f"expected a signature, a string such as '(m,n),(n)->(m)', got {text!r:.60}")
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
                    raise _bad(text, f"the result has the dimension {dim.name}, which no input has")
        return cls(text, inputs, outputs, tuple(least.items()))

    def draw(self, draw: DrawFn, long_rows: bool = False) -> tuple[tuple[Shape, ...], tuple[Shape, ...] | None]:
        """Draw the shapes of the inputs and, if the signature has a right side, of the results.

        long_rows: whether some of the examples have a dimension of up to 41.
        """
        least, sizes = dict(self.least), dict[str, int]()
        for _, dims in self.inputs:
            for dim in dims:
                if dim.name not in sizes:
                    low = least.get(dim.name, 0)
                    sizes[dim.name] = draw(size_choices(low, max(3, low + 2))) if dim.size is None else dim.size
        names = [name for name, size in sizes.items() if not name.isdecimal() and size]
        # Draw this for empty inputs, too. Else they would be simpler than others, and examples would shrink to them.
        if long_rows and draw(_IS_LONG) and names:
            # Three times of four it is the last one, which most loops run along.
            chosen = names[-1] if draw(integers(0, 3)) else names[draw(integers(0, len(names) - 1))]
            length = max(draw(_LENGTHS), least.get(chosen, 0))
            largest = max(
                math.prod(length if dim.name == chosen else sizes[dim.name] for dim in dims) for _, dims in self.inputs
            )
            if largest <= _MAX_ENTRIES:
                sizes[chosen] = length
        batch: Shape = ()
        if any(leads for leads, _ in self.inputs):
            batch = tuple(draw(_BATCH_SIZES) for _ in range(draw(_BATCH_DIMS)))
        leads = [draw_broadcastable_to(draw, batch) if lead else () for lead, _ in self.inputs]
        cores = [tuple(sizes[dim.name] for dim in dims) for _, dims in self.inputs]
        given = tuple(lead + core for lead, core in zip(leads, cores))
        if self.outputs is None:
            return given, None
        full_batch = np.broadcast_shapes(*leads)
        return given, tuple(
            (full_batch if lead else ()) + tuple(sizes[d.name] if d.size is None else d.size for d in dims)
            for lead, dims in self.outputs
        )


def _bad(text: str, why: str) -> ValueError:
    return ValueError(f"signature {text!r}: {why}. A valid example: '(...,m,k),(k,n>=1)->(...,m,n)'")


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
                why = "'...' must be the first in its brackets" if item == "..." else f"{item!r} is not a dimension"
                raise _bad(text, why)
            if match["size"]:
                dims.append(_Dim(item, int(item)))
            else:
                dims.append(_Dim(match["name"]))
                if match["low"]:
                    low = int(match["low"])
                    if least.setdefault(match["name"], low) != low:
                        raise _bad(text, f"{match['name']} has two minima, {least[match['name']]} and {low}")
        yield leads, tuple(dims)
