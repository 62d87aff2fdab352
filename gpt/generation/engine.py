"""Generate tokens: read a prompt, then one token after the other."""

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.config import SamplingConfig
from gpt.generation.sampling import sample_token
from gpt.model import GPT, KVCache, eval_mode
from gpt.tokenizer import Ids, TokenError, check_token_ids

if TYPE_CHECKING:
    from gpt.model.compiled_decode import CompiledDecoder

Logits = NDArray[np.float64]

# The compiled decoder and the model agree if they differ by less than this fraction of the largest logit. Rounding
# differs by a hundredth of that, another formula by more.
TOLERANCE = 1e-3

MAKE_GPT = "Load one: gpt.checkpoint.load(path).model, or make one: GPT(Config.load('gpt-nano').model)"


def generate(
    model: GPT,
    ids: Sequence[int] | Ids,
    max_new_tokens: int | None = None,
    sampling: SamplingConfig | None = None,
    *,
    stop_tokens: Collection[int] = (),
) -> Iterator[int]:
    """Yield the tokens that follow `ids`, each as soon as it is sampled.

    ids: the prompt, at least one token (`gpt.tokenizer.start_ids` gives a neutral one). The model sees its last
        block_size tokens; see `Engine` for longer texts.
    max_new_tokens: the number of tokens to generate; None generates without end.
    sampling: temperature, top_k and seed; None takes the defaults of `SamplingConfig`. With the same seed the text is
        the same.
    stop_tokens: the first of these ends the text; it is not yielded.

    Between two tokens, the model and the grad mode are in the mode of the caller. Do not change the weights meanwhile.
    The call itself raises TokenError for ids that cannot be used, ValueError for a negative max_new_tokens, and
    TypeError for a model or a sampling of another type. The iterator raises SampleError if the model predicts numbers
    that are not finite.
    """
    if not isinstance(model, GPT):
        raise TypeError(f"generate: expected a GPT as the model, got {model!r:.80}. {MAKE_GPT}")
    prompt = check_token_ids(ids, model.config.vocab_size)
    if not prompt.size:
        raise TokenError("a prompt needs at least one token; gpt.tokenizer.start_ids(tokenizer) gives a start")
    if max_new_tokens is not None and not (is_integer(max_new_tokens) and max_new_tokens >= 0):
        raise ValueError(f"generate: expected max_new_tokens >= 0, or None for no limit, got {max_new_tokens!r:.80}")
    if sampling is not None and not isinstance(sampling, SamplingConfig):
        raise TypeError(
            f"generate: expected a SamplingConfig, got {sampling!r:.80}. Write "
            "gpt.generation.SamplingConfig(temperature=0.8, top_k=40, seed=1)"
        )
    options = sampling or SamplingConfig()
    if not isinstance(stop_tokens, Iterable) or not all(map(is_integer, stop_tokens)):
        raise TokenError(f"stop_tokens: expected token ids, which are integers, got {stop_tokens!r:.80}")
    stops = frozenset(int(token) for token in stop_tokens)

    def tokens() -> Iterator[int]:
        engine, rng, token = Engine(model), np.random.default_rng(options.seed), None
        for _ in itertools.count() if max_new_tokens is None else range(max_new_tokens):
            logits = engine.prefill(prompt) if token is None else engine.step(token)
            token = sample_token(logits, options, rng)
            if token in stops:
                return
            yield token

    return tokens()


def is_integer(value: object) -> bool:
    """Return whether a value is an integer of Python or NumPy; a boolean is not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


class Engine:
    """A model that reads one sequence, a prompt and then single tokens, and predicts the token after it.

    It keeps the keys and values of the tokens in a cache. It reads single tokens with the compiled decoder if there is
    one. Once the cache holds block_size tokens, it starts again from the last block_size // 2. It cannot drop the
    oldest tokens alone, because a cached value depends on the position of its token in the context.
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.vocab_size = model.config.vocab_size
        self.cache = KVCache(model)
        self.eval_mode = eval_mode(model)
        self.recent: deque[int] = deque(maxlen=max(1, model.config.block_size // 2))
        self.decoder: CompiledDecoder | None = None
        self.decoder_sought = False

    def prefill(self, ids: Sequence[int] | Ids) -> Logits:
        """Start a new sequence with the last block_size of `ids`; return the logits (V,) of the next token."""
        tokens = check_token_ids(ids, self.model.config.vocab_size)[-self.model.config.block_size :].tolist()
        self.cache.length = 0
        self.recent.clear()
        self.recent.extend(tokens)
        return self._read(tokens)

    def step(self, token: int) -> Logits:
        """Append a token to the sequence; return the logits (V,) of the next one. Raises TokenError."""
        if type(token) is not int or not 0 <= token < self.vocab_size:
            token = int(check_token_ids([token], self.vocab_size)[0])
        self.recent.append(token)
        if self.cache.length == self.cache.block_size:
            self.cache.length = 0
            return self._read(list(self.recent))
        return self._read([token])

    def _read(self, tokens: list[int]) -> Logits:
        """Return the logits (V,) of the token after these, which follow the cached ones."""
        if len(tokens) == 1:
            if not (self.decoder.is_current() if self.decoder is not None else self.decoder_sought):
                self.decoder, self.decoder_sought = find_decoder(self.model, self.cache, tokens[0]), True
            if self.decoder is not None:
                return self.decoder.next_logits(tokens[0]).astype(np.float64)
        with self.eval_mode:
            return next_logits(self.model, tokens, self.cache)


def find_decoder(model: GPT, cache: KVCache, token: int) -> "CompiledDecoder | None":
    """Return a compiled decoder that predicts what the model predicts after this token, or None if there is none."""
    try:
        from gpt.model.compiled_decode import CompiledDecoder
    except ImportError:  # numba is not installed.
        return None
    decoder = CompiledDecoder.for_model(model, cache)
    if decoder is None:
        return None
    # If the user modified a layer, fall back to the model, because the decoder would compute the unmodified layer.
    length = cache.length
    compiled = decoder.next_logits(token)
    cache.length = length
    with eval_mode(model):
        expected = next_logits(model, [token], cache)
    cache.length = length
    with np.errstate(invalid="ignore"):  # NaN does not agree with anything; sampling then reports broken weights.
        agree = bool((np.abs(compiled - expected) <= TOLERANCE * np.abs(expected).max()).all())
    return decoder if agree else None


def next_logits(model: GPT, ids: Sequence[int] | Ids, cache: KVCache | None = None) -> Logits:
    """Return the logits (V,) of the token after `ids`, (T,), which follow the cached tokens; on the host.

    Call it in `eval_mode(model)`. T and the cached tokens are at most block_size together.
    """
    x = model.hidden_states(tl.tensor(np.asarray(ids)[None], device=model.device), cache)  # (1, T, C)
    return model.head(x[0, -1]).cpu().numpy().astype(np.float64)  # The head reads the last position only.
