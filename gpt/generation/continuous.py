"""Texts that join and leave one batch between two steps of a model."""

import math
from dataclasses import dataclass, field

from gpt.config import SamplingConfig
from gpt.generation.engine import Engine
from gpt.generation.logprobs import TokenLogProb, check_alternatives, token_logprob
from gpt.generation.processors import EndOfText, Logits, Processor
from gpt.generation.request import check_length, check_model, checked_processors, checked_prompt, checked_stops
from gpt.generation.sampling import Sampler
from gpt.model import GPT
from gpt.tokenizer import Ids


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
        self.sampler = Sampler(request.sampling, prompt.tolist(), checked_processors(request.processors))
        self.request, self.prompt, self.written = request, prompt, 0
        self.finish_reason: str | None = "length" if request.max_new_tokens == 0 else None
        self.error: Exception | None = None
        self.cached_tokens = 0
        self.engine = Engine(model)
        self.token: int | None = None

    def write(self, logits: Logits) -> TokenLogProb | None:
        """Sample the next token from logits (V,) and return it; None if the text has ended before it."""
        request = self.request
        try:
            token = self.sampler(logits)
        except EndOfText:
            self.finish_reason = "stop"
            return None
        except Exception as error:
            self.fail(error)
            return None
        if token in self.stops:
            self.finish_reason = "stop"
            return None
        self.token, self.written = token, self.written + 1
        if self.written == request.max_new_tokens:
            self.finish_reason = "length"
        if request.ends_with_context and self.engine.room == 0:
            self.finish_reason = "length"
        if request.alternatives is None:
            return TokenLogProb(token, math.nan, ())
        return token_logprob(token, logits, request.alternatives)

    def fail(self, error: Exception) -> None:
        """End the text with an error."""
        self.finish_reason, self.error = "error", error


class ContinuousBatch:
    """Texts that one model writes at the same time."""

    def __init__(self, model: GPT, max_rows: int = 8) -> None:
        check_model(model)
        self.model, self.max_rows = model, max_rows
        self.texts: list[Text] = []
        self.tokens_read = self.tokens_cached = self.steps = 0

    def make_text(self, request: TextRequest) -> Text:
        """Return the text of a request, which `add` begins. Raises the errors of `gpt.generation.generate`."""
        return Text(self.model, request)

    @property
    def room(self) -> int:
        """Return how many texts can be added."""
        return self.max_rows - len(self.texts)

    def add(self, text: Text) -> None:
        """Begin a text at the next step."""
        self.texts.append(text)

    def remove(self, text: Text) -> None:
        """Take a text out of the batch."""
        if text in self.texts:
            self.texts.remove(text)

    def step(self) -> list[tuple[Text, TokenLogProb | None]]:
        """Let each text write a token; return the texts with it, those that have ended included."""
        result: list[tuple[Text, TokenLogProb | None]] = []
        self.steps += 1
        for text in self.texts:
            item = None
            if text.finish_reason is None:
                try:
                    first = text.token is None
                    self.tokens_read += len(text.prompt) if first else 1
                    logits = text.engine.prefill(text.prompt) if text.token is None else text.engine.step(text.token)
                except Exception as error:
                    text.fail(error)
                else:
                    item = text.write(logits)
            result.append((text, item))
        self.texts = [text for text in self.texts if text.finish_reason is None]
        return result
