"""Hypothesis strategies for the arguments of ops, chosen so that mistakes show.

    from hypothesis import given
    from tensorlite.testing import indices, matching, tensors

    @given(tensors((3, 4)), indices((3, 4)))
    def test_indexing(x, index):
        np.testing.assert_array_equal(x[index].numpy(), x.numpy()[index])

Numbers are multiples of 1/8. So each of them is exactly at a kink of ``abs``, ``relu`` or a similar function, or at
least 1/8 away from it, where difference quotients can be trusted. No value is drawn and rejected. An entry of
an array takes one byte, so that drawing is fast. Examples shrink to few dimensions of size 1, to the entries 0, 1, -1,
2, ... in this order, and to contiguous memory.
"""

from .drawn_tensors import matching, tensors
from .entries import away_from, elements, tie_free
from .indexing import axes, indices
from .memory_layouts import layouts
from .sizes import broadcastable, shapes

__all__ = [
    "away_from", "axes", "broadcastable", "elements", "indices", "layouts", "matching", "shapes", "tensors", "tie_free",
]  # fmt: skip
