"""Which keys a query sees: those before it and its own, with a sliding window only the last few of them."""

import numpy as np

import tensorlite as tl
from tensorlite import Tensor


class WindowMask:
    """The masks of a sliding window for whole texts. They are computed as far as positions are used.

    window: how many positions a query sees, its own the last. block_size: the context of the model.
    """

    def __init__(self, window: int, block_size: int) -> None:
        self.window, self.block_size = window, block_size
        self.tables: dict[str, Tensor] = {}

    def __call__(self, length: int, like: Tensor) -> Tensor:
        """Return whether each query sees each key, (length, length), booleans on the device of `like`."""
        device = str(like.device)
        if device not in self.tables or self.tables[device].shape[0] < length:
            # Powers of two, so that a longer text computes the table a few times only.
            size = min(self.block_size, max(256, 1 << (length - 1).bit_length()))
            self.tables[device] = visible_keys(size, size, self.window, None).to(like.device)
        return self.tables[device][:length, :length]


def visible_keys(T: int, S: int, window: int, padding: np.ndarray | None) -> Tensor:
    """Return whether each of the last T of S positions sees each of the S keys: (T, S), or (B, 1, T, S) with padding.

    A query sees the keys before it and its own, with a window only that many. It sees no padding, which is (B,).
    """
    query, key = np.arange(S - T, S)[:, None], np.arange(S)
    seen = key <= query
    if window:
        seen &= key > query - window
    return tl.tensor(seen if padding is None else seen & (key >= padding[:, None, None, None]))
