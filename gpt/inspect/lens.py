"""The logit lens: what the head of a model says of the residual stream after each layer.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt.inspect.tokens import TokenIds, token_tensor
from gpt.model import GPT, eval_mode
from tensorlite import Tensor


@dataclass(frozen=True)
class Lens:
    """The likeliest next tokens after each layer and position, the likeliest first.

    Row 0 is what the embedding alone predicts, and row l + 1 what layer l does. So the last row is the model's own.

    ids: (L + 1, T, k), int64. probabilities: their probabilities, (L + 1, T, k), float32.
    """

    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def logit_lens(model: GPT, ids: TokenIds, top: int = 10, last: int | None = None) -> Lens:
    """Return the `top` likeliest tokens that each layer of a model would predict after each of T token ids.

    last: at how many of the last positions, which then are the T of the result; None for all. The head of a large
    vocabulary takes most of the time.

    The final norm and the head, which read the last layer, read the other layers, too. top: at least 1; a vocabulary
    with fewer tokens gives all of them.

    Raises ValueError for another `top` or `last`, and TokenError, which is one, for no tokens, more than block_size, or
    an id outside the vocabulary.
    """
    if top < 1:
        raise ValueError(f"logit_lens: expected top >= 1, got {top}")
    if last is not None and last < 1:
        raise ValueError(f"logit_lens: expected last >= 1, got {last}")
    idx = token_tensor("logit_lens", model, ids)
    first = 0 if last is None else max(0, idx.shape[1] - last)
    streams: list[Tensor] = []  # (1, T, C) each
    this = threading.get_ident()

    def record_input(block: object, args: tuple[Any, ...]) -> None:
        if threading.get_ident() == this:  # Another thread may use the same model meanwhile.
            streams.append(args[0])

    def record(block: object, args: tuple[Any, ...], output: Tensor) -> None:
        if threading.get_ident() == this:
            streams.append(output)

    handles = [model.h[0].register_forward_pre_hook(record_input)]
    handles += [block.register_forward_hook(record) for block in model.h]
    try:
        with eval_mode(model):
            model.hidden_states(idx)
            found = [likeliest(model.head(model.ln_f(x[:, first:])), top) for x in streams]
    finally:
        for handle in handles:
            handle.remove()
    return Lens(np.stack([ids for ids, _ in found]), np.stack([probabilities for _, probabilities in found]))


def likeliest(logits: Tensor, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids and probabilities (T, k) of the largest of logits (1, T, V)."""
    values = logits.numpy(force=True)[0]
    values = values - values.max(-1, keepdims=True)
    # A sort of the whole vocabulary takes ten times as long.
    ids = np.argpartition(values, -min(top, values.shape[-1]), axis=-1)[:, -top:]
    ids = np.take_along_axis(ids, np.argsort(-np.take_along_axis(values, ids, -1), axis=-1), -1)
    largest = np.exp(np.take_along_axis(values, ids, -1))
    probabilities = largest / np.exp(values).sum(-1, keepdims=True, dtype=np.float64)
    return ids.astype(np.int64), probabilities.astype(np.float32)
