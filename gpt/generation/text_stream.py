"""Turn a stream of tokens into a stream of text."""

import codecs
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence

from gpt.errors import short
from gpt.generation.processors import EndOfText, Logits
from gpt.tokenizer import Tokenizer


def stream(
    tokenizer: Tokenizer,
    ids: Iterable[int],
    *,
    max_tokens: int | None = None,
    max_chars: int | None = None,
    stop: str | Sequence[str] | None = None,
) -> Iterator[str]:
    """Yield the text of `ids` in pieces, as the ids arrive, until a limit or a text of `stop` (which is left out).

    stop: one text or several; the first one that is complete ends the stream, wherever the tokens begin and end.

    Bytes are held back until they complete a character, and text as long as it may become one of `stop`. Bytes that
    never complete a character become U+FFFD. Takes no more of `ids` than it needs.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    stops = stop_texts(stop)
    chars, held = 0, ""
    for token in itertools.chain(itertools.islice(ids, max_tokens), [None]):
        if token is None:
            held += decoder.decode(b"", final=True)
        else:
            held += decoder.decode(tokenizer.decode_bytes([token]))
        done = token is None
        if (found := find_stop(held, stops)) is not None:
            held, done = held[:found], True
        if max_chars is not None and chars + len(held) >= max_chars:
            held, done = held[: max_chars - chars], True
        keep = 0 if done else longest_start(held, stops)
        text, held = held[: len(held) - keep], held[len(held) - keep :]
        chars += len(text)
        if text:
            yield text
        if done:
            return


class TextEnd:
    """A processor that ends a text where it has a number of characters or one of several texts.

    With it, one text of a batch ends while the others go on. `stream` then cuts its text at the exact place.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_chars: int | None = None,
        stop: str | Sequence[str] | None = None,
        prompt_length: int = 0,
    ) -> None:
        self.tokenizer, self.max_chars, self.stops = tokenizer, max_chars, stop_texts(stop)
        self.prompt_length = prompt_length

    def after_prompt(self, length: int) -> "TextEnd":
        """Return the processor of a text whose prompt has this length."""
        return TextEnd(self.tokenizer, max_chars=self.max_chars, stop=self.stops, prompt_length=length)

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        """Return the logits as they are. Raises EndOfText."""
        text = self.tokenizer.decode(ids[self.prompt_length :])
        # Bytes at the end may still become a character, and count as U+FFFD until then.
        long_enough = self.max_chars is not None and len(text.rstrip("\ufffd")) >= self.max_chars
        if long_enough or find_stop(text, self.stops) is not None:
            raise EndOfText
        return logits


def stop_texts(stop: str | Sequence[str] | None) -> list[str]:
    """Return the texts that end a stream, without empty ones. Raises TypeError for anything but texts."""
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, Collection) or not all(isinstance(text, str) for text in stops):
        raise TypeError(f"stop: expected a text or a list of texts, got {short(stop)}")
    return [text for text in stops if text]


def find_stop(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first complete one of `stops` begins in a text; of two that end together the longer one."""
    found = [(start + len(stop), start) for stop in stops if (start := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def longest_start(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of a text may be the start of one of `stops`."""
    return max((k for stop in stops for k in range(len(stop)) if text.endswith(stop[:k])), default=0)
