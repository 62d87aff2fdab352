"""A text that matches a regular expression or a JSON schema, by the library llguidance (the extra `grammar`)."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gpt.errors import UserError
from gpt.generation.processors import EndOfText, Logits, SampleError
from gpt.tokenizer import Tokenizer, TokenizerError

if TYPE_CHECKING:
    from llguidance import LLMatcher


class GrammarError(UserError, ValueError):
    """A regular expression or a JSON schema that cannot be used."""


class Grammar:
    """A processor that bans the tokens after which the new text could not match.

    `Grammar.regex` and `Grammar.json_schema` make one. The text ends where nothing can follow any more. Where it may
    end or go on, `end_token` says that it ends; without one it goes on.
    """

    def __init__(
        self, tokenizer: Tokenizer, grammar: str, *, end_token: int | None = None, prompt_length: int = 0
    ) -> None:
        """Read a grammar in the notation of llguidance, with the other arguments of `Grammar.regex`."""
        llguidance = import_llguidance()
        self.end_token, self.prompt_length = end_token, prompt_length
        self.vocabulary = Vocabulary(tokenizer)
        self.matcher: LLMatcher = llguidance.LLMatcher(
            llguidance.LLTokenizer(llguidance.TokenizerWrapper(self.vocabulary)), grammar, log_level=0
        )
        self.read: list[int] = []
        if self.matcher.is_error():
            raise GrammarError(f"grammar: {first_lines(self.matcher.get_error())}")

    @classmethod
    def regex(
        cls, tokenizer: Tokenizer, pattern: str, *, end_token: int | None = None, prompt_length: int = 0
    ) -> Self:
        """Return the processor for texts that match a regular expression from their start to their end.

        pattern: in the notation of Rust's `regex`, without look-around and back references.
        end_token: a token that ends the text where it matches; give it to `generate` in stop_tokens as well.
        prompt_length: the number of tokens before the text; `generate` sets it.
        Raises GrammarError, and ModuleNotFoundError without llguidance.
        """
        grammar = import_llguidance().LLMatcher.grammar_from_regex(pattern)
        return cls(tokenizer, grammar, end_token=end_token, prompt_length=prompt_length)

    @classmethod
    def json_schema(
        cls,
        tokenizer: Tokenizer,
        schema: Mapping[str, Any] | str,
        *,
        end_token: int | None = None,
        prompt_length: int = 0,
    ) -> Self:
        """Return the processor for JSON that a schema accepts, without white space between its parts.

        schema: a mapping, or its JSON. The other arguments and errors are those of `regex`.
        """
        try:
            text = schema if isinstance(schema, str) else json.dumps(schema)
            values = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise GrammarError(f"the JSON schema is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise GrammarError(f"the JSON schema: expected an object, got {text:.80}")
        make = import_llguidance().LLMatcher.grammar_from_json_schema
        try:
            grammar = make(text, overrides={"whitespace_flexible": False})
        except ValueError as error:  # It reads JSON with limits that Python's reader does not have.
            raise GrammarError(f"the JSON schema: {error}") from None
        return cls(tokenizer, grammar, end_token=end_token, prompt_length=prompt_length)

    def after_prompt(self, length: int) -> Self:
        """Return the processor of a text whose prompt has this length."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.matcher, copy.read, copy.prompt_length = self.matcher.deep_copy(), list(self.read), length
        return copy

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        """Return logits (V,) with -inf for each token after which the text could not match.

        Raises EndOfText where the text matches and nothing can follow, and SampleError if no token of the vocabulary
        can follow where something must.
        """
        self._follow(list(ids[self.prompt_length :]))
        bits = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little", count=len(self.vocabulary.tokens)).astype(bool)
        # The mask allows the end also where the text does not match, but no token can follow.
        may_end = bool(allowed[self.vocabulary.eos_token_id]) and self.matcher.is_accepting()
        allowed = np.pad(allowed[:-1], (0, max(0, len(logits) - len(allowed) + 1)))[: len(logits)]
        if not allowed.any():
            if may_end:
                raise EndOfText
            raise SampleError("grammar: no token of the vocabulary can follow. Use a model whose tokens can write it")
        if self.end_token is not None:
            allowed[self.end_token] = may_end
        return np.where(allowed, logits, -np.inf)

    def _follow(self, new: list[int]) -> None:
        """Bring the matcher to the end of a text. That of another beam may differ from the last one."""
        same = next((i for i, (a, b) in enumerate(zip(self.read, new)) if a != b), min(len(self.read), len(new)))
        if same < len(self.read):
            self.matcher.rollback(len(self.read) - same)
        self.read = self.read[:same]
        for token in new[same:]:
            if token == self.end_token:
                raise EndOfText
            if not self.matcher.consume_token(token):
                text = self.vocabulary.tokenizer.decode(new)
                raise SampleError(f"grammar: the text {text!r:.80} does not match. Set prompt_length for a prompt")
            self.read.append(token)


class Vocabulary:
    """The tokens of a tokenizer, in the form that llguidance reads; the token after the last one means the end."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        size = tokenizer.vocab_size
        self.tokenizer = tokenizer
        self.tokens = [*(tokenizer.decode_bytes([token]) for token in range(size)), b"<end>"]
        self.eos_token_id = size
        self.special_token_ids = [*tokenizer.special_tokens.values(), size]
        texts = [(token, i) for i, token in enumerate(self.tokens) if i not in self.special_token_ids and token]
        self.ids = dict(reversed(texts))
        self.longest = max((len(token) for token in self.ids), default=0)

    def __call__(self, text: str | bytes) -> list[int]:
        """Return the tokens of a text that must follow: those of the tokenizer, or else the longest at each place.

        It is cut at a place where no token follows.
        """
        data = text.encode() if isinstance(text, str) else bytes(text)
        try:
            tokens = [int(token) for token in self.tokenizer.encode(data.decode())]
            if self.tokenizer.decode_bytes(tokens) == data:
                return tokens
        except (UnicodeDecodeError, TokenizerError):
            pass
        tokens, start = [], 0
        while start < len(data):
            ends = range(min(len(data), start + self.longest), start, -1)
            end = next((end for end in ends if data[start:end] in self.ids), None)
            if end is None:
                break
            tokens.append(self.ids[data[start:end]])
            start = end
        return tokens


def import_llguidance() -> Any:
    """Return the module llguidance. Raises ModuleNotFoundError, with what to install, if it is missing."""
    try:
        import llguidance
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a grammar needs the package llguidance: pip install 'tensorlite[grammar]'", name="llguidance"
        ) from error
    return llguidance


def first_lines(message: str) -> str:
    """Return the part of a message of llguidance that is about the grammar, and not about its state."""
    return message.partition("<state>")[0].strip()[:400]
