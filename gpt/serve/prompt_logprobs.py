"""Log-probabilities of the tokens of a prompt, which `echo` with `logprobs` asks for."""

import codecs
import math

import numpy as np

from gpt.generation.engine import Engine
from gpt.generation.logprobs import TokenLogProb
from gpt.generation.processors import Logits, largest, log_softmax
from gpt.generation.sampling import check_finite
from gpt.serve.served import ServedModel
from gpt.serve.texts import PlacedToken
from gpt.tokenizer import Ids

AT_ONCE = 64  # tokens, so that other texts go on between them, and the logits of all vocabularies fit the memory


async def prompt_logprobs(served: ServedModel, ids: Ids, alternatives: int) -> list[PlacedToken]:
    """Return the tokens of a prompt with log-probabilities; that of the first one is NaN, because nothing is before it.

    The model reads the prompt between the steps of the other texts.
    """
    engine, tokens = Engine(served.model), [int(token) for token in ids]
    found = [TokenLogProb(tokens[0], math.nan, ())]
    logits = (await served.scheduler.run(engine.prefill, tokens[:1]))[None]
    for start in range(1, len(tokens), AT_ONCE):
        new = tokens[start : start + AT_ONCE]
        found.append(likely(new[0], logits[-1], alternatives))
        logits = await served.scheduler.run(engine.extend, new)
        found += [likely(token, row, alternatives) for token, row in zip(new[1:], logits)]
    return placed(served, found)


def likely(token: int, logits: Logits, alternatives: int) -> TokenLogProb:
    """Return a token with its log-probability and those of the likeliest ones, for logits (V,)."""
    check_finite(logits)
    logs = log_softmax(np.asarray(logits, np.float64))
    best = largest(logs, alternatives) if alternatives else ()
    return TokenLogProb(token, float(logs[token]), tuple((int(i), float(logs[i])) for i in best))


def placed(served: ServedModel, tokens: list[TokenLogProb]) -> list[PlacedToken]:
    """Return tokens with the number of characters before each."""
    decoder, offset, found = codecs.getincrementaldecoder("utf-8")(errors="replace"), 0, []
    for item in tokens:
        found.append(PlacedToken(item, offset))
        offset += len(decoder.decode(served.tokenizer.decode_bytes([item.token])))
    return found
