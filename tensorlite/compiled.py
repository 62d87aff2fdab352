"""What compiled functions of one's own can be made of: kernels to call from them, and threads that share their loops.

A model that writes one token at a time spends its time between small ops, in Python. Where that matters, a function
that numba compiles can do a whole layer: ``gpt/model/compiled_decode.py`` has one. Importing this needs numba, the
extra ``fast``.

    >>> import numpy as np
    >>> from tensorlite import compiled
    >>> @compiled.njit(nogil=True)
    ... def layer(board, x, gain, weight, y):
    ...     normed = np.empty_like(x)
    ...     compiled.layer_norm(x, gain, None, 1e-5, normed)
    ...     compiled.linear(board, normed, weight, None, y)
    >>> x, gain, y = np.arange(4, dtype=np.float32), np.ones(4, np.float32), np.empty(2, np.float32)
    >>> compiled.run(layer, x, gain, np.ones((2, 4), np.float32), y)
    >>> y
    array([0., 0.], dtype=float32)

A board is where threads find the work that they share. ``run(f, *args)`` calls ``f(board, *args)`` with one, and f
hands it on to what it calls. 0 is no board: everything stays on the calling thread.
"""

from __future__ import annotations

from .backends.cpu.thread_pool import load_crew

if load_crew() is None:
    raise ImportError(
        "tensorlite.compiled needs numba: pip install 'tensorlite[fast]' (and TENSORLITE_JIT must not be 0)"
    )

from .backends.cpu.compiled.parallel_for import njit, share, task
from .backends.cpu.compiled.row_kernels import attend, gelu, layer_norm, linear
from .backends.cpu.thread_pool import share as run

__all__ = ["attend", "gelu", "layer_norm", "linear", "njit", "run", "share", "task"]
