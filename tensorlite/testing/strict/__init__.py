"""The device ``"strict"``: NumPy's arithmetic with arrays that behave like CuPy's, for tests without a GPU.

    import tensorlite.testing.strict
    x = tl.tensor([1.0, 2.0], device="strict")

Importing this module registers the device and changes nothing else. Code that runs on it also runs on a GPU as far as
these differences between NumPy and CuPy matter:

- Nothing is converted implicitly. An array of the device never becomes a NumPy array. A call that mixes it with NumPy
  arrays or lists is an error.
- Reductions and single entries are 0-d arrays of the device. Functions take CuPy's arguments, not all of NumPy's.
- Memory of ``empty`` and ``empty_like`` is filled with NaN, or with the largest integer, so that code that forgets to
  fill it fails.
- An index array that is out of range wraps around silently, and arithmetic gives no warnings.
- NumPy's scalars count as arrays of their dtype: ``np.float64(3) * x`` is float64 for a float32 ``x``.
- Reading a value on the host makes a program wait for a GPU. :func:`count_syncs` lists the lines that do, and
  :func:`forbid_syncs` makes it an error.

It is stricter than CuPy in some places: NumPy's functions reject its arrays, and iterating over one is an error. It
cannot show the numerics of a GPU's kernels, nor their speed. All its kernels are those of ``backends.reference``.
"""

from . import namespace as _namespace  # noqa: F401 - registers the device
from .syncs import SYNCS, Sync, SyncError, SyncLog, allow_syncs, count_syncs, forbid_syncs

__all__ = ["SYNCS", "Sync", "SyncError", "SyncLog", "allow_syncs", "count_syncs", "forbid_syncs"]
