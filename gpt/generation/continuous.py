"""Texts that join and leave one batch between two steps of a model."""

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gpt.config import SamplingConfig
from gpt.generation.logprobs import TokenLogProb, check_alternatives, token_logprob
from gpt.generation.prefixes import Prefixes, SavedText, common_length
from gpt.generation.processors import EndOfText, Logits, Processor
from gpt.generation.reader import Reader
from gpt.generation.request import (
    check_length,
    check_model,
    checked_processors,
    checked_prompt,
    checked_sampling,
    checked_stops,
    is_integer,
)
from gpt.generation.sampling import Sampler
from gpt.generation.shared_rows import load, row_of, save, shared_rows
from gpt.model import GPT, KVCache
from gpt.tokenizer import Ids

# Additions and multiplications of a piece of a prompt, which take a tenth of a second on two cores, and the fewest and
# most tokens of a piece. While no text runs, a piece is as many times as long.
READ_OPERATIONS, LEAST_READ, MOST_READ, READ_ALONE = 1 << 34, 32, 256, 4
LEAST_SHARED = 8  # tokens of a prefix that are copied; reading fewer together with other texts is as fast
# Bytes of the caches of ended texts, and of those that run.
PREFIX_BYTES, RUNNING_BYTES = 1 << 29, 1 << 31
SLACK = 256  # new tokens for which there must be room when a text is added; most texts end earlier


@dataclass(frozen=True)
class TextRequest:
    """A text that someone asks for: a prompt, and the options of `gpt.generation.generate`.

    alternatives: the number of likely tokens that each token comes with, 0 for its log-probability alone; None for
        neither.
    ends_with_context: end the text where the context is full. Otherwise it goes on as `Engine` does.
    """

    prompt: Ids
    max_new_tokens: int | None
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    stop_tokens: frozenset[int] = frozenset()
    processors: tuple[Processor, ...] = ()
    alternatives: int | None = None
    ends_with_context: bool = False


