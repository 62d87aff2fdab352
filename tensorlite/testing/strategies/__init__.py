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

from .drawn_tensors import matching, tensors
from .entries import away_from, elements, tie_free
from .indexing import axes, indices
from .memory_layouts import layouts
from .sizes import broadcastable, shapes

__all__ = [
    "away_from", "axes", "broadcastable", "elements", "indices", "layouts", "matching", "shapes", "tensors", "tie_free",
]  # fmt: skip
