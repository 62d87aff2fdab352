"""The attention weights of a model: how much each position takes from each earlier one, by layer and head."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.inspect.tokens import TokenIds, token_tensor
from gpt.model import GPT, CausalSelfAttention, eval_mode
from tensorlite import Tensor

Weights = NDArray[np.float32]


def attention_weights(model: GPT, ids: TokenIds) -> Weights:
    """Return the attention weights (L, H, T, T), float32, of a model for one text of T token ids.

    weights[l, h, t, s] is the share that position t takes of the values of position s, in head h of layer l. Each row
    sums to 1 and has zeros after t. They are the weights without dropout, in either mode of the model.

    Raises TokenError, a ValueError, for no tokens, more than block_size, or an id outside the vocabulary. Raises
    TypeError for an attention layer of another class than `gpt.model.CausalSelfAttention`.
    Source: Vaswani et al. 2017, "Attention Is All You Need", equation 1.
    """
    idx = token_tensor("attention_weights", model, ids)
    found: list[Weights] = []
    this = threading.get_ident()

    def record(layer: CausalSelfAttention, args: tuple[Any, ...]) -> None:
        if threading.get_ident() == this:  # Another thread may use the same model meanwhile.
            found.append(weights_of(layer, args[0]))

    layers = [block.attn for block in model.h]
    for number, layer in enumerate(layers):
        if not isinstance(layer, CausalSelfAttention):
            raise TypeError(
                f"attention_weights: expected CausalSelfAttention in layer {number}, got {type(layer).__name__}. "
                "Another layer does not say what its weights are"
            )
    handles = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        with eval_mode(model):
            model.hidden_states(idx)
    finally:
        for handle in handles:
            handle.remove()
    return np.stack(found)


def weights_of(layer: CausalSelfAttention, x: Tensor) -> Weights:
    """Return the weights (H, T, T) of a layer for its input x (1, T, C).

    The attention of the layer computes them itself: with the rows of the identity as values, its output is the weights.
    """
    T = x.shape[1]
    q, k, _, mask = layer.inputs_of_attention(x)
    identity = tl.eye(T, dtype=q.dtype, device=q.device)
    identity = identity.expand(*k.shape[:-2], T, T)
    weights = F.scaled_dot_product_attention(q, k, identity, mask, is_causal=mask is None)
    return weights.reshape(layer.n_head, T, T).numpy(force=True).astype(np.float32)
