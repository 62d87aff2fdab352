"""Tokenizers: text to token ids and back, by characters or by byte-pair encoding."""

from gpt.tokenizer.base import (
    CharacterError,
    Ids,
    TokenError,
    Tokenizer,
    TokenizerError,
    check_token_ids,
    start_ids,
)
from gpt.tokenizer.bpe import BPETokenizer, GPT2Tokenizer
from gpt.tokenizer.char import CharTokenizer
from gpt.tokenizer.kinds import build, expected_vocab_size, from_dict

__all__ = [
    "BPETokenizer",
    "CharTokenizer",
    "CharacterError",
    "GPT2Tokenizer",
    "Ids",
    "TokenError",
    "Tokenizer",
    "TokenizerError",
    "build",
    "check_token_ids",
    "expected_vocab_size",
    "from_dict",
    "start_ids",
]
