"""Tokenizers by the name of their kind."""

import pkgutil
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from gpt.config import TOKENIZERS, DataConfig
from gpt.tokenizer.base import Tokenizer, TokenizerError, typed


def tokenizer_class(kind: str) -> type[Tokenizer]:
    """Return the class of a kind of tokenizer, as `gpt.config.TOKENIZERS` names it. Raises TokenizerError."""
    if kind not in TOKENIZERS:
        raise TokenizerError(f"no tokenizer {reprlib.repr(kind)}: choose one of {', '.join(TOKENIZERS)}")
    cls: type[Tokenizer] = pkgutil.resolve_name(TOKENIZERS[kind])
    return cls


def build(text: Iterable[str], train_text: Iterable[str], config: DataConfig) -> Tokenizer:
    """Return a new tokenizer of the kind `config.tokenizer` for a text and its training split.

    Each is a string, or a text in pieces. Raises TokenizerError and DownloadError.
    """
    return tokenizer_class(config.tokenizer).create(text, train_text, config)


def expected_vocab_size(config: DataConfig) -> int | None:
    """Return the vocabulary size that `build` is going to give, or None if it depends on the text."""
    return tokenizer_class(config.tokenizer).expected_vocab_size(config)


def from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer that `Tokenizer.to_dict` described, for example in a checkpoint.

    The description may come from anybody. Raises TokenizerError, with the key, if it is not one that we write.
    """
    cls = tokenizer_class(typed(values, "kind", str))
    try:
        tokenizer = cls.from_dict(values)
        unknown = sorted(values.keys() - tokenizer.to_dict().keys())
    except TokenizerError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise TokenizerError(
            f"this is not the description of a tokenizer: {type(error).__name__} {error}"
        ) from error
    if unknown:
        raise TokenizerError(f"{reprlib.repr(unknown[0])} is not a key of a tokenizer")
    return tokenizer
