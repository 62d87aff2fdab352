"""Tokenizers: text to token ids and back."""

from gpt.tokenizer.base import (
    CharacterError,
    Ids,
    TokenError,
    Tokenizer,
    TokenizerError,
    check_token_ids,
    prompt_ids,
    same_tokens,
    start_ids,
)
from gpt.tokenizer.bpe import BPETokenizer
from gpt.tokenizer.char import CharTokenizer
from gpt.tokenizer.export import to_files, to_tokenizer_json
from gpt.tokenizer.folder import from_folder
from gpt.tokenizer.gguf import from_gguf
from gpt.tokenizer.gguf_export import to_gguf
from gpt.tokenizer.huggingface import HuggingFaceTokenizer
from gpt.tokenizer.kinds import build, expected_vocab_size, from_dict
from gpt.tokenizer.openai import CL100KTokenizer, GPT2Tokenizer, O200KTokenizer

__all__ = [
    "BPETokenizer",
    "CL100KTokenizer",
    "CharTokenizer",
    "CharacterError",
    "GPT2Tokenizer",
    "HuggingFaceTokenizer",
    "Ids",
    "O200KTokenizer",
    "TokenError",
    "Tokenizer",
    "TokenizerError",
    "build",
    "check_token_ids",
    "expected_vocab_size",
    "from_dict",
    "from_folder",
    "from_gguf",
    "prompt_ids",
    "same_tokens",
    "start_ids",
    "to_files",
    "to_gguf",
    "to_tokenizer_json",
]
