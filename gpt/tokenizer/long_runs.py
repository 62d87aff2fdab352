"""Encode long runs of letters or blanks in parts, so that the time is proportional to the length.

tiktoken merges the neighbours of a word in the order of a heap. The heap of a word of a million letters does not fit
the cache of a processor, and each of its steps gets slower. A word of 2**14 letters has a small heap.

The ids are the same. A list of tokens is the encoding of its bytes exactly if each two neighbours are the encoding of
their joined bytes (https://github.com/github/rust-gems/tree/main/crates/bpe). So the last tokens of a part are encoded
again with the next part, and the pair of tokens at that place is checked.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from gpt.tokenizer.base import Ids

# A run is cut each PART characters, if it goes on for MARGIN characters on both sides.
PART, MARGIN = 2**14, 2**13
BLANKS = " \t\n\r"
# The number of tokens at the end of a part that are encoded again. More are tried if the next part does not fit.
JOINTS = (4, 16, 64, 256)

Encode = Callable[[str], Ids]
Decode = Callable[[Ids], bytes]


def cut_places(text: str, part: int = PART, margin: int = MARGIN) -> list[int]:
    """Return the places inside of long runs where a text may be cut.

    A run has letters of ASCII only, or blanks only. So GPT-2's pattern makes one word of it.
    """
    places = []
    for place in range(part, len(text) - margin, part):
        run = text[place - margin : place + margin]
        if not run.strip(BLANKS) or (run.isascii() and run.isalpha()):
            places.append(place)
    return places


def encode_parts(text: str, places: list[int], encode: Encode, decode: Decode, margin: int = MARGIN) -> Ids | None:
    """Return the ids of a text that is cut near `places`, or None if the tokens at a cut do not fit together."""
    done: list[Ids] = []
    ids = encode(text[: places[0]])
    for place, stop in pairwise([*places, len(text)]):
        for count in JOINTS:
            tail = ids[-count - 1 :]
            # The tokens at the cut have to be in the run. Each of their bytes is a character of ASCII.
            if len(ids) <= count or len(decode(tail)) > margin:
                return None
            following = encode(text[place - len(decode(tail[1:])) : stop])
            pair = np.array([tail[0], following[0]])
            if len(decode(pair)) <= margin and np.array_equal(encode(decode(pair).decode()), pair):
                done.append(ids[:-count])
                ids = following
                break
        else:
            return None
    return np.concatenate([*done, ids])
