"""The tokenizer in a folder of tokens, and the dtype that holds its ids."""

import hashlib
import json
from pathlib import Path

import numpy as np

from gpt import tokenizer as tokenizers
from gpt.data.text import DataError
from gpt.tokenizer import Tokenizer, TokenizerError
from tensorlite import serialization

VOCABULARY = "vocabulary.json"


def token_dtype(tokenizer: Tokenizer) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned dtype that holds all ids, in little-endian order."""
    return np.min_scalar_type(tokenizer.vocab_size - 1).newbyteorder("<")


def content_of(tokenizer: Tokenizer) -> bytes:
    """Return the description of a tokenizer as JSON, always the same bytes for the same tokenizer."""
    return json.dumps(tokenizer.to_dict(), sort_keys=True, separators=(",", ":")).encode()


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return a SHA-256 of the description of a tokenizer."""
    return hashlib.sha256(content_of(tokenizer)).hexdigest()


def write_vocabulary(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the tokenizer of a folder. Raises OSError."""
    with serialization.atomic_write(folder / VOCABULARY) as temporary:
        temporary.write_bytes(content_of(tokenizer))


def read_vocabulary(folder: Path, sha256: str) -> Tokenizer:
    """Return the tokenizer of a folder, whose file has that SHA-256. Raises DataError."""
    path = folder / VOCABULARY
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{str(path)!r} is not the tokenizer of its folder: it has changed. Prepare it again")
        return tokenizers.from_dict(json.loads(content))
    except (OSError, TokenizerError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot read the tokenizer {str(path)!r}: {reason}. Prepare the folder again") from None
