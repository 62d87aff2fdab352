"""How well a model predicts a text: log-probabilities, perplexity, and the loss of a data set's splits."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.data import Dataset, Split
from gpt.errors import UserError
from gpt.model import GPT, inference
from gpt.tokenizer import Ids

# Logits that one batch of an evaluation may hold, in numbers: 16 MB in float32.
LOGITS = 2**22


class TokenError(UserError, ValueError):
    """Token ids that a model cannot take: too few, or outside its vocabulary."""


def log_probs(model: GPT, ids: Sequence[int] | Ids, stride: int | None = None) -> NDArray[np.float64]:
    """ln p(ids[i] | the tokens before it) for i = 1 .. N - 1, in nats: shape (N - 1,).

    A text of any length N is read through windows of block_size tokens that move on by `stride` (half a window
    unless given), and each window scores the tokens that the one before did not reach. So a token sees all before
    it as long as they fit, and later block_size - stride of them at least; stride=1 always gives the most that fit.
    Raises TokenError for fewer than two ids or one outside the vocabulary.
    """
    tokens = valid_tokens(model, ids)
    T = model.config.block_size
    stride = max(1, T // 2) if stride is None else stride
    if not 1 <= stride <= T:
        raise ValueError(f"log_probs: stride = {stride}, expected 1 to block_size = {T}")
    if len(tokens) < 2:
        raise TokenError(f"a log-probability needs at least 2 tokens, got {len(tokens)}: the first is given")
    result = np.empty(len(tokens) - 1)
    done = 0  # targets that are scored; target i is ids[i + 1]
    with inference(model):
        while done < len(result):
            stop = min(done + (stride if done else T), len(result))
            start = max(0, stop - T)
            x = as_input(model, tokens[None, start:stop])
            logp = F.log_softmax(model(x)[0][0], dim=-1)  # (stop - start, V)
            targets = tokens[start + 1 : stop + 1]
            chosen = logp.cpu().numpy()[np.arange(len(targets)), targets]
            result[done:stop] = chosen[done - start :]
            done = stop
    return result


def perplexity(model: GPT, ids: Sequence[int] | Ids) -> float:
    """exp of the mean negative log-probability a token, of ids[1:]: V for a model that knows nothing, 1 at best."""
    return math.exp(-log_probs(model, ids).mean())


def evaluate(model: GPT, dataset: Dataset, split: Split) -> float:
    """Mean loss in nats a token on a whole split, in non-overlapping windows: every token but the first, once.

    The first token of a window sees itself alone, so this is a little above what sliding windows give.
    """
    T = model.config.block_size
    batch_size = min(64, max(1, LOGITS // (T * model.config.vocab_size)))
    return mean_loss(model, dataset.windows(split, batch_size, T))


def mean_loss(model: GPT, batches: Iterable[tuple[Ids, Ids]]) -> float:
    """The loss in nats a token over (inputs, targets), (B, T) each: every token has the same weight."""
    total = count = 0.0
    with inference(model):
        for x, y in batches:
            loss = model(as_input(model, x), as_input(model, y))[1]
            total += float(loss.item()) * y.size
            count += y.size
    return total / count


def valid_tokens(model: GPT, ids: Sequence[int] | Ids) -> Ids:
    """`ids` as a 1-d int64 array, or TokenError: a GPU would take an id outside the vocabulary for another one."""
    tokens = np.asarray(ids, dtype=np.int64).reshape(-1)
    V = model.config.vocab_size
    bad = np.flatnonzero((tokens < 0) | (tokens >= V))
    if bad.size:
        raise TokenError(f"token id {tokens[bad[0]]} at position {bad[0]} is outside the vocabulary of {V} tokens")
    return tokens


def as_input(model: GPT, tokens: Ids) -> tl.Tensor:
    """Token ids as a Tensor where the model is."""
    return tl.tensor(tokens, device=model.wte.weight.device)
