"""Translation: the target that an encoder-decoder writes for a source, by greedy decoding or beam search."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.generation.beam import Beam, check_numbers, check_penalty, search
from gpt.generation.cache_rows import select_rows
from gpt.generation.engine import BatchLogits
from gpt.generation.request import checked_stops
from gpt.model import EncoderDecoder, KVCache, Memory, eval_mode, pad_sequences
from gpt.tokenizer import Ids, TokenError, check_token_ids


def translate(
    model: EncoderDecoder,
    sources: Sequence[Sequence[int] | Ids],
    start_token: int,
    stop_tokens: Collection[int] = (),
    max_new_tokens: int | None = None,
    num_beams: int = 1,
    length_penalty: float = 1.0,
) -> list[Beam]:
    """Return the target that a model writes for each source: the likeliest token each time, or by beam search.

    sources: token ids (S,) each, read as one batch. start_token: the first token of every target in training; the
        result does not have it. stop_tokens: those that end a target; the result does not have them.
    max_new_tokens: at most block_size of the decoder, which is meant if it is not given.
    num_beams: 1 is greedy decoding, of all sources at once; more is `beam_search`, one source after the other.
    length_penalty: see `beam_search`.

    Raises TypeError for another model, TokenError, a ValueError, for an empty source or an id outside the vocabulary,
    and ValueError for a number that is out of range.
    """
    if not isinstance(model, EncoderDecoder):
        raise TypeError(f"translate: expected an EncoderDecoder, got {type(model).__name__}. GPT has `generate`")
    limit = model.config.block_size
    max_new_tokens = limit if max_new_tokens is None else max_new_tokens
    check_numbers("translate", num_beams=num_beams, max_new_tokens=max_new_tokens)
    check_penalty("translate", length_penalty)
    if max_new_tokens > limit:
        raise ValueError(f"translate: expected max_new_tokens <= block_size = {limit}, got {max_new_tokens}")
    stops = checked_stops(stop_tokens)
    check_token_ids([start_token], model.config.vocab_size)
    texts = [checked_source(model, number, source) for number, source in enumerate(sources)]
    if not texts:
        return []
    with eval_mode(model):
        if num_beams == 1:
            return greedy(model, texts, start_token, stops, max_new_tokens, length_penalty)
        found = []
        for text in texts:
            engine, start = DecoderRows(model, [text]), [start_token]
            beams = search(
                engine, engine.step(start), start, (), stops, num_beams=num_beams, max_new_tokens=max_new_tokens,
                length_penalty=length_penalty,
            )  # fmt: skip
            found.append(beams[0])
        return found


def checked_source(model: EncoderDecoder, number: int, source: Sequence[int] | Ids) -> Ids:
    """Return the ids of a source, (S,), int64. Raises TokenError."""
    config = model.encoder.config
    ids = check_token_ids(source, config.vocab_size)
    if not 0 < ids.size <= config.block_size:
        raise TokenError(
            f"translate: expected 1 to block_size = {config.block_size} tokens in each source, got {ids.size} in "
            f"source {number}"
        )
    return ids


def greedy(
    model: EncoderDecoder, sources: list[Ids], start_token: int, stops: Collection[int], length: int, penalty: float
) -> list[Beam]:
    """Return the target of each source, where each token is the likeliest one after those before it."""
    engine = DecoderRows(model, sources)
    texts: list[list[int]] = [[] for _ in sources]
    logprobs = np.zeros(len(sources))
    counts = np.zeros(len(sources), np.int64)
    is_open = np.ones(len(sources), bool)
    tokens = [start_token] * len(sources)
    for _ in range(length):
        rows = log_probabilities(engine.step(tokens))
        tokens = rows.argmax(1).tolist()
        for row in np.flatnonzero(is_open):
            logprobs[row] += rows[row, tokens[row]]
            counts[row] += 1
            if tokens[row] in stops:
                is_open[row] = False
            else:
                texts[row].append(tokens[row])
        if not is_open.any():
            break
    scores = logprobs / counts**penalty
    return [
        Beam(text, float(logprob), float(score), bool(not going_on))
        for text, logprob, score, going_on in zip(texts, logprobs, scores, is_open, strict=True)
    ]


def log_probabilities(logits: BatchLogits) -> NDArray[np.float64]:
    """Return the logarithms of the probabilities of logits (B, V), in nats."""
    shifted: NDArray[np.float64] = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


class DecoderRows:
    """Targets that a decoder writes at once, one for each source; or several for one source, after `select`."""

    def __init__(self, model: EncoderDecoder, sources: Sequence[Ids]) -> None:
        self.model = model
        ids, padding = pad_sequences(sources, device=model.device)
        with tl.no_grad():
            same_length = not bool(padding.any())
            self.memory: Memory = model.encode(ids, None if same_length else padding)
        self.cache = KVCache(model, len(sources))

    def step(self, tokens: Sequence[int]) -> BatchLogits:
        """Append a token to each target; return the logits (B, V) of the next ones, float64."""
        ids = tl.tensor(np.array(tokens, np.int64)[:, None], device=self.model.device)
        with tl.no_grad():
            logits = self.model.decode(ids, self.memory, self.cache)
        result: BatchLogits = logits[:, -1].numpy(force=True).astype(np.float64)
        return result

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these targets of one source, each as often as it is named, in this order."""
        if list(rows) != list(range(self.cache.batch_size)):
            self.cache = select_rows(self.model, self.cache, rows)
