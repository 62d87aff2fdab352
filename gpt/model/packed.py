"""Several documents in one sequence, of which none sees another one."""

import numpy as np

import tensorlite as tl
from tensorlite import Tensor


class PackedDocuments:
    """The documents in the sequences of a batch: what each token sees, and its position in its document.

    numbers: (B, T), int64: tokens with the same number, which are next to each other, are a document.
    positions: (B, T), int64, from 0 in each document.

    Raises ValueError for numbers of another shape than the token ids.
    """

    def __init__(self, numbers: Tensor, idx: Tensor) -> None:
        if tuple(numbers.shape) != tuple(idx.shape):
            raise ValueError(
                f"GPT: expected the numbers of documents in the shape of the tokens, {tuple(idx.shape)}, got "
                f"{tuple(numbers.shape)}. documents[:, t] is that of the token idx[:, t]"
            )
        T = numbers.shape[1]
        before = tl.tensor(np.tril(np.ones((T, T), bool)), device=idx.device)
        self.seen = (numbers.unsqueeze(2) == numbers.unsqueeze(1)) & before  # (B, T, T)
        self.positions = self.seen.sum(-1) - 1
        self.masks: dict[int, Tensor] = {0: self.seen.unsqueeze(1)}

    def mask(self, window: int) -> Tensor:
        """Return whether each token sees each other one, (B, 1, T, T). window: see `ModelConfig.sliding_window`."""
        if window not in self.masks:
            T = self.seen.shape[1]
            near = np.arange(T) > np.arange(T)[:, None] - window
            self.masks[window] = (self.seen & tl.tensor(near, device=self.seen.device)).unsqueeze(1)
        return self.masks[window]
