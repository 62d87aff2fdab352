"""A small model for the tests of the page, with tokens that a page could show wrongly."""

import types

import numpy as np

from gpt.tokenizer import TokenizerError
from tests.gpt.small_models import small_model

HOSTILE = "<img src=/no onerror=alert(1)>"
SPECIAL = {"<|im_start|>": 38, "<|im_end|>": 39}
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ':' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant:' }}{% endif %}"
)
# Letters, parts of "é", Hebrew, a character that reverses the text after it, and HTML.
PIECES = [
    *"abcdefghijklmnopqrstuvwxyz", " ", "\n", ":", ".", " the", b"\xc3", b"\xa9", "שלום", "\u202e", HOSTILE, "\t", "🦜",
]  # fmt: skip


class Pieces:
    """A tokenizer of PIECES that takes the longest one first."""

    kind, by_character, cuts_before = "pieces", False, ""
    special_tokens = types.MappingProxyType(SPECIAL)
    vocab_size = len(PIECES) + len(SPECIAL)
    bos_id, eos_id, add_bos = None, SPECIAL["<|im_end|>"], False
    tokens = tuple(piece if isinstance(piece, bytes) else piece.encode() for piece in PIECES)

    def __init__(self, chat_template=TEMPLATE, stop_ids=frozenset({SPECIAL["<|im_end|>"]})):
        self.chat_template, self.stop_ids = chat_template, stop_ids

    def encode(self, text, allow_special=False):
        data, ids = text.encode(), []
        while data:
            found = [i for i, token in enumerate(self.tokens) if data.startswith(token)]
            if not found:
                raise TokenizerError(f"no token begins with {data.decode()[:1]!r}")
            ids.append(max(found, key=lambda i: len(self.tokens[i])))
            data = data[len(self.tokens[ids[-1]]) :]
        return np.array(ids, np.int64)

    def decode_bytes(self, ids):
        return b"".join(self.tokens[i] for i in ids if i < len(self.tokens))

    def decode(self, ids):
        return self.decode_bytes(ids).decode(errors="replace")


def page_models():
    """Return a chat model, one without a template, and one that never ends a text, by their names."""
    model = small_model(vocab_size=Pieces.vocab_size, block_size=128, n_layer=2, n_head=2)
    return {"talker": (model, Pieces()), "writer": (model, Pieces(None)), "endless": (model, Pieces(None, frozenset()))}
