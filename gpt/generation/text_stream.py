"""Turn a stream of tokens into a stream of text."""

import codecs
import itertools
from collections.abc import Iterable, Iterator

from gpt.tokenizer import Tokenizer


def stream(
    tokenizer: Tokenizer,
    ids: Iterable[int],
    *,
    max_tokens: int | None = None,
    max_chars: int | None = None,
    stop: str | None = None,
) -> Iterator[str]:
    """Yield the text of `ids` in pieces, as the ids arrive, until a limit or the text `stop` (which is left out).

    Bytes are held back until they complete a character, and text as long as it may become `stop`. Bytes that never
    complete a character become U+FFFD. Takes no more of `ids` than it needs.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    chars, held = 0, ""
    for token in itertools.chain(itertools.islice(ids, max_tokens), [None]):
        if token is None:
            held += decoder.decode(b"", final=True)
        else:
            held += decoder.decode(tokenizer.decode_bytes([token]))
        done = token is None
        if stop and stop in held:
            held, done = held[: held.index(stop)], True
        if max_chars is not None and chars + len(held) >= max_chars:
            held, done = held[: max_chars - chars], True
        keep = 0 if done or not stop else max(k for k in range(len(stop)) if held.endswith(stop[:k]))
        text, held = held[: len(held) - keep], held[len(held) - keep :]
        chars += len(text)
        if text:
            yield text
        if done:
            return
