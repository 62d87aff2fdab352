"""The attention weights of a model: how much each position takes from each one that it sees, by layer and head."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.inspect.tokens import TokenIds, token_tensor
from gpt.model import GPT, CausalSelfAttention, CrossAttention, EncoderDecoder, eval_mode
from gpt.tokenizer import TokenError, check_token_ids

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
    layers: list[Any] = [block.attn for block in model.h]
    for number, layer in enumerate(layers):
        if not isinstance(layer, CausalSelfAttention):
            raise TypeError(
                f"attention_weights: expected CausalSelfAttention in layer {number}, got {type(layer).__name__}. "
                "Another layer does not say what its weights are"
            )
    with eval_mode(model), recorded(layers) as found:
        model.hidden_states(idx)
    return np.stack(found)


def cross_attention_weights(model: EncoderDecoder, source: TokenIds, target: TokenIds) -> Weights:
    """Return the cross attention weights (L, H, T, S), float32, of T target ids to S source ids.

    weights[l, h, t, s] is the share that target position t takes of source position s, in head h of layer l of the
    decoder. Each row sums to 1. The row of position t is for the prediction of the token after target[t]; a target
    begins with the start token. They are the weights without dropout, in either mode of the model.

    Raises TypeError for another model, and TokenError, a ValueError, for no tokens, more than block_size, or an id
    outside the vocabulary.
    Source: Vaswani et al. 2017, section 3.2.3.
    """
    if not isinstance(model, EncoderDecoder):
        raise TypeError(
            f"cross_attention_weights: expected an EncoderDecoder, got {type(model).__name__}. "
            "attention_weights is for a GPT"
        )
    sides = [(model.encoder.config, source, "source"), (model.config, target, "target")]
    tensors = []
    for config, ids, name in sides:
        array = check_token_ids(ids, config.vocab_size)
        if not 0 < array.size <= config.block_size:
            raise TokenError(
                f"cross_attention_weights: expected 1 to block_size = {config.block_size} tokens as the {name}, "
                f"got {array.size}"
            )
        tensors.append(tl.tensor(array[None], device=model.device))
    with eval_mode(model), recorded([block.crossattention for block in model.decoder.h]) as found:
        model(*tensors)
    return np.stack(found)


@contextmanager
def recorded(layers: Sequence[CausalSelfAttention | CrossAttention]) -> Iterator[list[Weights]]:
    """Context manager that gives a list, to which each call of these layers in this thread adds its weights."""
    found: list[Weights] = []
    this = threading.get_ident()

    def record(layer: CausalSelfAttention | CrossAttention, args: tuple[Any, ...]) -> None:
        if threading.get_ident() == this:  # Another thread may use the same model meanwhile.
            found.append(weights_of(layer, args))

    handles = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def weights_of(layer: CausalSelfAttention | CrossAttention, args: tuple[Any, ...]) -> Weights:
    """Return the weights (H, T, S) of a layer for its arguments, of which the first is its input x (1, T, C).

    The attention of the layer computes them itself: with the rows of the identity as values, its output is the weights.
    """
    if isinstance(layer, CausalSelfAttention):
        q, k, _, mask = layer.inputs_of_attention(args[0])
    else:
        q, k, _, mask = layer.inputs_of_attention(*args)
    T, S = q.shape[-2], k.shape[-2]
    is_causal = isinstance(layer, CausalSelfAttention) and mask is None
    identity = tl.eye(S, dtype=q.dtype, device=q.device)
    identity = identity.expand(*k.shape[:-2], S, S)
    weights = F.scaled_dot_product_attention(q, k, identity, mask, is_causal=is_causal)
    return weights.reshape(layer.n_head, T, S).numpy(force=True).astype(np.float32)
