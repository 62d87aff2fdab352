"""The device ``"strict"``: NumPy's arithmetic behind arrays that behave as CuPy's do, for tests without a GPU.

    import tensorlite.testing.strict
    x = tl.tensor([1.0, 2.0], device="strict")

Importing this module makes the device known; nothing else changes. What runs on it runs on a GPU, as far as these go:

- Nothing converts by itself: an array of the device never becomes a NumPy array, and meets none, nor a list, in a call.
- Reductions and single entries are 0-d arrays of the device, and functions take CuPy's arguments, not all of NumPy's.
- Fresh memory, of ``empty`` and ``empty_like``, holds NaN, or the largest integer: who forgets to fill it will notice.
- An index array out of range wraps around without a word, and no arithmetic warns.
- NumPy's scalars count as arrays of their dtype: ``np.float64(3) * x`` is float64 for a float32 ``x``.
- Reading a value on the host is what makes a program wait for a GPU. :func:`count_syncs` lists where that happens,
  :func:`forbid_syncs` makes it an error.

It is stricter than CuPy in places: NumPy's functions do not take its arrays, and nobody iterates over one. What it
cannot show is a kernel's own numerics, and how long anything takes. Every kernel is the one of ``kernels.reference``.
"""

from . import namespace as _namespace  # noqa: F401 - registers the device
from .syncs import SYNCS, Sync, SyncError, SyncLog, allow_syncs, count_syncs, forbid_syncs

__all__ = ["SYNCS", "Sync", "SyncError", "SyncLog", "allow_syncs", "count_syncs", "forbid_syncs"]
