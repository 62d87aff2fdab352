"""Tokenizers: text to token ids and back."""

from gpt.tokenizer.bpe import (
    KINDS,
    BPETokenizer,
    CharTokenizer,
    Ids,
    Tokenizer,
    TokenizerError,
    build,
    from_dict,
    start_ids,
    stream,
)

__all__ = [
    "KINDS",
    "BPETokenizer",
    "CharTokenizer",
    "Ids",
    "Tokenizer",
    "TokenizerError",
    "build",
    "from_dict",
    "start_ids",
    "stream",
]
