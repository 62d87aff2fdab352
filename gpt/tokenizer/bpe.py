"""Byte-pair encoding, trained on the user's text."""

import base64
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from gpt.config import DataConfig
from gpt.errors import extra
from gpt.tokenizer import long_runs
from gpt.tokenizer.base import Ids, TokenizerError, check_characters, check_text, check_token_ids, typed
from gpt.tokenizer.patterns import GPT4O
from gpt.tokenizer.pieces import as_pieces, between_words, smaller_pieces

# Characters of a piece that the trainer reads. It holds 256 pieces, each with some 100 bytes for a word.
TRAINING_PIECE = 2**14
# Characters without a space after which the trainer gets another piece, so that it needs little memory for each.
LONGEST_WORD = 2**14
# The longest word of the trainer, in bytes. Each merge moves the rest of its word, so the time for a word grows with
# the square of its length. A longer run without spaces is cut into words; words of ordinary text are far shorter.
TRAINING_WORD = 1024

END_OF_TEXT = "<|endoftext|>"
# The largest id of a special token, plus 1.
MAX_IDS = 2**22

# The patterns that tiktoken has given GPT-2, which split a text alike; those of cl100k_base and o200k_base. A pattern
# from a file must be one of them; any other may take forever, or the library may refuse it in the middle of a text.
PATTERNS = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s",
    GPT4O,
)


class BPETokenizer:
    """Byte-pair encoding of any Unicode text, by tiktoken. The ids of tokens follow their merge order.

    tokens: the bytes of token 0, 1, ... in merge order, which contain each of the 256 bytes.
    pattern: the regular expression that splits text into pieces; no merge crosses two pieces.
    special_tokens: ids by text, which follow the ids of `tokens`. `encode` makes a special token out of text only if it
        is asked to. Ids may be left out: such an id has no text.
    """

    kind = "bpe"
    by_character = False
    cuts_before = " \n"
    bos_id: int | None = None
    add_bos = False
    chat_template: str | None = None

    def __init__(
        self, tokens: Sequence[bytes], pattern: str, special_tokens: Mapping[str, int] | None = None
    ) -> None:
        with extra():
            import tiktoken

        self.tokens = list(tokens)
        self.pattern = pattern
        self.special_tokens: Mapping[str, int] = dict(special_tokens or {})
        self.eos_id = self.special_tokens.get(END_OF_TEXT)
        self.stop_ids: frozenset[int] = frozenset() if self.eos_id is None else frozenset([self.eos_id])
        ids = list(self.special_tokens.values())
        if len(set(self.tokens)) != len(self.tokens):
            raise TokenizerError("a byte-pair vocabulary holds each token once")
        if not {bytes([b]) for b in range(256)} <= set(self.tokens):
            raise TokenizerError("a byte-pair vocabulary holds each of the 256 bytes")
        if len(set(ids)) != len(ids) or any(i < len(self.tokens) for i in ids) or max(ids, default=0) >= MAX_IDS:
            raise TokenizerError("the ids of special tokens follow those of the others")
        self.vocab_size = max(ids, default=len(self.tokens) - 1) + 1
        self._unused = set(range(len(self.tokens), self.vocab_size)) - set(ids)
        self._encoding = tiktoken.Encoding(
            self.kind,
            pat_str=pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self.tokens)},
            special_tokens=dict(self.special_tokens),
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
        model.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.FixedLength(length=TRAINING_WORD)]
        )
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

    def encode(self, text: str, allow_special: bool = False) -> Ids:
        check_text(text)
        check_characters(text)
        if allow_special:
            special = set(self.special_tokens)
            return self._encoding.encode_to_numpy(text, allowed_special=special, disallowed_special=()).astype(np.int64)
        if len(text) > 2 * long_runs.PART and self.pattern in PATTERNS[:2] and (places := long_runs.cut_places(text)):
            ids = long_runs.encode_parts(text, places, self._encode_word, self.decode_bytes)
            if ids is not None:
                return ids
        return self._encode_word(text)

    def _encode_word(self, text: str) -> Ids:
        """Return the ids of a text, which is encoded at once."""
        return self._encoding.encode_to_numpy(text, disallowed_special=()).astype(np.int64)

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        numbers = check_token_ids(ids, self.vocab_size).tolist()
        if self._unused:
            numbers = [number for number in numbers if number not in self._unused]
        return self._encoding.decode_bytes(numbers)

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
            "special_tokens": dict(self.special_tokens),
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


def byte_alphabet() -> dict[str, int]:
    """Return the byte for each printable character that represents one, in GPT-2's files and in `tokenizers`.

    Printable Latin-1 characters except the space represent themselves; the other bytes follow from U+0100 on.
    """
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}
