"""Tokenizers by the name of their kind."""

import pkgutil
from collections.abc import Mapping
from typing import Any

from gpt.config import TOKENIZERS, DataConfig
from gpt.tokenizer.base import Tokenizer, TokenizerError


def tokenizer_class(kind: str) -> type[Tokenizer]:
    """Return the class of a kind of tokenizer, as `gpt.config.TOKENIZERS` names it. Raises TokenizerError."""
    if kind not in TOKENIZERS:
        raise TokenizerError(f"no tokenizer {kind!r}: choose one of {', '.join(TOKENIZERS)}")
    cls: type[Tokenizer] = pkgutil.resolve_name(TOKENIZERS[kind])
    return cls


def build(text: str, train_text: str, config: DataConfig) -> Tokenizer:
    """Return a new tokenizer of the kind `config.tokenizer` for a text and its training split.

    Raises TokenizerError and DownloadError.
    """
    return tokenizer_class(config.tokenizer).create(text, train_text, config)


def expected_vocab_size(config: DataConfig) -> int | None:
    """Return the vocabulary size that `build` is going to give, or None if it depends on the text."""
    return tokenizer_class(config.tokenizer).expected_vocab_size(config)


def from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer that `Tokenizer.to_dict` described, for example in a checkpoint. Raises TokenizerError."""
    try:
        return tokenizer_class(values["kind"]).from_dict(values)
    except TokenizerError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TokenizerError(
            f"this is not the description of a tokenizer: {type(error).__name__} {error}"
        ) from error
