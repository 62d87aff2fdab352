"""The tokens that a picture is of: checked ids, and their texts with the white space visible."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.errors import short
from gpt.model import GPT
from tensorlite import Tensor


def token_tensor(name: str, model: GPT, ids: Sequence[int] | NDArray[np.integer[Any]]) -> Tensor:
    """Return ids, T integers, as a Tensor (1, T), int64, on the device of a model.

    name: the function that the messages name. Raises TypeError for anything else than integers, ValueError for other
    shapes, no tokens or more than block_size, IndexError for an id outside the vocabulary.
    """
    array = np.asarray(ids)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name}: expected the token ids of one text, (T,), got shape {array.shape}. Pass one list")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected token ids that are integers, got {short(ids)}. Use tokenizer.encode(text)")
    vocab_size, block_size = model.config.vocab_size, model.config.block_size
    if array.size > block_size:
        raise ValueError(
            f"{name}: expected at most block_size = {block_size} tokens, got {array.size}. Pass ids[-{block_size}:]"
        )
    wrong = array[(array < 0) | (array >= vocab_size)]
    if wrong.size:
        raise IndexError(f"{name}: token {wrong[0]} is not in the vocabulary of {vocab_size}")
    return tl.tensor(array.astype(np.int64)[None], device=model.device)
