"""Small models that the tests of the server serve."""

import functools

from gpt.tokenizer import BPETokenizer
from tests.gpt.small_models import small_model

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@functools.cache
def byte_tokenizer(template=TEMPLATE):
    """Return a tokenizer with a token for each byte, one that is "é", one that is "ab", and the end of a text."""
    tokens = [*(bytes([b]) for b in range(256)), "é".encode(), b"ab"]
    tokenizer = BPETokenizer(tokens, r"\p{L}+|[^\p{L}]", {"<|endoftext|>": len(tokens)})
    tokenizer.chat_template = template
    return tokenizer


def served_model(**options):
    """Return a model with a tokenizer of bytes; options of ModelConfig, such as block_size=64."""
    tokenizer = byte_tokenizer()
    shape = {"vocab_size": tokenizer.vocab_size, "block_size": 64, "n_layer": 1}
    return small_model(**shape | options), tokenizer