class Text:
    """A text of a `ContinuousBatch`.

    finish_reason: "stop" after a stop token or `EndOfText`, "length" after the last token, "error"; None until then.
    cached_tokens: the number of tokens of the prompt that the model did not have to read.
    """

    def __init__(self, model: GPT, request: TextRequest) -> None:
        prompt = checked_prompt(model, request.prompt)
        check_length(request.max_new_tokens)
        if request.alternatives is not None:
            check_alternatives(request.alternatives)
        self.stops = checked_stops(request.stop_tokens)
        sampling = checked_sampling(request.sampling, {})
        self.sampler = Sampler(sampling, prompt.tolist(), checked_processors(request.processors))
        self.request, self.written, self.cached_tokens = request, 0, 0
        self.finish_reason: str | None = "length" if request.max_new_tokens == 0 else None
        self.error: Exception | None = None
        self.block_size = model.config.block_size
        self.context: list[int] = prompt[-self.block_size :].tolist()  # what the model sees, without `token`
        self.token = -1  # the one that was sampled last; the model has not read it
        self.cache: KVCache | None = None  # while the context is read
        self.number = 0  # of the texts of a batch that came before

    def write(self, logits: Logits) -> TokenLogProb | None:
        """Sample the next token from logits (V,) and return it; None if the text has ended before it."""
        request = self.request
        try:
            token = self.sampler(logits)
        except EndOfText:
            self.finish_reason = "stop"
            return None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # An extension that panics raises no Exception.
            self.fail(error)
            return None
        if token in self.stops:
            self.finish_reason = "stop"
            return None
        self.token, self.written = token, self.written + 1
        full = request.ends_with_context and len(self.context) == self.block_size
        if full or self.written == request.max_new_tokens:
            self.finish_reason = "length"
        if request.alternatives is None:
            return TokenLogProb(token, math.nan, ())
        return token_logprob(token, logits, request.alternatives)

    def pause(self) -> None:
        """Leave the batch, to be read again: with the second half of a full context, as `Engine` does."""
        is_full = len(self.context) == self.block_size
        self.context = [*self.context, self.token][-max(1, self.block_size // 2) if is_full else 0 :]
        self.cache = None

    def fail(self, error: BaseException) -> None:
        """End the text with an error."""
        self.finish_reason, self.error = "error", as_exception(error)


def as_exception(error: BaseException) -> Exception:
    """Return an error as one that a caller of the text expects."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}"[:200])


class Prefix(NamedTuple):
    """The first `length` tokens of a context, which a saved text has, or a row."""

    length: int
    saved: SavedText | None = None
    row: int | None = None


NO_PREFIX = Prefix(0)
Written = list[tuple[Text, TokenLogProb | None]]


class ContinuousBatch:
    """Texts that one model writes at the same time, each as if it was alone.

    A text has the tokens that `generate` yields with its options, except where rounding decides between tokens. New
    texts are read in the order in which they came, in pieces, so that the others do not wait for a long prompt. What
    the cache of another text holds of a prompt is copied, and not read.

    max_rows: texts at once. max_tokens: tokens that their caches hold together at most, with their padding; a single
        text may have more. If no room is left, the newest text pauses, and is read again later.
    max_saved: tokens of the caches of ended texts. read_at_once: tokens of prompts that are read between two steps, by
        default 32 to 256, fewer for a larger model.

    Do not change the weights without a call of `forget`. One thread at a time may use it.
    """

    def __init__(
        self,
        model: GPT,
        max_rows: int = 8,
        *,
        max_tokens: int | None = None,
        max_saved: int | None = None,
        read_at_once: int | None = None,
    ) -> None:
        check_model(model)
        if not is_integer(max_rows, least=1):
            raise ValueError(f"ContinuousBatch: expected max_rows >= 1, got {max_rows!r:.80}")
        size = token_bytes(model)
        self.model, self.max_rows = model, max_rows
        self.read_at_once = piece_size(model) if read_at_once is None else read_at_once
        self.max_tokens = RUNNING_BYTES // size if max_tokens is None else max_tokens
        self.saved = Prefixes(PREFIX_BYTES // size if max_saved is None else max_saved)
        self.is_dynamic = model.config.rope_scaling == "dynamic"  # Then a cache depends on the text after it.
        self.rows = shared_rows(model, max_rows)
        self.reader = Reader(model)
        self.texts: list[Text] = []  # of the rows
        self.new: deque[Text] = deque()  # which are read before they get a row
        self.last_read: tuple[list[int], Logits] | None = None  # a prompt with the logits after it
        self.tokens_read = self.tokens_cached = self.steps = self.added = 0

    def make_text(self, request: TextRequest) -> Text:
        """Return the text of a request, which `add` begins. Raises the errors of `gpt.generation.generate`."""
        return Text(self.model, request)

    def has_room(self, text: Text) -> bool:
        """Return whether a text can be added now. One text always can."""
        here = len(self.texts) + len(self.new)
        new = text.request.max_new_tokens
        wanted = len(text.context) + (SLACK if new is None else min(new, SLACK))
        return here < self.max_rows and self._fit(here + 1, wanted, *(len(other.context) for other in self.new))

    def _fit(self, count: int, *lengths: int) -> bool:
        """Return whether the cache may have this number of rows if some have these lengths. One always fits."""
        longest = min(max(*lengths, *(len(text.context) for text in self.texts), 0), self.model.config.block_size)
        return count <= 1 or count * longest <= self.max_tokens

    def add(self, text: Text) -> None:
        """Begin a text at the next step."""
        text.number = self.added
        self.added += 1
        self.new.append(text)

    def remove(self, text: Text) -> None:
        """Take a text out of the batch, if it is in it."""
        if text in self.new:
            self.new.remove(text)
            text.cache = None
        elif text in self.texts:
            self._leave(self.texts.index(text), saved=True)

    def forget(self) -> None:
        """Forget what the caches of ended texts hold. The texts that run are not touched."""
        self.saved.clear()
        self.last_read = None

    def clear(self) -> None:
        """Take all texts out of the batch, and forget all caches."""
        self.texts.clear()
        self.new.clear()
        self.rows.clear()
        self.forget()

    def step(self) -> Written:
        """Let each text write a token; return the texts with their tokens, each text once.

        A text that has ended has a finish_reason, and is not in the batch any more. Its token is None if it ended
        without one. An error of the model ends the texts that it was reading.
        """
        self.steps += 1
        written = self._step_rows()
        self._read_new(written)
        return written

    def _step_rows(self) -> Written:
        """Let the model read the last token of each text that has a row, and sample the next."""
        for row in reversed(range(len(self.texts))):
            text = self.texts[row]
            if len(text.context) == text.block_size:
                self._pause(row)
        while not self._fit(len(self.texts), 1 + max((len(text.context) for text in self.texts), default=0)):
            self._pause(max(range(len(self.texts)), key=lambda row: self.texts[row].number))
        if not self.texts:
            return []
        try:
            logits = self.rows.step([text.token for text in self.texts])
        except Exception as error:
            ended, self.texts = self.texts, []
            self.rows.clear()
            for text in ended:
                text.fail(error)
            return [(text, None) for text in ended]
        self.tokens_read += len(self.texts)
        written: Written = []
        for text, row_logits in zip(self.texts, logits, strict=True):
            text.context.append(text.token)
            written.append((text, text.write(row_logits)))
        for row in reversed(range(len(self.texts))):
            if self.texts[row].finish_reason is not None:
                self._leave(row, saved=self.texts[row].error is None)
        return written

    def _pause(self, row: int) -> None:
        """Take a text out of its row, which goes on once its context is read again."""
        text = self.texts[row]
        self._leave(row, saved=True)
        text.pause()
        self.new.appendleft(text)

    def _leave(self, row: int, saved: bool) -> None:
        """Take a text out of its row, and save its cache."""
        text = self.texts[row]
        if saved and not self.is_dynamic:
            self.saved.add(np.array(text.context, np.int64), lambda length: self.rows.copy(row, length))
        self.rows.leave(row)
        self.texts[row] = self.texts[-1]
        self.texts.pop()

    def _read_new(self, written: Written) -> None:
        """Read the contexts of new texts, up to a number of tokens, and give a row to each that is complete."""
        left = self.read_at_once * (1 if self.texts else READ_ALONE)
        if any(text.cache is None for text in self.new):
            self.reader.begin_text()
        while self.new and left > 0:
            if self.new[0].finish_reason is not None:
                written.append((self.new.popleft(), None))
                continue
            if not self._fit(len(self.texts) + 1, len(self.new[0].context) + 1):
                break
            group, prefix = self._next_to_read(left)
            try:
                left, logits = self._read(group, prefix, left)
            except Exception as error:
                for text in group:
                    text.fail(error)
                    written.append((self.new.popleft(), None))
                continue
            for text, row_logits in zip(group, logits, strict=False):  # There are none if one is not complete.
                self.new.popleft()
                item = text.write(row_logits)
                try:
                    self._place(text)
                except Exception as error:
                    text.fail(error)
                text.cache = None
                written.append((text, item))
            if self.texts:
                left = min(left, self.read_at_once)

    def _place(self, text: Text) -> None:
        """Give a row to a text whose context is read, or save its cache if it has ended."""
        cache = text.cache
        assert cache is not None
        if text.finish_reason is None:
            self.rows.join(cache)
            self.texts.append(text)
        elif text.error is None and not self.is_dynamic:
            self.saved.add(np.array(text.context, np.int64), lambda length: save(cache, length))

    def _next_to_read(self, limit: int) -> tuple[list[Text], Prefix]:
        """Return the first new texts, which are read in one call: one, or several short ones without a known prefix."""
        first = self.new[0]
        prefix = NO_PREFIX if first.cache is not None or self.is_dynamic else self._find_prefix(first)
        group, longest = [first], len(first.context)
        if prefix.length or first.cache is not None or self.is_dynamic:
            return group, prefix
        for text in itertools.islice(self.new, 1, None):
            longest = max(longest, len(text.context))
            count = len(group) + 1
            if text.finish_reason is not None or longest * count > limit:
                break
            if not self._fit(len(self.texts) + count, longest + 1):
                break
            if self._find_prefix(text).length or any(usable_length(text.context, other.context) for other in group):
                break
            group.append(text)
        return group, prefix

    def _read(self, group: list[Text], prefix: Prefix, limit: int) -> tuple[int, Sequence[Logits]]:
        """Read tokens of contexts; return what is left of the limit, and the logits (V,) after each complete one."""
        if len(group) > 1:
            return self._read_together(group, limit)
        (text,) = group
        tokens = text.context
        if text.cache is None:
            text.cache = KVCache(self.model)
            text.cache.reserve(len(tokens))
            self._copy_prefix(text, text.cache, prefix)
            if prefix.length == len(tokens):
                assert self.last_read is not None
                return limit, [self.last_read[1]]
        start = text.cache.length
        stop = len(tokens) if self.is_dynamic else min(len(tokens), start + limit)
        logits = self.reader.logits(np.array([tokens[start:stop]], np.int64), text.cache)[0]
        self.tokens_read += stop - start
        if stop < len(tokens):
            return limit - (stop - start), []
        self.last_read = tokens.copy(), logits[0]
        return limit - (stop - start), logits

    def _read_together(self, group: list[Text], limit: int) -> tuple[int, Sequence[Logits]]:
        """Read the contexts of several texts in one call, with padding before the shorter ones."""
        lengths = [len(text.context) for text in group]
        longest = max(lengths)
        padding = [longest - length for length in lengths]
        cache = KVCache(self.model, len(group), padding)
        ids = [[0] * count + text.context for count, text in zip(padding, group, strict=True)]
        logits = self.reader.logits(np.array(ids, np.int64), cache)[:, 0]
        for row, text in enumerate(group):
            text.cache = row_of(cache, row, lengths[row])
        self.tokens_read += sum(lengths)
        self.last_read = group[-1].context.copy(), logits[-1]
        return limit - longest * len(group), list(logits)

    def _find_prefix(self, text: Text) -> Prefix:
        """Return the longest beginning of a context that a cache holds.

        The last token is read again, because the logits after it are needed, unless the last text had the same context.
        """
        most = len(text.context) - (self.last_read is None or self.last_read[0] != text.context)
        tokens = np.array(text.context[:most], np.int64)
        saved, length = self.saved.find(tokens)
        best = Prefix(length, saved)
        for row, other in enumerate(self.texts):
            if (length := common_length(np.array(other.context, np.int64), tokens)) > best.length:
                best = Prefix(length, None, row)
        return best if best.length >= min(LEAST_SHARED, most) else NO_PREFIX

    def _copy_prefix(self, text: Text, cache: KVCache, prefix: Prefix) -> None:
        """Copy the tokens of a prefix to the cache of a text."""
        if prefix.row is not None:
            load(cache, self.rows.copy(prefix.row, prefix.length), prefix.length)
        elif prefix.saved is not None:
            self.saved.touch(prefix.saved)
            load(cache, prefix.saved.cache, prefix.length)
        if not text.written:
            text.cached_tokens = prefix.length
            self.tokens_cached += prefix.length


def usable_length(a: list[int], b: list[int]) -> int:
    """Return how many tokens of a context need not be read because another begins with them, 0 for too few."""
    length = common_length(np.array(a, np.int64), np.array(b, np.int64))
    return length if length >= min(LEAST_SHARED, len(a)) else 0


def token_bytes(model: GPT) -> int:
    """Return the bytes that a cache has for a token: its keys and values, and its id if the model needs it."""
    config = model.config
    keys = 2 * config.n_layer * config.kv_heads * config.head_size * model.dtype.itemsize
    return max(1, keys + (8 if config.previous_tokens else 0))


def piece_size(model: GPT) -> int:
    """Return how many tokens of a prompt are read between two steps."""
    return min(MOST_READ, max(LEAST_READ, READ_OPERATIONS // (2 * model.num_params())))
