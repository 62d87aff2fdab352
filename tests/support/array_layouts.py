"""Memory layouts of NumPy arrays, for tests of kernels."""

import numpy as np


def strided(a):
    """Return an array with gaps between its entries."""
    big = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    big[..., ::2] = a
    return big[..., ::2]


LAYOUTS = {
    "contiguous": lambda a: a,
    "transposed": np.asfortranarray,
    "strided": strided,
    "reversed": lambda a: a[::-1].copy()[::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
}
"""Functions of an array with at least one dimension. All but broadcast keep its values."""
