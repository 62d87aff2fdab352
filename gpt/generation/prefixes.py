"""Caches of texts that have ended, so that a text with the same beginning need not be read again."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gpt.generation.shared_rows import SavedCache

MAX_TEXTS = 128  # A search compares all of them, a microsecond each.


class SavedText:
    """The tokens of a text, (T,), and the cache of them."""

    def __init__(self, tokens: NDArray[np.int64], cache: SavedCache) -> None:
        self.tokens, self.cache = tokens, cache


class Prefixes:
    """Saved texts, with at most `max_tokens` tokens together. Those go first that were not used for the longest."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.texts: list[SavedText] = []  # the one that was used last at the end

    @property
    def num_tokens(self) -> int:
        """Return the number of tokens of all texts."""
        return sum(len(text.tokens) for text in self.texts)

    def find(self, tokens: NDArray[np.int64]) -> tuple[SavedText | None, int]:
        """Return the text with the longest beginning of `tokens`, and how many tokens both share."""
        best, longest = None, 0
        for text in reversed(self.texts):
            if (count := common_length(text.tokens, tokens)) > longest:
                best, longest = text, count
        return best, longest

    def touch(self, text: SavedText) -> None:
        """Note that a text was used."""
        self.texts.remove(text)
        self.texts.append(text)

    def add(self, tokens: NDArray[np.int64], copy: Callable[[int], SavedCache]) -> None:
        """Save a text, if no other begins with it. `copy` returns the cache of its first tokens."""
        tokens = tokens[: self.max_tokens]
        same, count = self.find(tokens)
        if same is not None and count == len(tokens):
            self.touch(same)
        elif len(tokens):
            self.texts = [t for t in self.texts if common_length(t.tokens, tokens) < len(t.tokens)]
            self.texts.append(SavedText(tokens, copy(len(tokens))))
            total = self.num_tokens
            while total > self.max_tokens or len(self.texts) > MAX_TEXTS:
                total -= len(self.texts.pop(0).tokens)

    def clear(self) -> None:
        """Forget all texts."""
        self.texts.clear()


def common_length(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """Return how many tokens two texts share from the start."""
    n = min(len(a), len(b))
    if not n or a[0] != b[0]:
        return 0
    differ = a[:n] != b[:n]
    first = int(differ.argmax())
    return first if differ[first] else n
