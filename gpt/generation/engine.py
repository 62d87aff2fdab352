"""Generation: one token after the other, each drawn from what the model predicts."""

import itertools
import math
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpt.errors import UserError
from gpt.evaluate import TokenError, as_input, valid_tokens
from gpt.model import GPT, KeyValueCache, inference
from gpt.tokenizer import Ids

if TYPE_CHECKING:
    from gpt.model.compiled_decode import Decoder


TOLERANCE = 1e-3  # of the largest logit: rounding is a hundred times less, another formula more


class SampleError(UserError, ValueError):
    """Options that nothing can be drawn with."""


def generate(
    model: GPT,
    ids: Sequence[int] | Ids,
    max_new_tokens: int | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    stop_tokens: Collection[int] = (),
    seed: int | None = None,
) -> Iterator[int]:
    """Yields the tokens that follow `ids`, as they are drawn, until `max_new_tokens` (None: without end) or a stop.

    ids: the prompt, at least one token (`gpt.tokenizer.start_ids` for nothing in particular). The model sees its
        last block_size tokens, and of a longer text between half of block_size and all of it: see below.
    temperature: the logits are divided by it; 0 always takes the likeliest token.
    top_k: only the k likeliest tokens are drawn from; of equal ones the lower ids.
    stop_tokens: the first of these ends the text; it is not yielded.
    seed: of the draws: the same seed gives the same text. None: a new one each time.

    The prompt is read in one pass, then each token alone, with the keys and values of those before it in a cache. Once
    that holds block_size tokens, the model starts anew from the last block_size // 2: what is cached depends on how far
    from the start of its context a token stood, so the oldest ones cannot just be dropped.

    The model's mode and the grad mode are those of the caller between two tokens; its weights must stay as they are.
    Raises SampleError or TokenError at once, for options or ids that cannot be used.
    """
    tokens = valid_tokens(model, ids)
    if not tokens.size:
        raise TokenError("a prompt needs at least one token; gpt.tokenizer.start_ids(tokenizer) gives a start")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise SampleError(f"temperature = {temperature}: expected a finite number >= 0 (0 takes the likeliest token)")
    if top_k is not None and top_k < 1:
        raise SampleError(f"top_k = {top_k}: expected at least 1, or None for all tokens")
    if max_new_tokens is not None and max_new_tokens < 0:
        raise SampleError(f"max_new_tokens = {max_new_tokens}: expected at least 0, or None for no limit")
    rng = np.random.default_rng(seed)
    stops = frozenset(int(token) for token in stop_tokens)

    def drawn() -> Iterator[int]:
        block_size = model.config.block_size
        cache, evaluating = KeyValueCache(model), inference(model)
        decoder, sought = None, False
        recent = deque(tokens.tolist(), maxlen=max(1, block_size // 2))  # what a new start begins with
        new = tokens[-block_size:].tolist()  # what the cache does not hold yet
        for _ in itertools.count() if max_new_tokens is None else range(max_new_tokens):
            if cache.length == block_size:
                cache.length, new = 0, list(recent)
            if len(new) == 1 and not (decoder.holds() if decoder is not None else sought):
                decoder, sought = decoder_of(model, cache, new[0]), True
            if decoder is not None and len(new) == 1:
                logits = decoder.next_logits(new[0]).astype(np.float64)
            else:
                with evaluating:
                    logits = next_logits(model, new, cache)
            token = draw(logits, temperature, top_k, rng)
            if token in stops:
                return
            yield token
            recent.append(token)
            new = [token]

    return drawn()


def decoder_of(model: GPT, cache: KeyValueCache, token: int) -> "Decoder | None":
    """What reads one token faster than the model itself, and says the same of this one; None if nothing does."""
    try:
        from gpt.model.compiled_decode import Decoder
    except ImportError:  # nothing is compiled here
        return None
    decoder = Decoder.of(model, cache)
    if decoder is None:
        return None
    # Who has changed what a layer does, in its source or from outside, shall not read a text of the old model.
    length = cache.length
    found = decoder.next_logits(token)
    cache.length = length
    with inference(model):
        own = next_logits(model, [token], cache)
    cache.length = length
    with np.errstate(invalid="ignore"):  # of broken weights: then the model shall be the one to say so
        agree = bool((np.abs(found - own) <= TOLERANCE * np.abs(own).max()).all())
    return decoder if agree else None


def next_logits(model: GPT, ids: Sequence[int] | Ids, cache: KeyValueCache | None = None) -> NDArray[np.float64]:
    """The logits (V,) of the token after `ids`, (T,), which follow those in the cache; on the host.

    To be called in `inference(model)`. T and what the cache holds are at most block_size tokens together.
    """
    x = model.features(as_input(model, np.asarray(ids)[None]), cache)  # (1, T, C)
    return model.head(x[0, -1]).cpu().numpy().astype(np.float64)  # the last position's alone


def draw(logits: NDArray[np.float64], temperature: float, top_k: int | None, rng: np.random.Generator) -> int:
    """One token id from softmax(logits / temperature) over the `top_k` largest logits, for logits (V,)."""
    if not np.isfinite(logits).all():
        raise SampleError("the model's logits are not finite: its weights are broken, take an earlier checkpoint")
    if temperature == 0:
        return int(logits.argmax())
    order = np.arange(len(logits)) if top_k is None else np.argsort(-logits, kind="stable")[:top_k]
    with np.errstate(over="ignore"):  # far below the largest, a tiny temperature makes -inf: probability 0
        p = np.exp((logits[order] - logits[order].max()) / temperature)
    cumulative = p.cumsum()
    place = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(order[place])
